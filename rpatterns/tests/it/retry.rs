//! Retries: how often, when, for which errors, and what a shutdown or a restart does to them.

use std::time::Duration;

use reflex_core::{
    AttemptStore, Consumer, Error, Event, HandlerError, MemoryCursors, MemoryDeadLetters, NewEvent, Spec, consumer_fn,
    run, run_until,
};
use reflex_testing::{Calls, ScriptedConsumer, Step};
use rpatterns::{Key, RetryDecision, batch_by_len, exponential, keyed_lanes, retry};
use tokio::time::{Instant, sleep};

use crate::support::{Notes, Scrape, chain, filled, stored};

const SECOND: Duration = Duration::from_secs(1);

/// A consumer that fails on its first inputs, so often.
fn failing(times: usize) -> (ScriptedConsumer, Calls) {
    let mut consumer = ScriptedConsumer::new("charge");
    for call in 0..times {
        consumer = consumer.at(call, Step::fail(format!("failure {}", call + 1)));
    }
    let calls = consumer.calls();
    (consumer, calls)
}

#[tokio::test(start_paused = true)]
async fn tries_again_after_each_delay_and_goes_on() {
    let (scrape, cursors) = (Scrape::new(), MemoryCursors::new());
    let (inner, calls) = failing(3);
    let delays = [SECOND, 5 * SECOND, 30 * SECOND];
    let mut spec = Spec::new(filled(3), cursors.clone(), retry(delays, inner).metrics(&scrape.metrics)).to_head();
    let start = Instant::now();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(start.elapsed().as_secs(), 36);
    assert_eq!(calls.consumed_ids(), [1, 1, 1, 1, 2, 3]);
    assert_eq!(stored(&cursors, "charge"), Some(3));
    assert_eq!(scrape.consumer("reflex_consumer_retries_count", "charge"), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn the_error_is_the_result_once_the_delays_are_used_up() {
    let cursors = MemoryCursors::new();
    let (inner, calls) = failing(9);
    let mut spec = Spec::new(filled(2), cursors.clone(), retry([SECOND; 2], inner));
    let error = run(&mut spec).await.unwrap_err();
    assert!(chain(&error).ends_with("failure 3"), "{}", chain(&error));
    assert_eq!(error.event_id(), Some(&1.into()));
    assert_eq!(calls.consumed_ids(), [1, 1, 1]);
    assert_eq!(stored(&cursors, "charge"), None);
}

#[tokio::test(start_paused = true)]
async fn each_input_starts_with_the_first_delay() {
    let inner = ScriptedConsumer::new("charge").at(0, Step::fail("a")).at(2, Step::fail("b"));
    let calls = inner.calls();
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), retry([SECOND], inner)).to_head();
    let start = Instant::now();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!((start.elapsed().as_secs(), calls.consumed_ids()), (2, vec![1, 1, 2, 2]));
}

#[tokio::test(start_paused = true)]
async fn an_expected_or_fencing_error_is_not_retried() {
    for (make, ends) in [
        (Error::stopped as fn() -> Error, Error::is_stopped as fn(&Error) -> bool),
        (Error::cancelled, Error::is_cancelled),
        (|| Error::fenced("charge"), Error::is_fenced),
    ] {
        let attempts = Notes::new();
        let noted = attempts.clone();
        let inner = consumer_fn("charge", move |event: Event| {
            noted.add(event.id().clone());
            async move { Err(make().into()) }
        });
        let mut spec = Spec::new(filled(1), MemoryCursors::new(), retry([SECOND; 3], inner));
        assert!(ends(&run(&mut spec).await.unwrap_err()));
        assert_eq!(attempts.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn decides_by_error_and_attempt() {
    let (inner, calls) = failing(9);
    let asked = Notes::new();
    let noted = asked.clone();
    let consumer = retry([SECOND; 8], inner).when(move |error, attempt| {
        noted.add((error.to_string(), attempt));
        match attempt {
            1 => RetryDecision::Again,
            2 => RetryDecision::After(60 * SECOND),
            _ => RetryDecision::GiveUp,
        }
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer);
    let start = Instant::now();
    assert!(chain(&run(&mut spec).await.unwrap_err()).ends_with("failure 3"));
    assert_eq!((start.elapsed().as_secs(), calls.consumed_ids().len()), (61, 3));
    let messages = ["failure 1", "failure 2", "failure 3"].map(str::to_owned);
    assert_eq!(asked.all(), messages.into_iter().zip(1..).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn endless_delays_try_for_ever_and_jitter_only_shortens_them() {
    let (inner, calls) = failing(50);
    let consumer = retry(exponential(SECOND, 8 * SECOND), inner).jitter();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).to_head();
    let start = Instant::now();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids().len(), 51);
    let whole = 1 + 2 + 4 + 47 * 8;
    assert!((whole / 2..whole).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_long_delay_at_once_and_the_event_comes_again() {
    let cursors = MemoryCursors::new();
    let (inner, calls) = failing(1);
    let mut spec = Spec::new(filled(1), cursors.clone(), retry([3_600 * SECOND], inner)).to_head();
    let start = Instant::now();
    let error = run_until(&mut spec, sleep(SECOND)).await.unwrap_err();
    assert!(error.is_stopped() && chain(&error).ends_with("failure 1"), "{}", chain(&error));
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(stored(&cursors, "charge"), None);

    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_delays_of_lanes_and_batches_at_once() {
    let failing = || consumer_fn("charge", |_event: Event| async { Err(HandlerError::new("no answer")) });
    let lanes = keyed_lanes(3, Key::by_event_id(), retry([3_600 * SECOND], failing()));
    let mut spec = Spec::new(filled(9), MemoryCursors::new(), lanes);
    let start = Instant::now();
    assert!(run_until(&mut spec, sleep(SECOND)).await.unwrap_err().is_stopped());
    assert_eq!(start.elapsed().as_secs(), 1);

    let inner = consumer_fn("index", |_batch: Vec<Event>| async { Err(HandlerError::new("no answer")) });
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), batch_by_len(2, retry([3_600 * SECOND], inner)));
    assert!(run_until(&mut spec, sleep(SECOND)).await.unwrap_err().is_stopped());
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_tried_again_as_a_whole() {
    let batches = Notes::new();
    let noted = batches.clone();
    let inner = consumer_fn("index", move |batch: Vec<Event>| {
        noted.add(batch.len());
        let failed = noted.len() == 1;
        async move { if failed { Err(HandlerError::new("no answer")) } else { Ok(()) } }
    });
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), batch_by_len(3, retry([SECOND], inner))).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(batches.all(), [3, 3]);
}

#[tokio::test]
async fn a_consumer_inside_that_answers_later_is_refused() {
    let inner = consumer_fn("index", |_batch: Vec<Event>| async { Ok(()) });
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(filled(3), cursors.clone(), retry([SECOND], batch_by_len(2, inner)));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("put retry around the handler"), "{error}");
    assert_eq!(stored(&cursors, "index"), None);
}

#[tokio::test(start_paused = true)]
async fn durable_attempts_survive_a_restart() {
    let store = MemoryDeadLetters::new();
    let delays = [SECOND, 10 * SECOND, 100 * SECOND];
    let (inner, calls) = failing(9);
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), retry(delays, inner).durable(store.clone()));
    // Two attempts fail, and the run is dropped in the second delay.
    assert!(tokio::time::timeout(5 * SECOND, run(&mut spec)).await.is_err());
    assert_eq!(calls.consumed_ids().len(), 2);
    assert_eq!(store.attempts("charge").await.unwrap()[&1.into()], 2);
    drop(spec);

    let (inner, calls) = failing(9);
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), retry(delays, inner).durable(store.clone()));
    let start = Instant::now();
    run(&mut spec).await.unwrap_err();
    assert_eq!(calls.consumed_ids().len(), 2, "the third attempt and, after the third delay, the last one");
    assert_eq!(start.elapsed().as_secs(), 100);
    assert!(store.attempts("charge").await.unwrap().is_empty(), "what is given up is forgotten");
}

#[tokio::test(start_paused = true)]
async fn durable_attempts_are_forgotten_on_success() {
    let store = MemoryDeadLetters::new();
    let (inner, _) = failing(2);
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), retry([SECOND; 2], inner).durable(store.clone()));
    assert!(run_until(&mut spec, sleep(60 * SECOND)).await.unwrap_err().is_stopped());
    assert!(store.attempts("charge").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_counted_ends_the_run() {
    let store = MemoryDeadLetters::new();
    let (inner, calls) = failing(9);
    let mut consumer = retry([SECOND; 2], inner).durable(store.clone());
    Consumer::<Event>::reset(&mut consumer).await.unwrap();
    store.fail_next(Error::store("count an attempt", "the disk is full"));
    let event = filled(0).append(NewEvent::new("order-1", 1));
    assert_eq!(consumer.consume(event).await.unwrap_err().to_string(), "count an attempt");
    assert_eq!(calls.consumed_ids().len(), 1);
}
