//! A cursor store that knows what is done, and seeds.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use reflex_core::{Cursor, CursorStore, Event, MemoryCursors, Result};

use crate::support::Notes;

/// Fails the test when a cursor moves over an event that is not done.
#[derive(Clone)]
pub(crate) struct CheckedCursors {
    cursors: MemoryCursors,
    done: Notes<Event>,
    written: Arc<Mutex<Vec<i64>>>,
}

impl CheckedCursors {
    /// Events are done when they are noted; they have the ids from 1.
    pub(crate) fn new(done: &Notes<Event>) -> Self {
        Self { cursors: MemoryCursors::new(), done: done.clone(), written: Arc::default() }
    }

    pub(crate) fn last(&self) -> Option<i64> {
        self.written.lock().unwrap().last().copied()
    }

    pub(crate) fn writes(&self) -> usize {
        self.written.lock().unwrap().len()
    }
}

impl CursorStore for CheckedCursors {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.cursors.get(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        let written = cursor.as_i64().unwrap();
        let done: BTreeSet<_> = self.done.all().iter().map(|event| event.id_as_i64().unwrap()).collect();
        let undone: Vec<_> = (1..=written).filter(|id| !done.contains(id)).collect();
        assert!(undone.is_empty(), "the cursor moves to {written}, and {undone:?} are not done");
        self.written.lock().unwrap().push(written);
        self.cursors.set(consumer, cursor).await
    }
}

/// The seed of a random test, from the environment or at random, and printed.
#[expect(clippy::print_stderr, reason = "a failed test shows it")]
pub(crate) fn seed(test: &str) -> u64 {
    let seed = std::env::var("REFLEX_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("{test}: REFLEX_TEST_SEED={seed}");
    seed
}
