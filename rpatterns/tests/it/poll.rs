//! The poll source: pages, pauses, options, errors.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use reflex_core::{
    Cursor, Error, Event, EventParts, HandlerError, MemoryCursors, Spec, StreamFunc, StreamOptions, run,
};
use reflex_testing::{ScriptedConsumer, collect};
use rpatterns::{PollSource, poll_source};
use tokio::time::{Instant, sleep};

use crate::support::{Notes, stored};

const SECOND: Duration = Duration::from_secs(1);

/// An API with so many events, in pages of three, that remembers what it was asked.
#[derive(Clone)]
struct Api {
    count: Arc<Mutex<i64>>,
    age: Duration,
    asked: Notes<Option<i64>>,
}

impl Api {
    fn with(count: i64) -> Self {
        Self { count: Arc::new(Mutex::new(count)), age: Duration::ZERO, asked: Notes::new() }
    }

    fn add(&self, count: i64) {
        *self.count.lock().unwrap() += count;
    }

    fn source(&self) -> PollSource<impl Fn(Option<Cursor>) -> Page + Send + Sync + use<>> {
        let api = self.clone();
        poll_source(move |after: Option<Cursor>| {
            let after = after.and_then(|cursor| cursor.as_i64());
            api.asked.add(after);
            let last = *api.count.lock().unwrap();
            let ids = (after.unwrap_or(0) + 1..=last).take(3);
            std::future::ready(Ok(ids.map(|id| event(id, api.age)).collect()))
        })
    }
}

type Page = std::future::Ready<Result<Vec<Event>, HandlerError>>;

fn event(id: i64, age: Duration) -> Event {
    let (timestamp, metadata, trace) = (chrono::Utc::now() - age, b"".as_slice(), b"".as_slice());
    Event::from(EventParts { id: id.into(), event_type: 1.into(), foreign_id: "payment", timestamp, metadata, trace })
}

fn ids(events: &[Event]) -> Vec<i64> {
    events.iter().filter_map(|event| event.id().as_i64()).collect()
}

#[tokio::test]
async fn pages_from_the_cursor_to_the_head() {
    let api = Api::with(7);
    assert_eq!(ids(&collect(&api.source(), StreamOptions::new()).await.unwrap()), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(api.asked.all(), [None, Some(3), Some(6), Some(7)]);
    assert_eq!(ids(&collect(&api.source(), StreamOptions::new().after(5)).await.unwrap()), [6, 7]);
}

#[tokio::test(start_paused = true)]
async fn only_an_empty_page_is_followed_by_a_pause() {
    let api = Api::with(4);
    let source = api.source();
    let mut stream = source.open(StreamOptions::new()).await.unwrap().events;
    let start = Instant::now();
    for _ in 1..=4 {
        stream.next().await.unwrap().unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 0);
    let later = async {
        sleep(61 * SECOND).await;
        api.add(1);
    };
    let (fifth, ()) = tokio::join!(stream.next(), later);
    assert_eq!(fifth.unwrap().unwrap().id(), &5.into());
    assert_eq!(start.elapsed().as_secs(), 120, "the pause is a minute");
    assert_eq!(api.asked.all(), [None, Some(3), Some(4), Some(4), Some(4)]);
}

#[tokio::test(start_paused = true)]
async fn the_pause_can_be_set_but_not_to_nothing() {
    let api = Api::with(0);
    let source = api.source().backoff(5 * SECOND);
    let mut stream = source.open(StreamOptions::new()).await.unwrap().events;
    let start = Instant::now();
    let (first, ()) = tokio::join!(stream.next(), async {
        sleep(SECOND).await;
        api.add(1);
    });
    assert!(first.unwrap().is_ok());
    assert_eq!(start.elapsed().as_secs(), 5);
    let refused = api.source().backoff(Duration::ZERO).open(StreamOptions::new()).await;
    assert!(refused.err().unwrap().is_invalid());
}

#[tokio::test]
async fn from_head_starts_after_what_is_there_and_tells_the_position() {
    let api = Api::with(7);
    let source = api.source();
    let opened = source.open(StreamOptions::new().from_head()).await.unwrap();
    assert_eq!(opened.position, Some(7.into()));
    api.add(1);
    assert_eq!(opened.events.boxed().next().await.unwrap().unwrap().id(), &8.into());
    let empty = Api::with(0).source().open(StreamOptions::new().from_head()).await.unwrap();
    assert_eq!(empty.position, None);
    assert_eq!(source.open(StreamOptions::new().after(2)).await.unwrap().position, None);
}

#[tokio::test(start_paused = true)]
async fn lag_holds_events_back_and_to_head_ends_in_front_of_them() {
    let mut api = Api::with(2);
    api.age = 100 * SECOND;
    let source = api.source();
    let options = StreamOptions::new().lag(160 * SECOND);
    assert!(collect(&source, options.clone()).await.unwrap().is_empty());
    let start = Instant::now();
    let mut stream = source.open(options).await.unwrap().events;
    stream.next().await.unwrap().unwrap();
    assert!((30..=60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_error_ends_the_stream_and_a_later_one_goes_on() {
    let api = Api::with(5);
    let asked = Notes::new();
    let inner = api.source();
    let failing = poll_source(move |after: Option<Cursor>| {
        asked.add(());
        let failed = asked.len() == 2;
        let inner = inner.clone();
        async move {
            if failed {
                return Err(HandlerError::new("too many requests"));
            }
            let options = after.map_or_else(StreamOptions::new, |after| StreamOptions::new().after(after));
            Ok(collect(&inner, options).await?.into_iter().take(2).collect())
        }
    });
    let (cursors, consumer) = (MemoryCursors::new(), ScriptedConsumer::new("book"));
    let calls = consumer.calls();
    let mut spec = Spec::new(failing, cursors.clone(), consumer).to_head();
    let error = run(&mut spec).await.unwrap_err();
    assert!(crate::support::chain(&error).ends_with("poll for events after 2: too many requests"), "{error:?}");
    assert_eq!(stored(&cursors, "book"), Some(2));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_page_that_begins_with_the_last_event_again_is_an_error() {
    let source = poll_source(|_after: Option<Cursor>| async { Ok(vec![event(1, Duration::ZERO)]) });
    let error = collect(&source, StreamOptions::new()).await.unwrap_err();
    assert!(crate::support::chain(&error).contains("would never end"), "{error:?}");
}

#[tokio::test]
async fn an_expected_error_stays_expected() {
    let source = poll_source(|_after: Option<Cursor>| async { Err(Error::cancelled().into()) });
    assert!(collect(&source, StreamOptions::new()).await.unwrap_err().is_expected());
}
