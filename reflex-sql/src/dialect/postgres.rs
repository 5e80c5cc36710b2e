pub(crate) mod copy;
mod wake_ups;

use std::{collections::HashSet, ops::RangeInclusive};

use chrono::{DateTime, Utc};
use reflex_core::{BoxWakeUps, EventParts, NewEvent};
use sqlx::{
    AssertSqlSafe, Executor, PgConnection, Pool, Postgres, Row, SqlSafeStr, SqlStr,
    postgres::{PgPoolOptions, PgRow},
};

use self::wake_ups::ListenNotify;
use super::{
    Backlog, Bounds, BytesColumn, Column, Columns, CursorRow, CursorsSql, Dialect, EventsSql, MAX_RANGES, Operations,
    READER_IDLE, ResolvedGapMode, read_rows, unsafe_table,
};
use crate::{
    Result,
    error::Problem,
    frontier::{Writer, Writers},
    names::TableName,
    options::{CursorsNames, EventsNames, GapMode},
    page::{Entry, Range, Scan},
};

pub(super) const INTEGERS: &[&str] = &["int2", "int4", "int8"];
const TEXTS: &[&str] = &["text", "varchar", "bpchar", "int2", "int4", "int8", "uuid"];
const BYTES: &[&str] = &["bytea", "text", "varchar", "json", "jsonb"];

/// Row security must fail instead of hiding rows. Planning costs as much as reading a small page does, so plans are kept; one
/// made while the table was small must not scan all of it later, and cannot know that a page is too small to be compiled.
const READER_SETTINGS: &str = "set row_security = off; set time zone 'UTC'; set plan_cache_mode = force_generic_plan; \
     set enable_seqscan = off; set enable_bitmapscan = off; set jit = off; \
     set default_transaction_isolation = 'read committed'; set application_name = 'reflex'";

const ONE_ROW: &str = "(values ($1::text, $2::int4, $3::timestamptz, $4::bytea, $5::bytea))
    as u(foreign_id, type, timestamp, metadata, trace)";

const MANY_ROWS: &str = "unnest($1::text[], $2::int4[], $3::timestamptz[], $4::bytea[], $5::bytea[])
    with ordinality as u(foreign_id, type, timestamp, metadata, trace, position) order by u.position";

impl Dialect for Postgres {}

impl Operations for Postgres {
    const SHARES_POOL: bool = false;

    common_operations!(PgConnection);
    upserting_operations!(PgConnection);

    fn readers(pool: &Pool<Postgres>, connections: u32) -> Pool<Postgres> {
        PgPoolOptions::new()
            .max_connections(connections)
            .idle_timeout(READER_IDLE)
            .after_connect(|conn, _| Box::pin(async move { conn.execute(READER_SETTINGS).await.map(drop) }))
            .connect_lazy_with((*pool.connect_options()).clone())
    }

    fn location(pool: &Pool<Postgres>) -> String {
        let options = pool.connect_options();
        match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }

    async fn scan_many(
        conn: &mut PgConnection,
        sql: &EventsSql,
        range: Range,
        take: impl FnMut(Entry) + Send,
    ) -> Result<Scan> {
        copy::scan(conn, sql, range, take).await
    }

    fn wake_ups(pool: &Pool<Postgres>) -> Option<BoxWakeUps> {
        Some(BoxWakeUps::new(ListenNotify::new(pool)))
    }

    async fn topic(conn: &mut PgConnection, sql: &EventsSql) -> Result<String> {
        wake_ups::topic(conn, sql).await
    }

    async fn inspect_events(
        conn: &mut PgConnection,
        names: &EventsNames,
        _mode: GapMode,
        _cluster: bool,
    ) -> Result<EventsSql> {
        let columns = columns(conn, &names.table, "events").await?;
        let foreign_type = columns.require(names.foreign_id.as_str(), TEXTS)?;
        let time_type = columns.require(names.timestamp.as_str(), &["timestamptz", "timestamp"])?;
        columns.require(names.id.as_str(), &["int4", "int8"])?;
        columns.require(names.event_type.as_str(), INTEGERS)?;
        let metadata = columns.optional(&names.metadata, BYTES)?;
        let trace = columns.optional(&names.trace, BYTES)?;
        require_index(conn, names, &columns).await?;
        let sequence = sequence(conn, names).await?;
        let home = EventsNames { table: home(conn, &names.table).await?, ..names.clone() };
        let text = Text { names: &home, foreign_type, time_type, metadata, trace };
        let sql = text.build(&names.table, &sequence);
        let look = look(conn, &sql).await?;
        check_set_up(&names.table, &look)?;
        require_last_value(&names.table, &sequence, &look)?;
        Ok(sql)
    }

    async fn server(conn: &mut PgConnection, sql: &EventsSql) -> Result<String> {
        let row = sqlx::query("select pg_is_in_recovery(), pg_postmaster_start_time()::text").fetch_one(conn).await;
        let row = row.map_err(Problem::database("identify the server"))?;
        if row.get(0) {
            return Err(standby(&sql.table));
        }
        Ok(row.get(1))
    }

    async fn bounds(conn: &mut PgConnection, sql: &EventsSql) -> Result<Bounds> {
        let row = sqlx::query(sql.bounds.clone()).fetch_one(conn).await;
        let row = row.map_err(Problem::database(format!("find the highest id of table `{}`", sql.table)))?;
        if row.get(2) {
            return Err(standby(&sql.table));
        }
        Ok(Bounds { highest: row.get::<Option<i64>, _>(0).unwrap_or(0), drawn: row.get(1) })
    }

    async fn writers(conn: &mut PgConnection, sql: &EventsSql, server: &str) -> Result<Writers> {
        let look = look(conn, sql).await?;
        if look.server != server {
            return Err(Problem::ServerChanged { table: sql.table.to_string() }.into());
        }
        check_set_up(&sql.table, &look)?;
        let active = look.writers.into_iter().map(Writer::Session).collect();
        Ok(Writers { active, highest_drawn: look.highest_drawn })
    }

    async fn describe(conn: &mut PgConnection, writers: &HashSet<Writer>) -> Result<Vec<String>> {
        let ids: Vec<&str> = writers.iter().map(name).collect();
        let statement = "select distinct case when l.pid is null then 'prepared transaction ' || l.virtualtransaction
                    || coalesce((select string_agg(' ' || quote_literal(p.gid), ',') from pg_prepared_xacts p
                                 where '-1/' || p.transaction::text = l.virtualtransaction), '')
                else 'pid ' || l.pid || ', user ' || coalesce(a.usename, '?')
                    || ', application ' || quote_literal(coalesce(a.application_name, ''))
                    || ', ' || coalesce(a.state, 'state hidden')
                    || ', transaction open since ' || coalesce(a.xact_start::text, '?') end
            from pg_locks l left join pg_stat_activity a on a.pid = l.pid
            where l.locktype = 'relation' and l.virtualtransaction = any($1)";
        let rows = sqlx::query_scalar(statement).bind(ids).fetch_all(conn).await;
        rows.map_err(Problem::database("find out which sessions hold ids"))
    }

    async fn fill(_conn: &mut PgConnection, _sql: &EventsSql, _ids: &[i64]) -> Result<u64> {
        Ok(0)
    }

    async fn insert(conn: &mut PgConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        match events {
            [] => Ok(()),
            [event] => insert_one(conn, sql, event).await,
            events => insert_many(conn, sql, events).await,
        }
    }

    async fn inspect_cursors(conn: &mut PgConnection, names: &CursorsNames) -> Result<CursorsSql> {
        let columns = columns(conn, &names.table, "cursors").await?;
        columns.require(names.id.as_str(), &["text", "varchar"])?;
        columns.require(names.updated_at.as_str(), &["timestamptz", "timestamp"])?;
        let cursor_type = columns.require(names.cursor.as_str(), &["int8", "int4", "text", "varchar"])?;
        Ok(cursors_sql(names, cursor_type))
    }
}

fn name(writer: &Writer) -> &str {
    match writer {
        Writer::Session(id) | Writer::Prepared(id) => id,
    }
}

fn safe(text: String) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

pub(super) async fn columns<'a>(
    conn: &mut PgConnection,
    table: &'a TableName,
    what: &'static str,
) -> Result<Columns<'a>> {
    let statement = "select a.attname::text, t.typname::text, not a.attnotnull
        from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
          and exists (select from pg_class c where c.oid = a.attrelid and c.relkind in ('r', 'p'))";
    let rows = sqlx::query(statement).bind(table.quoted('"')).fetch_all(conn).await;
    let rows = rows.map_err(Problem::database(format!("look up the columns of table `{table}`")))?;
    let columns =
        rows.iter().map(|row| Column { name: row.get(0), data_type: row.get(1), nullable: row.get(2) }).collect();
    Columns::new(table, what, columns)
}

/// The table with the schema that the name leads to on this connection.
async fn home(conn: &mut PgConnection, table: &TableName) -> Result<TableName> {
    let statement = "select n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.oid = to_regclass($1)";
    let schema = sqlx::query_scalar(statement).bind(table.quoted('"')).fetch_one(conn).await;
    let schema: String = schema.map_err(Problem::database(format!("look up the schema of table `{table}`")))?;
    Ok(table.found_in(&schema))
}

async fn require_index(conn: &mut PgConnection, names: &EventsNames, columns: &Columns<'_>) -> Result<()> {
    let statement = "select exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid
        and a.attnum = i.indkey[0] and a.attname = $2 where i.indrelid = to_regclass($1) and i.indisvalid)";
    let found = sqlx::query_scalar(statement).bind(names.table.quoted('"')).bind(names.id.as_str());
    let found: bool = found.fetch_one(conn).await.map_err(Problem::database("look up the indexes"))?;
    if found {
        return Ok(());
    }
    Err(columns.problem(format!("column `{}` has no index", names.id.as_str()), "make it the primary key"))
}

/// The sequence that the id column draws from.
struct Sequence {
    oid: i64,
    name: String,
    /// Whether all ids come from it, because clients may not choose any.
    always: bool,
}

async fn sequence(conn: &mut PgConnection, names: &EventsNames) -> Result<Sequence> {
    let statement = "select s.oid::bigint, s.oid::regclass::text, exists (select from pg_attribute a
            where a.attrelid = to_regclass($1) and a.attname = $2 and a.attidentity = 'a')
        from pg_class s where s.relkind = 'S' and s.oid = coalesce(
            pg_get_serial_sequence($1, $2)::regclass::oid,
            (select d.refobjid from pg_attrdef def
                join pg_attribute a on a.attrelid = def.adrelid and a.attnum = def.adnum
                join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = def.oid
                    and d.refclassid = 'pg_class'::regclass
                join pg_class c on c.oid = d.refobjid and c.relkind = 'S'
                where def.adrelid = to_regclass($1) and a.attname = $2 limit 1))";
    let row = sqlx::query(statement).bind(names.table.quoted('"')).bind(names.id.as_str()).fetch_optional(conn).await;
    let row = row.map_err(Problem::database(format!("find the sequence of table `{}`", names.table)))?;
    let row = row.ok_or_else(|| {
        unsafe_table(
            &names.table,
            format!("column `{}` draws its values from no sequence", names.id.as_str()),
            "declare it `generated always as identity`",
        )
    })?;
    Ok(Sequence { oid: row.get(0), name: row.get(1), always: row.get(2) })
}

/// Where clients may choose ids, only the sequence tells which ones are still to come.
fn require_last_value(table: &TableName, sequence: &Sequence, look: &Look) -> Result<()> {
    if sequence.always || look.highest_drawn.is_some() {
        return Ok(());
    }
    let name = &sequence.name;
    Err(unsafe_table(
        table,
        format!("clients may choose its ids, and this user may not read sequence {name}, which tells the ids to come"),
        format!("grant select on sequence {name} to this user, or declare the id `generated always as identity`"),
    ))
}

/// What one look at the locks found: all from one statement.
struct Look {
    writers: Vec<String>,
    highest_drawn: Option<i64>,
    server: String,
    in_recovery: bool,
    subscribed: bool,
    sequence: String,
    cache: i64,
    increment: i64,
    cycle: bool,
}

async fn look(conn: &mut PgConnection, sql: &EventsSql) -> Result<Look> {
    let rows = sqlx::query(sql.writers.clone()).fetch_all(conn).await;
    let rows = rows.map_err(Problem::database(format!("find the open writers of table `{}`", sql.table)))?;
    let Some(first) = rows.first() else {
        return Err(unsafe_table(&sql.table, "its sequence was dropped", "open the table again"));
    };
    Ok(Look {
        writers: rows.iter().filter_map(|row| row.get(8)).collect(),
        highest_drawn: first.get(0),
        server: first.get(1),
        in_recovery: first.get(2),
        subscribed: first.get(3),
        sequence: first.get(4),
        cache: first.get(5),
        increment: first.get(6),
        cycle: first.get(7),
    })
}

fn check_set_up(table: &TableName, look: &Look) -> Result<()> {
    let sequence = &look.sequence;
    if look.in_recovery {
        return Err(standby(table));
    }
    if look.subscribed {
        return Err(unsafe_table(
            table,
            "it is fed by a logical-replication subscription, which brings ids in another order",
            "read it where the events are written",
        ));
    }
    if look.cache > 1 {
        return Err(unsafe_table(
            table,
            format!("sequence {sequence} has CACHE {}, so a session may use an id long after it drew it", look.cache),
            format!("run `alter sequence {sequence} cache 1` and reconnect the sessions that used it"),
        ));
    }
    if look.increment != 1 || look.cycle {
        return Err(unsafe_table(
            table,
            format!("sequence {sequence} does not count upwards by 1"),
            format!("run `alter sequence {sequence} increment by 1 no cycle`"),
        ));
    }
    Ok(())
}

fn standby(table: &TableName) -> crate::Error {
    unsafe_table(table, "the server is a standby, which does not know who is writing", "connect to the primary server")
}

/// The parts that the SQL text for an events table is made of.
struct Text<'a> {
    names: &'a EventsNames,
    foreign_type: &'a str,
    time_type: &'a str,
    metadata: Option<&'a Column>,
    trace: Option<&'a Column>,
}

impl Text<'_> {
    fn build(&self, called: &TableName, sequence: &Sequence) -> EventsSql {
        let (table, id) = (self.names.table.quoted('"'), self.names.id.quoted('"'));
        EventsSql {
            table: called.clone(),
            home: self.names.table.clone(),
            page: self.page(&table, &id),
            bounds: safe(format!(
                "select (select max({id})::bigint from {table}), {}, pg_is_in_recovery()",
                last_value(sequence)
            )),
            writers: writers(&table, sequence),
            missing: safe(format!(
                "select previous + 1, id - 1 from (select {id}::bigint as id,
                    lag({id}::bigint, 1, $1::bigint) over (order by {id}) as previous
                    from {table} where {id} > $1 and {id} <= $2) seen
                where id > previous + 1 order by 1 limit {MAX_RANGES}"
            )),
            backlog: self.backlog(&table, &id),
            insert_one: self.insert(&table, ONE_ROW),
            insert_many: self.insert(&table, MANY_ROWS),
            noop: None,
            metadata: self.metadata.map(BytesColumn::from),
            trace: self.trace.map(BytesColumn::from),
            mode: ResolvedGapMode::RelationLocks,
            file: None,
        }
    }

    fn timestamp(&self) -> String {
        let timestamp = self.names.timestamp.quoted('"');
        match self.time_type {
            "timestamp" => format!("e.{timestamp} at time zone 'UTC'"),
            _ => format!("e.{timestamp}"),
        }
    }

    fn backlog(&self, table: &str, id: &str) -> SqlStr {
        let (foreign_id, event_type) = (self.names.foreign_id.quoted('"'), self.names.event_type.quoted('"'));
        let timestamp = self.timestamp();
        safe(format!(
            "select count(*), min({timestamp}) from {table} e
             where e.{id} > $1 and not (e.{event_type} = 0 and e.{foreign_id}::text = '0')"
        ))
    }

    fn page(&self, table: &str, id: &str) -> SqlStr {
        let foreign_id = self.names.foreign_id.quoted('"');
        let timestamp = self.timestamp();
        let event_type = self.names.event_type.quoted('"');
        let metadata = read_bytes(&self.names.metadata.name.quoted('"'), self.metadata);
        let trace = read_bytes(&self.names.trace.name.quoted('"'), self.trace);
        safe(format!(
            "select e.{id}::bigint, e.{foreign_id}::text, {timestamp}, e.{event_type}::bigint, {metadata}, {trace}
             from {table} e where e.{id} > $1 order by e.{id} limit $2"
        ))
    }

    /// Inserts `rows`, which offer one expression per column of ours.
    fn insert(&self, table: &str, rows: &str) -> SqlStr {
        let timestamp = match self.time_type {
            "timestamp" => "coalesce(u.timestamp, now()) at time zone 'UTC'",
            _ => "coalesce(u.timestamp, now())",
        };
        let mut columns = vec![
            (self.names.foreign_id.quoted('"'), format!("u.foreign_id::{}", self.foreign_type)),
            (self.names.event_type.quoted('"'), "u.type".to_owned()),
            (self.names.timestamp.quoted('"'), timestamp.to_owned()),
        ];
        if let Some(column) = self.metadata {
            columns.push((self.names.metadata.name.quoted('"'), write_bytes("u.metadata", &column.data_type)));
        }
        if let Some(column) = self.trace {
            columns.push((self.names.trace.name.quoted('"'), write_bytes("u.trace", &column.data_type)));
        }
        let (names, expressions): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        safe(format!("insert into {table} ({}) select {} from {rows}", names.join(", "), expressions.join(", ")))
    }
}

fn read_bytes(column: &str, found: Option<&Column>) -> String {
    match found.map(|found| found.data_type.as_str()) {
        None => "null::bytea".to_owned(),
        Some("bytea") => format!("e.{column}"),
        Some(_) => format!("convert_to(e.{column}::text, 'UTF8')"),
    }
}

fn write_bytes(value: &str, data_type: &str) -> String {
    match data_type {
        "bytea" => value.to_owned(),
        other => format!("convert_from({value}, 'UTF8')::{other}"),
    }
}

/// The highest value that was drawn, if the session may know.
fn last_value(sequence: &Sequence) -> String {
    let oid = sequence.oid;
    format!(
        "(case when has_sequence_privilege({oid}::oid, 'usage, select')
          then coalesce(pg_sequence_last_value({oid}::oid::regclass), 0) end)"
    )
}

/// An insert takes its lock on the table before it draws an id and keeps it until its transaction has ended and is visible.
/// Partitions and inheriting tables are locked by themselves when rows go straight into them.
fn writers(table: &str, sequence: &Sequence) -> SqlStr {
    let (last_value, oid) = (last_value(sequence), sequence.oid);
    let sequence = sequence.name.replace('\'', "''");
    let table = table.replace('\'', "''");
    safe(format!(
        "with recursive tree(oid) as (
            select '{table}'::regclass::oid
            union select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid),
        locks as (
            select distinct l.virtualtransaction from pg_locks l join tree on l.relation = tree.oid
            where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
              and l.database = (select d.oid from pg_database d where d.datname = current_database()))
        select {last_value}, pg_postmaster_start_time()::text, pg_is_in_recovery(),
            exists (select from pg_subscription_rel r join tree on r.srrelid = tree.oid),
            '{sequence}', s.seqcache, s.seqincrement, s.seqcycle, locks.virtualtransaction
        from pg_sequence s left join locks on true where s.seqrelid = {oid}::oid"
    ))
}

fn id(row: &PgRow) -> Result<i64, sqlx::Error> {
    row.try_get(0)
}

fn oldest(row: &PgRow) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    row.try_get_unchecked::<Option<i64>, _>(1)?.map(copy::timestamp).transpose()
}

/// What the row says, and its type.
fn parts(row: &PgRow, id: i64) -> Result<(EventParts<'_>, i64), sqlx::Error> {
    let parts = EventParts {
        id: id.into(),
        event_type: Default::default(),
        foreign_id: row.try_get(1)?,
        // Decoded as a date, one that is too far away would be a panic.
        timestamp: copy::timestamp(row.try_get_unchecked(2)?)?,
        metadata: row.try_get::<Option<&[u8]>, _>(4)?.unwrap_or_default(),
        trace: row.try_get::<Option<&[u8]>, _>(5)?.unwrap_or_default(),
    };
    Ok((parts, row.try_get(3)?))
}

async fn insert_one(conn: &mut PgConnection, sql: &EventsSql, event: &NewEvent) -> Result<(), sqlx::Error> {
    let parts = event.parts();
    let query = sqlx::query(sql.insert_one.clone())
        .bind(parts.foreign_id)
        .bind(parts.event_type.0)
        .bind(parts.timestamp)
        .bind(sql.metadata.and_then(|column| column.value(parts.metadata)))
        .bind(sql.trace.and_then(|column| column.value(parts.trace)));
    query.execute(conn).await.map(drop)
}

async fn insert_many(conn: &mut PgConnection, sql: &EventsSql, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    let parts: Vec<_> = events.iter().map(NewEvent::parts).collect();
    let foreign_ids: Vec<&str> = parts.iter().map(|parts| parts.foreign_id).collect();
    let types: Vec<i32> = parts.iter().map(|parts| parts.event_type.0).collect();
    let timestamps: Vec<Option<DateTime<Utc>>> = parts.iter().map(|parts| parts.timestamp).collect();
    let value = |column: Option<BytesColumn>, bytes| column.and_then(|column| column.value(bytes));
    let metadata: Vec<Option<&[u8]>> = parts.iter().map(|parts| value(sql.metadata, parts.metadata)).collect();
    let traces: Vec<Option<&[u8]>> = parts.iter().map(|parts| value(sql.trace, parts.trace)).collect();
    let query =
        sqlx::query(sql.insert_many.clone()).bind(foreign_ids).bind(types).bind(timestamps).bind(metadata).bind(traces);
    query.execute(conn).await.map(drop)
}

fn cursors_sql(names: &CursorsNames, cursor_type: &str) -> CursorsSql {
    let (table, id) = (names.table.quoted('"'), names.id.quoted('"'));
    let (cursor, updated_at) = (names.cursor.quoted('"'), names.updated_at.quoted('"'));
    let insert = format!("insert into {table} as c ({id}, {cursor}, {updated_at})");
    let update = format!("{cursor} = excluded.{cursor}, {updated_at} = excluded.{updated_at}");
    CursorsSql {
        table: names.table.clone(),
        integer: matches!(cursor_type, "int4" | "int8"),
        get: safe(format!("select {cursor}::text from {table} where {id} = $1")),
        advance: safe(format!(
            "{insert} values ($1, $2, now()) on conflict ({id}) do update set {update} where c.{cursor} < excluded.{cursor}"
        )),
        create: safe(format!("{insert} values ($1, $2::text::{cursor_type}, now()) on conflict ({id}) do nothing")),
        replace: safe(format!(
            "update {table} set {cursor} = $2::text::{cursor_type}, {updated_at} = now()
             where {id} = $1 and {cursor} = $3::text::{cursor_type}"
        )),
        delete: safe(format!("delete from {table} where {id} = $1")),
        list: safe(format!("select {id}, {cursor}::text, {updated_at}::timestamptz from {table} order by {id}")),
    }
}
