//! In one process a stream hears of an insert at once, however seldom it looks by itself.

use std::time::Duration;

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, NewEvent, StreamOptions};
use reflex_e2e::Backend;
use reflex_sql::{EventsTable, EventsTableOptions};
use sqlx::Pool;
use tokio::time::timeout;

use crate::support::{Namespace, PATIENCE, run};

const NEVER: Duration = Duration::from_secs(60 * 60);

#[tokio::test]
async fn sqlite_streams_hear_of_inserts() {
    let namespace = Namespace::sqlite().await;
    hears_of_inserts(&namespace.pool).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_streams_hear_of_inserts() {
    let namespace = Namespace::postgres("wake_up").await;
    hears_of_inserts(&namespace.pool).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_streams_hear_of_inserts() {
    let namespace = Namespace::mariadb("wake_up").await;
    hears_of_inserts(&namespace.pool).await;
    namespace.remove().await;
}

async fn hears_of_inserts<D: Backend>(pool: &Pool<D>) {
    let options = EventsTableOptions::new("events").poll_interval(NEVER);
    let table = EventsTable::<D>::open(pool, options).await.unwrap();
    let mut streams = Vec::new();
    for start in [StreamOptions::new(), StreamOptions::new().from_head()] {
        streams.push(table.open_stream(start).await.unwrap().events);
    }
    for round in 0..5 {
        for stream in &mut streams {
            wait_at_the_end(stream).await;
        }
        insert(&table, pool, round).await;
        for stream in &mut streams {
            assert_eq!(next(stream).await, round.to_string());
        }
    }

    // An insert by other means is not heard of until somebody else's wakes the streams.
    run(pool, "insert into events (foreign_id, type) values ('by other means', 1)").await;
    insert(&table, pool, 5).await;
    for stream in &mut streams {
        assert_eq!(next(stream).await, "by other means");
        assert_eq!(next(stream).await, "5");
    }
}

/// The shared reader sleeps: it has nothing to look for before the poll interval is over.
async fn wait_at_the_end(stream: &mut BoxEventStream) {
    let nothing = timeout(Duration::from_millis(100), stream.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

async fn insert<D: Backend>(table: &EventsTable<D>, pool: &Pool<D>, foreign_id: u32) {
    let mut tx = pool.begin().await.unwrap();
    let notify = table.insert(&mut tx, NewEvent::new(foreign_id, 1)).await.unwrap();
    tx.commit().await.unwrap();
    notify.send();
}

async fn next(stream: &mut BoxEventStream) -> String {
    let event = timeout(PATIENCE, stream.next()).await.expect("the stream hears of it");
    event.unwrap().unwrap().foreign_id().to_owned()
}
