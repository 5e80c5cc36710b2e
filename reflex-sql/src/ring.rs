use std::collections::VecDeque;

use reflex_core::Event;

use crate::page::Entry;

/// The newest events of a table, complete between `start` (exclusive) and `end` (inclusive), in order.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Entry>,
    start: i64,
    end: i64,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

/// What a reader at some position finds.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The events that follow, not empty, and the position after them.
    Events(Vec<Event>, i64),
    /// There is nothing after this position yet.
    AtEnd,
    /// The position is before the ring: the reader must go to the database.
    Behind,
}

impl Ring {
    /// An empty ring that will be complete after `start`.
    pub(crate) fn new(start: i64, max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), start, end: start, bytes: 0, max_events, max_bytes }
    }

    /// Appends entries that follow the end; placeholders only move it.
    pub(crate) fn push(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            debug_assert!(entry.id > self.end);
            self.end = entry.id;
            if entry.event.is_some() {
                self.bytes += entry.bytes;
                self.events.push_back(entry);
            }
        }
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.start = oldest.id;
        }
    }

    /// At most `limit` events after `position`.
    pub(crate) fn after(&self, position: i64, limit: usize) -> Lookup {
        if position < self.start {
            return Lookup::Behind;
        }
        let first = self.events.partition_point(|entry| entry.id <= position);
        let events: Vec<_> = self.events.range(first..).take(limit).filter_map(|entry| entry.event.clone()).collect();
        match self.events.get(first + events.len()) {
            _ if events.is_empty() && position >= self.end => Lookup::AtEnd,
            Some(_) => {
                let last = self.events[first + events.len() - 1].id;
                Lookup::Events(events, last)
            }
            None => Lookup::Events(events, self.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::entry;

    fn ids(events: &[Event]) -> Vec<i64> {
        events.iter().filter_map(|event| event.id().as_i64()).collect()
    }

    #[track_caller]
    fn check(ring: &Ring, position: i64, limit: usize, expected: &[i64], after: i64) {
        match ring.after(position, limit) {
            Lookup::Events(events, position) => assert_eq!((ids(&events).as_slice(), position), (expected, after)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn readers_find_what_follows_their_position() {
        let mut ring = Ring::new(10, 100, usize::MAX);
        assert!(matches!(ring.after(10, 5), Lookup::AtEnd));
        assert!(matches!(ring.after(9, 5), Lookup::Behind));
        ring.push(vec![entry(11), entry(12), entry(15)]);
        check(&ring, 10, 5, &[11, 12, 15], 15);
        check(&ring, 10, 2, &[11, 12], 12);
        check(&ring, 12, 5, &[15], 15);
        check(&ring, 13, 5, &[15], 15);
        assert!(matches!(ring.after(15, 5), Lookup::AtEnd));
        assert!(matches!(ring.after(99, 5), Lookup::AtEnd));
    }

    #[test]
    fn the_oldest_leave_when_it_is_full() {
        let mut ring = Ring::new(0, 2, usize::MAX);
        ring.push(vec![entry(1), entry(2), entry(3)]);
        assert!(matches!(ring.after(0, 5), Lookup::Behind));
        check(&ring, 1, 5, &[2, 3], 3);
        let mut ring = Ring::new(0, 100, entry(1).bytes * 2);
        ring.push(vec![entry(1), entry(2), entry(3)]);
        check(&ring, 1, 5, &[2, 3], 3);
    }

    #[test]
    fn placeholders_move_the_end_and_are_not_delivered() {
        let mut ring = Ring::new(0, 10, usize::MAX);
        ring.push(vec![entry(1), crate::page::Entry { event: None, ..entry(2) }]);
        check(&ring, 0, 5, &[1], 2);
        match ring.after(1, 5) {
            Lookup::Events(events, 2) => assert!(events.is_empty()),
            other => panic!("{other:?}"),
        }
        assert!(matches!(ring.after(2, 5), Lookup::AtEnd));
    }

    #[test]
    fn one_event_above_the_byte_limit_leaves_an_empty_ring() {
        let mut ring = Ring::new(0, 10, 1);
        ring.push(vec![entry(1)]);
        assert!(matches!(ring.after(0, 5), Lookup::Behind));
        assert!(matches!(ring.after(1, 5), Lookup::AtEnd));
    }
}
