//! Keyed lanes: order, cursor, failures, and what a run leaves behind.

use std::{
    collections::BTreeMap,
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{
    Consumer, Cursor, CursorStore, Error, Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Operation,
    Result, Spec, consumer_fn, run, run_until,
};
use reflex_testing::poll_times;
use rpatterns::{Key, Workers, keyed_lanes};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{
    checked::{CheckedCursors, seed},
    support::{Notes, chain, filled, stored},
};

/// Longer than anything that a handler does under a paused clock.
const LONG: Duration = Duration::from_secs(3_600);

/// Events of `keys` foreign ids in turn.
fn of_keys(count: usize, keys: usize) -> MemoryEvents {
    let events = MemoryEvents::new();
    for number in 0..count {
        events.append(NewEvent::new(number % keys, 1));
    }
    events
}

fn lanes<K: Consumer + Clone + 'static>(n: usize, inner: K) -> Workers<K> {
    keyed_lanes(n, Key::by_foreign_id(), inner)
}

/// Notes each event when it is done with it, after a while that depends on the seed.
fn unsteady(seed: u64, notes: &Notes<Event>) -> impl Consumer + Clone + 'static {
    let notes = notes.clone();
    consumer_fn("ship", move |event: Event| {
        let notes = notes.clone();
        let mut rng = StdRng::seed_from_u64(seed ^ event.id().as_i64().unwrap() as u64);
        async move {
            sleep(Duration::from_millis(rng.random_range(0..20))).await;
            notes.add(event);
            Ok(())
        }
    })
}

/// Fails on one event, as long as it is told to, and so late that all events before it are done.
fn failing_on(id: i64, failures: usize, notes: &Notes<i64>) -> impl Consumer + Clone + use<> {
    let (notes, failures) = (notes.clone(), Arc::new(Semaphore::new(failures)));
    consumer_fn("ship", move |event: Event| {
        let (notes, failures) = (notes.clone(), failures.clone());
        async move {
            let number = event.id_as_i64()?;
            if number == id && failures.try_acquire().map(|failure| failure.forget()).is_ok() {
                sleep(Duration::from_millis(10)).await;
                return Err(HandlerError::new("no stock"));
            }
            notes.add(number);
            Ok(())
        }
    })
}

#[track_caller]
fn assert_in_order_per_key(seen: &[Event]) {
    let mut last = BTreeMap::new();
    for event in seen {
        let before = last.insert(event.foreign_id().to_owned(), event.id_as_i64().unwrap());
        assert!(before < event.id().as_i64(), "{event:?} after {before:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keep_the_order_of_each_key_and_finish_at_the_head() {
    let seed = seed("lanes");
    for n in [1, 2, 4, 9] {
        let (notes, cursors) = (Notes::new(), MemoryCursors::new());
        let mut spec = Spec::new(of_keys(300, 17), cursors.clone(), lanes(n, unsteady(seed, &notes))).to_head();
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(notes.len(), 300);
        assert_in_order_per_key(&notes.all());
        assert_eq!(stored(&cursors, "ship"), Some(300));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cursor_moves_only_over_the_contiguous_prefix_whatever_is_done_first() {
    let seed = seed("lanes");
    for round in 0..20 {
        let notes = Notes::new();
        let cursors = CheckedCursors::new(&notes);
        let consumer = lanes(5, unsteady(seed ^ (round << 32), &notes)).window(20);
        let mut spec = Spec::new(of_keys(100, 11), cursors.clone(), consumer).to_head();
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(cursors.last(), Some(100));
        assert!(cursors.writes() > 5, "the cursor follows: {} writes", cursors.writes());
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_event_holds_the_cursor_and_its_lane_and_in_the_end_the_stream() {
    let (notes, cursors, gate) = (Notes::new(), MemoryCursors::new(), Arc::new(Semaphore::new(0)));
    let (noted, entry) = (notes.clone(), gate.clone());
    let consumer = consumer_fn("ship", move |event: Event| {
        let (noted, entry) = (noted.clone(), entry.clone());
        async move {
            if event.id_as_i64()? == 1 {
                entry.acquire().await?.forget();
            }
            noted.add(event.id_as_i64()?);
            Ok(())
        }
    });
    let events = of_keys(100, 10);
    let mut spec = Spec::new(events, cursors.clone(), lanes(10, consumer).window(32));
    let shutdown = async {
        sleep(LONG).await;
        assert_eq!(stored(&cursors, "ship"), None);
        let seen = notes.all();
        assert!(seen.iter().all(|id| *id <= 32), "beyond the window: {seen:?}");
        let held = seen.iter().filter(|id| **id % 10 == 1).count();
        assert!(held == 0 && seen.len() > 15, "the other lanes went on: {seen:?}");
        gate.add_permits(1);
        sleep(LONG).await;
        assert_eq!((stored(&cursors, "ship"), notes.len()), (Some(100), 100));
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
}

/// A store that takes its time.
struct SlowCursors(MemoryCursors);

impl CursorStore for SlowCursors {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.0.get(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        sleep(Duration::from_millis(10)).await;
        self.0.set(consumer, cursor).await
    }
}

#[tokio::test(start_paused = true)]
async fn no_event_is_begun_more_than_a_window_ahead_of_the_stored_cursor() {
    let cursors = MemoryCursors::new();
    let known = cursors.clone();
    let consumer = consumer_fn("ship", move |event: Event| {
        let ahead = event.id().as_i64().unwrap() - stored(&known, "ship").unwrap_or(0);
        async move {
            assert!(ahead <= 40, "{event:?} is {ahead} events ahead");
            sleep(Duration::from_millis(1)).await;
            Ok(())
        }
    });
    let consumer = lanes(8, consumer).window(40);
    let mut spec = Spec::new(of_keys(1_000, 90), SlowCursors(cursors.clone()), consumer).to_head();
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_head_reached(), "{}", chain(&error));
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_run_without_another_event_and_names_its_own() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let mut spec = Spec::new(of_keys(30, 10), cursors.clone(), lanes(4, failing_on(7, 1, &notes)));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends by itself").unwrap_err();
    assert_eq!(chain(&error), "consumer `ship`: the handler failed at event 7 (foreign id `6`): no stock");
    assert_eq!(stored(&cursors, "ship"), Some(6), "what is done before it counts");
    let seen = notes.all();
    assert!(!seen.contains(&17) && !seen.contains(&27), "its lane went on: {seen:?}");
    assert!(run_until(&mut spec, sleep(LONG)).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(30));
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_head_is_the_error_and_what_is_done_counts() {
    for failing in 1..=12 {
        let (notes, cursors) = (Notes::new(), MemoryCursors::new());
        let mut spec = Spec::new(of_keys(12, 5), cursors.clone(), lanes(3, failing_on(failing, 1, &notes))).to_head();
        let error = run(&mut spec).await.unwrap_err();
        assert_eq!(error.event_id(), Some(&failing.into()), "{error}");
        assert_eq!(stored(&cursors, "ship").unwrap_or(0), failing - 1);
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(stored(&cursors, "ship"), Some(12));
    }
}

/// A hot stream never lets the run wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_ends_the_run_in_the_middle_of_a_backlog() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let mut spec = Spec::new(of_keys(50_000, 100), cursors.clone(), lanes(4, failing_on(1_000, 1, &notes)));
    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(error.event_id(), Some(&1_000.into()));
    assert!(stored(&cursors, "ship") < Some(1_000));
    assert!(notes.all().iter().all(|id| *id < 1_000 + 1_024), "beyond the window");
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_its_kind() {
    let consumer = consumer_fn("ship", |_event: Event| ready(Err(Error::stopped().into())));
    let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), lanes(2, consumer))).await.unwrap_err();
    assert!(error.is_stopped() && error.event_id() == Some(&1.into()));
}

#[tokio::test(start_paused = true)]
async fn other_handlers_are_dropped_when_one_fails() {
    let consumer = consumer_fn("ship", |event: Event| async move {
        match event.id_as_i64()? {
            2 => Err(HandlerError::new("no stock")),
            _ => pending().await,
        }
    });
    let mut spec = Spec::new(of_keys(4, 4), MemoryCursors::new(), lanes(4, consumer));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(error.event_id(), Some(&2.into()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_a_failure_of_the_run() {
    let cursors = MemoryCursors::new();
    let consumer = consumer_fn("ship", |event: Event| async move {
        if event.id_as_i64()? == 3 {
            sleep(Duration::from_millis(10)).await;
            panic!("three is too many");
        }
        Ok(())
    });
    let mut spec = Spec::new(of_keys(5, 5), cursors.clone(), lanes(2, consumer));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(
        chain(&error),
        "consumer `ship`: the handler failed at event 3 (foreign id `2`): it panicked: three is too many"
    );
    assert_eq!(stored(&cursors, "ship"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_told_ends_the_run() {
    let key = Key::by(|event| match event.id_as_i64()? {
        4 => Err(HandlerError::new("no customer")),
        id => Ok(id.to_be_bytes()),
    });
    let notes = Notes::new();
    let mut spec = Spec::new(filled(5), MemoryCursors::new(), keyed_lanes(2, key, failing_on(0, 0, &notes)));
    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(chain(&error), "consumer `ship`: the handler failed at event 4 (foreign id `order-4`): no customer");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_written_ends_the_run() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    cursors.fail_next(Operation::Set, Error::store("set cursor", "disk full"));
    let mut spec = Spec::new(filled(5), cursors.clone(), lanes(2, failing_on(0, 0, &notes)));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert!(chain(&error).ends_with("set cursor: disk full"), "{error}");
    assert!(run_until(&mut spec, sleep(LONG)).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_is_on_its_way() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let consumer = lanes(3, unsteady(seed("lanes"), &notes)).window(50);
    let mut spec = Spec::new(of_keys(1_000, 7), cursors.clone(), consumer);
    assert!(run_until(&mut spec, sleep(Duration::from_millis(100))).await.unwrap_err().is_stopped());
    let done = notes.len();
    assert!(done < 1_000 && done > 0, "{done}");
    assert_eq!(stored(&cursors, "ship"), Some(done as i64), "all that was begun is done");
}

#[tokio::test(start_paused = true)]
async fn the_number_of_lanes_changes_between_runs() {
    let seed = seed("lanes");
    let (notes, cursors, events) = (Notes::new(), MemoryCursors::new(), of_keys(400, 13));
    for (n, failing) in [(4, 50), (1, 90), (7, 200), (3, 201), (16, 390), (2, 0)] {
        let (noted, before) = (Notes::new(), stored(&cursors, "ship").unwrap_or(0));
        let steady = unsteady(seed, &noted);
        let consumer = consumer_that_fails_on(failing, steady);
        let mut spec = Spec::new(events.clone(), cursors.clone(), lanes(n, consumer)).to_head();
        let error = run(&mut spec).await.unwrap_err();
        assert_eq!(error.event_id().and_then(|id| id.as_i64()), (failing > 0).then_some(failing), "{error}");
        assert_in_order_per_key(&noted.all());
        assert!(noted.all().iter().all(|event| event.id_as_i64().unwrap() > before), "nothing starts anew");
        noted.all().into_iter().for_each(|event| notes.add(event));
    }
    let seen: std::collections::BTreeSet<_> = notes.all().iter().map(|event| event.id_as_i64().unwrap()).collect();
    assert_eq!(seen, (1..=400).collect());
    assert_eq!(stored(&cursors, "ship"), Some(400));
}

fn consumer_that_fails_on<K: Consumer + Clone + 'static>(id: i64, inner: K) -> impl Consumer + Clone + 'static {
    consumer_fn("ship", move |event: Event| {
        let mut inner = inner.clone();
        async move {
            if event.id_as_i64()? == id {
                return Err(HandlerError::new("no stock"));
            }
            inner.consume(event).await.map(drop)
        }
    })
}

/// The run is dropped, its consumer stays, and is run again: its tasks of the first run do nothing more.
#[tokio::test]
async fn a_run_dropped_at_any_await_point_loses_nothing() {
    let mut cut_off = 0;
    for polls in 0..60 {
        let (notes, begun) = (Notes::new(), Notes::new());
        let cursors = CheckedCursors::new(&notes);
        let (noted, begins) = (notes.clone(), begun.clone());
        let consumer = consumer_fn("ship", move |event: Event| {
            let (noted, begins) = (noted.clone(), begins.clone());
            async move {
                begins.add(event.id_as_i64()?);
                yield_now().await;
                noted.add(event);
                Ok(())
            }
        });
        let mut spec = Spec::new(of_keys(40, 7), cursors.clone(), lanes(3, consumer).window(8)).to_head();
        for limit in [polls, 2 * polls, usize::MAX] {
            cut_off += usize::from(poll_times(limit, run(&mut spec)).await.is_none());
        }
        assert_eq!(cursors.last(), Some(40), "after {polls} polls");
        let seen: std::collections::BTreeSet<_> = notes.all().iter().map(|event| event.id_as_i64().unwrap()).collect();
        assert_eq!(seen.len(), 40, "after {polls} polls");
        assert!(begun.len() <= 40 + 2 * 8, "more came again than a window for each drop: {}", begun.len());
    }
    assert!(cut_off > 20, "too few runs were interrupted to tell: {cut_off}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_ends_its_tasks() {
    struct Held(Notes<&'static str>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.add("dropped");
        }
    }
    let notes = Notes::new();
    let noted = notes.clone();
    let consumer = consumer_fn("ship", move |_event: Event| {
        let held = Held(noted.clone());
        async move {
            pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    let mut spec = Spec::new(of_keys(2, 2), MemoryCursors::new(), lanes(2, consumer));
    let in_between = async {
        sleep(LONG).await;
        assert_eq!(notes.len(), 0);
    };
    tokio::select! {
        ended = run(&mut spec) => panic!("it ended: {ended:?}"),
        () = in_between => {}
    }
    sleep(LONG).await;
    assert_eq!(notes.all(), ["dropped", "dropped"]);
}

#[tokio::test]
async fn neither_zero_lanes_nor_a_window_of_zero_run() {
    let notes = Notes::new();
    for consumer in [lanes(0, failing_on(0, 0, &notes)), lanes(2, failing_on(0, 0, &notes)).window(0)] {
        let events = filled(1);
        events.fail_next_open(Error::stopped());
        let error = run(&mut Spec::new(events, MemoryCursors::new(), consumer)).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("make it 1 or more"), "{error}");
    }
    assert_eq!(notes.len(), 0);
}
