use std::{fmt, sync::Arc, time::Duration};

use crate::{
    BoxConsumer, BoxCursorStore, BoxStreamFunc, Consumer, Cursor, CursorStore, Health, Metrics, Start, StreamFunc,
    StreamOptions, health::Track,
};

/// A consumer with the stream that it follows and the store that keeps its cursor: all that [`run`](crate::run) needs.
///
/// A spec is run by one task at a time, which the mutable borrow of `run` sees to. It can be run again after an error.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
///
/// let consumer = consumer_fn("ship", |event: Event| async move {
///     println!("shipping {}", event.foreign_id());
///     Ok(())
/// });
/// let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub struct Spec<S, C, K> {
    pub(crate) stream: S,
    pub(crate) cursors: C,
    pub(crate) consumer: K,
    pub(crate) options: SpecOptions,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) track: Option<Arc<Track>>,
}

/// A [`Spec`] of any kind, for collections.
pub type BoxSpec = Spec<BoxStreamFunc, BoxCursorStore, BoxConsumer>;

#[derive(Clone, Debug, Default)]
pub(crate) struct SpecOptions {
    pub(crate) lag: Duration,
    pub(crate) from_head: bool,
    pub(crate) to_head: bool,
}

impl SpecOptions {
    /// The options to open the stream with. Lag is not among them: the run itself waits it out.
    pub(crate) fn stream_options(&self, cursor: Option<&Cursor>) -> StreamOptions {
        let start = match cursor {
            _ if self.from_head => Start::Head,
            Some(cursor) => Start::After(cursor.clone()),
            None => Start::Beginning,
        };
        let options = StreamOptions::new().starting(start);
        if self.to_head { options.to_head() } else { options }
    }
}

impl<S: StreamFunc, C: CursorStore, K: Consumer> Spec<S, C, K> {
    /// Lets `consumer` follow `stream`, with its cursor in `cursors`.
    pub fn new(stream: S, cursors: C, consumer: K) -> Self {
        Self { stream, cursors, consumer, options: SpecOptions::default(), metrics: None, track: None }
    }

    /// Boxes all parts, so that different specs go into one collection.
    #[must_use]
    pub fn boxed(self) -> BoxSpec
    where
        S: StreamFunc<Stream: 'static> + 'static,
        C: 'static,
        K: 'static,
    {
        Spec {
            stream: BoxStreamFunc::new(self.stream),
            cursors: BoxCursorStore::new(self.cursors),
            consumer: BoxConsumer::new(self.consumer),
            options: self.options,
            metrics: self.metrics,
            track: self.track,
        }
    }

    /// Tells `health` how the consumer is. Default: nobody is told.
    ///
    /// Several specs of one name have an entry each; a spec takes over that of an earlier one that is gone.
    #[must_use]
    pub fn health(mut self, health: &Health) -> Self {
        self.track = Some(health.track(self.consumer.name()));
        self
    }

    /// The name of the consumer.
    pub fn name(&self) -> &str {
        self.consumer.name()
    }
}

impl<S, C, K> Spec<S, C, K> {
    /// Hands an event to the consumer only when it is at least this old. Default: no lag.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.options.lag = lag;
        self
    }

    /// Starts each run with events committed after its start, whatever the stored cursor says. Default: after the cursor,
    /// or at the beginning if there is none.
    ///
    /// A run that is started again after a failure therefore passes over what was committed in between, and over the event
    /// that failed. A stored cursor that is ahead of the head is kept.
    #[must_use]
    pub fn from_head(mut self) -> Self {
        self.options.from_head = true;
        self
    }

    /// Ends the run with an error that [`is_head_reached`](crate::Error::is_head_reached) once nothing deliverable is left.
    /// Default: follows the stream for ever.
    #[must_use]
    pub fn to_head(mut self) -> Self {
        self.options.to_head = true;
        self
    }

    /// Records metrics here. Default: [`Metrics::global`].
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }
}

impl<S, C, K: Consumer> fmt::Debug for Spec<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("consumer", &self.consumer.name())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
