use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Cursor, CursorStore, Result, check_forward,
    clock::{QUICK, STRIDE},
};

/// A [`CursorStore`] that writes to the store inside it only now and then.
///
/// A cursor is written when it is due: 5 seconds after the last write of that consumer, or after 10,000 sets, whichever
/// comes first. While sets come fast, the clock is looked at only for every eighth. There is no task behind it: the `set`
/// that is due writes, and returns the error if that fails. Between writes `set` costs no I/O. [`run`](crate::run) flushes
/// when the stream goes idle and on its way out.
///
/// Give each spec a buffer of its own: a flush writes all that is delayed, so a spec that shares the buffer can end because
/// the cursor of another one could not be written.
///
/// Share a buffer, where that is wanted, through an [`Arc`](std::sync::Arc).
///
/// A process that is killed loses at most the cursors that were not due: their events are delivered again.
///
/// # Examples
///
/// ```
/// use reflex_core::{BufferedCursors, CursorStore, MemoryCursors};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = MemoryCursors::new();
/// let cursors = BufferedCursors::new(store.clone());
/// cursors.set("billing", &1.into()).await?;
/// assert_eq!(store.get("billing").await?, None);
/// cursors.flush().await?;
/// assert_eq!(store.get("billing").await?, Some(1.into()));
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct BufferedCursors<C> {
    store: C,
    max_age: Duration,
    max_sets: u32,
    slots: Mutex<BTreeMap<Box<str>, Slot>>,
}

#[derive(Debug)]
struct Slot {
    latest: Cursor,
    dirty: bool,
    sets: u32,
    written_at: Instant,
    looked_at: Instant,
    /// How many sets pass before the clock is looked at again.
    unlooked: u32,
}

impl Slot {
    fn new(latest: Cursor) -> Self {
        let now = Instant::now();
        Self { latest, dirty: true, sets: 1, written_at: now, looked_at: now, unlooked: 0 }
    }

    #[inline]
    fn is_older_than(&mut self, age: Duration) -> bool {
        if self.unlooked > 0 {
            self.unlooked -= 1;
            return false;
        }
        self.look(age)
    }

    fn look(&mut self, age: Duration) -> bool {
        let now = Instant::now();
        // While sets are quick: looking at the clock costs more than all else.
        self.unlooked = if now - self.looked_at < QUICK { STRIDE } else { 0 };
        self.looked_at = now;
        now - self.written_at >= age
    }
}

impl<C> BufferedCursors<C> {
    /// A cursor is written at the latest by the first set this long after the last write.
    pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5);
    /// A cursor is written at the latest by this many sets.
    pub const DEFAULT_MAX_SETS: u32 = 10_000;

    /// Buffers the writes to `store`.
    #[must_use]
    pub fn new(store: C) -> Self {
        Self {
            store,
            max_age: Self::DEFAULT_MAX_AGE,
            max_sets: Self::DEFAULT_MAX_SETS,
            slots: Mutex::new(BTreeMap::new()),
        }
    }

    /// Writes a cursor at the latest by the first set this long after the last write. Default: 5 seconds.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Writes a cursor at the latest by this many sets; 0 and 1 write each. Default: 10,000.
    #[must_use]
    pub fn max_sets(mut self, sets: u32) -> Self {
        self.max_sets = sets;
        self
    }

    /// Notes the cursor and says whether it is due.
    #[inline]
    fn note(&self, consumer: &str, cursor: &Cursor) -> Result<bool> {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(consumer) else {
            slots.insert(consumer.into(), Slot::new(cursor.clone()));
            return Ok(self.max_sets <= 1);
        };
        check_forward(consumer, &slot.latest, cursor)?;
        slot.latest = cursor.clone();
        slot.dirty = true;
        slot.sets += 1;
        Ok(slot.sets >= self.max_sets || slot.is_older_than(self.max_age))
    }

    fn pending(&self, consumer: &str) -> Option<Cursor> {
        self.slots().get(consumer).filter(|slot| slot.dirty).map(|slot| slot.latest.clone())
    }

    /// Marks `cursor` as written, unless a later one was noted meanwhile.
    fn written(&self, consumer: &str, cursor: &Cursor) {
        if let Some(slot) = self.slots().get_mut(consumer) {
            slot.dirty = slot.latest != *cursor;
            slot.sets = 0;
            slot.written_at = Instant::now();
        }
    }

    fn forget(&self, consumer: &str) {
        self.slots().remove(consumer);
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: CursorStore> BufferedCursors<C> {
    async fn write(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        match self.store.set(consumer, cursor).await {
            // A write whose answer was lost has succeeded before.
            Err(error) if error.is_cursor_unchanged() => {}
            Err(error) if error.is_cursor_backwards() => {
                // Somebody else moved the cursor: what is buffered here is of no use to anyone.
                self.forget(consumer);
                return Err(error);
            }
            result => result?,
        }
        self.written(consumer, cursor);
        Ok(())
    }
}

impl<C: CursorStore> CursorStore for BufferedCursors<C> {
    /// Writes out what is delayed for this consumer and reads the store.
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        if let Some(cursor) = self.pending(consumer) {
            self.write(consumer, &cursor).await?;
        }
        self.forget(consumer);
        self.store.get(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        if self.note(consumer, cursor)? {
            // Boxed, so that the future of a set that only notes stays small.
            Box::pin(self.write(consumer, cursor)).await?;
        }
        Ok(())
    }

    /// Writes out every delayed cursor. All are tried; the first error is returned.
    async fn flush(&self) -> Result<()> {
        let dirty: Vec<_> = self.slots().iter().filter(|(_, slot)| slot.dirty).map(|(name, _)| name.clone()).collect();
        let mut result = Ok(());
        for consumer in dirty {
            if let Some(cursor) = self.pending(&consumer) {
                result = result.and(self.write(&consumer, &cursor).await);
            }
        }
        result.and(self.store.flush().await)
    }
}
