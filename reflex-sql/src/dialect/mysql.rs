use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};

use chrono::{DateTime, Utc};
use reflex_core::{EventParts, NewEvent};
use sqlx::{
    AssertSqlSafe, Executor, MySql, MySqlConnection, Pool, QueryBuilder, Row, SqlSafeStr, SqlStr,
    mysql::{MySqlPoolOptions, MySqlRow},
};

use super::{
    Backlog, Bounds, BytesColumn, Column, Columns, CursorRow, CursorsSql, Dialect, EventsSql, MAX_RANGES, NoopSql,
    Operations, READER_IDLE, ResolvedGapMode, read_rows, statements, unsafe_table,
};
use crate::{
    Result,
    error::Problem,
    frontier::{Writer, Writers},
    names::TableName,
    options::{CursorsNames, EventsNames, GapMode},
    page::{Entry, Range, Scan},
};

pub(super) const INTEGERS: &[&str] = &["tinyint", "smallint", "mediumint", "int", "bigint"];
pub(super) const CHARS: &[&str] = &["char", "varchar", "tinytext", "text", "mediumtext", "longtext"];
pub(super) const TIMES: &[&str] = &["datetime", "timestamp"];
const BYTES: &[&str] = &[
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "binary",
    "varbinary",
    "char",
    "varchar",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "json",
];

/// Duplicate key: somebody else inserted the row.
const DUPLICATE_KEY: u16 = 1062;
/// Waited too long for a lock: an open transaction holds the row.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
/// MariaDB: the row is not the one that the transaction's snapshot holds.
const RECORD_CHANGED: u16 = 1020;

impl Dialect for MySql {}

impl Operations for MySql {
    const SHARES_POOL: bool = false;

    common_operations!(MySqlConnection);

    fn readers(pool: &Pool<MySql>, connections: u32) -> Pool<MySql> {
        MySqlPoolOptions::new()
            .max_connections(connections)
            .idle_timeout(READER_IDLE)
            .after_connect(|conn, _| Box::pin(prepare_reader(conn)))
            .connect_lazy_with((*pool.connect_options()).clone())
    }

    fn location(pool: &Pool<MySql>) -> String {
        let options = pool.connect_options();
        match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }

    async fn topic(_conn: &mut MySqlConnection, sql: &EventsSql) -> Result<String> {
        Ok(sql.home.to_string())
    }

    async fn inspect_events(
        conn: &mut MySqlConnection,
        names: &EventsNames,
        mode: GapMode,
        cluster: bool,
    ) -> Result<EventsSql> {
        let columns = columns(conn, &names.table, "events").await?;
        columns.require(names.id.as_str(), INTEGERS)?;
        let foreign_type = columns.require(names.foreign_id.as_str(), &[CHARS, INTEGERS].concat())?;
        columns.require(names.timestamp.as_str(), TIMES)?;
        columns.require(names.event_type.as_str(), INTEGERS)?;
        let metadata = columns.optional(&names.metadata, BYTES)?;
        let trace = columns.optional(&names.trace, BYTES)?;
        require_auto_increment(conn, names, &columns).await?;
        check_set_up(conn, &names.table, cluster).await?;
        let mode = resolve(conn, &names.table, mode).await?;
        let home = EventsNames { table: home(conn, &names.table).await?, ..names.clone() };
        let sql = Text { names: &home, foreign_type, metadata, trace }.build(&names.table, mode);
        if sql.mode.proves() {
            prepared(conn, &names.table).await?;
        }
        Ok(sql)
    }

    async fn server(conn: &mut MySqlConnection, sql: &EventsSql) -> Result<String> {
        let statement = "select cast(concat_ws('/', @@hostname, @@port, @@server_id, @@pid_file) as char),
            cast(@@global.read_only as char)";
        let row = sqlx::query(statement).fetch_one(conn).await;
        let row = row.map_err(Problem::database("identify the server"))?;
        if is_on(row.get(1)) {
            return Err(read_only(&sql.table));
        }
        Ok(row.get(0))
    }

    async fn bounds(conn: &mut MySqlConnection, sql: &EventsSql) -> Result<Bounds> {
        let row = sqlx::query(sql.bounds.clone())
            .bind(sql.home.schema())
            .bind(sql.home.table())
            .fetch_one(conn)
            .await
            .map_err(Problem::database(format!("find the highest id of table `{}`", sql.table)))?;
        Ok(Bounds { highest: row.get::<Option<i64>, _>(0).unwrap_or(0), drawn: row.get(1) })
    }

    async fn writers(conn: &mut MySqlConnection, sql: &EventsSql, server: &str) -> Result<Writers> {
        if !sql.mode.proves() {
            return Ok(Writers::default());
        }
        let rows = sqlx::query(sql.writers.clone()).bind(sql.home.schema()).bind(sql.home.table());
        let rows = rows.fetch_all(&mut *conn).await;
        let rows = rows.map_err(Problem::database(format!("find the open writers of table `{}`", sql.table)))?;
        // The locks come first: a session that lost its lock to a detached XA transaction is among the prepared ones then.
        let mut active: HashSet<_> = rows.iter().map(|row| Writer::Session(row.get(0))).collect();
        active.extend(prepared(conn, &sql.table).await?);
        if Self::server(conn, sql).await? != server {
            return Err(Problem::ServerChanged { table: sql.table.to_string() }.into());
        }
        Ok(Writers { active, highest_drawn: None })
    }

    async fn describe(conn: &mut MySqlConnection, writers: &HashSet<Writer>) -> Result<Vec<String>> {
        let rows = sqlx::raw_sql("show processlist").fetch_all(conn).await;
        let rows = rows.map_err(Problem::database("find out which sessions hold ids"))?;
        let mut sessions = HashMap::new();
        for row in &rows {
            let id = text(row, 0);
            let description = format!(
                "session {id}, user {}, host {}, {} for {} s: {}",
                text(row, 1),
                text(row, 2),
                text(row, 4),
                text(row, 5),
                text(row, 7)
            );
            sessions.insert(id, description);
        }
        Ok(writers.iter().map(|writer| describe(writer, &sessions)).collect())
    }

    async fn missing(
        conn: &mut MySqlConnection,
        sql: &EventsSql,
        after: i64,
        up_to: i64,
    ) -> Result<Vec<RangeInclusive<i64>>> {
        let rows = sqlx::query(sql.missing.clone()).bind(after).bind(after).bind(up_to).fetch_all(conn).await;
        let rows = rows.map_err(Problem::database(format!("find the missing ids of table `{}`", sql.table)))?;
        Ok(rows.iter().map(|row| row.get(0)..=row.get(1)).collect())
    }

    async fn fill(conn: &mut MySqlConnection, sql: &EventsSql, ids: &[i64]) -> Result<u64> {
        let Some(noop) = &sql.noop else { return Ok(0) };
        let mut filled = 0;
        for &id in ids {
            filled += u64::from(fill(conn, noop, id).await.map_err(Problem::database(format!(
                "insert a placeholder with id {id} into table `{}`, which noop mode needs the rights for",
                sql.table
            )))?);
        }
        Ok(filled)
    }

    async fn insert(conn: &mut MySqlConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        if let [event] = events {
            return insert_one(conn, sql, event).await;
        }
        for events in statements(events) {
            insert_many(conn, sql, events).await?;
        }
        Ok(())
    }

    async fn inspect_cursors(conn: &mut MySqlConnection, names: &CursorsNames) -> Result<CursorsSql> {
        let columns = columns(conn, &names.table, "cursors").await?;
        columns.require(names.id.as_str(), &["char", "varchar"])?;
        columns.require(names.updated_at.as_str(), TIMES)?;
        let cursor_type = columns.require(names.cursor.as_str(), &["bigint", "int", "char", "varchar"])?;
        Ok(cursors_sql(names, cursor_type))
    }

    async fn advance_cursor(
        conn: &mut MySqlConnection,
        sql: &CursorsSql,
        consumer: &str,
        cursor: i64,
    ) -> Result<bool, sqlx::Error> {
        let advance = sqlx::query(sql.advance.clone()).bind(cursor).bind(consumer).bind(cursor);
        if advance.execute(&mut *conn).await?.rows_affected() == 1 {
            return Ok(true);
        }
        Self::replace_cursor(conn, sql, consumer, None, &cursor.to_string()).await
    }

    async fn replace_cursor(
        conn: &mut MySqlConnection,
        sql: &CursorsSql,
        consumer: &str,
        old: Option<&str>,
        new: &str,
    ) -> Result<bool, sqlx::Error> {
        let done = match old {
            None => sqlx::query(sql.create.clone()).bind(consumer).bind(new).execute(conn).await,
            Some(old) => sqlx::query(sql.replace.clone()).bind(new).bind(consumer).bind(old).execute(conn).await,
        };
        match done {
            Err(error) if number(&error) == Some(DUPLICATE_KEY) => Ok(false),
            done => Ok(done?.rows_affected() == 1),
        }
    }

    fn is_race(error: &sqlx::Error) -> bool {
        matches!(number(error), Some(RECORD_CHANGED | LOCK_WAIT_TIMEOUT | DEADLOCK))
    }
}

async fn prepare_reader(conn: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    conn.execute("set session autocommit = 1, time_zone = '+00:00', innodb_lock_wait_timeout = 1").await?;
    // MySQL caches the next id of a table for a day unless it is told not to; MariaDB has no such setting.
    match conn.execute("set session information_schema_stats_expiry = 0").await {
        Err(error) if number(&error) == Some(1193) => Ok(()),
        done => done.map(drop),
    }
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

fn text(row: &MySqlRow, column: usize) -> String {
    let bytes = row.try_get_unchecked::<Option<Vec<u8>>, _>(column);
    bytes.ok().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn safe(text: String) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

fn describe(writer: &Writer, sessions: &HashMap<String, String>) -> String {
    match writer {
        Writer::Prepared(xid) => format!("prepared XA transaction {xid}"),
        Writer::Session(id) => {
            let session = id.split('/').next().unwrap_or(id);
            sessions.get(session).cloned().unwrap_or_else(|| format!("session {session}"))
        }
    }
}

pub(super) async fn columns<'a>(
    conn: &mut MySqlConnection,
    table: &'a TableName,
    what: &'static str,
) -> Result<Columns<'a>> {
    let statement = "select cast(c.column_name as char), cast(c.data_type as char), c.is_nullable = 'YES'
        from information_schema.columns c
        join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name
        where c.table_schema = coalesce(?, database()) and c.table_name = ? and t.table_type = 'BASE TABLE'";
    let rows = sqlx::query(statement).bind(table.schema()).bind(table.table()).fetch_all(conn).await;
    let rows = rows.map_err(Problem::database(format!("look up the columns of table `{table}`")))?;
    let columns =
        rows.iter().map(|row| Column { name: row.get(0), data_type: row.get(1), nullable: row.get(2) }).collect();
    Columns::new(table, what, columns)
}

/// The table with the database that the name leads to on this connection.
async fn home(conn: &mut MySqlConnection, table: &TableName) -> Result<TableName> {
    let database = sqlx::query_scalar("select cast(coalesce(?, database()) as char)").bind(table.schema());
    let database: String = database.fetch_one(conn).await.map_err(Problem::database("look up the database"))?;
    Ok(table.found_in(&database))
}

async fn require_auto_increment(conn: &mut MySqlConnection, names: &EventsNames, columns: &Columns<'_>) -> Result<()> {
    let statement = "select cast(c.extra as char), cast(t.engine as char) from information_schema.columns c
        join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name
        where c.table_schema = coalesce(?, database()) and c.table_name = ? and c.column_name = ?";
    let row = sqlx::query(statement)
        .bind(names.table.schema())
        .bind(names.table.table())
        .bind(names.id.as_str())
        .fetch_one(conn)
        .await
        .map_err(Problem::database("look up the id column"))?;
    let (extra, engine): (String, Option<String>) = (row.get(0), row.get(1));
    if !extra.to_ascii_lowercase().contains("auto_increment") {
        let problem = format!("column `{}` is not auto_increment", names.id.as_str());
        return Err(columns.problem(problem, "declare it `bigint not null auto_increment primary key`"));
    }
    if engine.as_deref() != Some("InnoDB") {
        let problem = format!("its engine is {}, which has no transactions", engine.unwrap_or_default());
        return Err(columns.problem(problem, "convert it with `alter table … engine=InnoDB`"));
    }
    Ok(())
}

/// Refuses a server on which not every writer can be seen.
async fn check_set_up(conn: &mut MySqlConnection, table: &TableName, cluster: bool) -> Result<()> {
    let statement = "show global variables where variable_name in
        ('read_only', 'wsrep_on', 'group_replication_group_name')";
    let rows = sqlx::raw_sql(statement).fetch_all(&mut *conn).await;
    let rows = rows.map_err(Problem::database("look up the server's settings"))?;
    let settings: HashMap<String, String> =
        rows.iter().map(|row| (text(row, 0).to_ascii_lowercase(), text(row, 1))).collect();
    let is_on = |name: &str| settings.get(name).is_some_and(|value| is_on(value));
    if is_on("read_only") {
        return Err(read_only(table));
    }
    if is_replica(conn).await? {
        return Err(unsafe_table(
            table,
            "the server is a replica, which brings ids in the order of the primary's commits",
            "connect to the primary server, or stop the replication if this is the primary now",
        ));
    }
    if (is_on("wsrep_on") || is_on("group_replication_group_name")) && !cluster {
        return Err(unsafe_table(
            table,
            "the server is a member of a cluster, whose other members hold no lock here",
            "set a cluster grace in the options if all events are written through this member or the bet is acceptable",
        ));
    }
    Ok(())
}

fn is_on(value: &str) -> bool {
    !matches!(value, "OFF" | "0" | "")
}

fn read_only(table: &TableName) -> crate::Error {
    unsafe_table(
        table,
        "the server is read_only, as replicas are, and does not know who is writing",
        "connect to the primary server",
    )
}

/// Whether the server applies what another one committed.
async fn is_replica(conn: &mut MySqlConnection) -> Result<bool> {
    let status = "show global status where variable_name in ('Slaves_running', 'Slave_running')";
    let rows = sqlx::raw_sql(status).fetch_all(&mut *conn).await;
    let rows = rows.map_err(Problem::database("look up whether the server is a replica"))?;
    if rows.iter().any(|row| is_on(&text(row, 1))) {
        return Ok(true);
    }
    let applier = "select 1 from performance_schema.replication_applier_status where service_state = 'ON' limit 1";
    // MySQL 8 tells it here, to those who may read it; an error says that there is no such table or no such right.
    Ok(sqlx::raw_sql(applier).fetch_optional(conn).await.ok().flatten().is_some())
}

async fn resolve(conn: &mut MySqlConnection, table: &TableName, mode: GapMode) -> Result<ResolvedGapMode> {
    match mode {
        GapMode::Noop => return Ok(ResolvedGapMode::Noop),
        GapMode::Wait => return Ok(ResolvedGapMode::Wait),
        GapMode::Auto | GapMode::MetadataLocks => {}
    }
    if conn.execute("select thread_id from information_schema.metadata_lock_info limit 0").await.is_ok() {
        return Ok(ResolvedGapMode::MetadataLockInfo);
    }
    let instrumented = "select 1 from performance_schema.setup_instruments
        where name = 'wait/lock/metadata/sql/mdl' and enabled = 'YES' and @@performance_schema
          and (select count(*) from performance_schema.metadata_locks where 1 = 0) = 0";
    // An error says that this server has no such table or that this user may not read it: the answer is no.
    let instrumented = sqlx::raw_sql(instrumented).fetch_optional(conn).await.ok().flatten().is_some();
    match mode {
        _ if instrumented => Ok(ResolvedGapMode::PerformanceSchema),
        GapMode::MetadataLocks => Err(unsafe_table(
            table,
            "metadata locks cannot be read",
            "on MariaDB let an administrator run `install soname 'metadata_lock_info'` once, on MySQL grant select on \
             performance_schema.metadata_locks and performance_schema.setup_instruments, or choose another gap mode",
        )),
        _ => Ok(ResolvedGapMode::Noop),
    }
}

/// Prepared XA transactions of the whole server: they do not tell which tables they wrote to.
async fn prepared(conn: &mut MySqlConnection, table: &TableName) -> Result<HashSet<Writer>> {
    let rows = sqlx::raw_sql("xa recover").fetch_all(conn).await.map_err(Problem::database(format!(
        "list the prepared XA transactions, which may hold ids of table `{table}` (MySQL: grant XA_RECOVER_ADMIN)"
    )))?;
    Ok(rows.iter().map(|row| Writer::Prepared(format!("{}:{}", text(row, 0), text(row, 3)))).collect())
}

/// The parts that the SQL text for an events table is made of.
struct Text<'a> {
    names: &'a EventsNames,
    foreign_type: &'a str,
    metadata: Option<&'a Column>,
    trace: Option<&'a Column>,
}

impl Text<'_> {
    fn build(&self, called: &TableName, mode: ResolvedGapMode) -> EventsSql {
        let (table, id) = (self.names.table.quoted('`'), self.names.id.quoted('`'));
        let (insert, row) = self.insert(&table);
        EventsSql {
            table: called.clone(),
            home: self.names.table.clone(),
            page: self.page(&table, &id),
            bounds: safe(format!(
                "select (select cast(max({id}) as signed) from {table}),
                    (select cast(auto_increment as signed) - 1 from information_schema.tables
                        where table_schema = coalesce(?, database()) and table_name = ?)"
            )),
            writers: writers(mode),
            missing: safe(format!(
                "select previous + 1, id - 1 from (select cast({id} as signed) as id,
                    coalesce(cast(lag({id}) over (order by {id}) as signed), ?) as previous
                    from {table} where {id} > ? and {id} <= ?) seen
                where id > previous + 1 order by 1 limit {MAX_RANGES}"
            )),
            backlog: self.backlog(&table, &id),
            insert_one: safe(format!("{insert} values {row}")),
            insert_many: safe(insert),
            noop: (mode == ResolvedGapMode::Noop).then(|| self.noop(&table, &id)),
            metadata: self.metadata.map(BytesColumn::from),
            trace: self.trace.map(BytesColumn::from),
            mode,
            file: None,
        }
    }

    fn page(&self, table: &str, id: &str) -> SqlStr {
        let foreign_id = self.names.foreign_id.quoted('`');
        let foreign_id = match self.foreign_type {
            integer if INTEGERS.contains(&integer) => format!("cast({foreign_id} as char)"),
            _ => foreign_id,
        };
        let timestamp = self.names.timestamp.quoted('`');
        let event_type = self.names.event_type.quoted('`');
        let metadata = read_bytes(&self.names.metadata.name.quoted('`'), self.metadata);
        let trace = read_bytes(&self.names.trace.name.quoted('`'), self.trace);
        safe(format!(
            "select {id}, {foreign_id}, {timestamp}, {event_type}, {metadata}, {trace}
             from {table} where {id} > ? order by {id} limit ?"
        ))
    }

    fn backlog(&self, table: &str, id: &str) -> SqlStr {
        let (foreign_id, event_type) = (self.names.foreign_id.quoted('`'), self.names.event_type.quoted('`'));
        let timestamp = self.names.timestamp.quoted('`');
        safe(format!(
            "select count(*), min({timestamp}) from {table}
             where {id} > ? and not ({event_type} = 0 and {foreign_id} = '0')"
        ))
    }

    /// The start of an insert and one of its rows.
    fn insert(&self, table: &str) -> (String, &'static str) {
        let names = self.names;
        let mut columns = vec![&names.foreign_id, &names.event_type, &names.timestamp];
        columns.extend(self.metadata.map(|_| &names.metadata.name));
        columns.extend(self.trace.map(|_| &names.trace.name));
        let columns: Vec<_> = columns.iter().map(|column| column.quoted('`')).collect();
        let row = match columns.len() {
            3 => "(?, ?, coalesce(?, utc_timestamp(6)))",
            4 => "(?, ?, coalesce(?, utc_timestamp(6)), ?)",
            _ => "(?, ?, coalesce(?, utc_timestamp(6)), ?, ?)",
        };
        (format!("insert into {table} ({}) ", columns.join(", ")), row)
    }

    fn noop(&self, table: &str, id: &str) -> NoopSql {
        let names = self.names;
        let mut columns = vec![id.to_owned(), names.foreign_id.quoted('`'), names.event_type.quoted('`')];
        columns.push(names.timestamp.quoted('`'));
        let mut values = vec!["?", "'0'", "0", "utc_timestamp(6)"];
        for (name, column) in [(&names.metadata.name, self.metadata), (&names.trace.name, self.trace)] {
            if let Some(column) = column.filter(|column| !column.nullable) {
                columns.push(name.quoted('`'));
                values.push(if is_binary(&column.data_type) { "''" } else { "'{}'" });
            }
        }
        NoopSql {
            peek: safe(format!("select 1 from {table} where {id} = ?")),
            insert: safe(format!("insert into {table} ({}) values ({})", columns.join(", "), values.join(", "))),
        }
    }
}

fn read_bytes(column: &str, found: Option<&Column>) -> String {
    match found {
        None => "null".to_owned(),
        Some(found) if is_binary(&found.data_type) => column.to_owned(),
        Some(_) => format!("cast({column} as binary)"),
    }
}

fn is_binary(data_type: &str) -> bool {
    data_type.ends_with("blob") || data_type.ends_with("binary")
}

/// Every insert takes a write metadata lock on the table before it draws an id and keeps it to the end of its transaction.
/// Where the database tells one lock from the next of the same session, that is part of the writer's name.
fn writers(mode: ResolvedGapMode) -> SqlStr {
    match mode {
        ResolvedGapMode::MetadataLockInfo => "select distinct cast(thread_id as char)
            from information_schema.metadata_lock_info
            where table_schema = coalesce(?, database()) and table_name = ? and thread_id <> connection_id()
              and lock_mode not in ('MDL_SHARED', 'MDL_SHARED_HIGH_PRIO', 'MDL_SHARED_READ', 'MDL_SHARED_READ_ONLY')"
            .into_sql_str(),
        _ => "select distinct cast(concat_ws('/', coalesce(t.processlist_id, concat('thread ', l.owner_thread_id)),
                l.owner_event_id) as char)
            from performance_schema.metadata_locks l
            left join performance_schema.threads t on t.thread_id = l.owner_thread_id
            where l.object_type = 'TABLE' and l.lock_status = 'GRANTED'
              and l.object_schema = coalesce(?, database()) and l.object_name = ?
              and coalesce(t.processlist_id, 0) <> connection_id()
              and l.lock_type not in ('SHARED', 'SHARED_HIGH_PRIO', 'SHARED_READ', 'SHARED_READ_ONLY')"
            .into_sql_str(),
    }
}

fn id(row: &MySqlRow) -> Result<i64, sqlx::Error> {
    integer(row, 0)
}

fn oldest(row: &MySqlRow) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    row.try_get(1)
}

/// What the row says, and its type.
fn parts(row: &MySqlRow, id: i64) -> Result<(EventParts<'_>, i64), sqlx::Error> {
    let parts = EventParts {
        id: id.into(),
        event_type: Default::default(),
        foreign_id: row.try_get(1)?,
        timestamp: row.try_get(2)?,
        metadata: row.try_get_unchecked::<Option<&[u8]>, _>(4)?.unwrap_or_default(),
        trace: row.try_get_unchecked::<Option<&[u8]>, _>(5)?.unwrap_or_default(),
    };
    Ok((parts, integer(row, 3)?))
}

/// An integer, unsigned or not. A cast in the statement would cost the server more than it takes to tell them apart.
fn integer(row: &MySqlRow, column: usize) -> Result<i64, sqlx::Error> {
    row.try_get(column).or_else(|_| {
        let unsigned: u64 = row.try_get(column)?;
        i64::try_from(unsigned).map_err(|source| sqlx::Error::Decode(source.into()))
    })
}

async fn insert_one(conn: &mut MySqlConnection, sql: &EventsSql, event: &NewEvent) -> Result<(), sqlx::Error> {
    let parts = event.parts();
    let mut query = sqlx::query(sql.insert_one.clone())
        .bind(parts.foreign_id)
        .bind(parts.event_type.0)
        .bind(parts.timestamp.map(|timestamp| timestamp.naive_utc()));
    if let Some(column) = sql.metadata {
        query = query.bind(column.value(parts.metadata));
    }
    if let Some(column) = sql.trace {
        query = query.bind(column.value(parts.trace));
    }
    query.execute(conn).await.map(drop)
}

async fn insert_many(conn: &mut MySqlConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::<MySql>::new(sql.insert_many.as_str());
    query.push_values(events, |mut row, event| {
        let parts = event.parts();
        row.push_bind(parts.foreign_id).push_bind(parts.event_type.0);
        row.push("coalesce(").push_bind_unseparated(parts.timestamp.map(|timestamp| timestamp.naive_utc()));
        row.push_unseparated(", utc_timestamp(6))");
        if let Some(column) = sql.metadata {
            row.push_bind(column.value(parts.metadata));
        }
        if let Some(column) = sql.trace {
            row.push_bind(column.value(parts.trace));
        }
    });
    query.build().persistent(false).execute(conn).await.map(drop)
}

/// Inserts one placeholder unless a transaction, finished or open, has the row. Returns whether it did.
async fn fill(conn: &mut MySqlConnection, noop: &NoopSql, id: i64) -> Result<bool, sqlx::Error> {
    conn.execute("set transaction isolation level read uncommitted").await?;
    let seen = sqlx::query(noop.peek.clone()).bind(id).fetch_optional(&mut *conn).await?;
    if seen.is_some() {
        return Ok(false);
    }
    match sqlx::query(noop.insert.clone()).bind(id).execute(conn).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(number(&error), Some(DUPLICATE_KEY | LOCK_WAIT_TIMEOUT)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn cursors_sql(names: &CursorsNames, cursor_type: &str) -> CursorsSql {
    let (table, id) = (names.table.quoted('`'), names.id.quoted('`'));
    let (cursor, updated_at) = (names.cursor.quoted('`'), names.updated_at.quoted('`'));
    let set = format!("update {table} set {cursor} = ?, {updated_at} = utc_timestamp(6) where {id} = ?");
    CursorsSql {
        table: names.table.clone(),
        integer: INTEGERS.contains(&cursor_type),
        get: safe(format!("select cast({cursor} as char) from {table} where {id} = ?")),
        advance: safe(format!("{set} and {cursor} < ?")),
        create: safe(format!("insert into {table} ({id}, {cursor}, {updated_at}) values (?, ?, utc_timestamp(6))")),
        replace: safe(format!("{set} and {cursor} = ?")),
        delete: safe(format!("delete from {table} where {id} = ?")),
        list: safe(format!("select {id}, cast({cursor} as char), {updated_at} from {table} order by {id}")),
    }
}
