//! What many of the tests need.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use prometheus::{Registry, TextEncoder};
use reflex_core::{
    Cursor, CursorStore, Error, Event, EventParts, MemoryCursors, MemoryEvents, Metrics, NewEvent, Opened, Result,
    StreamFunc, StreamOptions,
};
use tokio::task::yield_now;
use tracing::{Dispatch, subscriber::NoSubscriber};

/// No wait of a test takes longer, unless it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A table with events 1 to `count`, of the foreign ids `order-1` and so on.
pub(crate) fn filled(count: usize) -> MemoryEvents {
    let events = MemoryEvents::new();
    append(&events, count);
    events
}

pub(crate) fn append(events: &MemoryEvents, count: usize) {
    for number in 1..=count {
        events.append(NewEvent::new(format!("order-{number}"), 1));
    }
}

pub(crate) fn stored(cursors: &MemoryCursors, consumer: &str) -> Option<i64> {
    cursors.all().get(consumer).and_then(Cursor::as_i64)
}

/// A source of endless events that never waits; it gives up after so many that a starved test fails rather than hangs.
pub(crate) async fn endless(_options: StreamOptions) -> Result<impl Stream<Item = Result<Event>> + Send> {
    let events = (1..=5_000_000i64).map(|id| Ok(event(id)));
    Ok(futures_util::stream::iter(events.chain([Err(Error::invalid("the test was starved"))])))
}

pub(crate) fn event(id: i64) -> Event {
    Event::from(EventParts {
        id: id.into(),
        event_type: 1.into(),
        foreign_id: "order-12",
        timestamp: chrono::Utc::now(),
        metadata: b"",
        trace: b"",
    })
}

/// The source inside, with a wait at each place where a real one has one.
pub(crate) fn yielding_source(events: MemoryEvents) -> impl StreamFunc<Stream: 'static> + 'static {
    move |options: StreamOptions| {
        let events = events.clone();
        async move {
            yield_now().await;
            let Opened { events, .. } = events.open(options).await?;
            yield_now().await;
            Ok(events.then(|item| async {
                yield_now().await;
                item
            }))
        }
    }
}

/// The store inside, with a wait before and after each operation. It writes down what it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlowStore<C> {
    pub(crate) store: C,
    log: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Get,
    Set(Cursor),
    Flush,
}

impl<C> SlowStore<C> {
    pub(crate) fn new(store: C) -> Self {
        Self { store, log: Arc::default() }
    }

    pub(crate) fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    async fn around<T>(&self, asked: Asked, operation: impl Future<Output = T>) -> T {
        self.log.lock().unwrap().push(asked);
        yield_now().await;
        let output = operation.await;
        yield_now().await;
        output
    }
}

impl<C: CursorStore> CursorStore for SlowStore<C> {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.around(Asked::Get, self.store.get(consumer)).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.around(Asked::Set(cursor.clone()), self.store.set(consumer, cursor)).await
    }

    async fn flush(&self) -> Result<()> {
        self.around(Asked::Flush, self.store.flush()).await
    }
}

/// A registry of the test's own.
pub(crate) struct Scrape {
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
}

impl Scrape {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        Self { registry, metrics }
    }

    /// The value of a series, written as Prometheus writes it: `name{label="value"}`.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The value of a series of one consumer.
    pub(crate) fn consumer(&self, name: &str, consumer: &str) -> Option<f64> {
        self.value(&format!("{name}{{consumer_name=\"{consumer}\"}}"))
    }
}

/// Makes a subscriber of one thread reliable: with only one in the process, a thread without it that comes to a place first
/// switches that place off for all.
pub(crate) fn keep_places_on() {
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
    LazyLock::force(&ANOTHER);
}
