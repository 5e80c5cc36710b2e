//! Columns of other types than ours, and values that are no field of an event.

use std::error::Error;

use reflex_e2e::Backend;
use sqlx::{MySql, Pool, Postgres};

use super::{add, dialect, on, open, read_all, read_up_to_refused, refused};
use crate::support::{Namespace, run};

on!(each:
    a_type_that_does_not_fit,
    a_missing_foreign_id,
    a_missing_type,
    a_missing_timestamp,
    nothing_and_nul_as_metadata,
);

/// Lets every column but the id hold nothing, and types be wide.
async fn loosen<D: Backend>(pool: &Pool<D>) {
    let statements = match dialect::<D>() {
        "PostgreSQL" => {
            "alter table events alter foreign_id drop not null, alter timestamp drop not null, alter type drop not null,
                alter type type bigint"
        }
        "MySQL" => {
            "alter table events modify foreign_id varchar(255), modify timestamp datetime(6) default (utc_timestamp(6)),
                modify type bigint"
        }
        _ => {
            "drop table events; create table events (id integer primary key autoincrement, foreign_id text,
                timestamp text default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), type integer, metadata blob, trace blob)"
        }
    };
    run(pool, statements).await;
}

/// Refused is the second of three events, the one with these values.
async fn bad_one<D: Backend>(pool: &Pool<D>, columns: &str, values: &str, words: &[&str]) {
    add(pool, 1).await;
    run(pool, &format!("insert into events ({columns}) values ({values})")).await;
    add(pool, 1).await;
    refused(pool, 2, words).await;
}

async fn a_type_that_does_not_fit<D: Backend>(pool: &Pool<D>) {
    loosen(pool).await;
    let fitting = [i32::MIN, i32::MAX];
    for event_type in fitting {
        run(pool, &format!("insert into events (foreign_id, type) values ('thing', {event_type})")).await;
    }
    let read: Vec<_> = read_all(pool).await.iter().map(|event| event.event_type().0).collect();
    assert_eq!(read, fitting);
    for event_type in [i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, i64::MAX] {
        run(pool, &format!("insert into events (foreign_id, type) values ('thing', {event_type})")).await;
        let id = D::number(pool, "select max(id) from events").await.unwrap();
        refused(pool, id, &["`events`", &format!("event {id}, {event_type}"), "32 bits"]).await;
    }
}

async fn a_missing_foreign_id<D: Backend>(pool: &Pool<D>) {
    loosen(pool).await;
    bad_one(pool, "foreign_id, type", "null, 1", &["event 2 of table `events`", missing::<D>("foreign id")]).await;
}

async fn a_missing_type<D: Backend>(pool: &Pool<D>) {
    loosen(pool).await;
    bad_one(pool, "foreign_id, type", "'thing', null", &["event 2 of table `events`", missing::<D>("type")]).await;
}

/// What is said of a column without a value. Only what Postgres copies is decoded by the library, which names the column.
fn missing<D: Backend>(column: &'static str) -> &'static str {
    if dialect::<D>() == "PostgreSQL" { column } else { "has no value" }
}

async fn a_missing_timestamp<D: Backend>(pool: &Pool<D>) {
    loosen(pool).await;
    bad_one(pool, "foreign_id, type, timestamp", "'thing', 1, null", &["event 2 of table `events`"]).await;
}

async fn nothing_and_nul_as_metadata<D: Backend>(pool: &Pool<D>) {
    let nul = if dialect::<D>() == "PostgreSQL" { "'\\x610062ff'" } else { "x'610062ff'" };
    for (metadata, trace) in [("null", "null"), ("''", "''"), (nul, nul)] {
        let sql =
            format!("insert into events (foreign_id, type, metadata, trace) values ('t', 1, {metadata}, {trace})");
        run(pool, &sql).await;
    }
    let events = read_all(pool).await;
    let metadata: Vec<_> = events.iter().map(|event| (event.metadata(), event.trace())).collect();
    let bytes: &[u8] = b"a\0b\xff";
    assert_eq!(metadata, [(&b""[..], &b""[..]), (b"", b""), (bytes, bytes)]);
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn text_that_is_not_utf8_in_postgres() {
    let namespace = Namespace::postgres("ascii_admin").await;
    let name = format!("reflex_e2e_ascii_{}", std::process::id());
    let create = format!("create database {name} encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'");
    run(&namespace.pool, &create).await;
    let (server, _) = namespace.url.rsplit_once('/').unwrap();
    let pool = Postgres::pool(&format!("{server}/{name}")).unwrap();
    reflex_migrations::up(&pool).await.unwrap();
    add(&pool, 1).await;
    run(&pool, "insert into events (foreign_id, type) values (E'\\xff', 1)").await;
    read_up_to_refused(&pool, 2, &["`events`", "invalid byte sequence"]).await;
    pool.close().await;
    run(&namespace.pool, &format!("drop database {name} with (force)")).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn text_of_another_character_set_in_mariadb() {
    let namespace = Namespace::mariadb("latin1").await;
    let sql = "alter table events modify foreign_id varchar(255) character set latin1 not null,
        modify metadata longtext character set latin1";
    run(&namespace.pool, sql).await;
    run(&namespace.pool, "insert into events (foreign_id, type, metadata) values (x'e9', 1, x'e9')").await;
    let events = read_all(&namespace.pool).await;
    assert_eq!((events[0].foreign_id(), events[0].metadata()), ("é", &b"\xe9"[..]));
    namespace.remove().await;
}

#[tokio::test]
async fn text_that_is_not_utf8_in_sqlite() {
    let namespace = Namespace::sqlite().await;
    bad_one(&namespace.pool, "foreign_id, type", "cast(x'ff' as text), 1", &["`events`", "utf-8"]).await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_blob_that_is_not_utf8_as_text_in_sqlite() {
    let namespace = Namespace::sqlite().await;
    run(&namespace.pool, "insert into events (foreign_id, type) values (x'6f7264657200', 1)").await;
    assert_eq!(read_all(&namespace.pool).await[0].foreign_id(), "order\0");
    run(&namespace.pool, "delete from events").await;
    run(&namespace.pool, "insert into events (foreign_id, type) values (x'ff', 1)").await;
    refused(&namespace.pool, 2, &["`events`", "utf-8"]).await;
    namespace.remove().await;
}

#[tokio::test]
async fn types_that_are_no_integers_in_sqlite() {
    for value in ["'seven'", "1.5", "x'07'"] {
        let namespace = Namespace::sqlite().await;
        bad_one(&namespace.pool, "foreign_id, type", &format!("'thing', {value}"), &["`events`", "column 3"]).await;
        namespace.remove().await;
    }
}

#[tokio::test]
async fn timestamps_that_are_none_in_sqlite() {
    for value in ["'noon'", "''", "'2026-02-30T00:00:00Z'", "x'ff'"] {
        let namespace = Namespace::sqlite().await;
        let values = format!("'thing', 1, {value}");
        bad_one(&namespace.pool, "foreign_id, type, timestamp", &values, &["`events`", "column 2"]).await;
        namespace.remove().await;
    }
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_date_of_zeros_in_mariadb() {
    let namespace = Namespace::<MySql>::mariadb("zero_date").await;
    add(&namespace.pool, 1).await;
    let sql = "set sql_mode = ''; insert into events (foreign_id, type, timestamp) values ('t', 1, '0000-00-00')";
    run(&namespace.pool, sql).await;
    add(&namespace.pool, 1).await;
    refused(&namespace.pool, 2, &["event 2 of table `events`"]).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn times_without_end_in_postgres() {
    for (number, value) in ["infinity", "-infinity", "294000-01-01"].into_iter().enumerate() {
        let namespace = Namespace::<Postgres>::postgres(["inf_a", "inf_b", "inf_c"][number]).await;
        let (columns, values) = ("foreign_id, type, timestamp", format!("'thing', 1, '{value}'"));
        bad_one(&namespace.pool, columns, &values, &["event 2 of table `events`", "too far away"]).await;
        run(&namespace.pool, &format!("delete from events; insert into events ({columns}) values ({values})")).await;
        let error = open(&namespace.pool).await.backlog(None).await.unwrap_err();
        assert!(error.is_unreadable());
        assert!(error.source().unwrap().to_string().contains("too far away"), "{error:?}");
        namespace.remove().await;
    }
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn the_oldest_times_of_postgres() {
    let namespace = Namespace::<Postgres>::postgres("oldest").await;
    run(&namespace.pool, "insert into events (foreign_id, type, timestamp) values ('t', 1, '4713-01-01 BC')").await;
    let oldest = read_all(&namespace.pool).await[0].timestamp().to_string();
    assert!(oldest.starts_with("-4712-01-01"), "{oldest}");
    namespace.remove().await;
}
