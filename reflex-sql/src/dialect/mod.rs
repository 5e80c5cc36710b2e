//! What differs between databases: the SQL text, and who could be writing.

use std::{
    collections::HashSet,
    ops::RangeInclusive,
    pin::pin,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};
use reflex_core::{BoxWakeUps, EventParts, NewEvent};
use sqlx::{Database, Pool, SqlStr, error::UnexpectedNullError};

use self::file::DatabaseFile;
use crate::{
    Result,
    error::{Error, Problem},
    frontier::{Writer, Writers},
    names::TableName,
    options::{CursorsNames, EventsNames, GapMode, OptionalColumn},
    page::{Entry, Range, Scan},
};

/// The operations that read the same in every dialect. They cannot be generic functions without a page of bounds.
macro_rules! common_operations {
    ($connection:ty) => {
        async fn scan(
            conn: &mut $connection,
            sql: &EventsSql,
            range: Range,
            take: impl FnMut(Entry) + Send,
        ) -> Result<Scan> {
            let rows = sqlx::query(sql.page.clone()).bind(range.after).bind(i64::from(range.limit)).fetch(conn);
            read_rows(rows, &sql.table, range, (id, parts), take).await
        }

        async fn backlog(conn: &mut $connection, sql: &EventsSql, after: i64) -> Result<Backlog> {
            let attempted = format!("count the events of table `{}` after id {after}", sql.table);
            let row = sqlx::query(sql.backlog.clone()).bind(after).fetch_one(conn).await;
            let counted = row.and_then(|row| Ok((row.try_get::<i64, _>(0)?, row)));
            let (events, row) = counted.map_err(Problem::database(attempted))?;
            let table = sql.table.to_string();
            let oldest = oldest(&row).map_err(|source| Problem::UnreadableTime { table, after, source })?;
            Ok(Backlog { events: events.unsigned_abs(), oldest })
        }

        async fn get_cursor(
            conn: &mut $connection,
            sql: &CursorsSql,
            consumer: &str,
        ) -> Result<Option<String>, sqlx::Error> {
            sqlx::query_scalar(sql.get.clone()).bind(consumer).fetch_optional(conn).await
        }

        async fn delete_cursor(conn: &mut $connection, sql: &CursorsSql, consumer: &str) -> Result<bool, sqlx::Error> {
            let done = sqlx::query(sql.delete.clone()).bind(consumer).execute(conn).await?;
            Ok(done.rows_affected() == 1)
        }

        async fn list_cursors(conn: &mut $connection, sql: &CursorsSql) -> Result<Vec<CursorRow>, sqlx::Error> {
            let rows = sqlx::query(sql.list.clone()).fetch_all(conn).await?;
            let row = |row: &<Self as sqlx::Database>::Row| {
                Ok(CursorRow { consumer: row.try_get(0)?, cursor: row.try_get(1)?, updated_at: row.try_get(2)? })
            };
            rows.iter().map(row).collect()
        }
    };
}

/// The operations of dialects that number their parameters and move a cursor by one upsert.
macro_rules! upserting_operations {
    ($connection:ty) => {
        async fn missing(
            conn: &mut $connection,
            sql: &EventsSql,
            after: i64,
            up_to: i64,
        ) -> Result<Vec<RangeInclusive<i64>>> {
            let rows = sqlx::query(sql.missing.clone()).bind(after).bind(up_to).fetch_all(conn).await;
            let rows = rows.map_err(Problem::database(format!("find the missing ids of table `{}`", sql.table)))?;
            Ok(rows.iter().map(|row| row.get(0)..=row.get(1)).collect())
        }

        async fn advance_cursor(
            conn: &mut $connection,
            sql: &CursorsSql,
            consumer: &str,
            cursor: i64,
        ) -> Result<bool, sqlx::Error> {
            let done = sqlx::query(sql.advance.clone()).bind(consumer).bind(cursor).execute(conn).await?;
            Ok(done.rows_affected() == 1)
        }

        async fn replace_cursor(
            conn: &mut $connection,
            sql: &CursorsSql,
            consumer: &str,
            old: Option<&str>,
            new: &str,
        ) -> Result<bool, sqlx::Error> {
            let done = match old {
                None => sqlx::query(sql.create.clone()).bind(consumer).bind(new).execute(conn).await?,
                Some(old) => sqlx::query(sql.replace.clone()).bind(consumer).bind(new).bind(old).execute(conn).await?,
            };
            Ok(done.rows_affected() == 1)
        }
    };
}

pub(crate) mod errors;
mod file;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

/// A database that reflex works on: `sqlx::Postgres`, `sqlx::MySql` (for MariaDB too) and `sqlx::Sqlite`, each with its
/// feature. It cannot be implemented outside this crate.
pub trait Dialect: errors::ErrorsOperations {}

/// The operations behind [`Dialect`]. Each is a statement or a few, on a connection of the caller.
pub trait Operations: Database {
    /// Whether readers share the caller's pool, so that none may keep a connection.
    const SHARES_POOL: bool;

    /// Begins a transaction that writes.
    const BEGIN_WRITING: &'static str = "begin";

    /// The pool that readers take their connections from, with what correctness needs set on each.
    fn readers(pool: &Pool<Self>, connections: u32) -> Pool<Self>;

    /// Where the database is, as an error names it: without a password.
    fn location(pool: &Pool<Self>) -> String;

    /// How processes that share the database wake each other, if it has a way.
    fn wake_ups(_pool: &Pool<Self>) -> Option<BoxWakeUps> {
        None
    }

    /// What all who share the database call this table, wherever they are.
    fn topic(conn: &mut Self::Connection, sql: &EventsSql) -> impl Future<Output = Result<String>> + Send;

    /// Checks that the table is what we take it for, and prepares the SQL text for it.
    fn inspect_events(
        conn: &mut Self::Connection,
        names: &EventsNames,
        mode: GapMode,
        cluster: bool,
    ) -> impl Future<Output = Result<EventsSql>> + Send;

    /// Identifies the server and its start; refuses one that cannot be read safely.
    fn server(conn: &mut Self::Connection, sql: &EventsSql) -> impl Future<Output = Result<String>> + Send;

    /// Takes the rows of a range in the order of their ids, one by one as they arrive.
    fn scan(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        range: Range,
        take: impl FnMut(Entry) + Send,
    ) -> impl Future<Output = Result<Scan>> + Send;

    /// As [`scan`](Operations::scan), in the way that takes the least time for each of many rows.
    fn scan_many(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        range: Range,
        take: impl FnMut(Entry) + Send,
    ) -> impl Future<Output = Result<Scan>> + Send {
        Self::scan(conn, sql, range, take)
    }

    /// The highest id that is visible, and the highest that was handed out.
    fn bounds(conn: &mut Self::Connection, sql: &EventsSql) -> impl Future<Output = Result<Bounds>> + Send;

    /// Who could be writing to the table. Fails if the server is not `server` any more.
    fn writers(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        server: &str,
    ) -> impl Future<Output = Result<Writers>> + Send;

    /// Tells a person who these writers are.
    fn describe(
        conn: &mut Self::Connection,
        writers: &HashSet<Writer>,
    ) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// The missing ids above `after` up to `up_to`, the lowest [`MAX_RANGES`] ranges of them.
    fn missing(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        after: i64,
        up_to: i64,
    ) -> impl Future<Output = Result<Vec<RangeInclusive<i64>>>> + Send;

    /// What waits behind a cursor.
    fn backlog(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        after: i64,
    ) -> impl Future<Output = Result<Backlog>> + Send;

    /// Fills missing ids with placeholders, as far as no open transaction holds them; returns how many it inserted. Only in
    /// [`ResolvedGapMode::Noop`].
    fn fill(conn: &mut Self::Connection, sql: &EventsSql, ids: &[i64]) -> impl Future<Output = Result<u64>> + Send;

    /// Inserts events, in their order.
    fn insert(
        conn: &mut Self::Connection,
        sql: &EventsSql,
        events: &[NewEvent],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Checks the cursors table and prepares the SQL text for it.
    fn inspect_cursors(
        conn: &mut Self::Connection,
        names: &CursorsNames,
    ) -> impl Future<Output = Result<CursorsSql>> + Send;

    /// The stored cursor as text.
    fn get_cursor(
        conn: &mut Self::Connection,
        sql: &CursorsSql,
        consumer: &str,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    /// Moves an integer cursor forward, or creates it; returns false if the stored one is not below.
    fn advance_cursor(
        conn: &mut Self::Connection,
        sql: &CursorsSql,
        consumer: &str,
        cursor: i64,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Replaces a cursor that is still `old`, or creates it where there is none; returns false if it is not.
    fn replace_cursor(
        conn: &mut Self::Connection,
        sql: &CursorsSql,
        consumer: &str,
        old: Option<&str>,
        new: &str,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Whether moving a cursor failed because another transaction moves the same one: a deadlock, a conflict of snapshots, or
    /// a lock that was not to be had.
    fn is_race(error: &sqlx::Error) -> bool {
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"))
    }

    /// Deletes a cursor; returns false if there was none.
    fn delete_cursor(
        conn: &mut Self::Connection,
        sql: &CursorsSql,
        consumer: &str,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// All cursors, by name.
    fn list_cursors(
        conn: &mut Self::Connection,
        sql: &CursorsSql,
    ) -> impl Future<Output = Result<Vec<CursorRow>, sqlx::Error>> + Send;
}

/// Readers' connections that nobody uses are closed after this long.
#[cfg(any(feature = "mysql", feature = "postgres"))]
const READER_IDLE: Duration = Duration::from_secs(60);

/// So many ranges of missing ids are looked at when a stream starts at the head.
pub(crate) const MAX_RANGES: u32 = 10_000;

/// The SQL text for one events table, and what it can hold.
#[derive(Debug)]
pub struct EventsSql {
    /// The table as the user calls it.
    pub(crate) table: TableName,
    /// The table with its schema. Readers' connections may look for names elsewhere than the one that opened the table.
    pub(crate) home: TableName,
    pub(crate) page: SqlStr,
    pub(crate) bounds: SqlStr,
    pub(crate) writers: SqlStr,
    pub(crate) missing: SqlStr,
    pub(crate) backlog: SqlStr,
    pub(crate) insert_one: SqlStr,
    /// The whole statement where the database takes arrays, otherwise what stands before the rows.
    pub(crate) insert_many: SqlStr,
    /// Noop mode: a dirty read of one id, and the insert of a placeholder.
    pub(crate) noop: Option<NoopSql>,
    pub(crate) metadata: Option<BytesColumn>,
    pub(crate) trace: Option<BytesColumn>,
    pub(crate) mode: ResolvedGapMode,
    /// The file that the database is, on SQLite.
    pub(crate) file: Option<DatabaseFile>,
}

/// A column of bytes, as far as an insert must know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BytesColumn {
    nullable: bool,
}

impl BytesColumn {
    /// What to store: null instead of nothing, where the column takes it.
    pub(crate) fn value<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        (!self.nullable || !bytes.is_empty()).then_some(bytes)
    }
}

impl From<&Column> for BytesColumn {
    fn from(column: &Column) -> Self {
        Self { nullable: column.nullable }
    }
}

#[derive(Debug)]
pub(crate) struct NoopSql {
    pub(crate) peek: SqlStr,
    pub(crate) insert: SqlStr,
}

/// How missing ids of a table are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedGapMode {
    /// One writer at a time: a missing id is dead.
    SingleWriter,
    /// Locks on the relation.
    RelationLocks,
    /// MySQL's performance_schema.
    PerformanceSchema,
    /// MariaDB's metadata_lock_info plugin.
    MetadataLockInfo,
    /// Placeholders.
    Noop,
    /// Nothing can be known.
    Wait,
}

impl ResolvedGapMode {
    /// The value of the label `mode`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SingleWriter => "single_writer",
            Self::RelationLocks => "relation_locks",
            Self::PerformanceSchema | Self::MetadataLockInfo => "metadata_locks",
            Self::Noop => "noop",
            Self::Wait => "wait",
        }
    }

    /// Whether waiting for writers proves anything.
    pub(crate) fn proves(self) -> bool {
        !matches!(self, Self::Noop | Self::Wait)
    }
}

/// The extent of an events table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The highest visible id; 0 if there is none.
    pub(crate) highest: i64,
    /// The highest id that was ever handed out, where the database tells.
    pub(crate) drawn: Option<i64>,
}

impl Bounds {
    /// Fails if `cursor` is ahead of all that the table ever held. Where the database does not tell, an empty table may just
    /// have been trimmed, so it passes.
    pub(crate) fn check(&self, cursor: i64, table: &TableName) -> Result<()> {
        let highest = match self.drawn {
            Some(drawn) => drawn.max(self.highest),
            None if self.highest == 0 => return Ok(()),
            None => self.highest,
        };
        if cursor > highest {
            return Err(Problem::CursorAhead { table: table.to_string(), cursor, highest }.into());
        }
        Ok(())
    }
}

/// The events of a table that a consumer has not consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// How many there are.
    pub events: u64,
    /// When the oldest of them happened; `None` if there is none.
    pub oldest: Option<DateTime<Utc>>,
}

/// The SQL text for one cursors table.
#[derive(Debug)]
pub struct CursorsSql {
    pub(crate) table: TableName,
    pub(crate) integer: bool,
    pub(crate) get: SqlStr,
    pub(crate) advance: SqlStr,
    pub(crate) create: SqlStr,
    pub(crate) replace: SqlStr,
    pub(crate) delete: SqlStr,
    pub(crate) list: SqlStr,
}

/// A row of a cursors table.
#[derive(Debug)]
pub struct CursorRow {
    pub(crate) consumer: String,
    pub(crate) cursor: String,
    pub(crate) updated_at: Option<DateTime<Utc>>,
}

/// A column as the database describes it.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: String,
    pub(crate) nullable: bool,
}

/// The columns of a table, to be asked for by name.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    table: &'a TableName,
    what: &'static str,
    columns: Vec<Column>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(table: &'a TableName, what: &'static str, columns: Vec<Column>) -> Result<Self> {
        if columns.is_empty() {
            return Err(Problem::NoTable { table: table.to_string() }.into());
        }
        Ok(Self { table, what, columns })
    }

    /// The type of a column, which must be one of `allowed`.
    pub(crate) fn require(&self, name: &str, allowed: &[&str]) -> Result<&str> {
        let Some(column) = self.find(name) else {
            return Err(self.problem(
                format!("column `{name}` is missing"),
                "add it, name another column in the options, or compare with the output of `reflex schema`",
            ));
        };
        self.check(column, allowed)
    }

    /// A column that may be missing unless the user named it.
    pub(crate) fn optional(&self, wanted: &OptionalColumn, allowed: &[&str]) -> Result<Option<&Column>> {
        let found = self.find(wanted.name.as_str());
        if found.is_some() || wanted.required {
            self.require(wanted.name.as_str(), allowed)?;
        }
        Ok(found)
    }

    pub(crate) fn problem(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        let (problem, remedy) = (problem.into(), remedy.into());
        Problem::Schema { table: self.table.to_string(), what: self.what, problem, remedy }.into()
    }

    fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn check<'c>(&self, column: &'c Column, allowed: &[&str]) -> Result<&'c str> {
        if allowed.is_empty() || allowed.contains(&column.data_type.as_str()) {
            return Ok(&column.data_type);
        }
        Err(self.problem(
            format!("column `{}` has type {}", column.name, column.data_type),
            format!("it must be one of {}", allowed.join(", ")),
        ))
    }
}

pub(crate) fn unsafe_table(table: &TableName, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
    Problem::Unsafe { table: table.to_string(), problem: problem.into(), remedy: remedy.into() }.into()
}

/// Takes rows up to the limits of a range, and up to one that is no readable event: a read that begins with that one fails.
///
/// The first of the functions tells the id of a row, the second what it says and its type.
pub(crate) async fn read_rows<R>(
    rows: impl Stream<Item = Result<R, sqlx::Error>>,
    table: &TableName,
    range: Range,
    (id, parts): (
        impl Fn(&R) -> Result<i64, sqlx::Error>,
        impl for<'r> Fn(&'r R, i64) -> Result<(EventParts<'r>, i64), sqlx::Error>,
    ),
    mut take: impl FnMut(Entry),
) -> Result<Scan> {
    let failed = |error| Problem::database(format!("read table `{table}` after id {}", range.after))(error);
    let entry = |row: &R, id| match parts(row, id) {
        Ok((parts, event_type)) => Entry::new(id, event_type, parts),
        Err(source) => Err(Problem::Unreadable { table: table.to_string(), id, source: in_words(source) }),
    };
    let mut rows = pin!(rows);
    let mut scan = Scan::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        // Looking at the clock for each row would cost more than is learnt from it.
        let timer = scan.rows.is_multiple_of(TIMED_ROWS).then(Instant::now);
        let entry = match entry(&row, id(&row).map_err(failed)?) {
            Ok(entry) => entry,
            Err(problem) if scan.rows == 0 => return Err(problem.into()),
            Err(_) => {
                scan.abandoned = true;
                break;
            }
        };
        scan.decoding += timer.map_or(Duration::ZERO, |timer| timer.elapsed() * TIMED_ROWS);
        scan.rows += 1;
        scan.bytes += entry.bytes;
        take(entry);
        if scan.bytes >= range.max_bytes {
            scan.abandoned = true;
            break;
        }
    }
    scan.full = scan.abandoned || scan.rows >= range.limit;
    Ok(scan)
}

/// Says which column has no value, instead of what to decode it as. Drivers take a date of zeros for none.
fn in_words(error: sqlx::Error) -> sqlx::Error {
    match &error {
        sqlx::Error::ColumnDecode { index, source } if source.is::<UnexpectedNullError>() => {
            sqlx::Error::Decode(format!("column {index} has no value, or is a date of zeros").into())
        }
        _ => error,
    }
}

/// Of so many rows the decoding of one is timed.
const TIMED_ROWS: u32 = 16;

/// Splits events so that no statement has too many parameters or too many bytes.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(crate) fn statements(events: &[NewEvent]) -> impl Iterator<Item = &[NewEvent]> {
    const MAX_ROWS: usize = 5_000;
    const MAX_STATEMENT_BYTES: usize = 4 << 20;
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take(MAX_ROWS).take_while(|event| {
            let before = bytes;
            let parts = event.parts();
            bytes += parts.foreign_id.len() + parts.metadata.len() + parts.trace.len();
            before < MAX_STATEMENT_BYTES
        });
        let (statement, after) = rest.split_at(fit.count());
        rest = after;
        (!statement.is_empty()).then_some(statement)
    })
}
