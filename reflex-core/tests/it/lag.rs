//! A lagging consumer gets events when they are old enough.

use std::{
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Progress, Spec, consumer_fn, run, run_until};
use reflex_testing::{Call, ScriptedConsumer, Step};
use tokio::time::{Instant, sleep};

use crate::support::filled;

const HOUR: Duration = Duration::from_secs(3_600);

/// Runs a lagging consumer to the head; returns after which time it got each event.
async fn delays(events: MemoryEvents, lag: Duration) -> Vec<Duration> {
    let (start, delays) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let noted = delays.clone();
    let consumer = consumer_fn("late", move |_event: Event| {
        noted.lock().unwrap().push(start.elapsed());
        std::future::ready(Ok(()))
    });
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).lag(lag).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    let delays = delays.lock().unwrap();
    delays.clone()
}

#[track_caller]
fn assert_about(found: Duration, expected: Duration) {
    // Ages are told by the wall clock, which goes on while the paused one stands still.
    assert!(found <= expected && expected - found < Duration::from_secs(30), "{found:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_event_waits_and_an_old_one_does_not() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("old", 1).timestamp(Utc::now() - TimeDelta::hours(2)));
    events.append(NewEvent::new("new", 1));
    let delays = delays(events, HOUR).await;
    assert_eq!(delays[0], Duration::ZERO);
    // The millisecond is the grain of the timer.
    assert_about(delays[1], HOUR + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn an_event_from_the_future_waits_longer() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("future", 1).timestamp(Utc::now() + TimeDelta::hours(1)));
    assert_about(delays(events, HOUR).await[0], 2 * HOUR + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn an_endless_lag_waits_for_ever() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("future", 1).timestamp(Utc::now() + TimeDelta::hours(1)));
    let consumer = ScriptedConsumer::new("late");
    let calls = consumer.calls();
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).lag(Duration::MAX);
    assert!(run_until(&mut spec, sleep(100 * HOUR)).await.unwrap_err().is_stopped());
    assert!(calls.consumed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_consumer_is_looked_after_while_an_event_waits() {
    let consumer = ScriptedConsumer::new("batch").on_advance(Step::fail("a task failed"));
    let calls = consumer.calls();
    calls.wake();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).lag(HOUR);
    let start = Instant::now();
    assert_eq!(run(&mut spec).await.unwrap_err().source().unwrap().to_string(), "a task failed");
    assert!(start.elapsed() < HOUR);
    assert_eq!(calls.all(), [Call::Reset, Call::Advance, Call::Stop]);
}

#[tokio::test(start_paused = true)]
async fn advancing_does_not_deliver_the_waiting_event_early_or_twice() {
    let consumer = ScriptedConsumer::new("batch").on_advance(Progress::Pending);
    let calls = consumer.calls();
    let waker = calls.clone();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).lag(HOUR).to_head();
    let wake = async {
        for _ in 0..5 {
            sleep(Duration::from_secs(60)).await;
            waker.wake();
        }
        sleep(Duration::from_secs(60)).await;
        waker.consumed().len()
    };
    let (ended, early) = futures_util::future::join(run(&mut spec), wake).await;
    assert!(ended.unwrap_err().is_head_reached());
    assert_eq!(early, 0);
    assert_eq!(calls.count(&Call::Advance), 5);
    assert_eq!(calls.consumed_ids(), [1]);
}
