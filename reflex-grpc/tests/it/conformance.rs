//! Every obligation of a source, kept by one that is read over gRPC.

use std::time::Duration;

use reflex_core::{HandlerError, MemoryEvents, NewEvent};
use reflex_grpc::reflexpb::reflex_client::ReflexClient;
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::conformance::{StreamCapabilities, StreamHarness, stream_func};
use sqlx::{
    SqlitePool,
    sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode},
};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::loopback::Loopback;

type Outcome<T = ()> = Result<T, HandlerError>;

struct Memory {
    events: MemoryEvents,
    loopback: Loopback,
}

impl StreamHarness for Memory {
    type Source = ReflexClient<Channel>;

    async fn source(&self) -> Outcome<Self::Source> {
        Ok(self.loopback.client())
    }

    async fn append(&self, event: NewEvent) -> Outcome {
        self.events.append(event);
        Ok(())
    }

    async fn append_placeholder(&self) -> Outcome {
        self.append(NewEvent::new(0, 0)).await
    }
}

#[tokio::test]
async fn events_in_memory() {
    let factory = |_case| async {
        let events = MemoryEvents::new();
        Ok(Memory { loopback: Loopback::of(events.clone()).await, events })
    };
    stream_func(factory, StreamCapabilities::default()).await;
}

struct Table {
    pool: SqlitePool,
    events: EventsTable<Sqlite>,
    loopback: Loopback,
    _folder: TempDir,
}

impl Table {
    async fn new() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("events.sqlite");
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?;
        reflex_migrations::up(&pool).await?;
        let options = EventsTableOptions::new("events").poll_interval(Duration::from_millis(20));
        let events = EventsTable::open(&pool, options).await?;
        Ok(Self { loopback: Loopback::of(events.clone()).await, pool, events, _folder: folder })
    }
}

impl StreamHarness for Table {
    type Source = ReflexClient<Channel>;

    async fn source(&self) -> Outcome<Self::Source> {
        Ok(self.loopback.client())
    }

    async fn append(&self, event: NewEvent) -> Outcome {
        self.append_all(vec![event]).await
    }

    async fn append_all(&self, events: Vec<NewEvent>) -> Outcome {
        let mut tx = self.pool.begin().await?;
        let notify = self.events.insert_all(&mut tx, events).await?;
        tx.commit().await?;
        notify.send();
        Ok(())
    }

    async fn append_placeholder(&self) -> Outcome {
        let insert = sqlx::query("insert into events (foreign_id, type) values ('0', 0)");
        insert.execute(&self.pool).await?;
        Ok(())
    }
}

/// Client and server are on one thread here: neither can block it without waiting for the other for ever.
#[tokio::test]
async fn an_events_table() {
    stream_func(|_case| Table::new(), StreamCapabilities::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_table_on_several_threads() {
    stream_func(|_case| Table::new(), StreamCapabilities::default()).await;
}
