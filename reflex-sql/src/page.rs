use std::time::Duration;

use reflex_core::{Event, EventParts, EventType};

use crate::error::Problem;

/// The size of a page aims at this many bytes of events, so that large events do not fill the memory.
const TARGET_BYTES: usize = 4 << 20;

/// Reading a page stops here, however many rows were asked for.
pub(crate) const MAX_BYTES: usize = 4 * TARGET_BYTES;

/// One row of an events table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    /// `None` for a placeholder.
    pub(crate) event: Option<Event>,
    /// What it takes of memory, about.
    pub(crate) bytes: usize,
}

/// Rows in the order of their ids.
#[derive(Debug, Default)]
pub struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Whether there may be more rows after these.
    pub(crate) full: bool,
    /// How long decoding the rows took, about.
    pub(crate) decoding: Duration,
}

impl Page {
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.entries.iter().map(|entry| entry.id)
    }

    pub(crate) fn last_id(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.id)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// How many rows to ask for next, so that a page comes to about [`TARGET_BYTES`].
    pub(crate) fn next_limit(&self, max: u32) -> u32 {
        let average = self.bytes().checked_div(self.entries.len()).unwrap_or(0).max(1);
        u32::try_from(TARGET_BYTES / average).unwrap_or(u32::MAX).clamp(1, max)
    }
}

impl Entry {
    /// Makes an entry of a row; `event_type` is wider than a type so that what does not fit can be told.
    pub(crate) fn new(id: i64, event_type: i64, parts: EventParts<'_>) -> Result<Self, Problem> {
        let event_type = i32::try_from(event_type).map_err(|_| Problem::TypeOutOfRange { id, event_type })?;
        let bytes = size_of::<Event>() + parts.foreign_id.len() + parts.metadata.len() + parts.trace.len();
        let event = Event::from(EventParts { event_type: EventType(event_type), ..parts });
        let event = if event.is_noop() { None } else { Some(event) };
        Ok(Self { id, event, bytes })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(id: i64) -> Entry {
        let parts = EventParts {
            id: id.into(),
            event_type: EventType(0),
            foreign_id: "thing",
            timestamp: Default::default(),
            metadata: b"",
            trace: b"",
        };
        Entry::new(id, 1, parts).unwrap()
    }

    #[test]
    fn large_events_make_small_pages() {
        let page = |bytes| Page { entries: vec![Entry { bytes, ..entry(1) }; 10], full: true, ..Page::default() };
        assert_eq!(Page::default().next_limit(1_000), 1_000);
        assert_eq!(page(100).next_limit(10_000), 10_000);
        assert_eq!(page(1 << 20).next_limit(10_000), 4);
        assert_eq!(page(1 << 30).next_limit(10_000), 1);
    }

    #[test]
    fn a_type_that_does_not_fit_is_named() {
        let parts = EventParts {
            id: 7.into(),
            event_type: EventType(0),
            foreign_id: "",
            timestamp: Default::default(),
            metadata: b"",
            trace: b"",
        };
        let problem = Entry::new(7, 1 << 40, parts).unwrap_err();
        assert!(problem.to_string().contains('7'), "{problem}");
    }
}
