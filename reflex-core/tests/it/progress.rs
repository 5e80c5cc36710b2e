//! The cursor moves as far as the consumer says, and its own timers and tasks are looked after.

use reflex_core::{MemoryCursors, Progress, Spec, run, run_until};
use reflex_testing::{Call, ScriptedConsumer, Step};

use crate::support::{Asked, DEADLINE, Scrape, SlowStore, filled, stored};

fn sets(store: &SlowStore<MemoryCursors>) -> Vec<Asked> {
    store.log().into_iter().filter(|asked| matches!(asked, Asked::Set(_))).collect()
}

#[tokio::test]
async fn pending_leaves_the_cursor_and_up_to_moves_it() {
    let (store, scrape) = (SlowStore::new(MemoryCursors::new()), Scrape::new());
    let consumer = ScriptedConsumer::new("batch")
        .at(0, Progress::Pending)
        .at(1, Progress::Pending)
        .at(2, Progress::UpTo(2.into()))
        .at(3, Progress::Skipped)
        .at(4, Progress::Pending);
    let mut spec = Spec::new(filled(5), store.clone(), consumer).metrics(&scrape.metrics).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(sets(&store), [Asked::Set(2.into()), Asked::Set(4.into())]);
    assert_eq!(scrape.consumer("reflex_consumer_skipped_events_count", "batch"), Some(1.0));
}

#[tokio::test]
async fn what_is_pending_comes_again() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(1, Progress::Pending).at(2, Progress::Pending);
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(stored(&cursors, "batch"), Some(1));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3, 2, 3]);
    assert_eq!(stored(&cursors, "batch"), Some(3));
}

#[tokio::test]
async fn advance_moves_the_cursor_while_idle() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending).on_advance(Progress::UpTo(1.into()));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), cursors.clone(), consumer);
    let shutdown = async {
        calls.await_consumed(1, DEADLINE).await;
        calls.wake();
        reflex_testing::await_cursor(&cursors, "batch", 1, DEADLINE).await.unwrap();
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(calls.count(&Call::Advance), 1);
}

#[tokio::test]
async fn advance_that_fails_ends_an_idle_run_at_once() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending).on_advance(Step::fail("the batch failed"));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), cursors.clone(), consumer);
    let wake = async {
        calls.await_consumed(1, DEADLINE).await;
        calls.wake();
        std::future::pending().await
    };
    let error = tokio::time::timeout(DEADLINE, run_until(&mut spec, wake)).await.unwrap().unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the batch failed");
    assert_eq!(error.consumer(), Some("batch"));
    assert_eq!(stored(&cursors, "batch"), None);
    assert_eq!(calls.all(), [Call::Reset, Call::Consume(1.into()), Call::Advance, Call::Stop]);
}

#[tokio::test]
async fn drain_finishes_what_is_in_hand_at_the_head() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch")
        .at(1, Progress::Pending)
        .at(2, Progress::Pending)
        .on_drain(Progress::UpTo(3.into()));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(stored(&cursors, "batch"), Some(3));
    assert_eq!(calls.all()[4..], [Call::Drain, Call::Stop]);
}

#[tokio::test]
async fn progress_that_goes_backwards_is_an_error() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(2, Progress::UpTo(1.into()));
    let error = run(&mut Spec::new(filled(3), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert!(error.is_cursor_backwards(), "{error}");
    assert_eq!(error.event_id(), Some(&3.into()));
    assert_eq!(stored(&cursors, "batch"), Some(2));
}
