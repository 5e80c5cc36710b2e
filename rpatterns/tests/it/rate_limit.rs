//! The rate limit: how much within any period, and what goes on meanwhile.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{
    Consumer, Event, MemoryCursors, MemoryEvents, NewEvent, Progress, Spec, consumer_fn, run, run_until,
};
use reflex_testing::{Call, ScriptedConsumer};
use rpatterns::{batch, batch_by_len, rate_limit};
use tokio::time::{Instant, sleep};

use crate::support::{Notes, filled, stored};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that notes when it was called.
fn noting(times: &Notes<Instant>) -> impl Consumer + use<> {
    let times = times.clone();
    consumer_fn("call", move |_event: Event| {
        times.add(Instant::now());
        async { Ok(()) }
    })
}

#[tokio::test(start_paused = true)]
async fn hands_over_n_at_once_and_the_next_after_a_period() {
    let (times, start) = (Notes::new(), Instant::now());
    let consumer = rate_limit(3, 10 * SECOND, noting(&times));
    assert!(
        run(&mut Spec::new(filled(7), MemoryCursors::new(), consumer).to_head()).await.unwrap_err().is_head_reached()
    );
    let seconds: Vec<_> = times.all().iter().map(|at| (*at - start).as_secs()).collect();
    assert_eq!(seconds, [0, 0, 0, 10, 10, 10, 20]);
}

/// Events arrive at random; no window of a period has more than `n` calls in it, and none waits longer than it has to.
#[tokio::test(start_paused = true)]
async fn never_more_than_n_within_any_period() {
    let seed = std::env::var("REFLEX_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("REFLEX_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..20 {
        let (n, times) = (rng.random_range(1..6), Notes::new());
        let mut consumer = rate_limit(n, SECOND, noting(&times));
        Consumer::<Event>::reset(&mut consumer).await.unwrap();
        let event = MemoryEvents::new().append(NewEvent::new("order-1", 1));
        let mut expected = Vec::<Instant>::new();
        for _ in 0..200 {
            sleep(Duration::from_millis(rng.random_range(0..400))).await;
            let earliest = expected.len().checked_sub(n).map(|nth| expected[nth] + SECOND);
            expected.push(earliest.map_or(Instant::now(), |earliest| earliest.max(Instant::now())));
            assert_eq!(consumer.consume(event.clone()).await.unwrap(), Progress::Done);
        }
        // The clock of a paused runtime moves in whole milliseconds.
        let late = |(at, due): (&Instant, &Instant)| *at < *due || *at - *due > Duration::from_millis(5);
        assert!(!times.all().iter().zip(&expected).any(late));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_counts_as_one() {
    let times = Notes::new();
    let noted = times.clone();
    let inner = consumer_fn("index", move |batch: Vec<Event>| {
        noted.add((batch.len(), Instant::now()));
        async { Ok(()) }
    });
    let start = Instant::now();
    let consumer = batch_by_len(2, rate_limit(1, SECOND, inner));
    assert!(
        run(&mut Spec::new(filled(4), MemoryCursors::new(), consumer).to_head()).await.unwrap_err().is_head_reached()
    );
    assert_eq!(times.all(), [(2, start), (2, start + SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_wait_at_once_and_the_event_comes_again() {
    let (cursors, inner) = (MemoryCursors::new(), ScriptedConsumer::new("call"));
    let calls = inner.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), rate_limit(1, 3_600 * SECOND, inner)).to_head();
    let start = Instant::now();
    assert!(run_until(&mut spec, sleep(SECOND)).await.unwrap_err().is_stopped());
    assert_eq!((start.elapsed().as_secs(), stored(&cursors, "call")), (1, Some(1)));

    assert!(run_until(&mut spec, sleep(SECOND)).await.unwrap_err().is_stopped());
    assert_eq!(calls.consumed_ids(), [1], "the limit holds across runs");
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn timers_of_the_consumer_inside_go_on_while_an_event_waits() {
    let times = Notes::new();
    let noted = times.clone();
    let inner = consumer_fn("index", move |batch: Vec<Event>| {
        noted.add((batch.len(), Instant::now()));
        async { Ok(()) }
    });
    let cursors = MemoryCursors::new();
    let start = Instant::now();
    let consumer = rate_limit(2, 60 * SECOND, batch(10, SECOND, inner));
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer);
    assert!(run_until(&mut spec, sleep(60 * SECOND + SECOND / 2)).await.unwrap_err().is_stopped());
    assert_eq!(times.all()[0], (2, start + SECOND));
    assert_eq!(stored(&cursors, "index"), Some(3), "the last one by the drain");
}

#[tokio::test(start_paused = true)]
async fn the_progress_of_what_went_on_is_told_with_the_next_answer() {
    let inner = ScriptedConsumer::new("call").at(0, Progress::Pending).at(1, Progress::Pending);
    let inner = inner.on_advance(Progress::UpTo(1.into()));
    let calls = inner.calls();
    let mut consumer = rate_limit(1, SECOND, inner);
    consumer.reset().await.unwrap();
    let events = filled(0);
    assert_eq!(consumer.consume(events.append(NewEvent::new("a", 1))).await.unwrap(), Progress::Pending);
    calls.wake();
    assert_eq!(consumer.consume(events.append(NewEvent::new("b", 1))).await.unwrap(), Progress::UpTo(1.into()));
    assert_eq!(calls.count(&Call::Advance), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_and_no_time_are_refused_and_the_longest_period_is_not() {
    for (n, period, wanted) in [(0, SECOND, "1 or more"), (1, Duration::ZERO, "make it longer")] {
        let consumer = rate_limit(n, period, ScriptedConsumer::new("call"));
        let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), consumer)).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(wanted), "{error}");
    }
    let consumer = rate_limit(1, Duration::MAX, ScriptedConsumer::new("call"));
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer);
    assert!(run_until(&mut spec, sleep(SECOND)).await.unwrap_err().is_stopped());
}
