use std::{fmt, future, marker::PhantomData, pin::Pin, sync::Arc, time::Duration};

use crate::{Cursor, Error, Event, EventType, HandlerError, filters::Decision};

/// What a consumer says about its input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is done: the cursor may move to it.
    Done,
    /// It was not for this consumer: the cursor may move to it, and it counts as skipped.
    Skipped,
    /// It is not done yet: the cursor must not move.
    Pending,
    /// Everything up to and with this cursor is done.
    UpTo(Cursor),
}

/// What is watched about a consumer while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Monitoring {
    /// The lag at which `reflex_consumer_lag_alert` becomes 1; `None` switches it off. Default: 30 minutes.
    pub lag_alert: Option<Duration>,
    /// How long after its last event, or its start, `reflex_consumer_active` stays 1; `None` switches it off. Default: 24 hours.
    pub activity_ttl: Option<Duration>,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { lag_alert: Some(Duration::from_secs(30 * 60)), activity_ttl: Some(Duration::from_secs(24 * 60 * 60)) }
    }
}

/// Business logic that is handed one input after another: events, or what a pattern makes of them.
///
/// Most consumers are closures: see [`consumer_fn`]. Patterns implement the trait themselves.
///
/// [`run`](crate::run) calls `reset`, then `consume` for one event after the other, and `stop` at the end, whatever the
/// reason. Whenever it waits for an event it waits for `ready` as well and answers it with `advance`. On a shutdown, and
/// when a stream has ended at its head, it calls `drain`. The calls never overlap. An error from any of them ends the run
/// at once and leaves the cursor where it is.
///
/// Obligations of an implementer:
///
/// - `Done`, `Skipped` and `UpTo` promise that the effects of everything up to there are durable: those events are not
///   delivered again. The classic mistake is to answer `Done` for an event that is only queued; answer `Pending`, and
///   `UpTo` when it is done.
/// - The same event may come again, after a crash or a failed write of the cursor.
/// - Dropping the future of `consume`, `advance` or `drain` happens when a service drops its run. The event it was
///   working on is delivered again.
/// - `ready` must be cancel safe: it is dropped and called again all the time. It must only wait; `advance` acts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a consumer of `{T}`",
    note = "make one from an async closure: `consumer_fn(\"name\", |event: Event| async move {{ Ok(()) }})`"
)]
pub trait Consumer<T = Event>: Send {
    /// The name under which the cursor is kept. It stays the same over the life of the service.
    fn name(&self) -> &str;

    /// Handles one input.
    ///
    /// # Errors
    ///
    /// If the input cannot be handled; the run ends and delivers it again when it is started again.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; the input is delivered again.
    fn consume(&mut self, input: T) -> impl Future<Output = Result<Progress, HandlerError>> + Send;

    /// Handles an input that was put aside earlier, outside of the order of the stream: no cursor moves for it, whatever the
    /// answer. The default does what [`consume`](Consumer::consume) does. Patterns hand it on to the consumer inside, and
    /// consumers that move a cursor themselves leave that out.
    ///
    /// # Errors
    ///
    /// If the input cannot be handled; it stays put aside.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; the input may be handed over again.
    fn redrive(&mut self, input: T) -> impl Future<Output = Result<Progress, HandlerError>> + Send {
        self.consume(input)
    }

    /// Forgets what was left over from an earlier run. The default has nothing to forget.
    ///
    /// # Errors
    ///
    /// If the consumer cannot start.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; the next run calls it again.
    fn reset(&mut self) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Ok(()) }
    }

    /// Waits until the consumer has something to do without a new input: a timer, a finished task.
    ///
    /// The default waits for ever.
    ///
    /// # Cancel safety
    ///
    /// It is dropped and called again at any time.
    fn ready(&mut self) -> impl Future<Output = ()> + Send {
        future::pending()
    }

    /// Does what [`ready`](Consumer::ready) announced.
    ///
    /// # Errors
    ///
    /// If that fails; the run ends.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; what it was about to finish is delivered again.
    fn advance(&mut self) -> impl Future<Output = Result<Progress, HandlerError>> + Send {
        async { Ok(Progress::Pending) }
    }

    /// Finishes what is in hand, because no further input will come.
    ///
    /// # Errors
    ///
    /// If that fails; what is not finished is delivered again.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; what is not finished is delivered again.
    fn drain(&mut self) -> impl Future<Output = Result<Progress, HandlerError>> + Send {
        async { Ok(Progress::Pending) }
    }

    /// Ends a run, whatever the reason. The default does nothing.
    ///
    /// # Errors
    ///
    /// If the consumer cannot clean up.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run, and then not called again.
    fn stop(&mut self) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Ok(()) }
    }

    /// What is watched about this consumer. Patterns answer for the consumer inside them.
    fn monitoring(&self) -> Monitoring {
        Monitoring::default()
    }
}

/// An event that a consumer failed on, as its recovery function gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The event.
    pub event: Event,
    /// The name of the consumer.
    pub consumer: Arc<str>,
    /// What went wrong.
    pub error: HandlerError,
}

type Filter = Arc<dyn Fn(&Event) -> Decision + Send + Sync>;
type RecoveryFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;
type Recovery = Arc<dyn Fn(Failure) -> RecoveryFuture + Send + Sync>;

/// Makes a consumer from an async closure over an owned [`Event`], or over a `Vec<Event>` inside a pattern that collects
/// batches.
///
/// The closure, or a function `async fn(Event) -> Result<(), HandlerError>`, may fail with any error by `?`. An error ends
/// the run and leaves the cursor in front of the event. A closure has to name the type of its parameter.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, consumer_fn};
///
/// let consumer = consumer_fn("print", |event: Event| async move {
///     let amount: u64 = event.metadata_json()?;
///     println!("{} paid {amount}", event.foreign_id());
///     Ok(())
/// })
/// .include_types([1, 2]);
/// # let _ = consumer;
/// ```
pub fn consumer_fn<T, F, Fut>(name: impl Into<Arc<str>>, handler: F) -> FnConsumer<F, T>
where
    F: FnMut(T) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    FnConsumer {
        name: name.into(),
        handler,
        types: Vec::new(),
        filter: None,
        recovery: None,
        monitoring: Monitoring::default(),
        input: PhantomData,
    }
}

/// A consumer made by [`consumer_fn`], with its options. It can be cloned if its closure can.
#[derive(Clone)]
pub struct FnConsumer<F, T = Event> {
    name: Arc<str>,
    handler: F,
    types: Vec<EventType>,
    filter: Option<Filter>,
    recovery: Option<Recovery>,
    monitoring: Monitoring,
    input: PhantomData<fn(T)>,
}

impl<F, T> FnConsumer<F, T> {
    /// Sets the lag at which `reflex_consumer_lag_alert` becomes 1. Default: 30 minutes.
    #[must_use]
    pub fn lag_alert(mut self, threshold: Duration) -> Self {
        self.monitoring.lag_alert = Some(threshold);
        self
    }

    /// Switches the lag alert off.
    #[must_use]
    pub fn no_lag_alert(mut self) -> Self {
        self.monitoring.lag_alert = None;
        self
    }

    /// Sets how long after its last event, or its start, `reflex_consumer_active` stays 1. Default: 24 hours.
    #[must_use]
    pub fn activity_ttl(mut self, ttl: Duration) -> Self {
        self.monitoring.activity_ttl = Some(ttl);
        self
    }

    /// Switches the activity metric off.
    #[must_use]
    pub fn no_activity_ttl(mut self) -> Self {
        self.monitoring.activity_ttl = None;
        self
    }
}

impl<F> FnConsumer<F> {
    /// Handles only events of these types; the others are skipped. Default: all. An empty list means all.
    #[must_use]
    pub fn include_types<T: Into<EventType>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Handles only events for which the filter is true; the others are skipped. A filter that fails ends the run with an
    /// error that [`is_filter`](Error::is_filter). Default: none. See [`filters`](crate::filters).
    #[must_use]
    pub fn filter(mut self, filter: impl Fn(&Event) -> Decision + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// Decides what becomes of an event that the handler failed on: `Ok` swallows the error and the cursor moves on, `Err`
    /// replaces it. Not called for errors that [`is_expected`](HandlerError::is_expected), nor for filters. Default: none.
    #[must_use]
    pub fn recover<R, Fut>(mut self, recovery: R) -> Self
    where
        R: Fn(Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.recovery = Some(Arc::new(move |failure| Box::pin(recovery(failure))));
        self
    }

    #[inline]
    fn includes(&self, event: &Event) -> Result<bool, HandlerError> {
        if !self.types.is_empty() && !self.types.contains(&event.event_type()) {
            return Ok(false);
        }
        match &self.filter {
            Some(filter) => Ok(filter(event).map_err(Error::filter)?),
            None => Ok(true),
        }
    }
}

impl<F, Fut> FnConsumer<F>
where
    F: FnMut(Event) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle_or_recover(&mut self, event: Event) -> Result<(), HandlerError> {
        match ((self.handler)(event.clone()).await, &self.recovery) {
            (Err(error), Some(recovery)) if !error.is_expected() => {
                recovery(Failure { event, consumer: self.name.clone(), error }).await
            }
            (handled, _) => handled,
        }
    }
}

impl<F, Fut> Consumer for FnConsumer<F>
where
    F: FnMut(Event) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        if !self.includes(&event)? {
            return Ok(Progress::Skipped);
        }
        if self.recovery.is_some() {
            // Boxed, so that the future is small where there is none.
            Box::pin(self.handle_or_recover(event)).await?;
        } else {
            (self.handler)(event).await?;
        }
        Ok(Progress::Done)
    }

    fn monitoring(&self) -> Monitoring {
        self.monitoring.clone()
    }
}

impl<F, Fut> Consumer<Vec<Event>> for FnConsumer<F, Vec<Event>>
where
    F: FnMut(Vec<Event>) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, batch: Vec<Event>) -> Result<Progress, HandlerError> {
        (self.handler)(batch).await?;
        Ok(Progress::Done)
    }

    fn monitoring(&self) -> Monitoring {
        self.monitoring.clone()
    }
}

impl<F, T> fmt::Debug for FnConsumer<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnConsumer")
            .field("name", &self.name)
            .field("types", &self.types)
            .field("monitoring", &self.monitoring)
            .finish_non_exhaustive()
    }
}

/// A [`Consumer`] of any kind, for collections of specs.
pub struct BoxConsumer<T = Event>(Box<dyn ErasedConsumer<T>>);

impl<T: Send + 'static> BoxConsumer<T> {
    /// Boxes a consumer.
    pub fn new(consumer: impl Consumer<T> + 'static) -> Self {
        Self(Box::new(consumer))
    }
}

impl<T: Send + 'static> Consumer<T> for BoxConsumer<T> {
    fn name(&self) -> &str {
        self.0.name_erased()
    }

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        self.0.consume_boxed(input).await
    }

    async fn redrive(&mut self, input: T) -> Result<Progress, HandlerError> {
        self.0.redrive_boxed(input).await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.0.reset_boxed().await
    }

    async fn ready(&mut self) {
        self.0.ready_boxed().await;
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        self.0.advance_boxed().await
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        self.0.drain_boxed().await
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.0.stop_boxed().await
    }

    fn monitoring(&self) -> Monitoring {
        self.0.monitoring_erased()
    }
}

impl<T> fmt::Debug for BoxConsumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxConsumer").field("name", &self.0.name_erased()).finish_non_exhaustive()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

trait ErasedConsumer<T>: Send {
    fn name_erased(&self) -> &str;
    fn consume_boxed(&mut self, input: T) -> BoxFuture<'_, Result<Progress, HandlerError>>;
    fn redrive_boxed(&mut self, input: T) -> BoxFuture<'_, Result<Progress, HandlerError>>;
    fn reset_boxed(&mut self) -> BoxFuture<'_, Result<(), HandlerError>>;
    fn ready_boxed(&mut self) -> BoxFuture<'_, ()>;
    fn advance_boxed(&mut self) -> BoxFuture<'_, Result<Progress, HandlerError>>;
    fn drain_boxed(&mut self) -> BoxFuture<'_, Result<Progress, HandlerError>>;
    fn stop_boxed(&mut self) -> BoxFuture<'_, Result<(), HandlerError>>;
    fn monitoring_erased(&self) -> Monitoring;
}

impl<T: Send + 'static, C: Consumer<T>> ErasedConsumer<T> for C {
    fn name_erased(&self) -> &str {
        self.name()
    }

    fn consume_boxed(&mut self, input: T) -> BoxFuture<'_, Result<Progress, HandlerError>> {
        Box::pin(self.consume(input))
    }

    fn redrive_boxed(&mut self, input: T) -> BoxFuture<'_, Result<Progress, HandlerError>> {
        Box::pin(self.redrive(input))
    }

    fn reset_boxed(&mut self) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(self.reset())
    }

    fn ready_boxed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.ready())
    }

    fn advance_boxed(&mut self) -> BoxFuture<'_, Result<Progress, HandlerError>> {
        Box::pin(self.advance())
    }

    fn drain_boxed(&mut self) -> BoxFuture<'_, Result<Progress, HandlerError>> {
        Box::pin(self.drain())
    }

    fn stop_boxed(&mut self) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(self.stop())
    }

    fn monitoring_erased(&self) -> Monitoring {
        self.monitoring()
    }
}
