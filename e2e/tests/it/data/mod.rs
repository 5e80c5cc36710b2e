//! Data that no reader would wish for. Each is delivered as it is, or refused by an error that says what is wrong; none is
//! passed over in silence.

mod columns;
mod cursors;
mod ids;
mod many;
mod sizes;

use std::error::Error as _;

use futures_util::StreamExt;
use reflex_core::{Event, StreamOptions};
use reflex_e2e::Backend;
use reflex_sql::{EventsTable, EventsTableOptions};
use sqlx::Pool;
use tokio::time::timeout;

use crate::support::{PATIENCE, metrics, run};

/// Makes a test of each generic function on each database that is named, in a database of its own.
macro_rules! on {
    (each: $($name:ident),* $(,)?) => {
        $(mod $name {
            $crate::data::on!(@sqlite $name);
            $crate::data::on!(@postgres $name);
            $crate::data::on!(@mariadb $name);
        })*
    };
    (@sqlite $name:ident) => {
        #[tokio::test]
        async fn sqlite() {
            let namespace = $crate::support::Namespace::sqlite().await;
            Box::pin(super::$name(&namespace.pool)).await;
            namespace.remove().await;
        }
    };
    (@postgres $name:ident) => {
        #[tokio::test]
        #[ignore = "needs Postgres: cargo xtask test"]
        async fn postgres() {
            let namespace = $crate::support::Namespace::postgres($crate::data::short(stringify!($name))).await;
            Box::pin(super::$name(&namespace.pool)).await;
            namespace.remove().await;
        }
    };
    (@mariadb $name:ident) => {
        #[tokio::test]
        #[ignore = "needs MariaDB: cargo xtask test"]
        async fn mariadb() {
            let namespace = $crate::support::Namespace::mariadb($crate::data::short(stringify!($name))).await;
            Box::pin(super::$name(&namespace.pool)).await;
            namespace.remove().await;
        }
    };
}

use on;

/// A part of a test's name that fits into the name of a database.
fn short(test: &'static str) -> &'static str {
    &test[..test.len().min(40)]
}

/// The name of a database, for statements that differ.
fn dialect<D: Backend>() -> &'static str {
    <D as sqlx::Database>::NAME
}

fn options() -> EventsTableOptions {
    EventsTableOptions::new("events").metrics(&metrics())
}

async fn open<D: Backend>(pool: &Pool<D>) -> EventsTable<D> {
    EventsTable::open(pool, options()).await.unwrap()
}

/// Everything after `position` up to the head, or up to the error that is there.
async fn read<D: Backend>(table: &EventsTable<D>, position: i64) -> (Vec<Event>, reflex_core::Error) {
    let options = StreamOptions::new().after(position).to_head();
    let mut stream = table.open_stream(options).await.unwrap().events;
    let mut events = Vec::new();
    loop {
        match timeout(PATIENCE, stream.next()).await.expect("the stream goes on or says why not") {
            Some(Ok(event)) => events.push(event),
            Some(Err(error)) => return (events, error),
            None => panic!("the stream ended without an error"),
        }
    }
}

/// Everything that the table has, which must be good.
async fn read_all<D: Backend>(pool: &Pool<D>) -> Vec<Event> {
    let (events, end) = read(&open(pool).await, 0).await;
    assert!(end.is_head_reached(), "{}", message(&end));
    events
}

/// Checks that the event with this id is refused, for a reason with all of `words`, and that all before it is delivered and
/// nothing after it. Once it is gone, so is the error.
async fn refused<D: Backend>(pool: &Pool<D>, id: i64, words: &[&str]) {
    let before = D::number(pool, &format!("select count(*) from events where id < {id}")).await.unwrap();
    let (events, error) = read_up_to_refused(pool, id, words).await;
    assert_eq!(events.len() as i64, before);
    assert_eq!(error.event_id(), Some(&id.into()), "{error}");
}

/// What is delivered before an event that is refused for a reason with all of `words`, and that reason.
async fn read_up_to_refused<D: Backend>(pool: &Pool<D>, id: i64, words: &[&str]) -> (Vec<Event>, reflex_core::Error) {
    let (events, error) = read(&open(pool).await, 0).await;
    let message = message(&error);
    assert!(!error.is_head_reached() && !error.is_expected(), "{message}");
    assert!(events.iter().all(|event| event.id_as_i64().unwrap() < id), "event {id} was passed over: {events:?}");
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    run(pool, &format!("delete from events where id = {id}")).await;
    let left = D::number(pool, "select count(*) from events").await.unwrap();
    assert_eq!(read_all(pool).await.len() as i64, left);
    (events, error)
}

async fn add<D: Backend>(pool: &Pool<D>, count: usize) {
    let rows = vec!["('thing', 1)"; count].join(", ");
    run(pool, &format!("insert into events (foreign_id, type) values {rows}")).await;
}

fn ids(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.id_as_i64().unwrap()).collect()
}

/// The whole message of an error.
fn message(error: &reflex_core::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
