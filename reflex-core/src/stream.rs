use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use chrono::Utc;
use futures_core::Stream;

use crate::{Cursor, Error, Event, Result, StreamPosition};

/// A boxed stream of events.
pub type BoxEventStream = Pin<Box<dyn Stream<Item = Result<Event>> + Send + 'static>>;

/// Where a stream starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first event that there is.
    #[default]
    Beginning,
    /// With the first event after the one that this cursor names.
    After(Cursor),
    /// With events committed after the call to [`StreamFunc::open`].
    ///
    /// Never fewer than these; a few that were committed just before the call may come too.
    Head,
}

/// How to open a stream.
///
/// # Examples
///
/// ```
/// use reflex_core::{Start, StreamOptions};
///
/// let options = StreamOptions::new().after(42).to_head();
/// assert_eq!(options.start(), &Start::After(42.into()));
/// assert!(options.is_to_head());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    start: Start,
    lag: Duration,
    to_head: bool,
}

impl StreamOptions {
    /// From the beginning, without lag, following the stream for ever.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts at `start`.
    #[must_use]
    pub fn starting(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Starts after `cursor`. Replaces any earlier choice of a start.
    #[must_use]
    pub fn after(self, cursor: impl Into<Cursor>) -> Self {
        self.starting(Start::After(cursor.into()))
    }

    /// Starts with events committed after the call. Replaces any earlier choice of a start.
    #[must_use]
    pub fn from_head(self) -> Self {
        self.starting(Start::Head)
    }

    /// Delivers only events that are at least this old. Default: no lag.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// Ends with an error that [`is_head_reached`](Error::is_head_reached) once nothing deliverable is left.
    #[must_use]
    pub fn to_head(mut self) -> Self {
        self.to_head = true;
        self
    }

    /// Waits until the event is as old as the lag asks, for sources that honour it.
    ///
    /// # Errors
    ///
    /// If the stream is to end at the head: what is not old enough is not deliverable, so this is its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn hold_back(&self, event: &Event) -> Result<()> {
        let Some(left) = time_left(self.lag, event) else {
            return Ok(());
        };
        if self.to_head {
            return Err(Error::head_reached());
        }
        tokio::time::sleep(left).await;
        Ok(())
    }

    /// Where to start.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The cursor to start after, or `None` for the beginning and the head.
    #[must_use]
    pub fn start_after(&self) -> Option<&Cursor> {
        match &self.start {
            Start::After(cursor) => Some(cursor),
            Start::Beginning | Start::Head => None,
        }
    }

    /// How old events must be.
    #[must_use]
    pub fn min_age(&self) -> Duration {
        self.lag
    }

    /// Whether to end at the head.
    #[must_use]
    pub fn is_to_head(&self) -> bool {
        self.to_head
    }
}

/// How long the event has to wait until it is as old as `lag`; `None` if it is. One from the future waits longer than that.
#[inline]
pub(crate) fn time_left(lag: Duration, event: &Event) -> Option<Duration> {
    if lag.is_zero() { None } else { time_left_of(lag, event) }
}

fn time_left_of(lag: Duration, event: &Event) -> Option<Duration> {
    let age = Utc::now() - event.timestamp();
    match age.to_std() {
        Ok(age) => lag.checked_sub(age).filter(|left| !left.is_zero()),
        Err(_) => Some(lag.saturating_add(age.abs().to_std().unwrap_or(Duration::MAX))),
    }
}

/// An open stream, as [`StreamFunc::open`] returns it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Opened<S> {
    /// The events.
    pub events: S,
    /// The position that was pinned for [`Start::Head`], where the source has one to tell: the stream delivers what comes
    /// after it. [`run`](crate::run) stores it at once, so that a restart before the first event misses nothing.
    pub position: Option<Cursor>,
    /// Where the stream is, for [`Health`](crate::Health), if the source can tell.
    pub status: Option<StreamStatus>,
}

/// Tells where an open stream is, whenever it is asked. It is let go of when the run ends.
pub type StreamStatus = Arc<dyn Fn() -> StreamPosition + Send + Sync>;

impl<S> Opened<S> {
    /// An open stream of these events.
    pub fn new(events: S) -> Self {
        Self { events, position: None, status: None }
    }

    /// Tells the position that was pinned.
    #[must_use]
    pub fn at(mut self, position: impl Into<Cursor>) -> Self {
        self.position = Some(position.into());
        self
    }

    /// Tells where the stream is. `status` is asked whenever somebody looks at the [`Health`](crate::Health) of the consumer;
    /// it must answer at once, from memory, and must not keep alive what the stream holds.
    #[must_use]
    pub fn status(mut self, status: impl Fn() -> StreamPosition + Send + Sync + 'static) -> Self {
        self.status = Some(Arc::new(status));
        self
    }
}

impl<S> fmt::Debug for Opened<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("position", &self.position).finish_non_exhaustive()
    }
}

/// A source of events that can be opened at any position, any number of times.
///
/// Closures from [`StreamOptions`] to a future of a stream are sources.
///
/// Obligations of an implementer:
///
/// - `open` pins the start before it returns: an event that is committed after `open` returned is delivered.
/// - The stream yields every committed event after the start, in the order of the stream, each once. It never passes over
///   an event that may still be committed before one that it delivered.
/// - A stream that follows its source waits when it is at the head. With
///   [to head](StreamOptions::to_head) it ends with [`Error::head_reached`] instead.
/// - An error ends the stream: nothing is polled after it.
/// - A source that cannot honour an option fails to open; it does not ignore the option.
///
/// Many streams of one source are open at once and do not disturb each other. Dropping one, at any point, releases what it
/// holds.
///
/// A caller remembers the id of the last event and opens a new stream after it. The classic mistake is to remember the id
/// of an event that was received and not yet handled: it is lost if the process ends between the two.
///
/// # Examples
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use reflex_core::{Error, Event, StreamFunc, StreamOptions};
///
/// let nothing = |_options: StreamOptions| async {
///     Ok(stream::iter([Err::<Event, Error>(Error::head_reached())]))
/// };
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut opened = nothing.open(StreamOptions::new().to_head()).await.unwrap();
/// assert!(opened.events.next().await.unwrap().unwrap_err().is_head_reached());
/// # });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source of events",
    note = "sources are events tables, and closures `|options: StreamOptions| async move {{ Ok(stream) }}` whose stream \
            yields `Result<Event, reflex_core::Error>` and is `Send`"
)]
pub trait StreamFunc: Send + Sync {
    /// The stream that is opened.
    type Stream: Stream<Item = Result<Event>> + Send;

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// If the source cannot be reached, does not know the start, or cannot honour an option.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    fn open(&self, options: StreamOptions) -> impl Future<Output = Result<Opened<Self::Stream>>> + Send;
}

impl<F, Fut, S> StreamFunc for F
where
    F: Fn(StreamOptions) -> Fut + Send + Sync,
    Fut: Future<Output = Result<S>> + Send,
    S: Stream<Item = Result<Event>> + Send,
{
    type Stream = S;

    async fn open(&self, options: StreamOptions) -> Result<Opened<S>> {
        self(options).await.map(Opened::new)
    }
}

/// A [`StreamFunc`] of any kind, for collections of specs.
#[derive(Clone)]
pub struct BoxStreamFunc(Arc<dyn ErasedStreamFunc>);

impl BoxStreamFunc {
    /// Boxes a source.
    pub fn new<S>(source: S) -> Self
    where
        S: StreamFunc<Stream: 'static> + 'static,
    {
        Self(Arc::new(source))
    }
}

impl StreamFunc for BoxStreamFunc {
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        self.0.open_boxed(options).await
    }
}

impl fmt::Debug for BoxStreamFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxStreamFunc").finish_non_exhaustive()
    }
}

type OpenFuture<'a> = Pin<Box<dyn Future<Output = Result<Opened<BoxEventStream>, Error>> + Send + 'a>>;

trait ErasedStreamFunc: Send + Sync {
    fn open_boxed(&self, options: StreamOptions) -> OpenFuture<'_>;
}

impl<S: StreamFunc<Stream: 'static>> ErasedStreamFunc for S {
    fn open_boxed(&self, options: StreamOptions) -> OpenFuture<'_> {
        Box::pin(async move {
            let Opened { events, position, status } = self.open(options).await?;
            Ok(Opened { events: Box::pin(events) as BoxEventStream, position, status })
        })
    }
}
