use std::{collections::HashMap, fmt, pin::Pin, sync::Arc, time::Duration};

use reflex_core::{
    AttemptStore, Consumer, Cursor, Error, Event, HandlerError, Input, Metrics, Progress, Result, Shutdown,
};
use tokio::{select, time::sleep};

use crate::{
    answers::{ends_the_run, first, settled},
    delays::jittered,
    isolate::is_searching,
};

/// Hands an input to the consumer inside again when it failed, after the first delay, then after the second, and so on; when
/// the delays are used up, its error is the result.
///
/// `delays` is anything that iterates over durations and can be cloned: `[Duration::from_secs(1); 5]`, or
/// [`exponential`](crate::exponential)`(first, longest).take(8)`. Each input starts with the first delay. Endless delays try for ever.
///
/// Errors that [`is_expected`](HandlerError::is_expected) are not retried, nor are those by which a transactional consumer
/// says that another one runs; everything else is, unless [`when`](Retry::when) decides otherwise. Each failed attempt is
/// told to `tracing` at WARN and counted in `reflex_consumer_retries_count`.
///
/// While it waits, no other input is handed over. A shutdown ends the wait at once: the input counts as not handled, and the
/// next run gets it again. Put it around the handler, inside of what collects or spreads events:
/// `batch(100, period, dead_letter(store, retry(delays, handler)))`. A consumer inside that answers later for its inputs, as
/// a batch does, is an error of the run, for what failed could not be told.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::retry;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
///
/// let mut attempts = 0;
/// let charge = consumer_fn("charge", move |_event: Event| {
///     attempts += 1;
///     async move { if attempts < 3 { Err(HandlerError::new("no answer")) } else { Ok(()) } }
/// });
/// let consumer = retry([Duration::from_secs(1), Duration::from_secs(5)], charge);
/// let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn retry<D, K>(delays: D, inner: K) -> Retry<D, K>
where
    D: IntoIterator<Item = Duration> + Clone,
{
    Retry { delays, inner, jitter: false, decide: None, metrics: None, counts: Counts::default() }
}

/// What is to be done about an input that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RetryDecision {
    /// Try again after the next delay, if there is one.
    Again,
    /// Try again after this time, in place of the next delay, if there is one.
    After(Duration),
    /// Do not try again: the error is the result.
    GiveUp,
}

type Decide = Arc<dyn Fn(&HandlerError, u32) -> RetryDecision + Send + Sync>;

/// A consumer that tries again, made by [`retry`], with its options. It can be cloned if the consumer inside can.
#[derive(Clone)]
pub struct Retry<D, K> {
    delays: D,
    inner: K,
    jitter: bool,
    decide: Option<Decide>,
    metrics: Option<Metrics>,
    counts: Counts,
}

impl<D, K> Retry<D, K> {
    /// Shortens each delay at random, by up to half, so that consumers that failed together do not come back together.
    /// Default: delays are kept as they are.
    #[must_use]
    pub fn jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// Decides by the error, and by how many attempts at this input have failed, 1 after the first. Not asked about errors
    /// that are never retried. Default: always [`RetryDecision::Again`].
    #[must_use]
    pub fn when(mut self, decide: impl Fn(&HandlerError, u32) -> RetryDecision + Send + Sync + 'static) -> Self {
        self.decide = Some(Arc::new(decide));
        self
    }

    /// Records metrics here. Default: [`Metrics::global`].
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Keeps the count of failed attempts, so that a restart in the middle of a delay does not start with the first delay
    /// again. Default: the count is forgotten at the end of a run.
    ///
    /// The count is stored at each failure, under the first event of the input, before the delay begins. It is forgotten when
    /// the input succeeds and when it is given up. A run that starts tries at once, and goes on with the delays that are left.
    /// An attempt that took the process with it is not counted.
    #[must_use]
    pub fn durable(mut self, store: impl AttemptStore + 'static) -> Self {
        self.counts.store = Some(Arc::new(store));
        self
    }
}

impl<D, K> Retry<D, K>
where
    D: IntoIterator<Item = Duration> + Clone + Send,
{
    /// How long to wait before the next attempt; `None` if there is none. `failed` counts the attempts so far.
    fn delay(&self, error: &HandlerError, failed: u32) -> Option<Duration> {
        let decision = self.decide.as_ref().map_or(RetryDecision::Again, |decide| decide(error, failed));
        let next = self.delays.clone().into_iter().nth(failed.saturating_sub(1) as usize)?;
        match decision {
            RetryDecision::Again if self.jitter => Some(jittered(next)),
            RetryDecision::Again => Some(next),
            RetryDecision::After(delay) => Some(delay),
            RetryDecision::GiveUp => None,
        }
    }

    /// Hands the input over until it is handled or given up.
    async fn attempt<T>(&mut self, input: T, how: How) -> Result<Progress, HandlerError>
    where
        T: Input,
        K: Consumer<T>,
    {
        if is_searching() {
            let progress = self.inner.consume(input.clone()).await?;
            return settled(progress, &input, "retry", self.inner.name());
        }
        let event = first(&input);
        let mut failed = self.counts.of(event.id());
        loop {
            let outcome = match how {
                How::Consume => self.inner.consume(input.clone()).await,
                How::Redrive => self.inner.redrive(input.clone()).await,
            };
            let consumer = self.inner.name();
            let error = match outcome {
                Err(error) if ends_the_run(&error) => return Err(error),
                Err(error) => error,
                Ok(progress) => {
                    self.counts.forget(consumer, event.id()).await?;
                    return settled(progress, &input, "retry", consumer);
                }
            };
            failed += 1;
            let Some(delay) = self.delay(&error, failed) else {
                self.counts.forget(consumer, event.id()).await?;
                return Err(error);
            };
            self.counts.note(consumer, event.id(), failed).await?;
            report(consumer, event, &error, failed, delay);
            pause(delay, error).await?;
            self.metrics.clone().unwrap_or_else(Metrics::global).retries(self.inner.name()).inc();
        }
    }
}

/// Which way an input is handed over.
#[derive(Clone, Copy)]
enum How {
    Consume,
    Redrive,
}

/// Waits until the next attempt, unless the run is asked to stop.
async fn pause(delay: Duration, error: HandlerError) -> Result<(), HandlerError> {
    select! {
        biased;
        () = Shutdown::current().requested() => Err(Error::stopped().caused_by(error).into()),
        () = sleep(delay) => Ok(()),
    }
}

fn report(consumer: &str, event: &Event, error: &HandlerError, failed: u32, delay: Duration) {
    tracing::warn!(
        consumer,
        event_id = %event.id(),
        foreign_id = event.foreign_id(),
        attempt = failed,
        ?delay,
        error = error.as_error(),
        "an attempt failed and is made again after the delay"
    );
}

impl<T, D, K> Consumer<T> for Retry<D, K>
where
    T: Input,
    D: IntoIterator<Item = Duration> + Clone + Send,
    K: Consumer<T>,
{
    forward_the_rest!();

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        self.attempt(input, How::Consume).await
    }

    async fn redrive(&mut self, input: T) -> Result<Progress, HandlerError> {
        self.attempt(input, How::Redrive).await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.counts.load(self.inner.name()).await?;
        self.inner.reset().await
    }
}

impl<D: fmt::Debug, K> fmt::Debug for Retry<D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("delays", &self.delays).field("jitter", &self.jitter).finish_non_exhaustive()
    }
}

/// How many attempts at inputs have failed, by their first event. Empty unless there is a store to keep it.
#[derive(Clone, Default)]
struct Counts {
    store: Option<Arc<dyn ErasedAttempts>>,
    counts: HashMap<Cursor, u32>,
}

impl Counts {
    fn of(&self, event: &Cursor) -> u32 {
        self.counts.get(event).copied().unwrap_or(0)
    }

    async fn load(&mut self, consumer: &str) -> Result<()> {
        if let Some(store) = &self.store {
            self.counts = store.load(consumer).await?;
        }
        Ok(())
    }

    async fn note(&mut self, consumer: &str, event: &Cursor, failed: u32) -> Result<()> {
        if let Some(store) = &self.store {
            store.save(consumer, event, failed).await?;
            self.counts.insert(event.clone(), failed);
        }
        Ok(())
    }

    async fn forget(&mut self, consumer: &str, event: &Cursor) -> Result<()> {
        if let Some(store) = &self.store
            && self.counts.contains_key(event)
        {
            store.save(consumer, event, 0).await?;
            self.counts.remove(event);
        }
        Ok(())
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

trait ErasedAttempts: Send + Sync {
    fn load<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, HashMap<Cursor, u32>>;
    fn save<'a>(&'a self, consumer: &'a str, event: &'a Cursor, attempts: u32) -> BoxFuture<'a, ()>;
}

impl<S: AttemptStore> ErasedAttempts for S {
    fn load<'a>(&'a self, consumer: &'a str) -> BoxFuture<'a, HashMap<Cursor, u32>> {
        Box::pin(self.attempts(consumer))
    }

    fn save<'a>(&'a self, consumer: &'a str, event: &'a Cursor, attempts: u32) -> BoxFuture<'a, ()> {
        Box::pin(self.set_attempts(consumer, event, attempts))
    }
}
