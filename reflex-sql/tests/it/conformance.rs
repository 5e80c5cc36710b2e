//! Every obligation of a source, of a cursor store and of a store of dead letters, on every database.

use std::time::Duration;

use reflex_sql::{CursorsTable, EventsTableOptions, GapMode};
use reflex_testing::conformance::{
    CursorCapabilities, DeadLetterCapabilities, StreamCapabilities, cursor_store, dead_letters, stream_func,
};
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    database::{Backend, Events, with_tables},
    letters::{self, Letters},
};

/// Sources that do not share the writer's process learn of events by polling.
fn options() -> EventsTableOptions {
    EventsTableOptions::new("events").poll_interval(Duration::from_millis(20))
}

/// Integer cursors only: text ones need another column type.
fn integers() -> CursorCapabilities {
    CursorCapabilities { text: false, ..CursorCapabilities::default() }
}

#[tokio::test]
async fn sqlite_streams() {
    let factory = |_case| async { Events::<Sqlite>::new(with_tables().await?, options()).await };
    stream_func(factory, StreamCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_streams() {
    let factory = |_case| async { Events::<Postgres>::new(with_tables().await?, options()).await };
    stream_func(factory, StreamCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_streams() {
    for mode in [GapMode::MetadataLocks, GapMode::Noop] {
        let factory = |_case| async move { Events::<MySql>::new(with_tables().await?, options().gap_mode(mode)).await };
        stream_func(factory, StreamCapabilities::default()).await;
    }
}

macro_rules! cursors {
    ($database:ty, $cursor_type:expr) => {
        |_case| async {
            let namespace = with_tables::<$database>().await?;
            if let Some(sql) = $cursor_type {
                <$database>::execute(&namespace.pool, sql).await?;
            }
            Ok(move || {
                let pool = namespace.pool.clone();
                let _ = &namespace;
                async move { Ok(CursorsTable::open(&pool, "cursors").await?) }
            })
        }
    };
}

#[tokio::test]
async fn sqlite_cursors() {
    cursor_store(cursors!(Sqlite, None), integers()).await;
}

#[tokio::test]
async fn sqlite_text_cursors() {
    let text = "drop table cursors; create table cursors (id text primary key, last_event_id text, updated_at text)";
    cursor_store(cursors!(Sqlite, Some(text)), CursorCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_cursors() {
    cursor_store(cursors!(Postgres, None), integers()).await;
    let text = "alter table cursors alter column last_event_id type text";
    cursor_store(cursors!(Postgres, Some(text)), CursorCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_cursors() {
    let exact_names = false;
    cursor_store(cursors!(MySql, None), CursorCapabilities { exact_names, ..integers() }).await;
    let text = "alter table cursors modify last_event_id varchar(255) not null";
    cursor_store(cursors!(MySql, Some(text)), CursorCapabilities { exact_names, ..CursorCapabilities::default() })
        .await;
}

#[tokio::test]
async fn sqlite_dead_letters() {
    let factory = |_case, bound| Letters::<Sqlite>::new(letters::options().max_open(bound));
    dead_letters(factory, DeadLetterCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_dead_letters() {
    let factory = |_case, bound| Letters::<Postgres>::new(letters::options().max_open(bound));
    dead_letters(factory, DeadLetterCapabilities::default()).await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_dead_letters() {
    let factory = |_case, bound| Letters::<MySql>::new(letters::options().max_open(bound));
    dead_letters(factory, DeadLetterCapabilities { exact_names: false, ..DeadLetterCapabilities::default() }).await;
}
