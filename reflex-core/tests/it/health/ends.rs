//! Runs that fail, are started again, or end otherwise.

use std::{
    error::Error as _,
    future::{pending, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reflex_core::{
    ConsumerState, Cursor, CursorStore, Error, Event, HandlerError, Health, MemoryCursors, MemoryEvents, Opened,
    Result, Spec, StreamFunc, StreamOptions, StreamPosition, consumer_fn, run, run_until,
};
use tokio::time::sleep;

use super::{MINUTE, Tells, check, done, go_on, hangs_at, only, seen_after};
use crate::support::filled;

#[tokio::test(start_paused = true)]
async fn a_first_start_is_not_healthy_and_a_later_one_is_for_a_while() {
    let health = Health::new();
    let opens = Arc::new(AtomicBool::new(false));
    let mut spec = Spec::new(Opens(opens.clone()), MemoryCursors::new(), done("billing")).health(&health).boxed();
    check(&seen_after(Duration::from_secs(1), &health, &mut spec).await, ConsumerState::Starting, false);
    opens.store(true, Ordering::Relaxed);
    check(&seen_after(Duration::from_secs(1), &health, &mut spec).await, ConsumerState::WaitingForEvents, true);
    opens.store(false, Ordering::Relaxed);
    check(&seen_after(MINUTE, &health, &mut spec).await, ConsumerState::Starting, true);
    check(&seen_after(MINUTE * 2, &health, &mut spec).await, ConsumerState::Starting, false);
}

/// A source whose stream opens, or never does.
struct Opens(Arc<AtomicBool>);

impl StreamFunc for Opens {
    type Stream = reflex_core::BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<Self::Stream>> {
        if self.0.load(Ordering::Relaxed) { MemoryEvents::new().open(options).await } else { pending().await }
    }
}

/// Fails at an event as long as it is told to.
fn fails_at(id: i64, broken: Arc<AtomicBool>) -> impl reflex_core::Consumer {
    consumer_fn("billing", move |event: Event| {
        let fails = event.id().as_i64() == Some(id) && broken.load(Ordering::Relaxed);
        ready(if fails { Err(HandlerError::new("no price")) } else { Ok(()) })
    })
}

#[tokio::test(start_paused = true)]
async fn a_failure_lasts_until_its_event_is_passed() {
    let health = Health::new();
    let broken = Arc::new(AtomicBool::new(true));
    // The store has nothing, so that each run begins before the event that fails.
    let mut spec = Spec::new(filled(3), Forgetful, fails_at(2, broken.clone())).health(&health);
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));
    let first = only(&health);
    check(&first, ConsumerState::Failing, false);
    let error = first.last_error.unwrap();
    assert_eq!((error.event_id, error.foreign_id.as_deref()), (Some(2.into()), Some("order-2")));
    assert_eq!(error.message, "consumer `billing`: the handler failed at event 2 (foreign id `order-2`): no price");

    sleep(MINUTE).await;
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));
    let second = only(&health);
    assert_eq!((second.failures, second.runs), (2, 2));
    let lasted = chrono::Utc::now() - second.since;
    assert!(lasted.num_seconds() >= 60, "since the first failure, though event 1 was handled: {lasted}");

    broken.store(false, Ordering::Relaxed);
    let mut spec = spec.boxed();
    let seen = seen_after(Duration::from_secs(1), &health, &mut spec).await;
    check(&seen, ConsumerState::WaitingForEvents, true);
    assert!(seen.last_error.is_some(), "it is kept");
    assert_eq!((seen.failures, seen.runs), (2, 3));
}

struct Forgetful;

impl CursorStore for Forgetful {
    async fn get(&self, _consumer: &str) -> Result<Option<Cursor>> {
        Ok(None)
    }

    async fn set(&self, _consumer: &str, _cursor: &Cursor) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_goes_on_failing_while_it_hangs_at_the_event() {
    let health = Health::new();
    let mut attempts = 0;
    let consumer = consumer_fn("billing", move |_event: Event| {
        attempts += 1;
        let first = attempts == 1;
        async move { if first { Err(HandlerError::new("no price")) } else { pending().await } }
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).health(&health).boxed();
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    check(&seen_after(Duration::from_secs(5), &health, &mut spec).await, ConsumerState::Failing, false);
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_an_event_is_over_after_a_second_at_the_head() {
    let health = Health::new();
    let source = Tells::new(0, StreamPosition::behind(0));
    let mut spec = Spec::new(source.clone(), MemoryCursors::new(), done("billing")).health(&health).boxed();
    source.events.fail_next_open(Error::stream("read events table `orders`", std::io::Error::other("refused")));
    assert_eq!(run(&mut spec).await.unwrap_err().source().unwrap().to_string(), "refused");
    check(&only(&health), ConsumerState::Failing, false);
    assert_eq!(only(&health).last_error.unwrap().event_id, None);

    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), Duration::from_millis(900)).await;
    check(&only(&health), ConsumerState::Failing, false);
    go_on(run.as_mut(), Duration::from_millis(200)).await;
    check(&only(&health), ConsumerState::WaitingForEvents, true);
    source.tell(StreamPosition::behind(1));
    check(&only(&health), ConsumerState::Failing, false);
}

/// Somebody moved the cursor past the event: nothing shows that it can be handled.
#[tokio::test(start_paused = true)]
async fn a_failure_at_an_event_is_not_over_by_waiting() {
    let health = Health::new();
    let (cursors, broken) = (MemoryCursors::new(), Arc::new(AtomicBool::new(true)));
    let mut spec = Spec::new(filled(1), cursors.clone(), fails_at(1, broken)).health(&health).boxed();
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    cursors.set("billing", &1.into()).await.unwrap();
    check(&seen_after(MINUTE, &health, &mut spec).await, ConsumerState::Failing, false);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_as_intended_is_healthy() {
    let health = Health::new();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), done("billing")).health(&health);
    assert!(run_until(&mut spec, sleep(MINUTE)).await.unwrap_err().is_stopped());
    check(&only(&health), ConsumerState::Stopped, true);
    let mut spec = spec.to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    check(&only(&health), ConsumerState::Stopped, true);
    drop(spec);
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), hangs_at(1)).health(&health).boxed();
    drop(seen_after(MINUTE, &health, &mut spec).await);
    sleep(MINUTE * 60).await;
    check(&only(&health), ConsumerState::Stopped, true);
    assert!(only(&health).last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_stopped_before_it_recovers_is_stopped() {
    let health = Health::new();
    let broken = Arc::new(AtomicBool::new(true));
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), fails_at(1, broken)).health(&health);
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    check(&only(&health), ConsumerState::Failing, false);
    assert!(run_until(&mut spec, ready(())).await.unwrap_err().is_stopped());
    check(&only(&health), ConsumerState::Stopped, true);
}

#[tokio::test(start_paused = true)]
async fn what_the_other_side_ended_has_to_be_run_again_in_time() {
    let health = Health::new();
    let events = filled(1);
    events.stop();
    let mut spec = Spec::new(events, MemoryCursors::new(), done("billing")).health(&health);
    assert!(run(&mut spec).await.unwrap_err().is_stopped());
    let seen = only(&health);
    check(&seen, ConsumerState::Stopped, true);
    assert_eq!((seen.failures, seen.last_error.is_some()), (0, true));
    sleep(MINUTE + Duration::from_secs(1)).await;
    check(&only(&health), ConsumerState::Stopped, false);
}

#[tokio::test]
async fn a_panic_is_a_failure_with_its_event() {
    let health = Health::new();
    let consumer = consumer_fn("billing", |_event: Event| async { panic!("a bug") });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).health(&health);
    assert!(tokio::spawn(async move { run(&mut spec).await }).await.unwrap_err().is_panic());
    let seen = only(&health);
    check(&seen, ConsumerState::Failing, false);
    assert_eq!(seen.last_error.unwrap().event_id, Some(1.into()));
}
