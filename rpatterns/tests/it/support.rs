//! What many of the tests need.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use prometheus::{Registry, TextEncoder};
use reflex_core::{Cursor, Error, MemoryCursors, MemoryEvents, Metrics, NewEvent};

/// No wait of a test takes longer, unless it fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

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

/// An error with its causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What handlers did, in the order in which they did it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Notes<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn add(&self, note: T) {
        self.0.lock().unwrap().push(note);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A registry of the test's own.
pub(crate) struct Scrape {
    registry: Registry,
    pub(crate) metrics: Metrics,
}

impl Scrape {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        Self { registry, metrics }
    }

    /// The value of a series of one consumer.
    pub(crate) fn consumer(&self, name: &str, consumer: &str) -> Option<f64> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let series = format!("{name}{{consumer_name=\"{consumer}\"}} ");
        let line = text.lines().find(|line| line.starts_with(&series))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
