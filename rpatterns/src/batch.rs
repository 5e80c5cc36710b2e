use std::{fmt, mem, time::Duration};

use reflex_core::{Consumer, Error, Event, HandlerError, Monitoring, Progress};
use tokio::{
    select,
    time::{Instant, sleep_until},
};

/// The most events in a batch that is limited by its period only, so that a backlog does not end up in memory.
const MAX_LEN: usize = 10_000;

/// Collects events and hands them over as one batch, once there are `len` of them or the first has waited for `period`.
///
/// The cursor moves when the batch is done, to its last event. What was collected and not yet handed over is delivered
/// again by the next run; a shutdown, and the head of a [to-head](reflex_core::Spec::to_head) spec, hand over what is there.
///
/// The period counts from when the first event of the batch arrived in this process, not from its timestamp: events of a
/// backlog fill batches too. A batch that fails ends the run, at once even if the period was up and no event comes. The error
/// names the first event of the batch, unless the consumer inside named another.
///
/// See [`batch_by_len`] and [`batch_by_period`] for one limit alone.
///
/// # Errors
///
/// A `len` or `period` of zero is an error of each run, before its stream is opened.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::batch;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// for order in 1..=5 {
///     events.append(NewEvent::new(order, 1));
/// }
/// let index = consumer_fn("index", |batch: Vec<Event>| async move {
///     println!("{} orders", batch.len());
///     Ok(())
/// });
/// let consumer = batch(2, Duration::from_millis(50), index);
/// let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn batch<K: Consumer<Vec<Event>>>(len: usize, period: Duration, inner: K) -> Batch<K> {
    Batch::new(len, Some(period), inner)
}

/// Collects batches of exactly `len` events; see [`batch`]. Only the last one before a shutdown or a head may be shorter.
///
/// Where events are rare, so is their handling: they wait until there are enough of them.
///
/// # Errors
///
/// As [`batch`].
pub fn batch_by_len<K: Consumer<Vec<Event>>>(len: usize, inner: K) -> Batch<K> {
    Batch::new(len, None, inner)
}

/// Collects what arrives within `period` after the first event, at most 10,000 events; see [`batch`].
///
/// # Errors
///
/// As [`batch`].
pub fn batch_by_period<K: Consumer<Vec<Event>>>(period: Duration, inner: K) -> Batch<K> {
    Batch::new(MAX_LEN, Some(period), inner)
}

/// A consumer of events around one of batches, made by [`batch`].
#[derive(Clone)]
pub struct Batch<K> {
    inner: K,
    len: usize,
    period: Option<Duration>,
    events: Vec<Event>,
    /// When the batch in hand is handed over whatever its length.
    due: Option<Instant>,
    /// Whether it is the consumer inside that has something to do.
    inner_is_ready: bool,
}

impl<K: Consumer<Vec<Event>>> Batch<K> {
    fn new(len: usize, period: Option<Duration>, inner: K) -> Self {
        Self { inner, len, period, events: Vec::new(), due: None, inner_is_ready: false }
    }

    fn check(&self) -> Result<(), Error> {
        if self.len == 0 {
            return Err(Error::invalid("a batch has a length of 0: make it 1 or more"));
        }
        if self.period.is_some_and(|period| period.is_zero()) {
            return Err(Error::invalid("a batch has a period of 0: make it longer, or collect by length alone"));
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.events = Vec::new();
        self.due = None;
        self.inner_is_ready = false;
    }

    /// Hands over what was collected.
    async fn hand_over(&mut self) -> Result<Progress, HandlerError> {
        self.due = None;
        let batch = mem::take(&mut self.events);
        let (Some(first), Some(last)) = (batch.first().cloned(), batch.last().map(|last| last.id().clone())) else {
            return Ok(Progress::Pending);
        };
        match self.inner.consume(batch).await {
            Ok(Progress::Done | Progress::Skipped) => Ok(Progress::UpTo(last)),
            Ok(progress) => Ok(progress),
            Err(error) => Err(Error::from_handler(error).at_event(&first).into()),
        }
    }
}

impl<K: Consumer<Vec<Event>>> Consumer for Batch<K> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        if self.events.is_empty() {
            self.due = self.period.and_then(|period| Instant::now().checked_add(period));
        }
        self.events.push(event);
        if self.events.len() < self.len {
            return Ok(Progress::Pending);
        }
        self.hand_over().await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.check()?;
        self.forget();
        self.inner.reset().await
    }

    async fn ready(&mut self) {
        if self.inner_is_ready {
            return;
        }
        select! {
            biased;
            () = passed(self.due) => {}
            () = self.inner.ready() => self.inner_is_ready = true,
        }
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        if mem::take(&mut self.inner_is_ready) {
            return self.inner.advance().await;
        }
        self.hand_over().await
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        let handed_over = self.hand_over().await?;
        match self.inner.drain().await? {
            Progress::UpTo(cursor) => Ok(Progress::UpTo(cursor)),
            _ => Ok(handed_over),
        }
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.forget();
        self.inner.stop().await
    }

    fn monitoring(&self) -> Monitoring {
        self.inner.monitoring()
    }
}

impl<K: Consumer<Vec<Event>>> fmt::Debug for Batch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("consumer", &self.inner.name())
            .field("len", &self.len)
            .field("period", &self.period)
            .field("collected", &self.events.len())
            .finish_non_exhaustive()
    }
}

async fn passed(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
