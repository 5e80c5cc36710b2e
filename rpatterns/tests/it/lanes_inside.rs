//! Lanes whose consumers are patterns themselves: each call reaches them, in their task.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reflex_core::{
    Consumer, Event, HandlerError, MemoryCursors, MemoryDeadLetters, MemoryEvents, Metrics, Monitoring, NewEvent,
    Progress, Spec, consumer_fn, run, run_until,
};
use reflex_testing::{Call, Calls, ScriptedConsumer, Step};
use rpatterns::{Key, batch, batch_by_len, dead_letter, keyed_lanes, keyed_lanes_with, retry};
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use crate::{
    checked::CheckedCursors,
    support::{Notes, append, chain, filled, stored},
};

const PERIOD: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3_600);

/// Notes all events of a batch, and fails on batches with one of them.
fn batches(failing: i64, notes: &Notes<Event>) -> impl Consumer<Vec<Event>> + Clone + 'static {
    let notes = notes.clone();
    consumer_fn("index", move |batch: Vec<Event>| {
        let notes = notes.clone();
        async move {
            if batch.iter().any(|event| event.id().as_i64() == Some(failing)) {
                return Err(HandlerError::new("the index is read-only"));
            }
            batch.into_iter().for_each(|event| notes.add(event));
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_cursor_waits_for_the_batch_of_each_lane() {
    let notes = Notes::new();
    let cursors = CheckedCursors::new(&notes);
    let consumer = keyed_lanes(3, Key::by_event_id(), batch(4, PERIOD, batches(0, &notes)));
    let mut spec = Spec::new(filled(50), cursors.clone(), consumer);
    let shutdown = async {
        sleep(PERIOD / 2).await;
        assert!(notes.len() < 50, "some batches are not full");
        assert!(cursors.last() < Some(50));
        sleep(PERIOD).await;
        assert_eq!((notes.len(), cursors.last()), (50, Some(50)), "their period is up");
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_a_lane_is_drained_at_the_head() {
    let notes = Notes::new();
    let cursors = CheckedCursors::new(&notes);
    let consumer = keyed_lanes(3, Key::by_event_id(), batch_by_len(1_000, batches(0, &notes)));
    let mut spec = Spec::new(filled(50), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!((notes.len(), cursors.last()), (50, Some(50)));
}

#[tokio::test(start_paused = true)]
async fn a_timed_batch_in_a_lane_that_fails_ends_the_run_without_another_event() {
    let (notes, start) = (Notes::new(), Instant::now());
    let consumer = keyed_lanes(2, Key::by_foreign_id(), batch(100, PERIOD, batches(2, &notes)));
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer);
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(
        chain(&error),
        "consumer `index`: the handler failed at event 2 (foreign id `order-2`): the index is read-only"
    );
    assert_eq!(start.elapsed().as_secs(), PERIOD.as_secs());
}

/// The window holds fewer events than the batches want, and no time is up.
#[tokio::test(start_paused = true)]
async fn batches_that_fill_the_window_are_handed_over() {
    let notes = Notes::new();
    let cursors = CheckedCursors::new(&notes);
    let consumer = keyed_lanes(4, Key::by_event_id(), batch_by_len(100, batches(0, &notes))).window(40);
    let mut spec = Spec::new(filled(1_000), cursors.clone(), consumer);
    let shutdown = async {
        sleep(LONG).await;
        assert!(notes.len() >= 960, "the stream stands still after {}", notes.len());
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(cursors.last(), Some(1_000));
}

/// Makes the consumer of each lane by a script, and remembers what they were asked.
fn scripted(
    made: &Arc<Mutex<Vec<Calls>>>,
    script: impl Fn(usize, ScriptedConsumer) -> ScriptedConsumer + Send + 'static,
) -> impl FnMut(usize) -> ScriptedConsumer + Send + 'static {
    let made = made.clone();
    move |lane| {
        let consumer = script(lane, ScriptedConsumer::new("ship"));
        made.lock().unwrap().push(consumer.calls());
        consumer
    }
}

#[tokio::test(start_paused = true)]
async fn each_lane_has_a_consumer_of_its_own_in_each_run() {
    let (made, events) = (Arc::default(), filled(1));
    let consumer = keyed_lanes_with(2, Key::by_event_id(), scripted(&made, |_, consumer| consumer));
    let mut spec = Spec::new(events.clone(), MemoryCursors::new(), consumer).to_head();
    for _ in 0..2 {
        append(&events, 1);
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    }
    let made: Vec<Calls> = made.lock().unwrap().clone();
    assert_eq!(made.len(), 1 + 2 * 2, "one tells the name");
    assert_eq!(made[0].all(), []);
    for calls in &made[1..] {
        let calls = calls.all();
        assert_eq!((calls.first(), calls.last()), (Some(&Call::Reset), Some(&Call::Stop)));
        assert_eq!(calls[calls.len() - 2], Call::Drain);
    }
    let consumed: usize = made.iter().map(|calls| calls.consumed().len()).sum();
    assert_eq!(consumed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_cannot_start_ends_the_run_and_all_are_stopped() {
    let made = Arc::default();
    let script = |lane, consumer: ScriptedConsumer| match lane {
        1 => consumer.on_reset(Step::fail("no connection")),
        _ => consumer,
    };
    let events = filled(1);
    let consumer = keyed_lanes_with(3, Key::by_event_id(), scripted(&made, script));
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer);
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(chain(&error), "consumer `ship`: the handler failed: no connection");
    let made: Vec<Calls> = made.lock().unwrap().clone();
    assert!(made[1..].iter().all(|calls| calls.count(&Call::Stop) == 1 && calls.consumed().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_cannot_stop_is_an_error_of_the_run() {
    let made = Arc::default();
    let script = |lane, consumer: ScriptedConsumer| match lane {
        1 => consumer.on_stop(Step::fail("no connection")),
        _ => consumer,
    };
    let consumer = keyed_lanes_with(3, Key::by_event_id(), scripted(&made, script));
    let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), consumer).to_head()).await.unwrap_err();
    assert_eq!(chain(&error), "consumer `ship`: the handler failed: no connection");
    let made: Vec<Calls> = made.lock().unwrap().clone();
    assert!(made[1..].iter().all(|calls| calls.count(&Call::Stop) == 1));
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_cannot_drain_is_an_error_of_the_run_and_what_is_done_counts() {
    let (made, cursors) = (Arc::default(), MemoryCursors::new());
    let script = |lane, consumer: ScriptedConsumer| match lane {
        1 => consumer.on_drain(Step::fail("no connection")),
        _ => consumer,
    };
    let consumer = keyed_lanes_with(2, Key::by_event_id(), scripted(&made, script));
    let error = run(&mut Spec::new(filled(9), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert_eq!(chain(&error), "consumer `ship`: the handler failed: no connection");
    assert_eq!(stored(&cursors, "ship"), Some(9));
}

/// Event 1 goes to one lane with the others of its key: they are pending until it is woken.
#[tokio::test(start_paused = true)]
async fn what_a_consumer_finishes_by_itself_moves_the_cursor() {
    let (made, cursors, events) = (Arc::default(), MemoryCursors::new(), MemoryEvents::new());
    for _ in 0..3 {
        events.append(NewEvent::new("order-1", 1));
    }
    let script = |_, consumer: ScriptedConsumer| {
        let consumer = consumer.at(0, Progress::Pending).at(1, Progress::Pending).at(2, Progress::Pending);
        consumer.on_advance(Progress::UpTo(2.into())).on_drain(Progress::UpTo(3.into()))
    };
    let consumer = keyed_lanes_with(1, Key::by_foreign_id(), scripted(&made, script));
    let mut spec = Spec::new(events, cursors.clone(), consumer);
    let shutdown = async {
        sleep(LONG).await;
        assert_eq!(stored(&cursors, "ship"), None);
        let lane = made.lock().unwrap()[1].clone();
        lane.wake();
        sleep(LONG).await;
        assert_eq!(stored(&cursors, "ship"), Some(2));
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn each_lane_retries_and_puts_aside_its_own_events_while_the_others_go_on() {
    let (letters, cursors, notes) = (MemoryDeadLetters::new(), MemoryCursors::new(), Notes::new());
    let (noted, start) = (notes.clone(), Instant::now());
    let ship = consumer_fn("ship", move |event: Event| {
        let noted = noted.clone();
        async move {
            if event.foreign_id() == "order-3" {
                return Err(HandlerError::new("no such order"));
            }
            noted.add(start.elapsed().as_secs());
            Ok(())
        }
    });
    let consumer = keyed_lanes(20, Key::by_event_id(), dead_letter(letters.clone(), retry([LONG, LONG], ship)));
    let mut spec = Spec::new(filled(9), cursors.clone(), consumer);
    assert!(run_until(&mut spec, sleep(3 * LONG)).await.unwrap_err().is_stopped());
    assert_eq!(notes.all(), [0; 8]);
    assert_eq!(letters.open("ship").len(), 1);
    assert_eq!(stored(&cursors, "ship"), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_known_in_the_lanes() {
    let (cursors, start) = (MemoryCursors::new(), Instant::now());
    let ship = consumer_fn("ship", |event: Event| async move {
        match event.id_as_i64()? {
            2 => Err(HandlerError::new("no stock")),
            _ => Ok(()),
        }
    });
    let consumer = keyed_lanes(2, Key::by_event_id(), retry([LONG], ship));
    let mut spec = Spec::new(filled(2), cursors.clone(), consumer);
    assert!(run_until(&mut spec, sleep(PERIOD)).await.unwrap_err().is_stopped());
    assert_eq!(start.elapsed().as_secs(), PERIOD.as_secs(), "the retry does not hold up the shutdown");
    assert_eq!(stored(&cursors, "ship"), Some(1));
}

#[tokio::test]
async fn name_and_monitoring_are_those_of_the_consumer_inside() {
    let mut monitoring = Monitoring::default();
    monitoring.lag_alert = None;
    let watched = monitoring.clone();
    let consumer =
        keyed_lanes_with(2, Key::default(), move |_| ScriptedConsumer::new("ship").monitored(watched.clone()));
    assert_eq!((consumer.name(), consumer.monitoring()), ("ship", monitoring));
}

#[tokio::test]
async fn handlers_are_inside_the_span_of_their_event() {
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::sink).finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let notes = Notes::new();
    let noted = notes.clone();
    let consumer = consumer_fn("ship", move |_event: Event| {
        let noted = noted.clone();
        async move {
            noted.add(Span::current().metadata().map(|span| span.name()));
            Ok(())
        }
    });
    let (events, cursors) = (filled(1), MemoryCursors::new());
    let mut spec = Spec::new(events.clone(), cursors, keyed_lanes(2, Key::default(), consumer)).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    // The thread that came by first, which may be another test's, decided for all whether there are spans.
    tracing::callsite::rebuild_interest_cache();
    append(&events, 2);
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(notes.all()[1..], [Some("consume"), Some("consume")]);
}

#[tokio::test]
async fn what_the_lanes_skip_is_counted() {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let even = consumer_fn("even", |_event: Event| async { Ok(()) }).filter(|event| Ok(event.id_as_i64()? % 2 == 0));
    let consumer = keyed_lanes(3, Key::by_event_id(), even).metrics(&metrics);
    let mut spec = Spec::new(filled(31), MemoryCursors::new(), consumer).metrics(&metrics).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(metrics.skipped("even").get(), 16);
}
