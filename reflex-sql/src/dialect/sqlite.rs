use std::{collections::HashSet, ops::RangeInclusive};

use chrono::{DateTime, SecondsFormat, Utc};
use reflex_core::{EventParts, NewEvent};
use sqlx::{
    AssertSqlSafe, Pool, QueryBuilder, Row, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, error::UnexpectedNullError,
    sqlite::SqliteRow,
};

use super::{
    Backlog, Bounds, BytesColumn, Column, Columns, CursorRow, CursorsSql, Dialect, EventsSql, MAX_RANGES, Operations,
    ResolvedGapMode, file::DatabaseFile, read_rows, statements,
};
use crate::{
    Result,
    error::Problem,
    frontier::{Writer, Writers},
    names::TableName,
    options::{CursorsNames, EventsNames, GapMode},
    page::{Entry, Range, Scan},
};

pub(super) const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

impl Dialect for Sqlite {}

impl Operations for Sqlite {
    const SHARES_POOL: bool = true;
    /// A transaction that reads first and writes later can fail when another one wrote in between.
    const BEGIN_WRITING: &'static str = "begin immediate";

    common_operations!(SqliteConnection);
    upserting_operations!(SqliteConnection);

    /// The caller's pool itself: a database in memory exists only in its own connections.
    fn readers(pool: &Pool<Sqlite>, _connections: u32) -> Pool<Sqlite> {
        pool.clone()
    }

    fn location(pool: &Pool<Sqlite>) -> String {
        pool.connect_options().get_filename().display().to_string()
    }

    async fn topic(conn: &mut SqliteConnection, sql: &EventsSql) -> Result<String> {
        // Nobody else can open a database in memory.
        let file = file(conn, &sql.table).await?.unwrap_or_else(|| format!("memory-{:x}", rand::random::<u64>()));
        Ok(format!("{file}:{}", sql.table.table()))
    }

    async fn inspect_events(
        conn: &mut SqliteConnection,
        names: &EventsNames,
        _mode: GapMode,
        _cluster: bool,
    ) -> Result<EventsSql> {
        let columns = columns(conn, &names.table, "events").await?;
        columns.require(names.id.as_str(), &["integer"])?;
        for name in [&names.foreign_id, &names.timestamp, &names.event_type] {
            columns.require(name.as_str(), &[])?;
        }
        let metadata = columns.optional(&names.metadata, &[])?.map(BytesColumn::from);
        let trace = columns.optional(&names.trace, &[])?.map(BytesColumn::from);
        require_autoincrement(conn, names, &columns).await?;
        let file = match file(conn, &names.table).await? {
            Some(path) => DatabaseFile::find(path.into()).await,
            None => None,
        };
        Ok(EventsSql { file, ..events_sql(names, metadata, trace) })
    }

    async fn server(_conn: &mut SqliteConnection, _sql: &EventsSql) -> Result<String> {
        Ok(String::new())
    }

    async fn bounds(conn: &mut SqliteConnection, sql: &EventsSql) -> Result<Bounds> {
        if let Some(file) = &sql.file {
            file.check(&sql.table).await?;
        }
        let row = sqlx::query(sql.bounds.clone()).bind(sql.table.table()).fetch_one(conn).await;
        let row = row.map_err(Problem::database(format!("find the highest id of table `{}`", sql.table)))?;
        Ok(Bounds { highest: row.get::<Option<i64>, _>(0).unwrap_or(0), drawn: Some(row.get(1)) })
    }

    /// One writer at a time: ids are drawn in the order of the commits.
    async fn writers(_conn: &mut SqliteConnection, _sql: &EventsSql, _server: &str) -> Result<Writers> {
        Ok(Writers::default())
    }

    async fn describe(_conn: &mut SqliteConnection, _writers: &HashSet<Writer>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn fill(_conn: &mut SqliteConnection, _sql: &EventsSql, _ids: &[i64]) -> Result<u64> {
        Ok(0)
    }

    async fn insert(conn: &mut SqliteConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        if let [event] = events {
            return insert_one(conn, sql, event).await;
        }
        for events in statements(events) {
            insert_many(conn, sql, events).await?;
        }
        Ok(())
    }

    async fn inspect_cursors(conn: &mut SqliteConnection, names: &CursorsNames) -> Result<CursorsSql> {
        let columns = columns(conn, &names.table, "cursors").await?;
        columns.require(names.id.as_str(), &[])?;
        columns.require(names.updated_at.as_str(), &[])?;
        let cursor_type = columns.require(names.cursor.as_str(), &["integer", "int", "bigint", "text", "varchar"])?;
        Ok(cursors_sql(names, matches!(cursor_type, "integer" | "int" | "bigint")))
    }
}

fn safe(text: String) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

/// Types are reported as they were written, without a length.
pub(super) async fn columns<'a>(
    conn: &mut SqliteConnection,
    table: &'a TableName,
    what: &'static str,
) -> Result<Columns<'a>> {
    let statement = "select c.name, lower(iif(instr(c.type, '('), substr(c.type, 1, instr(c.type, '(') - 1), c.type)),
            not c.\"notnull\"
        from pragma_table_info(?1, ?2) c where exists (select 1 from pragma_table_list
            where name = ?1 and type = 'table' and schema = coalesce(?2, schema))";
    let rows = sqlx::query(statement).bind(table.table()).bind(table.schema().unwrap_or("main")).fetch_all(conn).await;
    let rows = rows.map_err(Problem::database(format!("look up the columns of table `{table}`")))?;
    let columns = rows.iter().map(|row| Column {
        name: row.get(0),
        data_type: row.get::<String, _>(1).trim().to_owned(),
        nullable: row.get(2),
    });
    Columns::new(table, what, columns.collect())
}

/// The file that a table is in; `None` if it is in memory.
async fn file(conn: &mut SqliteConnection, table: &TableName) -> Result<Option<String>> {
    let file = sqlx::query_scalar("select file from pragma_database_list where name = ?1");
    let file = file.bind(table.schema().unwrap_or("main")).fetch_one(conn).await;
    let file: String = file.map_err(Problem::database("look up the file of the database"))?;
    Ok((!file.is_empty()).then_some(file))
}

/// Without AUTOINCREMENT an id is used again after the newest row was deleted, and consumers would never see the new row.
async fn require_autoincrement(conn: &mut SqliteConnection, names: &EventsNames, columns: &Columns<'_>) -> Result<()> {
    let master = match names.table.schema() {
        Some(schema) => format!("\"{schema}\".sqlite_master"),
        None => "sqlite_master".to_owned(),
    };
    let statement = safe(format!(
        "select sql, exists (select 1 from pragma_table_info(?1, ?2) where lower(name) = lower(?3) and pk = 1)
         from {master} where type = 'table' and name = ?1"
    ));
    let row = sqlx::query(statement)
        .bind(names.table.table())
        .bind(names.table.schema().unwrap_or("main"))
        .bind(names.id.as_str())
        .fetch_one(conn)
        .await
        .map_err(Problem::database("look up the definition of the id column"))?;
    let (definition, is_key): (String, bool) = (row.get(0), row.get(1));
    let mut words = definition.split(|c: char| !c.is_alphanumeric() && c != '_');
    if is_key && words.any(|word| word.eq_ignore_ascii_case("autoincrement")) {
        return Ok(());
    }
    let problem = format!("column `{}` is not AUTOINCREMENT, so ids can be used twice", names.id.as_str());
    Err(columns.problem(problem, "declare it `integer primary key autoincrement`"))
}

fn events_sql(names: &EventsNames, metadata: Option<BytesColumn>, trace: Option<BytesColumn>) -> EventsSql {
    let (has_metadata, has_trace) = (metadata.is_some(), trace.is_some());
    let (table, id) = (names.table.quoted('"'), names.id.quoted('"'));
    let sequences = names.table.schema().map_or_else(String::new, |schema| format!("\"{schema}\"."));
    let (foreign_id, event_type) = (names.foreign_id.quoted('"'), names.event_type.quoted('"'));
    let timestamp = names.timestamp.quoted('"');
    let (insert, row) = insert(names, &table, has_metadata, has_trace);
    EventsSql {
        table: names.table.clone(),
        home: names.table.clone(),
        page: page(names, &table, has_metadata, has_trace),
        bounds: safe(format!(
            "select (select max({id}) from {table}),
                coalesce((select seq from {sequences}sqlite_sequence where name = ?), 0)"
        )),
        writers: "".into_sql_str(),
        missing: safe(format!(
            "select previous + 1, id - 1 from (select {id} as id, lag({id}, 1, ?1) over (order by {id}) as previous
                from {table} where {id} > ?1 and {id} <= ?2) seen
            where id > previous + 1 order by 1 limit {MAX_RANGES}"
        )),
        backlog: safe(format!(
            "select count(*), min({timestamp}) from {table}
             where {id} > ? and not ({event_type} = 0 and {foreign_id} = '0')"
        )),
        insert_one: safe(format!("{insert} values {row}")),
        insert_many: safe(insert),
        noop: None,
        metadata,
        trace,
        mode: ResolvedGapMode::SingleWriter,
        file: None,
    }
}

fn page(names: &EventsNames, table: &str, has_metadata: bool, has_trace: bool) -> SqlStr {
    let (id, foreign_id) = (names.id.quoted('"'), names.foreign_id.quoted('"'));
    let (timestamp, event_type) = (names.timestamp.quoted('"'), names.event_type.quoted('"'));
    let bytes = |present, column: String| if present { column } else { "null".to_owned() };
    let metadata = bytes(has_metadata, names.metadata.name.quoted('"'));
    let trace = bytes(has_trace, names.trace.name.quoted('"'));
    safe(format!(
        "select {id}, {foreign_id}, {timestamp}, {event_type}, {metadata}, {trace}
         from {table} where {id} > ? order by {id} limit ?"
    ))
}

/// The start of an insert and one of its rows.
fn insert(names: &EventsNames, table: &str, has_metadata: bool, has_trace: bool) -> (String, &'static str) {
    let mut columns = vec![&names.foreign_id, &names.event_type, &names.timestamp];
    columns.extend(has_metadata.then_some(&names.metadata.name));
    columns.extend(has_trace.then_some(&names.trace.name));
    let columns: Vec<_> = columns.iter().map(|column| column.quoted('"')).collect();
    let row = match columns.len() {
        3 => "(?, ?, coalesce(?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))",
        4 => "(?, ?, coalesce(?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), ?)",
        _ => "(?, ?, coalesce(?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), ?, ?)",
    };
    (format!("insert into {table} ({}) ", columns.join(", ")), row)
}

fn id(row: &SqliteRow) -> Result<i64, sqlx::Error> {
    row.try_get(0)
}

fn oldest(row: &SqliteRow) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    row.try_get(1)
}

/// What the row says, and its type. A value of any type is text and bytes as well.
fn parts(row: &SqliteRow, id: i64) -> Result<(EventParts<'_>, i64), sqlx::Error> {
    let null = |column: &str| sqlx::Error::ColumnDecode { index: column.into(), source: UnexpectedNullError.into() };
    let parts = EventParts {
        id: id.into(),
        event_type: Default::default(),
        foreign_id: row.try_get_unchecked::<Option<&str>, _>(1)?.ok_or_else(|| null("1"))?,
        timestamp: row.try_get(2)?,
        metadata: row.try_get_unchecked::<Option<&[u8]>, _>(4)?.unwrap_or_default(),
        trace: row.try_get_unchecked::<Option<&[u8]>, _>(5)?.unwrap_or_default(),
    };
    // Without an `Option`, SQLite reads null as 0.
    let event_type: Option<i64> = row.try_get(3)?;
    Ok((parts, event_type.ok_or_else(|| null("3"))?))
}

/// As the default of the column writes it, so that text compares as time.
fn timestamp(event: &NewEvent) -> Option<String> {
    event.parts().timestamp.map(|timestamp| timestamp.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

async fn insert_one(conn: &mut SqliteConnection, sql: &EventsSql, event: &NewEvent) -> Result<(), sqlx::Error> {
    let parts = event.parts();
    let mut query = sqlx::query(sql.insert_one.clone())
        .bind(parts.foreign_id.to_owned())
        .bind(parts.event_type.0)
        .bind(timestamp(event));
    if let Some(column) = sql.metadata {
        query = query.bind(column.value(parts.metadata).map(<[u8]>::to_vec));
    }
    if let Some(column) = sql.trace {
        query = query.bind(column.value(parts.trace).map(<[u8]>::to_vec));
    }
    query.execute(conn).await.map(drop)
}

async fn insert_many(conn: &mut SqliteConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new(sql.insert_many.as_str());
    query.push_values(events, |mut row, event| {
        let parts = event.parts();
        row.push_bind(parts.foreign_id.to_owned()).push_bind(parts.event_type.0);
        row.push("coalesce(").push_bind_unseparated(timestamp(event));
        row.push_unseparated(format!(", {NOW})"));
        if let Some(column) = sql.metadata {
            row.push_bind(column.value(parts.metadata).map(<[u8]>::to_vec));
        }
        if let Some(column) = sql.trace {
            row.push_bind(column.value(parts.trace).map(<[u8]>::to_vec));
        }
    });
    query.build().persistent(false).execute(conn).await.map(drop)
}

fn cursors_sql(names: &CursorsNames, integer: bool) -> CursorsSql {
    let (table, id) = (names.table.quoted('"'), names.id.quoted('"'));
    let (cursor, updated_at) = (names.cursor.quoted('"'), names.updated_at.quoted('"'));
    let data_type = if integer { "integer" } else { "text" };
    let insert = format!("insert into {table} as c ({id}, {cursor}, {updated_at})");
    let update = format!("{cursor} = excluded.{cursor}, {updated_at} = excluded.{updated_at}");
    CursorsSql {
        table: names.table.clone(),
        integer,
        get: safe(format!("select cast({cursor} as text) from {table} where {id} = ?")),
        advance: safe(format!(
            "{insert} values (?, ?, {NOW}) on conflict ({id}) do update set {update}
             where c.{cursor} < excluded.{cursor}"
        )),
        create: safe(format!("{insert} values (?1, cast(?2 as {data_type}), {NOW}) on conflict ({id}) do nothing")),
        replace: safe(format!(
            "update {table} set {cursor} = cast(?2 as {data_type}), {updated_at} = {NOW}
             where {id} = ?1 and {cursor} = cast(?3 as {data_type})"
        )),
        delete: safe(format!("delete from {table} where {id} = ?")),
        list: safe(format!("select {id}, cast({cursor} as text), {updated_at} from {table} order by {id}")),
    }
}
