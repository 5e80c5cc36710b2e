use std::{fmt, pin::Pin, sync::Arc};

use crate::{Cursor, Error, Result};

/// Where consumers' cursors are kept.
///
/// Obligations of an implementer:
///
/// - `get` returns what the last successful `set` of that consumer stored, also in another process.
/// - An integer cursor never moves backwards: setting one below the stored one fails with
///   [`Error::cursor_backwards`](crate::Error::cursor_backwards), setting an equal one with
///   [`Error::cursor_unchanged`](crate::Error::cursor_unchanged), and neither changes anything. This holds for concurrent
///   writers too. Other text has no order and replaces what was there.
/// - Consumers do not disturb each other, and any text is a valid consumer name unless the store says otherwise.
///
/// A store may delay writes until `flush`. Those of this project do not: [`BufferedCursors`](crate::BufferedCursors) does
/// it for all of them.
pub trait CursorStore: Send + Sync {
    /// Reads the cursor of a consumer; `None` if it has none yet.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or what it holds is no cursor.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn get(&self, consumer: &str) -> impl Future<Output = Result<Option<Cursor>>> + Send;

    /// Stores the cursor of a consumer.
    ///
    /// # Errors
    ///
    /// If the store cannot be written, or an integer cursor would not move forward.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the cursor is the old one or the new one.
    fn set(&self, consumer: &str, cursor: &Cursor) -> impl Future<Output = Result<()>> + Send;

    /// Writes out what was delayed. The default has nothing to do.
    ///
    /// # Errors
    ///
    /// If a delayed cursor cannot be written.
    ///
    /// # Cancel safety
    ///
    /// What was not written stays delayed.
    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// The rule of every cursor store, for those who implement one: an integer cursor only moves forward.
///
/// # Errors
///
/// [`Error::cursor_backwards`] if `new` is below `stored`, [`Error::cursor_unchanged`] if it is equal. Cursors that are not
/// both integers have no order and always pass.
#[inline]
pub fn check_forward(consumer: &str, stored: &Cursor, new: &Cursor) -> Result<()> {
    match (stored.as_i64(), new.as_i64()) {
        (Some(stored_id), Some(new_id)) if new_id < stored_id => Err(Error::cursor_backwards(consumer, stored, new)),
        (Some(stored_id), Some(new_id)) if new_id == stored_id => Err(Error::cursor_unchanged(consumer, new)),
        _ => Ok(()),
    }
}

impl<C: CursorStore> CursorStore for Arc<C> {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        C::get(self, consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        C::set(self, consumer, cursor).await
    }

    async fn flush(&self) -> Result<()> {
        C::flush(self).await
    }
}

/// A [`CursorStore`] of any kind, for collections of specs.
#[derive(Clone)]
pub struct BoxCursorStore(Arc<dyn ErasedCursorStore>);

impl BoxCursorStore {
    /// Boxes a store.
    pub fn new(store: impl CursorStore + 'static) -> Self {
        Self(Arc::new(store))
    }
}

impl CursorStore for BoxCursorStore {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.0.get_boxed(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.0.set_boxed(consumer, cursor).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush_boxed().await
    }
}

impl fmt::Debug for BoxCursorStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxCursorStore").finish_non_exhaustive()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

trait ErasedCursorStore: Send + Sync {
    fn get_boxed<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Option<Cursor>>;
    fn set_boxed<'a>(&'a self, consumer: &'a str, cursor: &'a Cursor) -> BoxFuture<'a, ()>;
    fn flush_boxed(&self) -> BoxFuture<'_, ()>;
}

impl<C: CursorStore> ErasedCursorStore for C {
    fn get_boxed<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, Option<Cursor>> {
        Box::pin(self.get(consumer))
    }

    fn set_boxed<'a>(&'a self, consumer: &'a str, cursor: &'a Cursor) -> BoxFuture<'a, ()> {
        Box::pin(self.set(consumer, cursor))
    }

    fn flush_boxed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.flush())
    }
}
