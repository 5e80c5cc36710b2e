use std::time::Duration;

use reflex_core::{Event, EventParts, EventType};

use crate::error::Problem;

/// A page aims at this many bytes of events, so that large events do not fill the memory.
const TARGET_BYTES: usize = 4 << 20;

/// The rows to read: those after an id, up to a number of rows or, whatever comes first, a number of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub(crate) after: i64,
    pub(crate) limit: u32,
    /// Reading stops here, however many rows were asked for.
    pub(crate) max_bytes: usize,
}

/// How reading a range went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    pub(crate) rows: u32,
    pub(crate) bytes: usize,
    /// Whether there may be more rows after these.
    pub(crate) full: bool,
    /// Whether it stopped in the middle of the answer. The connection is of no use then.
    pub(crate) abandoned: bool,
    /// How long decoding the rows took, about.
    pub(crate) decoding: Duration,
}

/// One row of an events table.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) id: i64,
    /// `None` for a placeholder.
    pub(crate) event: Option<Event>,
    /// What it takes of memory, about.
    pub(crate) bytes: usize,
}

/// Rows in the order of their ids.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) scan: Scan,
}

impl Page {
    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> + '_ {
        self.entries.iter().map(|entry| entry.id)
    }

    pub(crate) fn last_id(&self) -> Option<i64> {
        self.entries.last().map(|entry| entry.id)
    }
}

impl Range {
    /// A page after this id.
    pub(crate) fn page(after: i64, limit: u32) -> Self {
        Self { after, limit, max_bytes: 4 * TARGET_BYTES }
    }
}

impl Scan {
    /// How many rows to ask for next, so that they come to about `target` bytes.
    pub(crate) fn next_limit(&self, target: usize, max: u32) -> u32 {
        let average = self.bytes.checked_div(self.rows as usize).unwrap_or(0).max(1);
        u32::try_from(target / average).unwrap_or(u32::MAX).clamp(1, max)
    }

    /// How many rows to ask for next, so that they make a page.
    pub(crate) fn next_page(&self, max: u32) -> u32 {
        self.next_limit(TARGET_BYTES, max)
    }
}

impl Entry {
    /// Makes an entry of a row; `event_type` is wider than a type so that what does not fit can be told.
    pub(crate) fn new(id: i64, event_type: i64, parts: EventParts<'_>) -> Result<Self, Problem> {
        let event_type = i32::try_from(event_type).map_err(|_| Problem::TypeOutOfRange { id, event_type })?;
        let bytes = size_of::<EventParts<'_>>() + parts.foreign_id.len() + parts.metadata.len() + parts.trace.len();
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
        let scan = |bytes: usize| Scan { rows: 10, bytes: 10 * bytes, ..Scan::default() };
        assert_eq!(Scan::default().next_page(1_000), 1_000);
        assert_eq!(scan(100).next_page(10_000), 10_000);
        assert_eq!(scan(1 << 20).next_page(10_000), 4);
        assert_eq!(scan(1 << 30).next_page(10_000), 1);
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
