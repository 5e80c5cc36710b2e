mod fields;
mod following;
mod options;
mod reader;
mod starts;

use std::time::Duration;

use reflex_core::{HandlerError, NewEvent, StreamFunc};

use self::reader::Bench;
use super::runner::{Case, run_cases};

/// What a source is capable of. The default is everything.
///
/// # Examples
///
/// ```
/// use reflex_testing::conformance::StreamCapabilities;
///
/// let capabilities = StreamCapabilities { lag: false, ..StreamCapabilities::default() };
/// # let _ = capabilities;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCapabilities {
    /// Event ids are integers that ascend, and cursors that are not are refused. Default: true.
    pub integer_ids: bool,
    /// It honours [`lag`](reflex_core::StreamOptions::lag); otherwise it refuses it. Default: true.
    pub lag: bool,
    /// It honours [`to_head`](reflex_core::StreamOptions::to_head); otherwise it refuses it. Default: true.
    pub to_head: bool,
    /// It honours [`from_head`](reflex_core::StreamOptions::from_head); otherwise it refuses it. Default: true.
    pub from_head: bool,
    /// It tells the position that it pinned for the head. Default: true.
    pub position: bool,
    /// Its harness can append placeholders, which are never delivered. Default: true.
    pub placeholders: bool,
    /// It knows that a cursor is ahead of its events, and says so. Default: true.
    pub cursor_ahead: bool,
    /// Events carry metadata. Default: true.
    pub metadata: bool,
    /// Events carry trace bytes. Default: true.
    pub trace: bool,
    /// The longest metadata and the longest trace that it carries, in bytes. Default: 100,000.
    pub max_bytes: usize,
    /// How exactly it keeps the timestamps of producers; `None` if it has its own. Default: to the microsecond.
    pub timestamps: Option<Duration>,
    /// How many events to read in the case of a long backlog. Default: 5,000.
    pub backlog: usize,
}

impl Default for StreamCapabilities {
    fn default() -> Self {
        Self {
            integer_ids: true,
            lag: true,
            to_head: true,
            from_head: true,
            position: true,
            placeholders: true,
            cursor_ahead: true,
            metadata: true,
            trace: true,
            max_bytes: 100_000,
            timestamps: Some(Duration::from_micros(1)),
            backlog: 5_000,
        }
    }
}

/// One namespace of a source, empty at first: appends events to it and opens sources of it.
///
/// # Examples
///
/// ```
/// use reflex_core::{HandlerError, MemoryEvents, NewEvent};
/// use reflex_testing::conformance::{StreamCapabilities, StreamHarness, stream_func};
///
/// struct InMemory(MemoryEvents);
///
/// impl StreamHarness for InMemory {
///     type Source = MemoryEvents;
///
///     async fn source(&self) -> Result<MemoryEvents, HandlerError> {
///         Ok(self.0.clone())
///     }
///
///     async fn append(&self, event: NewEvent) -> Result<(), HandlerError> {
///         self.0.append(event);
///         Ok(())
///     }
///
///     async fn append_placeholder(&self) -> Result<(), HandlerError> {
///         self.append(NewEvent::new(0, 0)).await
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// stream_func(|_case| async { Ok(InMemory(MemoryEvents::new())) }, StreamCapabilities::default()).await;
/// # });
/// ```
pub trait StreamHarness: Send + Sync {
    /// The source under test.
    type Source: StreamFunc<Stream: 'static> + 'static;

    /// Makes another source of the same events.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn source(&self) -> impl Future<Output = Result<Self::Source, HandlerError>> + Send;

    /// Appends an event, which is committed when this returns.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn append(&self, event: NewEvent) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Appends many events in this order. The default appends one after the other.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn append_all(&self, events: Vec<NewEvent>) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async {
            for event in events {
                self.append(event).await?;
            }
            Ok(())
        }
    }

    /// Puts a placeholder (foreign id `"0"`, type 0) where the next event would be. The default cannot.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn append_placeholder(&self) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Err(HandlerError::new("the harness cannot append placeholders: switch the capability off")) }
    }
}

/// Runs every case of the [`StreamFunc`] contract.
///
/// `factory` is called with the name of each case and makes a namespace for it.
///
/// # Panics
///
/// If a case fails; the message lists all that did.
///
/// # Cancel safety
///
/// Dropping the future ends the case that runs; what it appended stays.
///
/// # Examples
///
/// See [`StreamHarness`].
pub async fn stream_func<H, Fut>(factory: impl Fn(&'static str) -> Fut, capabilities: StreamCapabilities)
where
    H: StreamHarness,
    Fut: Future<Output = Result<H, HandlerError>>,
{
    let cases: &[Case<Bench<H>>] = &[
        ("order", |bench| Box::pin(starts::order(bench))),
        ("beginning", |bench| Box::pin(starts::beginning(bench))),
        ("after a cursor", |bench| Box::pin(starts::after_a_cursor(bench))),
        ("large backlog", |bench| Box::pin(starts::large_backlog(bench))),
        ("cursor ahead of the events", |bench| Box::pin(starts::cursor_ahead(bench))),
        ("text as a cursor", |bench| Box::pin(starts::text_as_a_cursor(bench))),
        ("from head pins its start", |bench| Box::pin(starts::from_head_pins_its_start(bench))),
        ("from head of nothing", |bench| Box::pin(starts::from_head_of_nothing(bench))),
        ("from head beside a writer", |bench| Box::pin(starts::from_head_beside_a_writer(bench))),
        ("from head tells its position", |bench| Box::pin(starts::from_head_tells_its_position(bench))),
        ("to head", |bench| Box::pin(options::to_head(bench))),
        ("to head of nothing", |bench| Box::pin(options::to_head_of_nothing(bench))),
        ("from head to head", |bench| Box::pin(options::from_head_to_head(bench))),
        ("lag holds events back", |bench| Box::pin(options::lag_holds_events_back(bench))),
        ("lag keeps the order", |bench| Box::pin(options::lag_keeps_the_order(bench))),
        ("unsupported options are refused", |bench| Box::pin(options::unsupported_are_refused(bench))),
        ("follows after idle", |bench| Box::pin(following::after_idle(bench))),
        ("open pins the start", |bench| Box::pin(following::open_pins_the_start(bench))),
        ("many streams at once", |bench| Box::pin(following::many_streams_at_once(bench))),
        ("slow beside fast", |bench| Box::pin(following::slow_beside_fast(bench))),
        ("dropped in mid-stream", |bench| Box::pin(following::dropped_in_mid_stream(bench))),
        ("dropped while opening", |bench| Box::pin(following::dropped_while_opening(bench))),
        ("concurrent writers", |bench| Box::pin(following::concurrent_writers(bench))),
        ("second source", |bench| Box::pin(following::second_source(bench))),
        ("placeholders", |bench| Box::pin(fields::placeholders(bench))),
        ("foreign ids", |bench| Box::pin(fields::foreign_ids(bench))),
        ("types", |bench| Box::pin(fields::types(bench))),
        ("metadata", |bench| Box::pin(fields::metadata(bench))),
        ("trace", |bench| Box::pin(fields::trace(bench))),
        ("timestamps", |bench| Box::pin(fields::timestamps(bench))),
        ("timestamps by default", |bench| Box::pin(fields::timestamps_by_default(bench))),
    ];
    let bench = async |case| Ok(Bench { harness: factory(case).await?, capabilities: capabilities.clone() });
    run_cases("stream_func", cases, bench).await;
}
