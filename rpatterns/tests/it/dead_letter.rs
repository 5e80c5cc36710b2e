//! Dead letters: what is put aside, what is not, parking by key, and redrives while the consumer runs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use reflex_core::{
    Consumer, DeadLetterStore, Error, Event, HandlerError, MemoryCursors, MemoryDeadLetters, MemoryEvents, NewEvent,
    Selection, Spec, consumer_fn, run, run_until,
};
use reflex_testing::{ScriptedConsumer, Step, eventually};
use rpatterns::{batch_by_len, dead_letter, redrive, retry};
use tokio::time::sleep;

use crate::support::{DEADLINE, Notes, Scrape, append, chain, filled, stored};

const SECOND: Duration = Duration::from_secs(1);

/// The ids that are put aside, each with whether it only waits behind another.
fn open(letters: &MemoryDeadLetters, consumer: &str) -> Vec<(i64, bool)> {
    let open = letters.open(consumer);
    open.iter().map(|letter| (letter.event.id().as_i64().unwrap(), letter.parked)).collect()
}

/// What a handler fails on, until it is repaired. Clones share it.
#[derive(Clone, Default)]
struct Poison(Arc<Mutex<BTreeSet<i64>>>);

impl Poison {
    fn of(ids: impl IntoIterator<Item = i64>) -> Self {
        Self(Arc::new(Mutex::new(ids.into_iter().collect())))
    }

    fn repair(&self) {
        self.0.lock().unwrap().clear();
    }

    fn spoils(&self, events: &[Event]) -> bool {
        let poison = self.0.lock().unwrap();
        events.iter().any(|event| poison.contains(&event.id().as_i64().unwrap()))
    }
}

fn outcome(failed: bool) -> Result<(), HandlerError> {
    if failed { Err(HandlerError::new("spoilt")) } else { Ok(()) }
}

/// A handler of batches that is all or nothing, and writes down what it has done.
fn batches(poison: &Poison, done: &Notes<i64>) -> impl Consumer<Vec<Event>> + use<> {
    let (poison, done) = (poison.clone(), done.clone());
    consumer_fn("index", move |batch: Vec<Event>| {
        let failed = poison.spoils(&batch);
        if !failed {
            batch.iter().for_each(|event| done.add(event.id().as_i64().unwrap()));
        }
        async move { outcome(failed) }
    })
}

/// The same of single events.
fn singles(poison: &Poison, done: &Notes<i64>) -> impl Consumer + Clone + use<> {
    let (poison, done) = (poison.clone(), done.clone());
    consumer_fn("charge", move |event: Event| {
        let failed = poison.spoils(std::slice::from_ref(&event));
        if !failed {
            done.add(event.id().as_i64().unwrap());
        }
        async move { outcome(failed) }
    })
}

/// Events of these foreign ids, in this order.
fn of_keys<const N: usize>(keys: [&str; N]) -> MemoryEvents {
    let events = MemoryEvents::new();
    for key in keys {
        events.append(NewEvent::new(key, 1));
    }
    events
}

#[tokio::test]
async fn an_event_that_fails_is_put_aside_and_the_others_go_on() {
    let (cursors, letters) = (MemoryCursors::new(), MemoryDeadLetters::new());
    let inner = ScriptedConsumer::new("charge").at(1, Step::fail("no such card"));
    let calls = inner.calls();
    let consumer = dead_letter(letters.clone(), inner);
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3]);
    assert_eq!(stored(&cursors, "charge"), Some(3));
    let letter = letters.open("charge").remove(0);
    assert_eq!((letter.event.foreign_id(), &*letter.error, letter.parked), ("order-2", "no such card", false));
}

/// The run before was killed after it had put events aside, and before it moved the cursor.
#[tokio::test]
async fn what_is_open_at_the_start_is_not_handed_over_when_it_is_delivered_again() {
    let (cursors, letters, done) = (MemoryCursors::new(), MemoryDeadLetters::new(), Notes::new());
    let events = filled(6);
    let failing = dead_letter(letters.clone(), batches(&Poison::of([2, 5]), &Notes::new()));
    let killed = Spec::new(events.clone(), MemoryCursors::new(), batch_by_len(6, failing));
    assert!(run(&mut killed.to_head()).await.unwrap_err().is_head_reached());

    let consumer = dead_letter(letters.clone(), batches(&Poison::default(), &done));
    let mut spec = Spec::new(events, cursors.clone(), batch_by_len(6, consumer)).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!((done.all(), stored(&cursors, "index")), (vec![1, 3, 4, 6], Some(6)));
    assert_eq!(open(&letters, "index"), [(2, false), (5, false)]);

    letters.request("index", &Selection::All).unwrap();
    redrive::<Vec<Event>, _, _>(&mut dead_letter(letters.clone(), batches(&Poison::default(), &done))).await.unwrap();
    assert_eq!(done.all(), [1, 3, 4, 6, 2, 5]);
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_batch_are_tried_once_and_a_single_event_as_often_as_the_retry_says() {
    let tried: Notes<Vec<i64>> = Notes::new();
    let noted = tried.clone();
    let handler = consumer_fn("index", move |batch: Vec<Event>| {
        let ids: Vec<_> = batch.iter().map(|event| event.id().as_i64().unwrap()).collect();
        let failed = ids.contains(&2);
        noted.add(ids);
        async move { outcome(failed) }
    });
    let letters = MemoryDeadLetters::new();
    let consumer = batch_by_len(4, dead_letter(letters.clone(), retry([SECOND, SECOND], handler)));
    let mut spec = Spec::new(filled(4), MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    let whole = vec![1, 2, 3, 4];
    let expected = [whole.clone(), whole.clone(), whole, vec![1, 2], vec![1], vec![2], vec![2], vec![2], vec![3, 4]];
    assert_eq!(tried.all(), expected);
    assert_eq!(open(&letters, "index"), [(2, false)]);
}

#[tokio::test]
async fn an_event_that_cannot_be_put_aside_ends_the_run_and_both_errors_are_told() {
    let (cursors, letters) = (MemoryCursors::new(), MemoryDeadLetters::bounded(0));
    let inner = ScriptedConsumer::new("charge").at(0, Step::fail("no such card"));
    let mut spec = Spec::new(filled(2), cursors.clone(), dead_letter(letters, inner));
    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(error.event_id(), Some(&1.into()));
    let chain = chain(&error);
    assert!(chain.contains("no such card") && chain.contains("redrive or discard some"), "{chain}");
    assert_eq!(stored(&cursors, "charge"), None);
}

#[tokio::test]
async fn expected_fencing_and_excluded_errors_end_the_run() {
    let makes: [fn() -> Error; 3] =
        [Error::stopped, || Error::fenced("charge"), || Error::store("ask the bank", "connection refused")];
    for make in makes {
        let (cursors, letters) = (MemoryCursors::new(), MemoryDeadLetters::new());
        let inner = consumer_fn("charge", move |_event: Event| async move { Err(make().into()) });
        let consumer = dead_letter(letters.clone(), inner).when(|error| !error.to_string().starts_with("ask the bank"));
        let mut spec = Spec::new(filled(1), cursors.clone(), consumer).to_head();
        let error = run(&mut spec).await.unwrap_err();
        assert!(!error.is_head_reached(), "{error}");
        assert!(letters.open("charge").is_empty());
        assert_eq!(stored(&cursors, "charge"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_inside_retries_first_and_a_shutdown_in_its_delay_puts_nothing_aside() {
    let letters = MemoryDeadLetters::new();
    let inner = ScriptedConsumer::new("charge").at(0, Step::fail("a")).at(1, Step::fail("b")).at(2, Step::fail("c"));
    let calls = inner.calls();
    let consumer = dead_letter(letters.clone(), retry([SECOND], inner));
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer).to_head();
    assert!(run_until(&mut spec, sleep(SECOND / 2)).await.unwrap_err().is_stopped());
    assert!(letters.open("charge").is_empty());
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 1, 1, 2]);
    assert_eq!(open(&letters, "charge"), [(1, false)]);
}

#[tokio::test]
async fn only_the_events_that_spoil_a_batch_are_put_aside_in_order() {
    let (cursors, letters, done) = (MemoryCursors::new(), MemoryDeadLetters::new(), Notes::new());
    let inner = batches(&Poison::of([1, 6, 7, 16]), &done);
    let consumer = batch_by_len(16, dead_letter(letters.clone(), inner));
    let mut spec = Spec::new(filled(16), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(open(&letters, "index"), [(1, false), (6, false), (7, false), (16, false)]);
    assert_eq!(done.all(), [2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(stored(&cursors, "index"), Some(16));
}

#[tokio::test]
async fn a_whole_batch_is_put_aside_if_asked_for() {
    let (letters, done) = (MemoryDeadLetters::new(), Notes::new());
    let inner = batches(&Poison::of([2]), &done);
    let consumer = batch_by_len(3, dead_letter(letters.clone(), inner).whole_batches());
    let mut spec = Spec::new(filled(6), MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(open(&letters, "index"), [(1, false), (2, false), (3, false)]);
    assert_eq!(done.all(), [4, 5, 6]);
}

#[tokio::test]
async fn an_error_that_ends_the_run_ends_the_search_for_what_spoils_a_batch() {
    let letters = MemoryDeadLetters::new();
    let inner = consumer_fn("index", |batch: Vec<Event>| async move {
        if batch.len() > 1 { Err(HandlerError::new("spoilt")) } else { Err(Error::fenced("index").into()) }
    });
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(filled(4), cursors.clone(), batch_by_len(4, dead_letter(letters.clone(), inner)));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_fenced());
    assert_eq!(error.event_id(), Some(&1.into()));
    assert!(letters.open("index").is_empty());
    assert_eq!(stored(&cursors, "index"), None);
}

#[tokio::test]
async fn a_consumer_inside_that_answers_later_is_refused() {
    let (letters, cursors) = (MemoryDeadLetters::new(), MemoryCursors::new());
    let inner = batches(&Poison::of([2]), &Notes::new());
    let mut spec = Spec::new(filled(3), cursors.clone(), dead_letter(letters.clone(), batch_by_len(2, inner)));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("put dead_letter around the handler"), "{error}");
    assert!(letters.open("index").is_empty());
    assert_eq!(stored(&cursors, "index"), None);
}

#[tokio::test]
async fn events_behind_a_parked_one_of_their_foreign_id_park_behind_it() {
    let (scrape, letters, done) = (Scrape::new(), MemoryDeadLetters::new(), Notes::new());
    let events = of_keys(["a", "b", "a", "b", "a"]);
    let consumer = dead_letter(letters.clone(), singles(&Poison::of([1]), &done)).park_by_key();
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head().metrics(&scrape.metrics);
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(done.all(), [2, 4]);
    assert_eq!(open(&letters, "charge"), [(1, false), (3, true), (5, true)]);
    assert_eq!(scrape.consumer("reflex_consumer_skipped_events_count", "charge"), Some(0.0));
}

#[tokio::test]
async fn without_parking_later_events_of_the_foreign_id_are_handled() {
    let (letters, done) = (MemoryDeadLetters::new(), Notes::new());
    let consumer = dead_letter(letters.clone(), singles(&Poison::of([1]), &done));
    let mut spec = Spec::new(of_keys(["a", "b", "a"]), MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(done.all(), [2, 3]);
}

#[tokio::test]
async fn within_a_batch_too_nothing_passes_a_parked_event_of_its_foreign_id() {
    let (letters, done) = (MemoryDeadLetters::new(), Notes::new());
    let events = of_keys(["a", "b", "a", "c", "b", "a", "c", "b"]);
    let inner = batches(&Poison::of([3]), &done);
    let consumer = batch_by_len(4, dead_letter(letters.clone(), inner).park_by_key());
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(done.all(), [1, 2, 4, 5, 7, 8]);
    assert_eq!(open(&letters, "index"), [(3, false), (6, true)]);

    let (letters, done) = (MemoryDeadLetters::new(), Notes::new());
    let inner = batches(&Poison::of([1]), &done);
    let consumer = batch_by_len(8, dead_letter(letters.clone(), inner).park_by_key());
    let events = of_keys(["a", "b", "a", "c", "b", "a", "c", "b"]);
    let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(done.all(), [2, 4, 5, 7, 8]);
    assert_eq!(open(&letters, "index"), [(1, false), (3, true), (6, true)]);
}

#[tokio::test]
async fn a_whole_batch_is_put_aside_with_later_events_parked_behind_earlier_ones() {
    let (letters, done) = (MemoryDeadLetters::new(), Notes::new());
    let inner = batches(&Poison::of([2]), &done);
    let consumer = batch_by_len(4, dead_letter(letters.clone(), inner).whole_batches().park_by_key());
    let mut spec = Spec::new(of_keys(["a", "b", "a", "c"]), MemoryCursors::new(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(open(&letters, "index"), [(1, false), (2, false), (3, true), (4, false)]);
}

#[tokio::test]
async fn a_store_that_cannot_park_ends_the_run() {
    let (letters, cursors) = (MemoryDeadLetters::new(), MemoryCursors::new());
    letters.fail_next(Error::store("park events", "connection refused"));
    let inner = ScriptedConsumer::new("charge");
    let calls = inner.calls();
    let mut spec = Spec::new(filled(1), cursors.clone(), dead_letter(letters, inner).park_by_key()).to_head();
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.to_string().contains("park events"), "{error}");
    assert!(calls.consumed_ids().is_empty());
    assert_eq!(stored(&cursors, "charge"), None);
}

#[tokio::test(start_paused = true)]
async fn requested_redrives_are_done_in_order_while_the_consumer_runs() {
    let (letters, done, poison) = (MemoryDeadLetters::new(), Notes::new(), Poison::of([1, 2]));
    let (events, cursors) = (of_keys(["a", "b", "a", "c"]), MemoryCursors::new());
    let consumer = dead_letter(letters.clone(), singles(&poison, &done)).park_by_key();
    let mut spec = Spec::new(events.clone(), cursors.clone(), consumer);
    let script = async {
        eventually("all events", DEADLINE, || async { stored(&cursors, "charge") == Some(4) }).await;
        assert_eq!(open(&letters, "charge"), [(1, false), (2, false), (3, true)]);
        // The first attempts fail again, and the run goes on.
        letters.request("charge", &Selection::All).unwrap();
        let counted = || async { letters.open("charge").iter().filter(|letter| letter.redrives == 1).count() == 2 };
        eventually("two redrives", DEADLINE, counted).await;
        assert_eq!(open(&letters, "charge"), [(1, false), (2, false), (3, true)]);

        poison.repair();
        letters.request("charge", &Selection::ForeignId("a".into())).unwrap();
        eventually("a closed key", DEADLINE, || async { letters.open("charge").len() == 1 }).await;
        append(&events, 1);
        eventually("the stream", DEADLINE, || async { stored(&cursors, "charge") == Some(5) }).await;
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
    assert_eq!(done.all(), [4, 1, 3, 5]);
    assert_eq!(open(&letters, "charge"), [(2, false)]);
    assert_eq!(stored(&cursors, "charge"), Some(5), "no redrive moves the cursor");
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_redrives_batches_of_one() {
    let (letters, done, poison) = (MemoryDeadLetters::new(), Notes::new(), Poison::of([1, 3]));
    let consumer = batch_by_len(2, dead_letter(letters.clone(), batches(&poison, &done)));
    let mut spec = Spec::new(filled(4), MemoryCursors::new(), consumer);
    let script = async {
        eventually("dead letters", DEADLINE, || async { letters.open("index").len() == 2 }).await;
        poison.repair();
        letters.request("index", &Selection::All).unwrap();
        eventually("redrives", DEADLINE, || async { letters.open("index").is_empty() }).await;
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
    assert_eq!(done.all(), [2, 4, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_a_shutdown_ends_stays_claimed() {
    let letters = MemoryDeadLetters::new();
    let event = filled(0).append(NewEvent::new("order-1", 1));
    letters.put("charge", &event, &HandlerError::new("no such card")).await.unwrap();
    letters.request("charge", &Selection::All).unwrap();
    let inner = ScriptedConsumer::new("charge").at(0, Step::fail("again"));
    let consumer = dead_letter(letters.clone(), retry([3_600 * SECOND], inner));
    let mut spec = Spec::new(filled(0), MemoryCursors::new(), consumer);
    let error = run_until(&mut spec, sleep(SECOND)).await.unwrap_err();
    assert!(error.is_stopped(), "{error}");
    assert_eq!(letters.open("charge")[0].redrives, 0);
}

#[tokio::test]
async fn an_interval_of_zero_is_refused() {
    let consumer = dead_letter(MemoryDeadLetters::new(), ScriptedConsumer::new("charge"));
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer.redrive_interval(Duration::ZERO));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("interval"), "{error}");
}
