use std::{collections::HashSet, fmt, mem, sync::Arc, time::Duration};

use reflex_core::{Consumer, Cursor, DeadLetterStore, Error, Event, HandlerError, Input, Monitoring, Progress, Result};
use tokio::{
    select,
    time::{Instant, sleep_until},
};

use crate::{
    delays::jittered,
    isolate::{self, Outlet},
    redrive::redrive_next,
};

/// How often requested redrives are looked for, if nothing else is said.
const REDRIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Puts events aside that the consumer inside fails on, so that the others go on.
///
/// Such an event is recorded in the store, which counts it, told to `tracing` at ERROR, and passed over. If it cannot be
/// recorded the run ends, and the event is delivered again. Of a batch that fails, halves are handed over again, in order,
/// until the events that spoil it are found; only they are put aside, unless
/// [`whole_batches`](DeadLetterConsumer::whole_batches) are asked for.
///
/// Every error counts, also that of a database that is down, which spoils all events alike. Retry for long enough inside of
/// it, or say [`when`](DeadLetterConsumer::when) an event is to blame. Errors that [`is_expected`](HandlerError::is_expected),
/// and those by which a transactional consumer says that another one [runs](HandlerError::is_fenced), end the run in any case.
///
/// Events that are open when a run begins are not handed over should the stream deliver them again, as it does if the run
/// before ended between putting one aside and moving the cursor. They are redriven or discarded as all others.
///
/// A retry inside tries a batch, and in the end each single event that fails, as often as it is told to; the parts in between,
/// which only say where to look next, once.
///
/// The handler may see events of a failed batch again, those before the one that spoils it too. Put it around the handler,
/// inside of what collects or spreads events: `batch(100, period, dead_letter(store, retry(delays, handler)))`. A consumer
/// inside that answers later for its inputs, as a batch does, is an error of the run, for what failed could not be told.
///
/// # Redrives
///
/// A redrive is requested in the store, by `reflex errors redrive` for example, and done here: while the consumer runs, it
/// looks for requests when it starts and then every 10 seconds or a bit less, and [hands](Consumer::redrive) such events to
/// the consumer inside, in order, one at a time between the events of the stream. One that succeeds is closed. One that fails
/// stays, with one more redrive to its count, and the run goes on. If the run is stopped in the middle of one, its request
/// stays and is done later. See [`redrive`](crate::redrive()) for a program of its own.
///
/// # Examples
///
/// ```
/// use reflex_core::{
///     Event, HandlerError, MemoryCursors, MemoryDeadLetters, MemoryEvents, NewEvent, Spec, consumer_fn, run,
/// };
/// use rpatterns::dead_letter;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (events, letters) = (MemoryEvents::new(), MemoryDeadLetters::new());
/// events.append(NewEvent::new("order-12", 1));
/// let charge = consumer_fn("charge", |_event: Event| async { Err(HandlerError::new("no such card")) });
///
/// let consumer = dead_letter(letters.clone(), charge);
/// let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// assert_eq!(letters.open("charge")[0].error, "no such card");
/// # });
/// ```
pub fn dead_letter<S: DeadLetterStore, K>(store: S, inner: K) -> DeadLetterConsumer<S, K> {
    DeadLetterConsumer {
        inner,
        letters: Letters { store, when: None, whole_batches: false, park: false, open: HashSet::new() },
        interval: REDRIVE_INTERVAL,
        look_at: None,
        due: Due::Nothing,
    }
}

type When = Arc<dyn Fn(&HandlerError) -> bool + Send + Sync>;

/// A consumer that puts aside what fails, made by [`dead_letter`], with its options.
///
/// It can be cloned if the store and the consumer inside can.
#[derive(Clone)]
pub struct DeadLetterConsumer<S, K> {
    pub(crate) inner: K,
    pub(crate) letters: Letters<S>,
    interval: Duration,
    /// When to look for requested redrives; `None` is never.
    look_at: Option<Instant>,
    due: Due,
}

/// What was announced by `ready`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    Inner,
    Redrive,
}

impl<S, K> DeadLetterConsumer<S, K> {
    /// Puts events aside only for errors for which the answer is true; the others end the run. Not asked about errors that
    /// end it in any case. Default: all.
    #[must_use]
    pub fn when(mut self, when: impl Fn(&HandlerError) -> bool + Send + Sync + 'static) -> Self {
        self.letters.when = Some(Arc::new(when));
        self
    }

    /// Puts all events of a batch aside when it fails, for handlers to which its events are one thing. Default: only those
    /// that spoil it.
    #[must_use]
    pub fn whole_batches(mut self) -> Self {
        self.letters.whole_batches = true;
        self
    }

    /// Keeps the order of events of the same foreign id: once one of them is put aside, later ones are put aside behind it
    /// without being handled, until it was redriven with success or discarded. Default: later ones are handled.
    ///
    /// A request for a redrive is about what is put aside at that moment. What arrives while it is done goes on waiting, and
    /// needs another request; the foreign id is free when none of its events is open.
    ///
    /// The store is asked about each input before it is handed over. It bounds how much can be put aside.
    #[must_use]
    pub fn park_by_key(mut self) -> Self {
        self.letters.park = true;
        self
    }

    /// Sets how often to look for requested redrives; the time is shortened at random by up to half. Zero is an error of
    /// each run. Default: 10 seconds.
    #[must_use]
    pub fn redrive_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

impl<S: DeadLetterStore, K> DeadLetterConsumer<S, K> {
    /// Redrives one letter, if one is requested; the next is looked for at once.
    async fn redrive<T: Input>(&mut self) -> Result<(), HandlerError>
    where
        K: Consumer<T>,
    {
        let found = Box::pin(redrive_next(&self.letters.store, &mut self.inner)).await?.is_some();
        let pause = if found { Duration::ZERO } else { jittered(self.interval) };
        self.look_at = Instant::now().checked_add(pause);
        Ok(())
    }
}

impl<T: Input, S: DeadLetterStore, K: Consumer<T>> Consumer<T> for DeadLetterConsumer<S, K> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        isolate::hand_over(&mut self.inner, input, &self.letters).await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        if self.interval.is_zero() {
            return Err(Error::invalid("dead_letter looks for redrives every 0 s: make the interval longer").into());
        }
        self.due = Due::Nothing;
        self.look_at = Some(Instant::now());
        self.letters.open = Box::pin(self.letters.store.open_events(self.inner.name())).await?;
        self.inner.reset().await
    }

    async fn ready(&mut self) {
        if self.due != Due::Nothing {
            return;
        }
        self.due = select! {
            biased;
            () = self.inner.ready() => Due::Inner,
            () = reached(self.look_at) => Due::Redrive,
        };
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        match mem::take(&mut self.due) {
            Due::Inner => self.inner.advance().await,
            Due::Redrive => self.redrive().await.map(|()| Progress::Pending),
            Due::Nothing => Ok(Progress::Pending),
        }
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        self.inner.drain().await
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.look_at = None;
        self.inner.stop().await
    }

    fn monitoring(&self) -> Monitoring {
        self.inner.monitoring()
    }
}

impl<S, K> fmt::Debug for DeadLetterConsumer<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterConsumer")
            .field("whole_batches", &self.letters.whole_batches)
            .field("park_by_key", &self.letters.park)
            .field("redrive_interval", &self.interval)
            .finish_non_exhaustive()
    }
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where events go: to the store.
#[derive(Clone)]
pub(crate) struct Letters<S> {
    pub(crate) store: S,
    when: Option<When>,
    whole_batches: bool,
    park: bool,
    /// The events that were open when the run began. If the stream delivers one again, because the cursor had not moved over
    /// it, it is still put aside, or was redriven since.
    open: HashSet<Cursor>,
}

impl<S: DeadLetterStore> Letters<S> {
    /// What is left of an input without what was put aside before the run began.
    fn without_open<T: Input>(&self, input: T) -> Option<T> {
        if self.open.is_empty() {
            return Some(input);
        }
        input.retain(|event| !self.open.contains(event.id()))
    }

    /// Answers for each event whether it is parked behind another one.
    async fn park(&self, consumer: &str, events: &[Event]) -> Result<Vec<bool>> {
        let parked = Box::pin(self.store.park_behind(consumer, events)).await?;
        for (event, _) in events.iter().zip(&parked).filter(|(_, parked)| **parked) {
            tracing::debug!(
                consumer,
                event_id = %event.id(),
                foreign_id = event.foreign_id(),
                "an event is parked behind an earlier one of its foreign id"
            );
        }
        Ok(parked)
    }
}

impl<S: DeadLetterStore> Outlet for Letters<S> {
    const PATTERN: &'static str = "dead_letter";

    fn takes(&self, error: &HandlerError) -> bool {
        self.when.as_ref().is_none_or(|when| when(error))
    }

    fn takes_whole_inputs(&self) -> bool {
        self.whole_batches
    }

    async fn withhold<T: Input>(&self, consumer: &str, input: T) -> Result<Option<T>> {
        let Some(input) = self.without_open(input) else { return Ok(None) };
        if !self.park {
            return Ok(Some(input));
        }
        let mut parked = self.park(consumer, input.events()).await?.into_iter();
        Ok(input.retain(|_| parked.next() == Some(false)))
    }

    async fn take(&self, consumer: &str, event: &Event, error: &HandlerError) -> Result<()> {
        if self.park && self.park(consumer, std::slice::from_ref(event)).await? == [true] {
            return Ok(());
        }
        tracing::error!(
            consumer,
            event_id = %event.id(),
            foreign_id = event.foreign_id(),
            error = error.as_error(),
            "an event could not be handled and is put aside"
        );
        Box::pin(self.store.put(consumer, event, error)).await.map_err(|failure| {
            let attempted = format!("put aside an event that the handler failed on ({error})");
            Error::store(attempted, failure).in_consumer(consumer).at_event(event)
        })?;
        Ok(())
    }
}
