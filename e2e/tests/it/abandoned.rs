//! Streams that are dropped at any moment leave nothing behind that others need.

use std::time::Duration;

use futures_util::StreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{NewEvent, StreamOptions};
use reflex_e2e::{Backend, seed};
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::collect;
use tokio::{task::JoinSet, time::timeout};

use crate::support::Namespace;

const EVENTS: u32 = 20_000;
const TASKS: u32 = 2;
const STREAMS: u32 = 150;
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn streams_can_be_abandoned_at_any_moment_on_postgres() {
    let namespace = Namespace::postgres("abandoned").await;
    abandon_streams("abandoned_postgres", &namespace).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn streams_can_be_abandoned_at_any_moment_on_mariadb() {
    let namespace = Namespace::mariadb("abandoned").await;
    abandon_streams("abandoned_mariadb", &namespace).await;
    namespace.remove().await;
}

async fn abandon_streams<D: Backend>(test: &str, namespace: &Namespace<D>) {
    let mut rng = StdRng::seed_from_u64(seed(test).unwrap());
    let (far, _proxy) = namespace.far_away(Duration::from_millis(1)).await;
    let options =
        EventsTableOptions::new("events").deadline(DEADLINE).reader_connections(2).ring_events(10).page_size(5_000);
    let table = EventsTable::<D>::open(&far, options).await.unwrap();
    let mut tx = namespace.pool.begin().await.unwrap();
    let events = (0..EVENTS).map(|number| NewEvent::new(number + 1, 1).metadata([b'm'; 100]));
    table.insert_all(&mut tx, events).await.unwrap().send();
    tx.commit().await.unwrap();

    // One stream keeps the shared reader at work, so that connections are used again.
    let _kept = table.open_stream(StreamOptions::new()).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (table, rng) = (table.clone(), StdRng::seed_from_u64(rng.random()));
        tasks.spawn(abandon(table, rng));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let read = collect(&table, StreamOptions::new()).await.unwrap();
    assert_eq!(read.len(), EVENTS as usize);
}

async fn abandon<D: Backend>(table: EventsTable<D>, mut rng: StdRng) {
    for _ in 0..STREAMS {
        let life = Duration::from_micros(rng.random_range(5_000..60_000));
        let dropped = timeout(life, async {
            let mut stream = table.open_stream(StreamOptions::new().after(i64::from(EVENTS / 4))).await?.events;
            while let Some(event) = stream.next().await {
                event?;
            }
            Ok::<_, reflex_core::Error>(())
        });
        if let Ok(ended) = dropped.await {
            ended.unwrap();
        }
    }
}
