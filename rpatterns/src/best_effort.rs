use std::fmt;

use prometheus::IntCounter;
use reflex_core::{Consumer, Event, HandlerError, Input, Metrics, Progress, Result};

use crate::isolate::{self, Outlet};

/// Passes over events that the consumer inside fails on, for work that may be left undone.
///
/// Each such event is told to `tracing` at ERROR, with the consumer, the event id, the foreign id and the error, and counted
/// in `reflex_consumer_given_up_events_count`. It is not kept: see [`dead_letter`](crate::dead_letter()) for that. Of a batch
/// that fails, halves are handed over again until the events that spoil it are found; only they are passed over.
///
/// Errors that [`is_expected`](HandlerError::is_expected), and those by which a transactional consumer says that another one
/// runs, end the run all the same. So does a consumer inside that answers later for its inputs, as a batch does, for what
/// failed could not be told; write `batch(100, period, best_effort(retry(delays, handler)))`.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::best_effort;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
/// events.append(NewEvent::new("order-12", 1));
/// let notify = consumer_fn("notify", |_event: Event| async { Err(HandlerError::new("no such address")) });
/// let mut spec = Spec::new(events, cursors.clone(), best_effort(notify)).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// assert_eq!(cursors.all()["notify"], 1.into());
/// # });
/// ```
pub fn best_effort<K>(inner: K) -> BestEffort<K> {
    BestEffort { inner, log: Log { metrics: None } }
}

/// A consumer that passes over what fails, made by [`best_effort`].
#[derive(Clone)]
pub struct BestEffort<K> {
    inner: K,
    log: Log,
}

impl<K> BestEffort<K> {
    /// Records metrics here. Default: [`Metrics::global`].
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.log.metrics = Some(metrics.clone());
        self
    }
}

impl<T: Input, K: Consumer<T>> Consumer<T> for BestEffort<K> {
    forward_the_rest!();

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        isolate::hand_over(&mut self.inner, input, &self.log).await
    }

    /// The series exists from the start of a run: what it shows at first is no increase to those who look for one.
    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.log.given_up(self.inner.name());
        self.inner.reset().await
    }
}

impl<K> fmt::Debug for BestEffort<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BestEffort").finish_non_exhaustive()
    }
}

/// Where events go: nowhere.
#[derive(Clone)]
struct Log {
    metrics: Option<Metrics>,
}

impl Outlet for Log {
    const PATTERN: &'static str = "best_effort";

    fn takes(&self, _error: &HandlerError) -> bool {
        true
    }

    fn takes_whole_inputs(&self) -> bool {
        false
    }

    async fn withhold<T: Input>(&self, _consumer: &str, input: T) -> Result<Option<T>> {
        Ok(Some(input))
    }

    async fn take(&self, consumer: &str, event: &Event, error: &HandlerError) -> Result<()> {
        tracing::error!(
            consumer,
            event_id = %event.id(),
            foreign_id = event.foreign_id(),
            error = error.as_error(),
            "an event could not be handled and is passed over"
        );
        self.given_up(consumer).inc();
        Ok(())
    }
}

impl Log {
    fn given_up(&self, consumer: &str) -> IntCounter {
        self.metrics.clone().unwrap_or_else(Metrics::global).given_up(consumer)
    }
}
