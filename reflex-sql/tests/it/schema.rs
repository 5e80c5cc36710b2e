//! Tables that are not what they should be, and tables that other tools made.

use std::time::Duration;

use reflex_core::{NewEvent, StreamOptions};
use reflex_sql::{
    CursorsTable, CursorsTableOptions, Dialect, DialectName, ErrorsTable, EventsTable, EventsTableOptions, ddl,
};
use reflex_testing::collect;
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Sqlite, pool::PoolOptions};

use crate::{
    bench::{on, with_causes},
    database::{Backend, Result, with_tables},
};

on!(each:
    a_missing_table_is_named_with_the_remedy,
    names_that_are_no_identifiers_are_refused,
    the_migrations_make_the_tables_of_the_printed_statements,
    a_column_that_the_options_name_must_exist,
);

async fn a_missing_table_is_named_with_the_remedy<D: Backend>() -> Result<()> {
    let namespace = D::namespace().await?;
    let events = EventsTable::open(&namespace.pool, "nothing_here").await.expect_err("there is no such table");
    let cursors = CursorsTable::open(&namespace.pool, "nothing_here").await.expect_err("there is no such table");
    for error in [events, cursors] {
        assert!(error.is_missing_table(), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("`nothing_here`") && message.contains("reflex migrate"), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_run_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let patience = Duration::from_millis(50);
    let pool =
        PoolOptions::new().acquire_timeout(patience).connect_lazy(&format!("postgres://me@{address}/shop")).unwrap();
    check_no_connection::<Postgres>(&pool, &address).await;
    let pool =
        PoolOptions::new().acquire_timeout(patience).connect_lazy(&format!("mysql://me@{address}/shop")).unwrap();
    check_no_connection::<MySql>(&pool, &address).await;
}

async fn check_no_connection<D: Dialect>(pool: &Pool<D>, address: &str) {
    let events = EventsTable::open(pool, "events").await.expect_err("no server listens there");
    let cursors = CursorsTable::open(pool, "cursors").await.expect_err("no server listens there");
    for error in [events, cursors] {
        let message = error.to_string();
        assert!(message.contains(address) && message.contains("is the server running"), "{message}");
        assert!(error.as_database().is_some(), "{error:?}");
    }
}

async fn names_that_are_no_identifiers_are_refused<D: Backend>() -> Result<()> {
    let namespace = with_tables::<D>().await?;
    for name in ["", "events; drop table events", "eve\"nts", "eve`nts", "a.b.c", "events--", "1events"] {
        for options in [
            EventsTableOptions::new(name),
            EventsTableOptions::new("events").id_column(name),
            EventsTableOptions::new("events").metadata_column(name),
        ] {
            let error = EventsTable::open(&namespace.pool, options).await.expect_err(name);
            assert!(error.is_invalid_name() && error.to_string().contains(&format!("`{name}`")), "{error}");
        }
        let error = CursorsTable::open(&namespace.pool, name).await.expect_err(name);
        assert!(error.is_invalid_name(), "{error}");
    }
    EventsTable::open(&namespace.pool, "events").await?;
    Ok(())
}

async fn a_column_that_the_options_name_must_exist<D: Backend>() -> Result<()> {
    let namespace = with_tables::<D>().await?;
    let options = || EventsTableOptions::new("events");
    for options in [
        options().id_column("nowhere"),
        options().foreign_id_column("nowhere"),
        options().timestamp_column("nowhere"),
        options().event_type_column("nowhere"),
        options().metadata_column("nowhere"),
        options().trace_column("nowhere"),
    ] {
        let error = EventsTable::open(&namespace.pool, options).await.expect_err("there is no such column");
        assert!(error.is_schema() && error.to_string().contains("column `nowhere` is missing"), "{error}");
    }
    for options in [
        CursorsTableOptions::new("cursors").id_column("nowhere"),
        CursorsTableOptions::new("cursors").cursor_column("nowhere"),
        CursorsTableOptions::new("cursors").updated_at_column("nowhere"),
    ] {
        let error = CursorsTable::open(&namespace.pool, options).await.expect_err("there is no such column");
        assert!(error.is_schema() && error.to_string().contains("column `nowhere` is missing"), "{error}");
    }
    Ok(())
}

/// What a database knows of a table, with the table's name taken out.
trait Shape: Backend + reflex_migrations::Dialect {
    async fn shape(pool: &sqlx::Pool<Self>, table: &str) -> Result<Vec<String>>;
}

async fn the_migrations_make_the_tables_of_the_printed_statements<D: Shape>() -> Result<()> {
    let namespace = D::namespace().await?;
    reflex_migrations::up(&namespace.pool).await?;
    <D as Backend>::execute(&namespace.pool, &ddl::events(D::DIALECT, &"printed_events".into())?).await?;
    <D as Backend>::execute(&namespace.pool, &ddl::cursors(D::DIALECT, &"printed_cursors".into())?).await?;
    let errors = ddl::errors(D::DIALECT, &"printed_consumer_errors".into())?;
    <D as Backend>::execute(&namespace.pool, &errors).await?;
    let beside = ["", "_events", "_letters", "_positions", "_attempts"].map(|end| format!("consumer_errors{end}"));
    for table in ["events", "cursors"].into_iter().chain(beside.iter().map(String::as_str)) {
        let migrated = D::shape(&namespace.pool, table).await?;
        assert!(migrated.len() >= 2, "{migrated:?}");
        assert_eq!(migrated, D::shape(&namespace.pool, &format!("printed_{table}")).await?);
    }
    EventsTable::open(&namespace.pool, "events").await?;
    CursorsTable::open(&namespace.pool, "cursors").await?;
    ErrorsTable::open(&namespace.pool, "consumer_errors").await?;
    Ok(())
}

impl Shape for Postgres {
    async fn shape(pool: &sqlx::PgPool, table: &str) -> Result<Vec<String>> {
        let statement =
            "select concat_ws(' ', c.column_name, c.data_type, c.is_nullable, c.column_default, c.is_identity,
                    c.identity_generation, (select string_agg(t.constraint_type, ',')
                        from information_schema.key_column_usage k join information_schema.table_constraints t
                            using (constraint_schema, constraint_name)
                        where k.table_schema = c.table_schema and k.table_name = c.table_name
                            and k.column_name = c.column_name))
            from information_schema.columns c where c.table_schema = current_schema() and c.table_name = $1
            order by c.ordinal_position";
        Ok(sqlx::query_scalar(statement).bind(table).fetch_all(pool).await?)
    }
}

impl Shape for MySql {
    async fn shape(pool: &sqlx::MySqlPool, table: &str) -> Result<Vec<String>> {
        let statement =
            "select cast(concat_ws(' ', c.column_name, c.column_type, c.is_nullable, c.column_default, c.extra,
                    c.column_key, c.collation_name, t.engine) as char)
            from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
            where c.table_schema = database() and c.table_name = ? order by c.ordinal_position";
        Ok(sqlx::query_scalar(statement).bind(table).fetch_all(pool).await?)
    }
}

impl Shape for Sqlite {
    async fn shape(pool: &sqlx::SqlitePool, table: &str) -> Result<Vec<String>> {
        let columns = "select concat_ws(' ', name, type, \"notnull\", dflt_value, pk) from pragma_table_info(?)";
        let mut shape: Vec<String> = sqlx::query_scalar(columns).bind(table).fetch_all(pool).await?;
        let autoincrement =
            "select 'autoincrement: ' || (sql like '%autoincrement%') from sqlite_master where name = ?";
        shape.push(sqlx::query_scalar(autoincrement).bind(table).fetch_one(pool).await?);
        Ok(shape)
    }
}

/// The statements make an events table that cannot be opened; the message contains all of `words`.
async fn refuses<D: Backend>(statements: &str, words: &[&str]) -> Result<()> {
    let namespace = D::namespace().await?;
    D::execute(&namespace.pool, statements).await?;
    let Err(error) = EventsTable::open(&namespace.pool, "events").await else {
        panic!("it opened a table made by {statements}");
    };
    let message = with_causes(&error);
    assert!(message.contains("`events`"), "{message}");
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    Ok(())
}

/// The statements make an events table of another tool, which is written and read as it is.
async fn takes<D: Backend>(statements: &str, event: NewEvent) -> Result<()> {
    let namespace = D::namespace().await?;
    D::execute(&namespace.pool, statements).await?;
    let table = match EventsTable::open(&namespace.pool, "events").await {
        Ok(table) => table,
        Err(error) => panic!("{statements}: {}", with_causes(&error)),
    };
    let again = event.clone();
    <D as Backend>::insert(&namespace.pool, &table, vec![event.clone()]).await?;
    <D as Backend>::insert(&namespace.pool, &table, vec![event.clone(), again]).await?;
    let events = collect(&table, StreamOptions::new()).await?;
    assert_eq!(events.len(), 3, "{statements}");
    for read in events {
        let parts = event.parts();
        assert_eq!((read.foreign_id(), read.event_type()), (parts.foreign_id, parts.event_type), "{statements}");
        assert_eq!(read.metadata(), parts.metadata, "{statements}");
        match parts.timestamp {
            Some(timestamp) => assert_eq!(read.timestamp(), timestamp, "{statements}"),
            None => {
                assert!((chrono::Utc::now() - read.timestamp()).num_seconds().abs() < 300, "{statements}: {read:?}")
            }
        }
    }
    Ok(())
}

fn plain() -> NewEvent {
    NewEvent::new(7, 3)
}

fn dated() -> NewEvent {
    plain().timestamp(chrono::DateTime::from_timestamp(1_700_000_000, 0).expect("it is a time"))
}

fn with_json() -> NewEvent {
    plain().metadata(br#"{"amount": 3}"#)
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_refuses_what_cannot_be_read_safely() -> Result<()> {
    let table = |id: &str, foreign_id: &str, timestamp: &str, event_type: &str, rest: &str| {
        format!(
            "create table events (id {id}, foreign_id {foreign_id}, timestamp {timestamp}, type {event_type}{rest})"
        )
    };
    let (id, text, time, int) = ("bigserial primary key", "text not null", "timestamptz", "int not null");
    refuses::<Postgres>(&table("text primary key", text, time, int, ""), &["column `id` has type text", "int8"])
        .await?;
    refuses::<Postgres>(&table(id, "bytea", time, int, ""), &["column `foreign_id` has type bytea"]).await?;
    refuses::<Postgres>(&table(id, text, "date", int, ""), &["column `timestamp` has type date", "timestamptz"])
        .await?;
    refuses::<Postgres>(&table(id, text, time, "text", ""), &["column `type` has type text"]).await?;
    refuses::<Postgres>(&table(id, text, time, int, ", metadata int"), &["column `metadata` has type int4"]).await?;
    refuses::<Postgres>(&table("bigserial", text, time, int, ""), &["column `id` has no index", "primary key"]).await?;
    refuses::<Postgres>(&table("bigint primary key", text, time, int, ""), &["no sequence", "generated always"])
        .await?;
    refuses::<Postgres>("create table events (id bigserial primary key)", &["column `foreign_id` is missing"]).await?;
    let view = "create table base (id bigserial primary key, foreign_id text, timestamp timestamptz, type int);
         create view events as select * from base";
    refuses::<Postgres>(view, &["does not exist"]).await
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_takes_tables_of_other_tools() -> Result<()> {
    let table = |id: &str, foreign_id: &str, timestamp: &str, event_type: &str, rest: &str| {
        format!(
            "create table events (id {id}, foreign_id {foreign_id}, timestamp {timestamp}, type {event_type}{rest})"
        )
    };
    let (id, text, time, int) = ("bigserial primary key", "text not null", "timestamptz not null", "int not null");
    takes::<Postgres>(&table("serial primary key", "bigint not null", "timestamp", "smallint", ""), dated()).await?;
    takes::<Postgres>(&table("serial primary key", "int", "timestamp(0)", "bigint", ""), plain()).await?;
    takes::<Postgres>(&table(id, "varchar(255)", "timestamptz(3)", int, ", metadata jsonb"), with_json()).await?;
    takes::<Postgres>(&table(id, text, time, int, ", metadata json"), with_json()).await?;
    takes::<Postgres>(&table(id, text, time, int, ", metadata text, trace text"), with_json()).await?;
    takes::<Postgres>(&table(id, text, time, int, ", metadata bytea not null default ''"), plain()).await?;
    let by_default = "bigint generated by default as identity primary key";
    takes::<Postgres>(&table(by_default, text, time, int, ", metadata bytea"), with_json()).await?;
    let unique = NewEvent::new("3f2504e0-4f89-41d3-9a0c-0305e82c3301", 1);
    takes::<Postgres>(&table(id, "uuid not null", time, int, ""), unique).await
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_refuses_what_cannot_be_read_safely() -> Result<()> {
    let table = |id: &str, foreign_id: &str, timestamp: &str, event_type: &str, rest: &str| {
        format!(
            "create table events (id {id}, foreign_id {foreign_id}, timestamp {timestamp}, type {event_type}{rest})"
        )
    };
    let (id, text, time, int) = ("bigint auto_increment primary key", "varchar(99)", "datetime", "int");
    refuses::<MySql>(&table("varchar(9) primary key", text, time, int, ""), &["column `id` has type varchar"]).await?;
    refuses::<MySql>(&table(id, "blob", time, int, ""), &["column `foreign_id` has type blob"]).await?;
    refuses::<MySql>(&table(id, text, "date", int, ""), &["column `timestamp` has type date", "datetime"]).await?;
    refuses::<MySql>(&table(id, text, time, "text", ""), &["column `type` has type text"]).await?;
    refuses::<MySql>(&table(id, text, time, int, ", metadata int"), &["column `metadata` has type int"]).await?;
    refuses::<MySql>(&table("bigint primary key", text, time, int, ""), &["not auto_increment"]).await?;
    refuses::<MySql>("create table events (id bigint auto_increment primary key)", &["`foreign_id` is missing"])
        .await?;
    refuses::<MySql>(&format!("{} engine=MyISAM", table(id, text, time, int, "")), &["engine=InnoDB"]).await?;
    let view = format!(
        "{}; rename table events to base; create view events as select * from base",
        table(id, text, time, int, "")
    );
    refuses::<MySql>(&view, &["does not exist"]).await
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_takes_tables_of_luno_reflex() -> Result<()> {
    let table = |id: &str, foreign_id: &str, timestamp: &str, rest: &str| {
        format!(
            "create table events (id {id} not null auto_increment, foreign_id {foreign_id} not null,
                timestamp {timestamp} not null, type int not null default 0{rest}, primary key (id))"
        )
    };
    takes::<MySql>(&table("bigint", "bigint", "datetime", ""), dated()).await?;
    takes::<MySql>(&table("int", "bigint", "datetime", ""), plain()).await?;
    takes::<MySql>(&table("bigint unsigned", "varchar(255)", "datetime(3)", ""), dated()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "timestamp", ""), dated()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "timestamp(6)", ""), plain()).await?;
    takes::<MySql>(&table("bigint", "char(36)", "datetime(6)", ", metadata blob"), with_json()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "datetime(6)", ", metadata json"), with_json()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "datetime", ", metadata text, trace blob"), with_json()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "datetime", ", metadata blob not null"), with_json()).await?;
    takes::<MySql>(&table("bigint", "varchar(255)", "datetime", ", metadata blob not null"), plain()).await?;
    takes::<MySql>(
        &table("bigint", "varchar(255)", "datetime", ", metadata mediumblob not null, trace blob not null"),
        plain(),
    )
    .await
}

#[tokio::test]
async fn sqlite_refuses_what_cannot_be_read_safely() -> Result<()> {
    let rest = "foreign_id text, timestamp text, type integer";
    refuses::<Sqlite>(&format!("create table events (id text primary key, {rest})"), &["column `id` has type text"])
        .await?;
    let reused = format!("create table events (id integer primary key, {rest})");
    refuses::<Sqlite>(&reused, &["AUTOINCREMENT", "integer primary key autoincrement"]).await?;
    let elsewhere = format!("create table events (id integer primary key, {rest}, autoincrement_by integer)");
    refuses::<Sqlite>(&elsewhere, &["AUTOINCREMENT"]).await?;
    let not_the_id = "create table events (id integer, n integer primary key autoincrement, foreign_id text,
        timestamp text, type integer)";
    refuses::<Sqlite>(not_the_id, &["column `id`", "AUTOINCREMENT"]).await?;
    refuses::<Sqlite>(
        "create table events (id integer primary key autoincrement, foreign_id text)",
        &["column `timestamp` is missing"],
    )
    .await?;
    let view = format!(
        "create table base (id integer primary key autoincrement, {rest}); create view events as select * from base"
    );
    refuses::<Sqlite>(&view, &["does not exist"]).await
}

#[tokio::test]
async fn sqlite_takes_tables_of_other_tools() -> Result<()> {
    let table = |rest: &str| format!("create table events (id integer primary key autoincrement, {rest})");
    takes::<Sqlite>(&table("foreign_id integer not null, timestamp datetime, type int"), dated()).await?;
    takes::<Sqlite>(&table("foreign_id varchar(255), timestamp text, type smallint, metadata text"), with_json())
        .await?;
    takes::<Sqlite>(&table("foreign_id text, timestamp text, type int, metadata blob not null"), with_json()).await?;
    takes::<Sqlite>(&table("foreign_id text, timestamp text, type int, metadata blob not null"), plain()).await
}

/// Rows that plain SQL wrote with SQLite's own defaults.
#[tokio::test]
async fn sqlite_reads_the_timestamps_that_sqlite_writes() -> Result<()> {
    let namespace = Sqlite::namespace().await?;
    let statements = "create table events (id integer primary key autoincrement, foreign_id text,
            timestamp text not null default current_timestamp, type integer);
        insert into events (foreign_id, type) values ('default', 1);
        insert into events (foreign_id, type, timestamp) values
            ('with t', 1, '2026-01-02T03:04:05Z'), ('millis', 1, '2026-01-02 03:04:05.678'),
            ('offset', 1, '2026-01-02T04:04:05+01:00')";
    Sqlite::execute(&namespace.pool, statements).await?;
    let events = collect(&EventsTable::open(&namespace.pool, "events").await?, StreamOptions::new()).await?;
    let seconds: Vec<_> = events.iter().skip(1).map(|event| event.timestamp().timestamp()).collect();
    assert_eq!(seconds, [1_767_323_045; 3]);
    Ok(())
}

/// Statements for any names run as they are printed, and make tables that open.
#[tokio::test]
async fn printed_statements_take_any_names() -> Result<()> {
    let namespace = Sqlite::namespace().await?;
    let options = EventsTableOptions::new("order_events")
        .id_column("number")
        .foreign_id_column("order_id")
        .timestamp_column("at")
        .event_type_column("kind")
        .metadata_column("body")
        .trace_column("context");
    let statement = ddl::events(DialectName::Sqlite, &options)?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&namespace.pool).await?;
    let table = EventsTable::open(&namespace.pool, options).await?;
    <Sqlite as Backend>::insert(&namespace.pool, &table, vec![with_json()]).await?;
    assert_eq!(collect(&table, StreamOptions::new()).await?[0].metadata(), br#"{"amount": 3}"#);
    Ok(())
}

/// The pool's own connections know where to look for names; readers make connections of their own.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_readers_find_the_schema_that_a_hook_of_the_pool_chose() -> Result<()> {
    let namespace = with_tables::<Postgres>().await?;
    let schema: String = sqlx::query_scalar("select current_schema()::text").fetch_one(&namespace.pool).await?;
    let elsewhere = crate::database::url("REFLEX_TEST_POSTGRES_URL").parse::<sqlx::postgres::PgConnectOptions>()?;
    let pool = sqlx::postgres::PgPoolOptions::new().after_connect(move |conn, _| {
        let choose = format!("set search_path = {schema}");
        Box::pin(async move { sqlx::raw_sql(AssertSqlSafe(choose)).execute(conn).await.map(drop) })
    });
    let pool = pool.connect_with(elsewhere).await?;
    let table = EventsTable::open(&pool, "events").await?;
    Postgres::insert(&pool, &table, vec![NewEvent::new("order-12", 1)]).await?;
    let events = collect(&table, StreamOptions::new().to_head()).await?;
    assert_eq!(events[0].foreign_id(), "order-12");
    Ok(())
}
