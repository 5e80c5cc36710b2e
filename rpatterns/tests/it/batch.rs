//! Batches by length and by period.

use std::{future::ready, time::Duration};

use reflex_core::{
    Consumer, Cursor, Event, HandlerError, MemoryCursors, MemoryDeadLetters, Metrics, Monitoring, NewEvent, Progress,
    Spec, consumer_fn, run, run_until,
};
use reflex_testing::{eventually, poll_times};
use rpatterns::{batch, batch_by_len, batch_by_period, dead_letter, retry};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout},
};

use crate::support::{DEADLINE, Notes, append, chain, filled, stored};

const PERIOD: Duration = Duration::from_secs(1);

fn ids(batch: &[Event]) -> Vec<i64> {
    batch.iter().filter_map(|event| event.id().as_i64()).collect()
}

/// Notes the batches that it gets.
fn noting(notes: &Notes<Vec<i64>>) -> impl Consumer<Vec<Event>> + Clone + 'static {
    let notes = notes.clone();
    consumer_fn("index", move |batch: Vec<Event>| {
        notes.add(ids(&batch));
        ready(Ok(()))
    })
}

/// Fails on batches with this event, as long as it is told to.
fn failing_on(id: i64, failures: usize, notes: &Notes<Vec<i64>>) -> impl Consumer<Vec<Event>> + use<> {
    let (notes, mut left) = (notes.clone(), failures);
    consumer_fn("index", move |batch: Vec<Event>| {
        notes.add(ids(&batch));
        let fails = ids(&batch).contains(&id) && left > 0;
        left -= usize::from(fails);
        ready(if fails { Err(HandlerError::new("the index is read-only")) } else { Ok(()) })
    })
}

#[tokio::test(start_paused = true)]
async fn by_length_with_the_rest_at_the_head() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let mut spec = Spec::new(filled(7), cursors.clone(), batch_by_len(3, noting(&notes))).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(notes.all(), [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    assert_eq!(stored(&cursors, "index"), Some(7));
}

#[tokio::test(start_paused = true)]
async fn by_period_counted_from_the_first_event_of_the_batch() {
    let (events, cursors, notes) = (filled(0), MemoryCursors::new(), Notes::new());
    let handed_over = Notes::new();
    let (start, noted, times) = (Instant::now(), notes.clone(), handed_over.clone());
    let consumer = consumer_fn("index", move |batch: Vec<Event>| {
        noted.add(ids(&batch));
        times.add(start.elapsed().as_millis());
        ready(Ok(()))
    });
    let mut spec = Spec::new(events.clone(), cursors.clone(), batch_by_period(PERIOD, consumer));
    let shutdown = async {
        sleep(5 * PERIOD).await;
        append(&events, 1);
        sleep(PERIOD * 9 / 10).await;
        append(&events, 1);
        sleep(PERIOD).await;
        append(&events, 1);
        sleep(10 * PERIOD).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(notes.all(), [vec![1, 2], vec![3]]);
    let late: Vec<_> = handed_over.all().iter().zip([6_000, 7_900]).map(|(at, due)| at - due).collect();
    assert!(late.iter().all(|millis| *millis < 20), "so late: {late:?}");
    assert_eq!(stored(&cursors, "index"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn by_whichever_comes_first() {
    let (events, notes) = (filled(5), Notes::new());
    let mut spec = Spec::new(events.clone(), MemoryCursors::new(), batch(2, PERIOD, noting(&notes)));
    let shutdown = async {
        sleep(2 * PERIOD).await;
        assert_eq!(notes.all(), [vec![1, 2], vec![3, 4], vec![5]]);
        append(&events, 2);
        sleep(PERIOD / 10).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(notes.all().last(), Some(&vec![6, 7]));
}

/// The timestamps of a backlog are older than any period.
#[tokio::test(start_paused = true)]
async fn a_backlog_fills_whole_batches() {
    let (events, notes) = (filled(0), Notes::new());
    for number in 0..6 {
        events.append(NewEvent::new(number, 1).timestamp(Default::default()));
    }
    let mut spec = Spec::new(events, MemoryCursors::new(), batch(3, PERIOD, noting(&notes))).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(notes.all(), [vec![1, 2, 3], vec![4, 5, 6]]);
}

#[tokio::test(start_paused = true)]
async fn a_period_alone_keeps_a_backlog_out_of_memory() {
    let notes = Notes::new();
    let mut spec = Spec::new(filled(10_001), MemoryCursors::new(), batch_by_period(PERIOD, noting(&notes))).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(notes.all().iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_period_never_ends() {
    let notes = Notes::new();
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), batch(2, Duration::MAX, noting(&notes)));
    assert!(run_until(&mut spec, sleep(PERIOD)).await.unwrap_err().is_stopped());
    assert_eq!(notes.all(), [vec![1, 2], vec![3]]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_ends_the_run_and_comes_again_whole() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let consumer = batch(2, PERIOD, failing_on(4, 1, &notes));
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer).to_head();
    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "consumer `index`: the handler failed at event 3 (foreign id `order-3`): the index is read-only"
    );
    assert_eq!(stored(&cursors, "index"), Some(2));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(notes.all(), [vec![1, 2], vec![3, 4], vec![3, 4], vec![5]]);
}

#[tokio::test(start_paused = true)]
async fn a_timed_batch_that_fails_ends_the_run_without_another_event() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let mut spec = Spec::new(filled(3), cursors.clone(), batch(2, PERIOD, failing_on(3, 1, &notes)));
    let start = Instant::now();
    let error = timeout(60 * PERIOD, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(error.event_id(), Some(&3.into()));
    assert_eq!(start.elapsed().as_secs(), PERIOD.as_secs());
    assert_eq!(stored(&cursors, "index"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_one_run_collected_is_forgotten_by_the_next() {
    let (events, notes, cursors) = (filled(2), Notes::new(), MemoryCursors::new());
    let mut spec = Spec::new(events.clone(), cursors.clone(), batch_by_len(3, noting(&notes)));
    let dropped = timeout(PERIOD, run(&mut spec)).await;
    assert!(dropped.is_err() && notes.len() == 0 && stored(&cursors, "index").is_none());
    append(&events, 1);
    assert!(run_until(&mut spec, sleep(PERIOD)).await.unwrap_err().is_stopped());
    assert_eq!(notes.all(), [vec![1, 2, 3]]);
}

#[tokio::test]
async fn a_run_dropped_at_any_await_point_loses_nothing() {
    for polls in 0..60 {
        let (notes, cursors) = (Notes::new(), MemoryCursors::new());
        let noted = notes.clone();
        let consumer = consumer_fn("index", move |batch: Vec<Event>| {
            let noted = noted.clone();
            async move {
                yield_now().await;
                noted.add(ids(&batch));
                yield_now().await;
                Ok(())
            }
        });
        let mut spec = Spec::new(filled(11), cursors.clone(), batch(2, PERIOD, consumer)).to_head();
        for limit in [polls, 2 * polls, usize::MAX] {
            drop(poll_times(limit, run(&mut spec)).await);
            let done = stored(&cursors, "index").unwrap_or(0);
            let seen = notes.all().concat();
            assert!((1..=done).all(|id| seen.contains(&id)), "cursor {done} after {polls} polls, and only {seen:?}");
        }
        assert_eq!(stored(&cursors, "index"), Some(11));
    }
}

#[tokio::test]
async fn neither_zero_events_nor_a_zero_period_run() {
    let notes = Notes::new();
    for consumer in [batch_by_len(0, noting(&notes)), batch(2, Duration::ZERO, noting(&notes))] {
        let events = filled(1);
        events.fail_next_open(reflex_core::Error::stopped());
        let error = run(&mut Spec::new(events, MemoryCursors::new(), consumer)).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().starts_with("consumer `index`: a batch has a"), "{error}");
    }
    assert_eq!(notes.len(), 0);
}

/// Answers what it is told, and has something to do whenever it is woken.
struct Inner {
    answers: Vec<Progress>,
    calls: Notes<&'static str>,
    woken: std::sync::Arc<tokio::sync::Notify>,
    drained: Progress,
}

impl Inner {
    fn new(answers: impl Into<Vec<Progress>>) -> Self {
        Self { answers: answers.into(), calls: Notes::new(), woken: Default::default(), drained: Progress::Pending }
    }
}

impl Consumer<Vec<Event>> for Inner {
    fn name(&self) -> &str {
        "inner"
    }

    async fn consume(&mut self, _batch: Vec<Event>) -> Result<Progress, HandlerError> {
        self.calls.add("consume");
        Ok(self.answers.remove(0))
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.calls.add("reset");
        Ok(())
    }

    async fn ready(&mut self) {
        self.woken.notified().await;
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        self.calls.add("advance");
        Ok(Progress::UpTo(1.into()))
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        self.calls.add("drain");
        Ok(self.drained.clone())
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.calls.add("stop");
        Ok(())
    }

    fn monitoring(&self) -> Monitoring {
        let mut monitoring = Monitoring::default();
        monitoring.lag_alert = None;
        monitoring
    }
}

#[tokio::test]
async fn every_call_reaches_the_consumer_inside() {
    let inner = Inner::new([Progress::Pending, Progress::Skipped]);
    let (calls, woken, cursors) = (inner.calls.clone(), inner.woken.clone(), MemoryCursors::new());
    let consumer = batch_by_len(2, inner);
    assert_eq!((consumer.name(), consumer.monitoring().lag_alert), ("inner", None));
    let metrics = Metrics::register(&Default::default()).unwrap();
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).metrics(&metrics);
    let shutdown = async {
        eventually("the first batch", DEADLINE, || ready(calls.all().contains(&"consume"))).await;
        assert_eq!(stored(&cursors, "inner"), None, "the consumer inside is not done with it");
        woken.notify_one();
        eventually("its cursor", DEADLINE, || ready(stored(&cursors, "inner") == Some(1))).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(calls.all(), ["reset", "consume", "advance", "consume", "drain", "stop"]);
    assert_eq!(stored(&cursors, "inner"), Some(3), "a skipped batch is done");
}

#[tokio::test]
async fn at_a_drain_the_consumer_inside_has_the_last_word() {
    let mut inner = Inner::new([Progress::Pending]);
    inner.drained = Progress::UpTo(Cursor::from(2));
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(filled(2), cursors.clone(), batch_by_len(3, inner)).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(stored(&cursors, "inner"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn patterns_compose_as_they_read() {
    let (letters, cursors, notes) = (MemoryDeadLetters::new(), MemoryCursors::new(), Notes::new());
    let (noted, delays) = (notes.clone(), [PERIOD; 2]);
    let index = consumer_fn("index", move |batch: Vec<Event>| {
        let spoilt = ids(&batch).contains(&3);
        if !spoilt {
            noted.add(ids(&batch));
        }
        ready(if spoilt { Err(HandlerError::new("not JSON")) } else { Ok(()) })
    });
    let consumer = batch(100, Duration::from_millis(50), dead_letter(letters.clone(), retry(delays, index)));
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer);
    assert!(run_until(&mut spec, sleep(100 * PERIOD)).await.unwrap_err().is_stopped());
    let put_aside: Vec<_> = letters.open("index").iter().map(|letter| letter.event.id().clone()).collect();
    assert_eq!(put_aside, [Cursor::from(3)]);
    assert_eq!(notes.all().concat(), [1, 2, 4, 5]);
    assert_eq!(stored(&cursors, "index"), Some(5));
}
