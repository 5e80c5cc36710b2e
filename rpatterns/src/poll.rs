use std::{fmt, sync::Arc, time::Duration};

use async_stream::try_stream;
use reflex_core::{
    BoxEventStream, Cursor, Error, Event, HandlerError, Opened, Result, Start, StreamFunc, StreamOptions,
};
use tokio::time::sleep;

/// How long to wait after an empty page, if nothing else is said.
const BACKOFF: Duration = Duration::from_secs(60);

/// Makes a source from an API that is asked for one page of events after the other.
///
/// `poll` gets the cursor of the last event, `None` for the first page, and returns the events after it, oldest first and
/// with their ids as cursors; an empty page means that there are no more yet. The API must keep their order. The next page is
/// asked for when all events of the last one were taken, at once unless it was empty.
///
/// Lag and to-head are honoured. From head, everything that there is is paged through first, when the stream is opened.
///
/// # Errors
///
/// Opening it, if the backoff is zero. An error of `poll`, or a page that begins with the event that it was to come after,
/// ends the stream.
///
/// # Examples
///
/// ```
/// use reflex_core::{Cursor, Event, EventParts, HandlerError, MemoryCursors, Spec, consumer_fn, run};
/// use rpatterns::poll_source;
///
/// async fn payments_after(cursor: Option<Cursor>) -> Result<Vec<Event>, HandlerError> {
///     let last = cursor.and_then(|cursor| cursor.as_i64()).unwrap_or(0);
///     let page = (last + 1..=5).take(2);
///     Ok(page.map(|id| payment(id)).collect())
/// }
///
/// fn payment(id: i64) -> Event {
///     let (timestamp, metadata, trace) = (chrono::Utc::now(), b"{}", b"");
///     EventParts { id: id.into(), event_type: 1.into(), foreign_id: "order-12", timestamp, metadata, trace }.into()
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let consumer = consumer_fn("book", |event: Event| async move { Ok(println!("payment {}", event.id())) });
/// let mut spec = Spec::new(poll_source(payments_after), MemoryCursors::new(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn poll_source<P, Fut>(poll: P) -> PollSource<P>
where
    P: Fn(Option<Cursor>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Event>, HandlerError>> + Send,
{
    PollSource { poll: Arc::new(poll), backoff: BACKOFF }
}

/// A source that asks for pages, made by [`poll_source`].
pub struct PollSource<P> {
    poll: Arc<P>,
    backoff: Duration,
}

impl<P> PollSource<P> {
    /// Sets how long to wait after an empty page. Default: 1 minute.
    #[must_use]
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }
}

impl<P, Fut> StreamFunc for PollSource<P>
where
    P: Fn(Option<Cursor>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Event>, HandlerError>> + Send,
{
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        if self.backoff.is_zero() {
            return Err(Error::invalid("a poll source has a backoff of 0: make it longer"));
        }
        let start = match options.start() {
            Start::Beginning => None,
            Start::After(cursor) => Some(cursor.clone()),
            Start::Head => head(&*self.poll).await?,
        };
        let from_head = options.start() == &Start::Head;
        let position = start.clone().filter(|_| from_head);
        let opened = Opened::new(follow(self.clone(), start, options));
        Ok(match position {
            Some(position) => opened.at(position),
            None => opened,
        })
    }
}

impl<P> Clone for PollSource<P> {
    fn clone(&self) -> Self {
        Self { poll: self.poll.clone(), backoff: self.backoff }
    }
}

impl<P> fmt::Debug for PollSource<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSource").field("backoff", &self.backoff).finish_non_exhaustive()
    }
}

fn follow<P, Fut>(source: PollSource<P>, mut after: Option<Cursor>, options: StreamOptions) -> BoxEventStream
where
    P: Fn(Option<Cursor>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Event>, HandlerError>> + Send,
{
    Box::pin(try_stream! {
        loop {
            let page = page(&*source.poll, after.as_ref()).await?;
            if page.is_empty() && options.is_to_head() {
                Err(Error::head_reached())?;
            } else if page.is_empty() {
                sleep(source.backoff).await;
            }
            for event in page {
                options.hold_back(&event).await?;
                after = Some(event.id().clone());
                yield event;
            }
        }
    })
}

/// The last event that there is.
async fn head<P, Fut>(poll: &P) -> Result<Option<Cursor>>
where
    P: Fn(Option<Cursor>) -> Fut,
    Fut: Future<Output = Result<Vec<Event>, HandlerError>>,
{
    let mut last = None;
    while let Some(event) = page(poll, last.as_ref()).await?.pop() {
        last = Some(event.id().clone());
    }
    Ok(last)
}

async fn page<P, Fut>(poll: &P, after: Option<&Cursor>) -> Result<Vec<Event>>
where
    P: Fn(Option<Cursor>) -> Fut,
    Fut: Future<Output = Result<Vec<Event>, HandlerError>>,
{
    let page = poll(after.cloned()).await.map_err(|error| Error::stream(attempted(after), error))?;
    match (page.first(), after) {
        (Some(first), Some(after)) if first.id() == after => Err(Error::stream(
            attempted(Some(after)),
            "the page begins with that event itself, so that it would never end",
        )),
        _ => Ok(page),
    }
}

fn attempted(after: Option<&Cursor>) -> String {
    match after {
        Some(after) => format!("poll for events after {after}"),
        None => "poll for the first events".to_owned(),
    }
}
