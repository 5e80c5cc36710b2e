//! Attacks on the proof that need a server of their own: restarts, standbys, replicas, settings.

mod mariadb;
mod postgres;

use std::{error::Error, sync::Arc, time::Duration};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, EventsTableMetrics, StreamOptions};
use reflex_e2e::Backend;
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::eventually;
use sqlx::Pool;
use tokio::{select, task::spawn_blocking, time::timeout};

use crate::support::{PATIENCE, metrics, run};

/// So many looks at the table must not make a stream deliver what it has to hold back.
const LOOKS: u64 = 12;

const ONE: &str = "insert into events (foreign_id, type) values ('one', 1)";

/// Does something with a server that takes its time.
async fn on<S: Send + Sync + 'static, T: Send + 'static>(
    server: &Arc<S>,
    action: impl FnOnce(&S) -> Result<T, test_servers::Error> + Send + 'static,
) -> T {
    let server = server.clone();
    spawn_blocking(move || action(&server)).await.unwrap().unwrap()
}

/// A table and a stream from its beginning.
struct Following<D: Backend> {
    table: EventsTable<D>,
    metrics: EventsTableMetrics,
    stream: BoxEventStream,
}

impl<D: Backend> Following<D> {
    async fn start(pool: &Pool<D>) -> Self {
        let metrics = metrics();
        let options = EventsTableOptions::new("events").poll_interval(Duration::from_millis(10)).metrics(&metrics);
        let table = EventsTable::open(pool, options).await.unwrap();
        let stream = table.open_stream(StreamOptions::new()).await.unwrap().events;
        Self { table, metrics: metrics.events_table("events"), stream }
    }

    /// Opens the stream again, which takes until the server is back.
    async fn again(&mut self) {
        self.stream = self.table.open_stream(StreamOptions::new()).await.unwrap().events;
    }

    async fn next(&mut self) -> i64 {
        let event = timeout(PATIENCE, self.stream.next()).await.expect("nothing holds the stream back");
        event.unwrap().unwrap().id_as_i64().unwrap()
    }

    /// Sees to it that nothing comes while the reader looks a good number of times.
    async fn waits(&mut self) {
        let enough = self.metrics.polls.get() + LOOKS;
        let polls = self.metrics.polls.clone();
        select! {
            item = self.stream.next() => panic!("the stream yielded {item:?} where it has to wait"),
            () = eventually("the reader to look", PATIENCE, || async { polls.get() >= enough }) => {}
        }
    }

    async fn fails(&mut self) -> reflex_core::Error {
        match timeout(PATIENCE, self.stream.next()).await {
            Ok(Some(Err(error))) => error,
            item => panic!("the stream yielded {item:?} where it has to fail"),
        }
    }
}

/// Runs statements in one session, which ends.
async fn session<D: Backend>(pool: &Pool<D>, statements: &[&str]) {
    let mut conn = D::connect(pool).await.unwrap();
    for statement in statements {
        D::run_sql(&mut conn, (*statement).to_owned()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Checks that the table cannot be opened, and that the message has all of `words`.
async fn refused<D: Backend>(pool: &Pool<D>, options: EventsTableOptions, words: &[&str]) {
    let error = EventsTable::open(pool, options).await.expect_err("the table cannot be read safely");
    assert!(error.is_unsafe(), "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "no `{word}` in: {error}");
    }
}

/// The whole message of an error.
fn message(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", message(source)),
        None => error.to_string(),
    }
}

/// Reads events that a restart kept, and one that comes after it.
async fn goes_on<D: Backend>(following: &mut Following<D>, pool: &Pool<D>, kept: i64) {
    for id in 1..=kept {
        assert_eq!(following.next().await, id);
    }
    run(pool, ONE).await;
    assert!(following.next().await > kept);
}
