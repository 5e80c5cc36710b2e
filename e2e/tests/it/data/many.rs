//! A thousand consumers of one table, and a hundred tables in one process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use reflex_core::{BufferedCursors, Event, Spec, StreamOptions, consumer_fn, run_until};
use reflex_e2e::Backend;
use reflex_sql::{CursorsTable, CursorsTableOptions, DialectName, EventsTable, EventsTableOptions, ddl};
use reflex_testing::eventually;
use sqlx::{MySql, Pool, Postgres, postgres::PgPoolOptions};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::{add, dialect, message, on, options};
use crate::support::{Namespace, PATIENCE, metrics, run};

on!(each: a_thousand_consumers_get_everything);

#[tokio::test]
async fn a_hundred_tables_of_sqlite_are_followed() {
    let namespace = Namespace::sqlite().await;
    Box::pin(a_hundred_tables_are_followed(&namespace.pool)).await;
    namespace.remove().await;
}

/// On a server of its own, because so many connections would be missed by other tests.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_hundred_tables_of_postgres_are_followed() {
    let start = || test_servers::Postgres::options().setting("max_connections", "700").start();
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let pool = Postgres::pool(&server.url()).unwrap();
    Box::pin(a_hundred_tables_are_followed(&pool)).await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_hundred_tables_of_mariadb_are_followed() {
    let server = spawn_blocking(test_servers::MariaDb::start).await.unwrap().unwrap();
    let pool = MySql::pool(&server.url()).unwrap();
    Box::pin(a_hundred_tables_are_followed(&pool)).await;
    pool.close().await;
}

/// Tables for which the server has no connection left are told by name; the others go on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_server_without_connections_left_is_told() {
    let start = || test_servers::Postgres::options().setting("max_connections", "15").start();
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect(&server.url()).await.unwrap();
    let mut streams = Vec::new();
    let error = loop {
        let name = format!("events_{}", streams.len());
        assert!(streams.len() < TABLES, "a hundred tables are read over fifteen connections");
        let options = EventsTableOptions::new(&name).deadline(Duration::from_secs(3)).metrics(&metrics());
        run(&pool, &ddl::events(DialectName::Postgres, &options).unwrap()).await;
        run(&pool, &format!("insert into {name} (foreign_id, type) values ('{name}', 1)")).await;
        let table = EventsTable::open(&pool, options).await.unwrap();
        match table.open_stream(StreamOptions::new()).await {
            Ok(opened) => streams.push((name, opened.events)),
            Err(error) => break format!("{name}: {}", message(&error)),
        }
    };
    let name = format!("events_{}", streams.len());
    assert!(error.contains(&format!("read table `{name}`: no answer within 3 s from 127.0.0.1")), "{error}");
    drop(streams.split_off(streams.len() / 2));
    for (name, stream) in &mut streams {
        let event = timeout(PATIENCE, stream.next()).await.expect("an event of each table").unwrap().unwrap();
        assert_eq!(event.foreign_id(), name);
    }
    drop(streams);
    pool.close().await;
}

const CONSUMERS: usize = 1_000;
const EVENTS: usize = 60;
const TABLES: usize = 100;

/// The readers of a table, and on Postgres one that listens.
const PER_TABLE: i64 = EventsTableOptions::DEFAULT_READER_CONNECTIONS as i64 + 1;

/// The pool of these tests has 24 and the readers of a table have 4. A few that were closed may still be going away.
const MOST_CONNECTIONS: i64 = 40;

async fn a_thousand_consumers_get_everything<D: Backend>(pool: &Pool<D>) {
    add(pool, EVENTS / 2).await;
    let table = EventsTable::open(pool, options().poll_interval(Duration::from_millis(50))).await.unwrap();
    let cursors = CursorsTable::open(pool, CursorsTableOptions::new("cursors").metrics(&metrics())).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let seen = Arc::new(AtomicUsize::new(0));
    let metrics = metrics();
    let consumers = (0..CONSUMERS).map(|number| {
        let (seen, mut last, mut stopped) = (seen.clone(), 0, stopped.clone());
        let consumer = consumer_fn(format!("consumer-{number}"), move |event: Event| {
            let id = event.id_as_i64();
            let in_order = id.as_ref().is_ok_and(|id| *id == last + 1);
            last += 1;
            seen.fetch_add(usize::from(in_order), Ordering::SeqCst);
            async { Ok(()) }
        });
        let mut spec = Spec::new(table.clone(), BufferedCursors::new(cursors.clone()), consumer).metrics(&metrics);
        async move {
            let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
            let Err(end) = run_until(&mut spec, stop).await;
            end
        }
    });
    let checks = async {
        let all = |events| {
            let seen = seen.clone();
            move || {
                let seen = seen.load(Ordering::SeqCst);
                async move { seen == events * CONSUMERS }
            }
        };
        eventually("all consumers to see the first half", PATIENCE * 2, all(EVENTS / 2)).await;
        add(pool, EVENTS / 2).await;
        eventually("all consumers to see the second half", PATIENCE * 2, all(EVENTS)).await;
        if let Some(open) = connections(pool).await {
            assert!(open <= MOST_CONNECTIONS, "{open} connections");
        }
        stop.send(true).unwrap();
    };
    let (ends, ()) = tokio::join!(join_all(consumers), checks);
    assert!(ends.iter().all(reflex_core::Error::is_stopped), "{}", message(&ends[0]));
    let stored = D::number(pool, &format!("select count(*) from cursors where last_event_id = {EVENTS}")).await;
    assert_eq!(stored.unwrap(), CONSUMERS as i64);
}

/// How many connections this database has, if it has any.
async fn connections<D: Backend>(pool: &Pool<D>) -> Option<i64> {
    let sql = match dialect::<D>() {
        "PostgreSQL" => "select count(*) from pg_stat_activity where datname = current_database()",
        "MySQL" => "select count(*) from information_schema.processlist where db = database()",
        _ => return None,
    };
    Some(D::number(pool, sql).await.unwrap())
}

/// Tables share no connections but those of the caller's pool.
async fn a_hundred_tables_are_followed<D: Backend>(pool: &Pool<D>) {
    let names: Vec<_> = (1..=TABLES).map(|number| format!("events_{number}")).collect();
    let mut streams = Vec::new();
    for name in &names {
        let options = EventsTableOptions::new(name).poll_interval(Duration::from_millis(500)).metrics(&metrics());
        let dialect = match dialect::<D>() {
            "PostgreSQL" => DialectName::Postgres,
            "MySQL" => DialectName::MySql,
            _ => DialectName::Sqlite,
        };
        run(pool, &ddl::events(dialect, &options).unwrap()).await;
        run(pool, &format!("insert into {name} (foreign_id, type) values ('{name}', 1)")).await;
        let table = EventsTable::open(pool, options).await.unwrap();
        streams.push(table.open_stream(StreamOptions::new()).await.unwrap().events);
    }
    for kind in ["first", "second"] {
        for (name, stream) in names.iter().zip(&mut streams) {
            let event = timeout(PATIENCE, stream.next()).await.expect("an event of each table").unwrap().unwrap();
            assert_eq!(event.foreign_id(), name, "the {kind} event");
            run(pool, &format!("insert into {name} (foreign_id, type) values ('{name}', 1)")).await;
        }
    }
    if let Some(open) = connections(pool).await {
        let most = MOST_CONNECTIONS + TABLES as i64 * PER_TABLE;
        assert!(open <= most, "{open} connections");
        eprintln!("{}: {open} connections for {TABLES} tables", dialect::<D>());
    }
}
