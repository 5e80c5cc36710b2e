//! Delayed cursors are written when the stream is idle and on the way out, whatever the reason.

use std::{error::Error as _, time::Duration};

use futures_util::future::join;
use reflex_core::{BufferedCursors, Error, MemoryCursors, Operation, Progress, Spec, run, run_until};
use reflex_testing::{ScriptedConsumer, Step};
use tokio::time::{Instant, sleep};

use crate::support::{Asked, SlowStore, endless, filled, stored};

/// However many events came before: the run looks at other things now and then, and idle may begin right there.
#[tokio::test(start_paused = true)]
async fn on_idle_after_any_number_of_events() {
    for count in 1..=70 {
        let cursors = MemoryCursors::new();
        let mut spec =
            Spec::new(filled(count), BufferedCursors::new(cursors.clone()), ScriptedConsumer::new("billing"));
        let look = async {
            sleep(Duration::from_secs(1)).await;
            stored(&cursors, "billing")
        };
        let (_, found) = join(run_until(&mut spec, sleep(Duration::from_secs(2))), look).await;
        assert_eq!(found, Some(count as i64), "after {count} events");
    }
}

#[tokio::test(start_paused = true)]
async fn once_per_idle_time_and_not_while_nothing_was_set() {
    let store = SlowStore::new(MemoryCursors::new());
    let mut spec = Spec::new(filled(2), store.clone(), ScriptedConsumer::new("billing"));
    let look = async {
        sleep(Duration::from_secs(60)).await;
        store.log()
    };
    let (_, log) = join(run_until(&mut spec, sleep(Duration::from_secs(61))), look).await;
    assert_eq!(log, [Asked::Get, Asked::Set(1.into()), Asked::Set(2.into()), Asked::Flush]);
}

#[tokio::test(start_paused = true)]
async fn while_waiting_for_lag() {
    let (events, cursors) = (filled(1), MemoryCursors::new());
    let tomorrow = chrono::Utc::now() + chrono::TimeDelta::days(1);
    events.append(reflex_core::NewEvent::new("order-2", 1).timestamp(tomorrow));
    let lag = Duration::from_secs(60);
    let mut spec = Spec::new(events, BufferedCursors::new(cursors.clone()), ScriptedConsumer::new("billing")).lag(lag);
    let look = async {
        sleep(Duration::from_secs(120)).await;
        stored(&cursors, "billing")
    };
    let (_, found) = join(run_until(&mut spec, sleep(Duration::from_secs(130))), look).await;
    assert_eq!(found, Some(1));
}

#[tokio::test]
async fn on_the_way_out_of_an_error() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing").at(3, Step::fail("no"));
    let mut spec = Spec::new(filled(5), BufferedCursors::new(cursors.clone()), consumer);
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&4.into()));
    assert_eq!(stored(&cursors, "billing"), Some(3));
}

#[tokio::test]
async fn on_the_way_out_of_a_stream_error() {
    let cursors = MemoryCursors::new();
    let source = |_options| async {
        let items = [Ok(crate::support::event(1)), Err(Error::stream("read events", "connection reset"))];
        Ok(futures_util::stream::iter(items))
    };
    let mut spec = Spec::new(source, BufferedCursors::new(cursors.clone()), ScriptedConsumer::new("billing"));
    assert_eq!(run(&mut spec).await.unwrap_err().source().unwrap().to_string(), "connection reset");
    assert_eq!(stored(&cursors, "billing"), Some(1));
}

#[tokio::test]
async fn on_the_way_out_at_the_head_and_on_shutdown() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing");
    let mut spec = Spec::new(filled(5), BufferedCursors::new(cursors.clone()), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(stored(&cursors, "billing"), Some(5));

    let consumer = ScriptedConsumer::new("shipping");
    let calls = consumer.calls();
    let mut spec = Spec::new(endless, BufferedCursors::new(cursors.clone()), consumer);
    let consumed = calls.await_consumed(10, crate::support::DEADLINE);
    assert!(run_until(&mut spec, consumed).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "shipping"), calls.consumed_ids().last().copied());
}

#[tokio::test]
async fn a_flush_that_fails_is_the_error_of_a_run_that_ended_as_intended() {
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(filled(2), cursors.clone(), ScriptedConsumer::new("billing")).to_head();
    cursors.fail_next(Operation::Flush, Error::store("flush cursors", "disk full"));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.to_string().contains("flush cursors"), "{error}");
    assert_eq!(error.consumer(), Some("billing"));
}

#[tokio::test]
async fn a_flush_that_fails_does_not_hide_what_ended_the_run() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing").at(1, Step::fail("no"));
    let mut spec = Spec::new(filled(2), cursors.clone(), consumer).to_head();
    cursors.fail_next(Operation::Flush, Error::store("flush cursors", "disk full"));
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_on_idle_ends_the_run() {
    let cursors = MemoryCursors::new();
    cursors.fail_next(Operation::Flush, Error::store("flush cursors", "disk full"));
    let mut spec = Spec::new(filled(2), cursors, ScriptedConsumer::new("billing"));
    let error = run_until(&mut spec, sleep(Duration::from_secs(60))).await.unwrap_err();
    assert!(error.to_string().contains("flush cursors"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flush_without_an_answer_has_an_end() {
    struct Stuck;
    impl reflex_core::CursorStore for Stuck {
        async fn get(&self, _consumer: &str) -> reflex_core::Result<Option<reflex_core::Cursor>> {
            Ok(None)
        }
        async fn set(&self, _consumer: &str, _cursor: &reflex_core::Cursor) -> reflex_core::Result<()> {
            Ok(())
        }
        async fn flush(&self) -> reflex_core::Result<()> {
            std::future::pending().await
        }
    }
    let start = Instant::now();
    let error = run(&mut Spec::new(filled(2), Stuck, ScriptedConsumer::new("billing")).to_head()).await.unwrap_err();
    assert!(error.to_string().contains("delayed cursors"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn progress_without_an_event_is_flushed_too() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending).on_advance(Progress::UpTo(1.into()));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), BufferedCursors::new(cursors.clone()), consumer);
    let look = async {
        sleep(Duration::from_secs(10)).await;
        calls.wake();
        sleep(Duration::from_secs(1)).await;
        stored(&cursors, "batch")
    };
    let (_, found) = join(run_until(&mut spec, sleep(Duration::from_secs(12))), look).await;
    assert_eq!(found, Some(1));
}
