//! Running for ever: what ends it, how long it pauses, what it counts and tells.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reflex_core::{ConsumerState, Error, Event, HandlerError, Health, MemoryCursors, MemoryEvents, Spec, consumer_fn};
use reflex_testing::{ScriptedConsumer, Step};
use rpatterns::{RunForever, run_forever};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Notes, Scrape, append, filled, stored};

const SECOND: Duration = Duration::from_secs(1);

/// Notes when it was called, and fails with this error each time.
fn failing(times: &Notes<Instant>, error: fn() -> HandlerError) -> impl reflex_core::Consumer + use<> {
    let times = times.clone();
    consumer_fn("ship", move |_event: Event| {
        times.add(Instant::now());
        async move { Err(error()) }
    })
}

/// The pauses between these times.
fn pauses(times: &[Instant]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn goes_on_after_a_failure_until_the_head_and_counts_restarts() {
    let (scrape, cursors) = (Scrape::new(), MemoryCursors::new());
    let consumer = ScriptedConsumer::new("ship").at(1, Step::fail("no answer")).at(2, Step::fail("no answer"));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head().metrics(&scrape.metrics);
    let options = RunForever::new().metrics(&scrape.metrics);
    let error = run_forever(&mut spec, options, std::future::pending()).await.unwrap_err();
    assert!(error.is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 2, 2, 3]);
    assert_eq!(stored(&cursors, "ship"), Some(3));
    assert_eq!(scrape.consumer("reflex_consumer_restarts_count", "ship"), Some(2.0));
    assert_eq!(scrape.consumer("reflex_consumer_error_count", "ship"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_the_longest_with_jitter() {
    let times = Notes::new();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), failing(&times, || HandlerError::new("no answer")));
    let stop = sleep(20 * 60 * SECOND);
    assert!(run_forever(&mut spec, RunForever::new(), stop).await.unwrap_err().is_stopped());
    let pauses = pauses(&times.all());
    let full = [1, 2, 4, 8, 16, 32].into_iter().chain(std::iter::repeat(60));
    for (pause, full) in pauses.iter().zip(full) {
        let whole = f64::from(full);
        assert!((whole / 2.0 - 0.01..=whole + 0.01).contains(&pause.as_secs_f64()), "{pause:?} of {whole}");
    }
    assert!(pauses.len() > 20, "{pauses:?}");
    assert!(pauses[6..].iter().any(|pause| *pause != pauses[6]), "there is jitter");
}

#[tokio::test(start_paused = true)]
async fn pauses_begin_anew_after_a_run_that_lasted() {
    let times = Notes::new();
    let noted = times.clone();
    let consumer = consumer_fn("ship", move |_event: Event| {
        noted.add(Instant::now());
        let work = if noted.len() == 5 { 61 * SECOND } else { Duration::ZERO };
        async move {
            sleep(work).await;
            Err(HandlerError::new("no answer"))
        }
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer);
    let stop = sleep(100 * SECOND);
    assert!(run_forever(&mut spec, RunForever::new(), stop).await.unwrap_err().is_stopped());
    let pauses = pauses(&times.all());
    assert!(pauses[3] > 3 * SECOND, "{pauses:?}");
    assert!(pauses[4] <= 62 * SECOND && pauses[5] <= 3 * SECOND, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn after_an_expected_end_it_goes_on_almost_at_once() {
    for error in [Error::stopped as fn() -> Error, Error::cancelled, Error::deadline_exceeded] {
        let events = MemoryEvents::new();
        (0..10).for_each(|_| events.fail_next_open(error()));
        let start = Instant::now();
        let mut spec = Spec::new(events, MemoryCursors::new(), ScriptedConsumer::new("ship")).to_head();
        let error = run_forever(&mut spec, RunForever::new(), std::future::pending()).await.unwrap_err();
        assert!(error.is_head_reached());
        assert_eq!(start.elapsed().as_millis(), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fencing_error_is_tried_again_with_pauses() {
    let times = Notes::new();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), failing(&times, || Error::fenced("ship").into()));
    assert!(run_forever(&mut spec, RunForever::new(), sleep(10 * SECOND)).await.unwrap_err().is_stopped());
    assert!((3..=6).contains(&times.len()), "{}", times.len());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_run_a_pause_and_one_that_was_asked_for_before() {
    let (events, cursors) = (filled(2), MemoryCursors::new());
    let mut spec = Spec::new(events.clone(), cursors.clone(), ScriptedConsumer::new("ship"));
    let error = run_forever(&mut spec, RunForever::new(), sleep(SECOND)).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(2));

    append(&events, 1);
    assert!(run_forever(&mut spec, RunForever::new(), std::future::ready(())).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(2));

    let failing = failing(&Notes::new(), || HandlerError::new("no answer"));
    let mut spec = Spec::new(events, cursors, failing);
    let (start, options) = (Instant::now(), RunForever::new().pause(3_600 * SECOND, 3_600 * SECOND));
    let error = run_forever(&mut spec, options, sleep(SECOND)).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!((error.consumer(), start.elapsed().as_secs()), (Some("ship"), 1));
}

#[tokio::test(start_paused = true)]
async fn what_fails_during_a_shutdown_is_the_error() {
    let consumer = consumer_fn("ship", |_event: Event| async {
        sleep(10 * SECOND).await;
        Err(HandlerError::new("no answer"))
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer);
    let run = run_forever(&mut spec, RunForever::new(), sleep(SECOND));
    let error = timeout(60 * SECOND, run).await.unwrap().unwrap_err();
    assert_eq!(error.event_id(), Some(&1.into()));
}

#[tokio::test]
async fn pauses_of_nothing_are_refused() {
    for options in [
        RunForever::new().pause(Duration::ZERO, SECOND),
        RunForever::new().pause(2 * SECOND, SECOND),
        RunForever::new().expected_pause(Duration::ZERO),
    ] {
        let mut spec = Spec::new(filled(1), MemoryCursors::new(), ScriptedConsumer::new("ship"));
        assert!(run_forever(&mut spec, options, std::future::pending()).await.unwrap_err().is_invalid());
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_told_once() {
    let told = Told::default();
    // With one subscriber in the process, a thread without it that comes first to a place switches that place off for all.
    let (subscriber, _another) = (told.subscriber(), told.subscriber());
    let _guard = tracing::dispatcher::set_default(&subscriber);
    let consumer = ScriptedConsumer::new("ship").at(0, Step::fail("no answer"));
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).to_head();
    let error = run_forever(&mut spec, RunForever::new(), std::future::pending()).await.unwrap_err();
    assert!(error.is_head_reached());
    let told = String::from_utf8(told.0.lock().unwrap().clone()).unwrap();
    assert_eq!(told.matches("ERROR").count(), 1, "{told}");
    assert_eq!(told.matches("run again").count(), 1, "{told}");
}

/// What was told to `tracing`.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    fn subscriber(&self) -> tracing::Dispatch {
        let writer = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish().into()
    }
}

impl std::io::Write for Told {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_run_again_goes_on_failing_until_it_makes_progress() {
    let health = Health::new();
    let fail = || Step::fail("no answer");
    let consumer = ScriptedConsumer::new("ship").at(1, fail()).at(2, fail()).at(3, fail());
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer).health(&health);
    let mut seen = Vec::new();
    let look = async {
        for _ in 0..200 {
            sleep(SECOND / 20).await;
            let ship = health.consumers().remove(0);
            seen.push((ship.state, ship.failures));
        }
    };
    assert!(run_forever(&mut spec, RunForever::new(), look).await.unwrap_err().is_stopped());
    seen.dedup();
    let failing = ConsumerState::Failing;
    assert_eq!(seen, [(failing, 1), (failing, 2), (failing, 3), (ConsumerState::WaitingForEvents, 3)]);
    let ship = health.consumers().remove(0);
    assert_eq!((ship.state, ship.runs, ship.healthy), (ConsumerState::Stopped, 4, true));
}
