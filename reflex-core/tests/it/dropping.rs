//! A run that is dropped at any of its await points loses nothing.

use std::sync::{Arc, Mutex};

use reflex_core::{BufferedCursors, CursorStore, Event, MemoryCursors, Spec, consumer_fn, run};
use reflex_testing::{History, poll_times};
use tokio::task::yield_now;

use crate::support::{SlowStore, filled, stored, yielding_source};

const EVENTS: i64 = 12;

type Seen = Arc<Mutex<Vec<i64>>>;

/// A spec with waits in its source, its store and its consumer, who notes an event when its work is done.
fn spec<C: CursorStore>(
    cursors: C,
    seen: &Seen,
) -> Spec<impl reflex_core::StreamFunc<Stream: 'static>, SlowStore<C>, impl reflex_core::Consumer> {
    let seen = seen.clone();
    let consumer = consumer_fn("billing", move |event: Event| {
        let seen = seen.clone();
        async move {
            yield_now().await;
            seen.lock().unwrap().push(event.id_as_i64()?);
            yield_now().await;
            Ok(())
        }
    });
    Spec::new(yielding_source(filled(EVENTS as usize)), SlowStore::new(cursors), consumer).to_head()
}

/// Runs once for `polls` polls, once for twice as many, and then to the head. Returns how often it was cut off.
async fn interrupt<C: CursorStore>(polls: usize, cursors: &MemoryCursors, wrap: impl Fn(MemoryCursors) -> C) -> usize {
    let (mut history, mut cut_off) = (History::new(), 0);
    for limit in [polls, 2 * polls, usize::MAX] {
        match stored(cursors, "billing") {
            Some(cursor) => history.resume_after(cursor),
            None => history.resume(),
        }
        let seen = Seen::default();
        let mut spec = spec(wrap(cursors.clone()), &seen);
        match poll_times(limit, run(&mut spec)).await {
            Some(ended) => assert!(ended.unwrap_err().is_head_reached()),
            None => cut_off += 1,
        }
        history.extend(seen.lock().unwrap().iter().copied());
    }
    let report = history.check(&(1..=EVENTS).collect::<Vec<_>>());
    assert!(report.is_ok(), "after {polls} polls: {report:?}");
    assert_eq!(stored(cursors, "billing"), Some(EVENTS));
    cut_off
}

#[tokio::test]
async fn with_a_cursor_per_event() {
    let mut cut_off = 0;
    for polls in 0..80 {
        cut_off += interrupt(polls, &MemoryCursors::new(), |cursors| cursors).await;
    }
    assert!(cut_off > 50, "too few runs were interrupted to tell: {cut_off}");
}

#[tokio::test]
async fn with_buffered_cursors() {
    let mut cut_off = 0;
    for polls in 0..80 {
        let wrap = |cursors| BufferedCursors::new(cursors).max_sets(4);
        cut_off += interrupt(polls, &MemoryCursors::new(), wrap).await;
    }
    assert!(cut_off > 50, "too few runs were interrupted to tell: {cut_off}");
}

/// The same spec, store included, is run again.
#[tokio::test]
async fn with_the_same_spec() {
    for polls in 0..80 {
        let (cursors, seen) = (MemoryCursors::new(), Seen::default());
        let mut spec = spec(BufferedCursors::new(cursors.clone()), &seen);
        let mut history = History::new();
        for limit in [polls, 2 * polls, usize::MAX] {
            let before = seen.lock().unwrap().len();
            history.resume();
            drop(poll_times(limit, run(&mut spec)).await);
            history.extend(seen.lock().unwrap()[before..].iter().copied());
        }
        let report = history.check(&(1..=EVENTS).collect::<Vec<_>>());
        assert!(report.is_ok(), "after {polls} polls: {report:?}");
        assert_eq!(stored(&cursors, "billing"), Some(EVENTS));
    }
}
