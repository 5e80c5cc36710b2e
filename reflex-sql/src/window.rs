//! What a back-fill read, in memory, without I/O.

use std::{collections::VecDeque, sync::Arc};

use reflex_core::Event;

use crate::{frontier::settled, page::Entry};

/// A chunk is complete with this many events, or bytes of them.
const CHUNK_EVENTS: usize = 500;
const CHUNK_BYTES: usize = 256 << 10;

/// Events that follow each other, read once for all streams that are about here.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) events: Vec<Event>,
    /// The position after them.
    pub(crate) last: i64,
    bytes: usize,
}

/// What a stream at some position finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// A chunk, and how many of its events are at or before the position.
    Chunk(Arc<Chunk>, usize),
    /// What follows is yet to be read.
    AtEnd,
    /// The position is somewhere else.
    Outside,
}

/// Chunks, complete between `start` (exclusive) and `end` (inclusive): what no stream has taken yet, and a little of what came
/// before, for streams that are slower than the foremost.
#[derive(Debug)]
pub(crate) struct Window {
    chunks: VecDeque<Arc<Chunk>>,
    start: i64,
    end: i64,
    bytes: usize,
    /// Where the foremost stream is.
    foremost: i64,
    /// The bytes after that.
    ahead: usize,
    /// Whether a stream waits at the end.
    awaited: bool,
}

impl Window {
    /// An empty window that will be complete after `start`.
    pub(crate) fn new(start: i64) -> Self {
        Self { chunks: VecDeque::new(), start, end: start, bytes: 0, foremost: start, ahead: 0, awaited: false }
    }

    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Everything up to here is not in it.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// Whether `more` bytes at its end could push out what follows `position`.
    pub(crate) fn loses(&self, position: i64, more: usize, max_bytes: usize) -> bool {
        let at = self.chunks.partition_point(|chunk| chunk.last <= position);
        let kept: usize = self.chunks.range(at..).map(|chunk| chunk.bytes).sum();
        kept + more > max_bytes
    }

    /// Whether events after this position are here, or will be the next to come.
    pub(crate) fn covers(&self, position: i64) -> bool {
        (self.start..=self.end).contains(&position)
    }

    /// Appends a chunk that follows the end, and forgets what the foremost stream has taken, beyond `max_bytes` in all.
    pub(crate) fn push(&mut self, chunk: Chunk, max_bytes: usize) {
        debug_assert!(chunk.last > self.end);
        self.end = chunk.last;
        self.bytes += chunk.bytes;
        self.ahead += chunk.bytes;
        self.awaited = false;
        self.chunks.push_back(Arc::new(chunk));
        while self.bytes > max_bytes
            && let Some(oldest) = self.chunks.pop_front_if(|oldest| oldest.last <= self.foremost)
        {
            self.bytes -= oldest.bytes;
            self.start = oldest.last;
        }
    }

    /// What follows `position`, for a stream that goes on there.
    pub(crate) fn after(&mut self, position: i64) -> Found {
        if !self.covers(position) {
            return Found::Outside;
        }
        let at = self.chunks.partition_point(|chunk| chunk.last <= position);
        let Some(chunk) = self.chunks.get(at) else {
            self.awaited = true;
            return Found::AtEnd;
        };
        let first = chunk.events.partition_point(|event| event.id().as_i64().is_some_and(|id| id <= position));
        if chunk.last > self.foremost {
            self.foremost = chunk.last;
            self.ahead = self.chunks.range(at + 1..).map(|chunk| chunk.bytes).sum();
        }
        Found::Chunk(chunk.clone(), first)
    }

    /// Whether to read on: there is less than this ahead of the foremost stream, or one waits.
    pub(crate) fn wants_more(&self, bytes: usize) -> bool {
        self.awaited || self.ahead < bytes
    }
}

/// Makes chunks of rows, as far as they may be delivered.
#[derive(Debug)]
pub(crate) struct Chunker {
    chunk: Chunk,
    proven: i64,
    blocked: Option<i64>,
}

impl Chunker {
    /// For rows after `position` from a read that began after `proven` was.
    pub(crate) fn new(position: i64, proven: i64) -> Self {
        Self { chunk: Chunk { last: position, ..Chunk::default() }, proven, blocked: None }
    }

    /// Takes the next row; returns a chunk that is complete. After a missing id that is not proven dead it takes nothing.
    pub(crate) fn take(&mut self, entry: Entry) -> Option<Chunk> {
        if self.blocked.is_some() {
            return None;
        }
        if !settled(entry.id, self.chunk.last, self.proven) {
            self.blocked = Some(entry.id);
            return None;
        }
        self.chunk.last = entry.id;
        self.chunk.bytes += entry.bytes;
        self.chunk.events.extend(entry.event);
        let complete = self.chunk.events.len() >= CHUNK_EVENTS || self.chunk.bytes >= CHUNK_BYTES;
        complete.then(|| {
            let next = Chunk { last: entry.id, events: Vec::with_capacity(CHUNK_EVENTS), bytes: 0 };
            std::mem::replace(&mut self.chunk, next)
        })
    }

    /// The last chunk, and the id that a missing one comes before. Where all rows were read, what is proven counts too.
    pub(crate) fn finish(mut self, all: bool) -> (Chunk, Option<i64>) {
        if all && self.blocked.is_none() {
            self.chunk.last = self.chunk.last.max(self.proven);
        }
        (self.chunk, self.blocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::entry;

    fn chunk(ids: std::ops::RangeInclusive<i64>) -> Chunk {
        let last = *ids.end();
        let entries: Vec<_> = ids.map(entry).collect();
        let bytes = entries.iter().map(|entry| entry.bytes).sum();
        Chunk { events: entries.into_iter().filter_map(|entry| entry.event).collect(), last, bytes }
    }

    fn ids(found: Found) -> Vec<i64> {
        match found {
            Found::Chunk(chunk, first) => {
                chunk.events[first..].iter().filter_map(|event| event.id().as_i64()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn size(events: usize) -> usize {
        entry(1).bytes * events
    }

    #[test]
    fn streams_find_what_follows_their_position() {
        let mut window = Window::new(10);
        assert!(matches!(window.after(9), Found::Outside));
        assert!(matches!(window.after(11), Found::Outside));
        assert!(matches!(window.after(10), Found::AtEnd));
        window.push(chunk(11..=13), usize::MAX);
        window.push(chunk(14..=15), usize::MAX);
        assert_eq!(ids(window.after(10)), [11, 12, 13]);
        assert_eq!(ids(window.after(12)), [13]);
        assert_eq!(ids(window.after(13)), [14, 15]);
        assert!(matches!(window.after(15), Found::AtEnd));
        assert!(matches!(window.after(16), Found::Outside));
    }

    #[test]
    fn what_no_stream_has_taken_stays() {
        let mut window = Window::new(0);
        window.push(chunk(1..=2), 0);
        window.push(chunk(3..=4), 0);
        assert_eq!(ids(window.after(0)), [1, 2]);
        window.push(chunk(5..=6), 0);
        assert!(matches!(window.after(0), Found::Outside));
        assert_eq!(ids(window.after(2)), [3, 4]);
    }

    #[test]
    fn a_little_of_what_was_taken_stays() {
        let mut window = Window::new(0);
        for first in [1, 3, 5] {
            window.push(chunk(first..=first + 1), size(4));
            window.after(first);
        }
        assert!(matches!(window.after(1), Found::Outside));
        assert_eq!(ids(window.after(2)), [3, 4]);
    }

    #[test]
    fn what_follows_a_stream_fits_or_is_lost() {
        let mut window = Window::new(0);
        window.push(chunk(1..=2), usize::MAX);
        window.push(chunk(3..=4), usize::MAX);
        let loses = |position, most| window.loses(position, size(3), size(most));
        assert_eq!((loses(0, 7), loses(0, 6)), (false, true));
        assert_eq!((loses(2, 5), loses(2, 4)), (false, true));
        assert_eq!((loses(4, 3), loses(4, 2)), (false, true));
    }

    #[test]
    fn reading_goes_on_when_the_foremost_stream_needs_it() {
        let mut window = Window::new(0);
        assert!(window.wants_more(1));
        assert!(!window.wants_more(0));
        window.push(chunk(1..=10), usize::MAX);
        window.push(chunk(11..=20), usize::MAX);
        assert!(window.wants_more(size(21)));
        assert!(!window.wants_more(size(20)));
        window.after(0);
        assert!(window.wants_more(size(11)));
        assert!(!window.wants_more(size(10)));
        window.after(10);
        window.after(20);
        assert!(window.wants_more(0));
        window.push(chunk(21..=30), usize::MAX);
        assert!(!window.wants_more(0));
        window.after(0);
        assert!(!window.wants_more(size(10)), "a stream behind the foremost needs nothing");
    }

    #[test]
    fn chunks_end_before_a_missing_id() {
        let mut chunker = Chunker::new(0, 3);
        for id in [2, 3, 4, 6, 7] {
            assert!(chunker.take(entry(id)).is_none());
        }
        let (chunk, blocked) = chunker.finish(true);
        assert_eq!((chunk.events.len(), chunk.last, blocked), (3, 4, Some(6)));
    }

    #[test]
    fn what_is_proven_counts_where_all_was_read() {
        let end = |all| Chunker::new(5, 9).finish(all).0.last;
        assert_eq!((end(true), end(false)), (9, 5));
        let (chunk, blocked) = Chunker::new(9, 5).finish(true);
        assert_eq!((chunk.last, blocked), (9, None));
    }

    #[test]
    fn placeholders_move_the_position() {
        let mut chunker = Chunker::new(0, 0);
        chunker.take(entry(1));
        chunker.take(Entry { event: None, ..entry(2) });
        let (chunk, _) = chunker.finish(false);
        assert_eq!((chunk.events.len(), chunk.last), (1, 2));
    }

    #[test]
    fn chunks_are_bounded_by_events_and_bytes() {
        let mut chunker = Chunker::new(0, 0);
        let complete = (1..=1_000).filter_map(|id| chunker.take(entry(id))).map(|chunk| chunk.events.len());
        assert_eq!(complete.collect::<Vec<_>>(), [500, 500]);
        let mut chunker = Chunker::new(0, 0);
        assert!(chunker.take(Entry { bytes: CHUNK_BYTES, ..entry(1) }).is_some());
    }
}
