//! Buffered cursors are written by count, by time and on flush, and no error is lost.

use std::time::Duration;

use reflex_core::{BufferedCursors, CursorStore, Error, MemoryCursors, Operation};
use tokio::time::advance;

use crate::support::{Asked, SlowStore, stored};

#[tokio::test(start_paused = true)]
async fn by_count() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone()).max_sets(3);
    let mut written = Vec::new();
    for id in 1..=7i64 {
        buffered.set("billing", &id.into()).await.unwrap();
        written.push(stored(&cursors, "billing"));
    }
    assert_eq!(written, [None, None, Some(3), Some(3), Some(3), Some(6), Some(6)]);
}

#[tokio::test(start_paused = true)]
async fn by_the_default_count() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    for id in 1..=25_000i64 {
        buffered.set("billing", &id.into()).await.unwrap();
    }
    assert_eq!(stored(&cursors, "billing"), Some(20_000));
}

#[tokio::test(start_paused = true)]
async fn by_time() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    let mut written = Vec::new();
    for id in 1..=14i64 {
        buffered.set("billing", &id.into()).await.unwrap();
        written.push(stored(&cursors, "billing"));
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(written[..5], [None; 5]);
    assert_eq!(written[5..10], [Some(6); 5]);
    assert_eq!(written[10..], [Some(11); 4]);
}

#[tokio::test(start_paused = true)]
async fn by_time_soon_after_quick_sets() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    for id in 1..=100i64 {
        buffered.set("billing", &id.into()).await.unwrap();
    }
    for id in 101..=109i64 {
        advance(Duration::from_secs(60)).await;
        buffered.set("billing", &id.into()).await.unwrap();
    }
    let written = stored(&cursors, "billing");
    assert!(written >= Some(101), "{written:?}");
    advance(Duration::from_secs(60)).await;
    buffered.set("billing", &110.into()).await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(110));
}

#[tokio::test]
async fn each_consumer_has_a_count_of_its_own() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone()).max_sets(2);
    buffered.set("billing", &1.into()).await.unwrap();
    buffered.set("shipping", &7.into()).await.unwrap();
    assert!(cursors.all().is_empty());
    buffered.set("billing", &2.into()).await.unwrap();
    assert_eq!((stored(&cursors, "billing"), stored(&cursors, "shipping")), (Some(2), None));
    buffered.flush().await.unwrap();
    assert_eq!((stored(&cursors, "billing"), stored(&cursors, "shipping")), (Some(2), Some(7)));
}

#[tokio::test]
async fn the_set_that_is_due_returns_the_error_and_the_next_one_tries_again() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone()).max_sets(2);
    cursors.fail_next(Operation::Set, Error::store("set cursor", "connection reset"));
    buffered.set("billing", &1.into()).await.unwrap();
    let error = buffered.set("billing", &2.into()).await.unwrap_err();
    assert!(error.to_string().contains("set cursor"), "{error}");
    assert_eq!(stored(&cursors, "billing"), None);
    buffered.set("billing", &3.into()).await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(3));
}

#[tokio::test]
async fn a_flush_that_failed_can_be_repeated_and_reaches_the_store_inside() {
    let cursors = MemoryCursors::new();
    let store = SlowStore::new(cursors.clone());
    let buffered = BufferedCursors::new(store.clone());
    buffered.set("billing", &1.into()).await.unwrap();
    cursors.fail_next(Operation::Set, Error::store("set cursor", "connection reset"));
    assert!(buffered.flush().await.is_err());
    buffered.flush().await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(1));
    buffered.flush().await.unwrap();
    let log = [Asked::Set(1.into()), Asked::Flush, Asked::Set(1.into()), Asked::Flush, Asked::Flush];
    assert_eq!(store.log(), log);
}

#[tokio::test]
async fn all_cursors_are_tried_when_one_cannot_be_written() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    for consumer in ["a", "b", "c"] {
        buffered.set(consumer, &1.into()).await.unwrap();
    }
    cursors.fail_next(Operation::Set, Error::store("set cursor", "connection reset"));
    assert!(buffered.flush().await.is_err());
    assert_eq!(cursors.all().len(), 2);
}

/// The answer to the first write was lost.
#[tokio::test]
async fn a_cursor_that_is_stored_already_is_written() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    buffered.set("billing", &5.into()).await.unwrap();
    cursors.set("billing", &5.into()).await.unwrap();
    buffered.flush().await.unwrap();
    buffered.set("billing", &6.into()).await.unwrap();
    buffered.flush().await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(6));
}

#[tokio::test]
async fn a_store_that_is_ahead_is_an_error_and_the_buffer_is_given_up() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    buffered.set("billing", &5.into()).await.unwrap();
    cursors.set("billing", &9.into()).await.unwrap();
    assert!(buffered.flush().await.unwrap_err().is_cursor_backwards());
    assert_eq!(buffered.get("billing").await.unwrap(), Some(9.into()));
    buffered.flush().await.unwrap();
    buffered.set("billing", &10.into()).await.unwrap();
    buffered.flush().await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(10));
}

#[tokio::test]
async fn backwards_is_told_by_the_set_itself() {
    let buffered = BufferedCursors::new(MemoryCursors::new());
    buffered.set("billing", &5.into()).await.unwrap();
    assert!(buffered.set("billing", &4.into()).await.unwrap_err().is_cursor_backwards());
    assert!(buffered.set("billing", &5.into()).await.unwrap_err().is_cursor_unchanged());
    buffered.set("billing", &6.into()).await.unwrap();
}

#[tokio::test]
async fn get_sees_what_is_delayed() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    buffered.set("billing", &5.into()).await.unwrap();
    assert_eq!(buffered.get("billing").await.unwrap(), Some(5.into()));
    assert_eq!(stored(&cursors, "billing"), Some(5));
}

/// It sees what another process wrote meanwhile, too.
#[tokio::test]
async fn get_reads_the_store() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(cursors.clone());
    buffered.set("billing", &5.into()).await.unwrap();
    buffered.flush().await.unwrap();
    cursors.set("billing", &9.into()).await.unwrap();
    assert_eq!(buffered.get("billing").await.unwrap(), Some(9.into()));
    buffered.set("billing", &10.into()).await.unwrap();
}

#[tokio::test]
async fn a_cursor_that_is_set_during_a_write_stays_delayed() {
    let cursors = MemoryCursors::new();
    let buffered = BufferedCursors::new(SlowStore::new(cursors.clone()));
    buffered.set("billing", &1.into()).await.unwrap();
    let (flushed, set) = futures_util::future::join(buffered.flush(), buffered.set("billing", &2.into())).await;
    flushed.and(set).unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(1));
    buffered.flush().await.unwrap();
    assert_eq!(stored(&cursors, "billing"), Some(2));
}
