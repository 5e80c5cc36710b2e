use reflex_core::{Cursor, CursorStore, Result};

/// Reads cursors from `primary`, and those that it does not have yet from `fallback`; writes to `primary` alone.
///
/// A cursor that is found in the fallback is stored in the primary at once. To move from one store to another, run with
/// both for a while and then with the new one. To start a consumer at a chosen event, let
/// [`MemoryCursors`](reflex_core::MemoryCursors) with its cursor be the fallback.
///
/// # Examples
///
/// ```
/// use reflex_core::{CursorStore, MemoryCursors};
/// use rpatterns::read_through;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (old, new) = (MemoryCursors::new(), MemoryCursors::new());
/// old.set("billing", &7.into()).await?;
/// let cursors = read_through(new.clone(), old);
/// assert_eq!(cursors.get("billing").await?, Some(7.into()));
/// assert_eq!(new.all()["billing"], 7.into());
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
pub fn read_through<P: CursorStore, F: CursorStore>(primary: P, fallback: F) -> ReadThrough<P, F> {
    ReadThrough { primary, fallback }
}

/// A cursor store in front of another one, made by [`read_through`].
#[derive(Clone, Debug)]
pub struct ReadThrough<P, F> {
    primary: P,
    fallback: F,
}

impl<P: CursorStore, F: CursorStore> CursorStore for ReadThrough<P, F> {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        if let Some(cursor) = self.primary.get(consumer).await? {
            return Ok(Some(cursor));
        }
        let Some(cursor) = self.fallback.get(consumer).await? else {
            return Ok(None);
        };
        match self.primary.set(consumer, &cursor).await {
            // Somebody else stored one in the meantime, and theirs counts.
            Err(error) if error.is_cursor_backwards() => self.primary.get(consumer).await,
            Err(error) if !error.is_cursor_unchanged() => Err(error),
            _ => Ok(Some(cursor)),
        }
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.primary.set(consumer, cursor).await
    }

    async fn flush(&self) -> Result<()> {
        self.primary.flush().await
    }
}
