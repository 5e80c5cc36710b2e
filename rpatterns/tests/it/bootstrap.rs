//! Bootstrap: at the head without a cursor, after it with one.

use std::future::ready;

use reflex_core::{MemoryCursors, Spec, run, run_until};
use reflex_testing::ScriptedConsumer;
use rpatterns::bootstrap;

use crate::support::{append, filled, stored};

#[tokio::test]
async fn starts_at_the_head_without_a_cursor_and_stores_the_position_at_once() {
    let (events, cursors) = (filled(3), MemoryCursors::new());
    let consumer = ScriptedConsumer::new("welcome");
    let calls = consumer.calls();
    let mut spec = Spec::new(bootstrap(events.clone()), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert!(calls.consumed_ids().is_empty());
    assert_eq!(stored(&cursors, "welcome"), Some(3));

    append(&events, 2);
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [4, 5], "events from between two runs are not missed");
}

#[tokio::test]
async fn goes_on_after_a_cursor_that_is_there() {
    let cursors = MemoryCursors::new();
    reflex_core::CursorStore::set(&cursors, "welcome", &1.into()).await.unwrap();
    let consumer = ScriptedConsumer::new("welcome");
    let calls = consumer.calls();
    let mut spec = Spec::new(bootstrap(filled(3)), cursors, consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [2, 3]);
}

#[tokio::test]
async fn a_run_that_is_stopped_before_it_has_begun_stores_nothing() {
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(bootstrap(filled(3)), cursors.clone(), ScriptedConsumer::new("welcome"));
    assert!(run_until(&mut spec, ready(())).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "welcome"), None);
}

#[tokio::test]
async fn each_consumer_starts_by_its_own_cursor() {
    let (events, cursors) = (filled(2), MemoryCursors::new());
    reflex_core::CursorStore::set(&cursors, "old", &1.into()).await.unwrap();
    for (name, expected) in [("old", vec![2]), ("young", vec![])] {
        let consumer = ScriptedConsumer::new(name);
        let calls = consumer.calls();
        let mut spec = Spec::new(bootstrap(events.clone()), cursors.clone(), consumer).to_head();
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(calls.consumed_ids(), expected);
    }
}
