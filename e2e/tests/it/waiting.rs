//! Who holds a stream back: a transaction that has an id of this table, and no other. The log names it.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, StreamOptions};
use reflex_e2e::Backend;
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::eventually;
use sqlx::Pool;
use tokio::{select, time::timeout};
use tracing::{Dispatch, subscriber::NoSubscriber};

use crate::support::{Namespace, PATIENCE, run};

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn only_a_holder_of_ids_delays_a_postgres_stream_and_the_log_names_it() {
    let namespace = Namespace::postgres("waiting").await;
    holder_is_named(&namespace.pool, "select pg_backend_pid()::bigint", "pid").await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn only_a_holder_of_ids_delays_a_mariadb_stream_and_the_log_names_it() {
    let namespace = Namespace::mariadb("waiting").await;
    holder_is_named(&namespace.pool, "select cast(connection_id() as signed)", "session").await;
    namespace.remove().await;
}

/// `session` is the query for a session's id, which the log shows after `prefix`.
async fn holder_is_named<D: Backend>(pool: &Pool<D>, session: &str, prefix: &str) {
    let log = Log::default();
    let _capturing = log.capture();
    let options = EventsTableOptions::new("events").poll_interval(Duration::from_millis(100));
    let table = EventsTable::<D>::open(pool, options).await.unwrap();
    let mut stream = table.open_stream(StreamOptions::new()).await.unwrap().events;
    run(pool, "create table other (value int)").await;

    let mut elsewhere = Transaction::begin(pool).await;
    elsewhere.execute("insert into other values (1)").await;
    leave_a_gap(pool).await;
    run(pool, "insert into events (foreign_id, type) values ('a', 1)").await;
    assert_eq!(next(&mut stream).await, "a");

    let mut holder = Transaction::begin(pool).await;
    holder.execute("insert into events (foreign_id, type) values ('held', 1)").await;
    run(pool, "insert into events (foreign_id, type) values ('b', 1)").await;
    let named = format!("{prefix} {},", holder.number(session).await);
    select! {
        event = stream.next() => panic!("the held id was passed over: {event:?}"),
        () = eventually("a warning", PATIENCE, || async { log.text().contains(&named) }) => {}
    }
    let warning = log.text();
    assert!(warning.contains("WARN") && warning.contains("waits for ids"), "{warning}");
    let innocent = format!("{prefix} {},", elsewhere.number(session).await);
    assert!(!warning.contains(&innocent), "{innocent} is named: {warning}");

    holder.execute("commit").await;
    assert_eq!(next(&mut stream).await, "held");
    assert_eq!(next(&mut stream).await, "b");
    elsewhere.execute("rollback").await;
}

async fn leave_a_gap<D: Backend>(pool: &Pool<D>) {
    let mut gap = Transaction::begin(pool).await;
    gap.execute("insert into events (foreign_id, type) values ('nothing', 1)").await;
    gap.execute("rollback").await;
}

async fn next(stream: &mut BoxEventStream) -> String {
    let event = timeout(PATIENCE, stream.next()).await.expect("nothing holds the stream back");
    event.unwrap().unwrap().foreign_id().to_owned()
}

/// A transaction in a session of its own.
struct Transaction<D: Backend>(D::Connection);

impl<D: Backend> Transaction<D> {
    async fn begin(pool: &Pool<D>) -> Self {
        let mut transaction = Self(D::connect(pool).await.unwrap());
        transaction.execute(D::BEGIN).await;
        transaction
    }

    async fn execute(&mut self, sql: &str) {
        D::run_sql(&mut self.0, sql.to_owned()).await.unwrap();
    }

    async fn number(&mut self, sql: &str) -> i64 {
        D::rows(&mut self.0, sql.to_owned()).await.unwrap()[0].0
    }
}

/// What this thread's tasks log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        // With one subscriber in the process, a thread without it that comes to a place first switches it off for all.
        static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
        LazyLock::force(&ANOTHER);
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
