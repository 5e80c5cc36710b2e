use std::fmt;

use reflex_core::{Consumer, Cursor, CursorStore, Error, Event, HandlerError, Monitoring, Progress, Spec, StreamFunc};

use crate::Key;

/// Makes `inner` one of `n` consumers that share the events of a stream: number `m`, counted from 1.
///
/// Each of them is called `name_m_of_n`, has a cursor of its own, reads the whole stream and skips the events of the others.
/// They may run in different processes. An event belongs to the shard whose `m - 1` is the FNV-1 hash of its key modulo `n`,
/// as in luno/reflex, so that shards in Go and in Rust can be mixed.
///
/// Another `n` makes other consumers, without cursors. To change the number of tasks in one process without that, use
/// [`keyed_lanes`](crate::keyed_lanes).
///
/// # Errors
///
/// If there is no shard `m` out of `n`.
///
/// # Examples
///
/// ```
/// use reflex_core::{Consumer, Event, consumer_fn};
/// use rpatterns::{Key, shard};
///
/// let ship = consumer_fn("ship", |_event: Event| async { Ok(()) });
/// let consumer = shard(2, 8, Key::by_foreign_id(), ship)?;
/// assert_eq!(consumer.name(), "ship_2_of_8");
/// # Ok::<(), reflex_core::Error>(())
/// ```
pub fn shard<K: Consumer>(m: usize, n: usize, key: Key, inner: K) -> Result<Shard<K>, Error> {
    if n == 0 {
        return Err(Error::invalid(format!("divide consumer `{}` into 0 shards: make it 1 or more", inner.name())));
    }
    if m == 0 || m > n {
        let name = inner.name();
        return Err(Error::invalid(format!("make consumer `{name}` shard {m} of {n}: shards count from 1 to {n}")));
    }
    let name = format!("{}_{m}_of_{n}", inner.name());
    Ok(Shard { name, index: m - 1, n, key, inner, withheld: Withheld::default() })
}

/// Makes all `n` shards of a consumer; `make` is told each one's number, counted from 1. See [`shard`].
///
/// # Errors
///
/// If `n` is 0.
pub fn shards<K: Consumer>(n: usize, key: Key, make: impl FnMut(usize) -> K) -> Result<Vec<Shard<K>>, Error> {
    if n == 0 {
        return Err(Error::invalid("divide a consumer into 0 shards: make it 1 or more"));
    }
    let numbered = (1..=n).map(make).enumerate();
    numbered.map(|(index, inner)| shard(index + 1, n, key.clone(), inner)).collect()
}

/// Makes all `n` shards of a consumer, each with a spec over the same stream and cursor store. See [`shard`].
///
/// # Errors
///
/// If `n` is 0.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, consumer_fn, run};
/// use rpatterns::{Key, shard_specs};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
/// events.append(NewEvent::new("order-12", 1));
/// let make = |_m| consumer_fn("ship", |_event: Event| async { Ok(()) });
/// for spec in shard_specs(2, Key::by_foreign_id(), &events, &cursors, make)? {
///     let ended = tokio::spawn(async move { run(&mut spec.to_head()).await }).await?;
///     assert!(ended.unwrap_err().is_head_reached());
/// }
/// assert_eq!(cursors.all().into_keys().collect::<Vec<_>>(), ["ship_1_of_2", "ship_2_of_2"]);
/// # Ok::<(), reflex_core::HandlerError>(()) }).unwrap();
/// ```
pub fn shard_specs<S, C, K>(
    n: usize,
    key: Key,
    stream: &S,
    cursors: &C,
    make: impl FnMut(usize) -> K,
) -> Result<Vec<Spec<S, C, Shard<K>>>, Error>
where
    S: StreamFunc + Clone,
    C: CursorStore + Clone,
    K: Consumer,
{
    let shards = shards(n, key, make)?.into_iter();
    Ok(shards.map(|shard| Spec::new(stream.clone(), cursors.clone(), shard)).collect())
}

/// One of the consumers that share a stream, made by [`shard`].
#[derive(Clone)]
pub struct Shard<K> {
    name: String,
    /// Counted from 0.
    index: usize,
    n: usize,
    key: Key,
    inner: K,
    withheld: Withheld,
}

impl<K: Consumer> Shard<K> {
    /// Sets another name than `name_m_of_n`. Each shard needs one of its own.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether an event belongs to this shard.
    ///
    /// # Errors
    ///
    /// If the function of its key fails.
    pub fn includes(&self, event: &Event) -> Result<bool, HandlerError> {
        Ok(self.key.index(event, self.n)? == self.index)
    }
}

impl<K: Consumer> Consumer for Shard<K> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        if !self.includes(&event)? {
            return Ok(self.withheld.skip(event.id()));
        }
        let id = event.id().clone();
        let progress = self.inner.consume(event).await?;
        Ok(self.withheld.consumed(id, progress))
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.withheld = Withheld::default();
        self.inner.reset().await
    }

    async fn ready(&mut self) {
        self.inner.ready().await;
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        let progress = self.inner.advance().await?;
        Ok(self.withheld.advanced(progress))
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        let progress = self.inner.drain().await?;
        Ok(self.withheld.advanced(progress))
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.inner.stop().await
    }

    fn monitoring(&self) -> Monitoring {
        self.inner.monitoring()
    }
}

impl<K: Consumer> fmt::Debug for Shard<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("consumer", &self.name)
            .field("index", &self.index)
            .field("n", &self.n)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Keeps skipped events from moving the cursor over one that the consumer inside is not done with.
#[derive(Clone, Debug, Default)]
struct Withheld {
    /// The last event that is not done.
    pending: Option<Cursor>,
    /// The last event that was skipped after it.
    skipped: Option<Cursor>,
}

impl Withheld {
    fn skip(&mut self, id: &Cursor) -> Progress {
        if self.pending.is_none() {
            return Progress::Skipped;
        }
        self.skipped = Some(id.clone());
        Progress::Pending
    }

    fn consumed(&mut self, id: Cursor, progress: Progress) -> Progress {
        match &progress {
            Progress::Done | Progress::Skipped => *self = Self::default(),
            Progress::UpTo(cursor) if *cursor == id => *self = Self::default(),
            _ => *self = Self { pending: Some(id), skipped: None },
        }
        progress
    }

    fn advanced(&mut self, progress: Progress) -> Progress {
        match progress {
            Progress::UpTo(cursor) if self.pending.as_ref() == Some(&cursor) => {
                self.pending = None;
                Progress::UpTo(self.skipped.take().unwrap_or(cursor))
            }
            progress => progress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(id: i64) -> Progress {
        Progress::UpTo(id.into())
    }

    #[test]
    fn nothing_is_withheld_behind_what_is_done() {
        let mut withheld = Withheld::default();
        assert_eq!(withheld.consumed(1.into(), Progress::Done), Progress::Done);
        assert_eq!(withheld.skip(&2.into()), Progress::Skipped);
        assert_eq!(withheld.consumed(3.into(), up_to(3)), up_to(3));
        assert_eq!(withheld.skip(&4.into()), Progress::Skipped);
    }

    #[test]
    fn skipped_events_wait_for_the_pending_one_before_them() {
        let mut withheld = Withheld::default();
        assert_eq!(withheld.consumed(1.into(), Progress::Pending), Progress::Pending);
        assert_eq!(withheld.skip(&2.into()), Progress::Pending);
        assert_eq!(withheld.consumed(3.into(), up_to(1)), up_to(1));
        assert_eq!(withheld.skip(&4.into()), Progress::Pending);
        assert_eq!(withheld.skip(&5.into()), Progress::Pending);
        assert_eq!(withheld.advanced(Progress::Pending), Progress::Pending);
        assert_eq!(withheld.advanced(up_to(1)), up_to(1));
        assert_eq!(withheld.advanced(up_to(3)), up_to(5));
        assert_eq!(withheld.skip(&6.into()), Progress::Skipped);
    }
}
