//! A table under test, sessions that write to it with plain SQL, and streams that are watched.

use std::{error::Error as _, time::Duration};

use futures_util::StreamExt;
use prometheus::Registry;
use reflex_core::{BoxEventStream, Cursor, Event, EventsTableMetrics, Metrics, NewEvent, StreamOptions};
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::eventually;
use sqlx::pool::PoolConnection;
use tokio::{select, time::timeout};

use crate::database::{Backend, Namespace, Result, with_tables};

/// How long to wait for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// So many looks at the table by its reader must not make a stream deliver what it has to hold back.
const LOOKS: u64 = 12;

/// An events table in a namespace of its own, with metrics of its own.
pub(crate) struct Bench<D: Backend> {
    pub(crate) namespace: Namespace<D>,
    pub(crate) table: EventsTable<D>,
    pub(crate) metrics: EventsTableMetrics,
    pub(crate) registry: Registry,
    pub(crate) options: EventsTableOptions,
}

/// Looks at the table often, so that tests need not wake it.
pub(crate) fn options() -> EventsTableOptions {
    EventsTableOptions::new("events").poll_interval(Duration::from_millis(10))
}

impl<D: Backend> Bench<D> {
    /// With tables of ours.
    pub(crate) async fn new() -> Result<Self> {
        Self::with(options()).await
    }

    /// With tables of ours, read in another way.
    pub(crate) async fn with(options: EventsTableOptions) -> Result<Self> {
        Self::open(with_tables().await?, options).await
    }

    /// With what these statements make.
    pub(crate) async fn made_by(statements: &str) -> Result<Self> {
        let namespace = D::namespace().await?;
        D::execute(&namespace.pool, statements).await?;
        Self::open(namespace, options()).await
    }

    pub(crate) async fn open(namespace: Namespace<D>, options: EventsTableOptions) -> Result<Self> {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry)?;
        let options = options.metrics(&metrics);
        let table = EventsTable::open(&namespace.pool, options.clone()).await?;
        let metrics = metrics.events_table(&table.name());
        Ok(Self { namespace, table, metrics, registry, options })
    }

    /// Another handle on the same table, with a reader of its own.
    pub(crate) async fn reopen(&self) -> reflex_sql::Result<EventsTable<D>> {
        EventsTable::open(&self.namespace.pool, self.options.clone()).await
    }

    pub(crate) async fn session(&self) -> Result<Session<D>> {
        Ok(Session { conn: self.namespace.pool.acquire().await? })
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        D::execute(&self.namespace.pool, sql).await
    }

    /// Inserts one event with plain SQL and commits it.
    pub(crate) async fn add(&self, foreign_id: &str) -> Result<()> {
        self.execute(&insert(foreign_id)).await
    }

    /// Inserts numbered events through the library.
    pub(crate) async fn append(&self, count: usize) -> Result<()> {
        let events = (1..=count).map(|number| NewEvent::new(format!("event-{number}"), 1)).collect();
        <D as Backend>::insert(&self.namespace.pool, &self.table, events).await
    }

    pub(crate) async fn read(&self, options: StreamOptions) -> Result<Reader> {
        Reader::open(&self.table, options, self.metrics.clone()).await
    }

    pub(crate) async fn follow(&self) -> Result<Reader> {
        self.read(StreamOptions::new()).await
    }
}

/// A plain insert of one event.
pub(crate) fn insert(foreign_id: &str) -> String {
    format!("insert into events (foreign_id, type) values ('{foreign_id}', 1)")
}

/// A session of a service that writes plain SQL.
pub(crate) struct Session<D: Backend> {
    conn: PoolConnection<D>,
}

impl<D: Backend> Session<D> {
    pub(crate) async fn run(&mut self, sql: &str) -> Result<()> {
        D::run(&mut self.conn, sql).await
    }

    /// Begins a transaction and inserts one event.
    pub(crate) async fn hold(&mut self, foreign_id: &str) -> Result<()> {
        self.run(D::BEGIN).await?;
        self.run(&insert(foreign_id)).await
    }

    pub(crate) async fn number(&mut self, sql: &str) -> Result<i64> {
        D::number(&mut self.conn, sql).await
    }

    /// Ends the session, rolling back what is open.
    pub(crate) fn disconnect(self) {
        drop(self.conn.detach());
    }
}

/// An open stream.
pub(crate) struct Reader {
    pub(crate) stream: BoxEventStream,
    pub(crate) position: Option<Cursor>,
    metrics: EventsTableMetrics,
}

impl Reader {
    pub(crate) async fn open<D: Backend>(
        table: &EventsTable<D>,
        options: StreamOptions,
        metrics: EventsTableMetrics,
    ) -> Result<Self> {
        let opened = table.open_stream(options).await?;
        Ok(Self { stream: opened.events, position: opened.position, metrics })
    }

    pub(crate) async fn next(&mut self) -> Event {
        match timeout(PATIENCE, self.stream.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => panic!("the stream failed: {}", with_causes(&error)),
            Ok(None) => panic!("the stream ended without an error"),
            Err(_) => panic!("the stream delivered nothing for {PATIENCE:?}"),
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        for _ in 0..count {
            events.push(self.next().await);
        }
        events
    }

    /// The ids of the next events.
    pub(crate) async fn ids(&mut self, count: usize) -> Vec<i64> {
        self.take(count).await.iter().filter_map(|event| event.id().as_i64()).collect()
    }

    /// The foreign ids of the next events.
    pub(crate) async fn names(&mut self, count: usize) -> Vec<String> {
        self.take(count).await.iter().map(|event| event.foreign_id().to_owned()).collect()
    }

    /// Sees to it that nothing is delivered while the table's reader looks a good number of times.
    pub(crate) async fn waits(&mut self) {
        let enough = self.metrics.polls.get() + LOOKS;
        let polls = self.metrics.polls.clone();
        select! {
            item = self.stream.next() => panic!("the stream delivered {item:?} where it has to wait"),
            () = eventually("the reader to look at the table", PATIENCE, || async { polls.get() >= enough }) => {}
        }
    }

    /// The error that the stream ends with.
    pub(crate) async fn fails(&mut self) -> reflex_core::Error {
        match timeout(PATIENCE, self.stream.next()).await {
            Ok(Some(Err(error))) => error,
            Ok(item) => panic!("the stream yielded {item:?} where it has to fail"),
            Err(_) => panic!("the stream said nothing for {PATIENCE:?} where it has to fail"),
        }
    }
}

/// This crate's error behind that of a stream or a store.
pub(crate) fn cause(error: &reflex_core::Error) -> &reflex_sql::Error {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("no error of this crate is behind {error:?}"))
}

/// The whole message, as an operator reads it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Makes a test of each generic function on each database that is named: `gaps::rollbacks::sqlite`.
macro_rules! on {
    (each: $($name:ident),* $(,)?) => {
        $(mod $name {
            $crate::bench::on!(@sqlite $name);
            $crate::bench::on!(@postgres $name);
            $crate::bench::on!(@mariadb $name);
        })*
    };
    (servers: $($name:ident),* $(,)?) => {
        $(mod $name {
            $crate::bench::on!(@postgres $name);
            $crate::bench::on!(@mariadb $name);
        })*
    };
    (@sqlite $name:ident) => {
        #[tokio::test]
        async fn sqlite() -> $crate::database::Result<()> {
            super::$name::<sqlx::Sqlite>().await
        }
    };
    (@postgres $name:ident) => {
        #[tokio::test]
        #[ignore = "needs Postgres: cargo xtask test"]
        async fn postgres() -> $crate::database::Result<()> {
            super::$name::<sqlx::Postgres>().await
        }
    };
    (@mariadb $name:ident) => {
        #[tokio::test]
        #[ignore = "needs MariaDB: cargo xtask test"]
        async fn mariadb() -> $crate::database::Result<()> {
            super::$name::<sqlx::MySql>().await
        }
    };
}

pub(crate) use on;
