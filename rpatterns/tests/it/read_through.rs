//! Read-through cursors: which store is read, and which is written.

use reflex_core::{Cursor, CursorStore, Error, MemoryCursors, Operation, Result, Spec, run};
use reflex_testing::ScriptedConsumer;
use rpatterns::read_through;

use crate::support::{filled, stored};

async fn with(consumer: &str, cursor: i64) -> MemoryCursors {
    let cursors = MemoryCursors::new();
    cursors.set(consumer, &cursor.into()).await.unwrap();
    cursors
}

#[tokio::test]
async fn a_cursor_of_the_fallback_is_where_the_consumer_starts_and_moves_to_the_primary() {
    let (primary, fallback) = (MemoryCursors::new(), with("billing", 2).await);
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let cursors = read_through(primary.clone(), fallback.clone());
    assert!(run(&mut Spec::new(filled(4), cursors, consumer).to_head()).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [3, 4]);
    assert_eq!((stored(&primary, "billing"), stored(&fallback, "billing")), (Some(4), Some(2)));
}

#[tokio::test]
async fn what_is_found_in_the_fallback_is_stored_in_the_primary_at_once() {
    let (primary, fallback) = (MemoryCursors::new(), with("billing", 2).await);
    assert_eq!(read_through(primary.clone(), fallback).get("billing").await.unwrap(), Some(2.into()));
    assert_eq!(stored(&primary, "billing"), Some(2));
}

#[tokio::test]
async fn the_primary_comes_first_and_neither_is_an_answer_too() {
    let cursors = read_through(with("billing", 5).await, with("billing", 9).await);
    assert_eq!(cursors.get("billing").await.unwrap(), Some(5.into()));
    assert_eq!(cursors.get("other").await.unwrap(), None);
}

#[tokio::test]
async fn a_failure_of_either_is_the_error() {
    for (failing, primary) in [(true, "primary"), (false, "fallback")] {
        let (first, second) = (MemoryCursors::new(), MemoryCursors::new());
        let broken = if failing { &first } else { &second };
        broken.fail_next(Operation::Get, Error::store(primary, "connection refused"));
        let error = read_through(first, second).get("billing").await.unwrap_err();
        assert_eq!(error.to_string(), primary);
    }
    let (first, second) = (MemoryCursors::new(), with("billing", 2).await);
    first.fail_next(Operation::Set, Error::store("copy", "connection refused"));
    assert_eq!(read_through(first, second).get("billing").await.unwrap_err().to_string(), "copy");
}

#[tokio::test]
async fn flush_reaches_the_primary() {
    let primary = MemoryCursors::new();
    primary.fail_next(Operation::Flush, Error::store("flush", "connection refused"));
    assert!(read_through(primary, MemoryCursors::new()).flush().await.is_err());
}

/// A fallback while whose answer is on its way somebody else stores a cursor in the primary.
struct Slow {
    primary: MemoryCursors,
    stores: i64,
}

impl CursorStore for Slow {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.primary.set(consumer, &self.stores.into()).await?;
        Ok(Some(2.into()))
    }

    async fn set(&self, _consumer: &str, _cursor: &Cursor) -> Result<()> {
        unreachable!("nothing writes to the fallback")
    }
}

#[tokio::test]
async fn a_cursor_that_somebody_stored_in_the_meantime_counts() {
    for stores in [2, 7] {
        let primary = MemoryCursors::new();
        let cursors = read_through(primary.clone(), Slow { primary, stores });
        assert_eq!(cursors.get("billing").await.unwrap(), Some(stores.into()));
    }
}
