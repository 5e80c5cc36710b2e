use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use futures_util::StreamExt;
use reflex_core::{Cursor, CursorStore, Error, Event, HandlerError, Result, StreamFunc, StreamOptions};
use tokio::time::{Instant, sleep};

/// How long to wait before looking again.
const INTERVAL: Duration = Duration::from_millis(2);

/// Reads a stream to its head and returns the events.
///
/// # Errors
///
/// Any error of the stream but the one that says that the head is reached.
///
/// # Cancel safety
///
/// Dropping the future closes the stream.
///
/// # Examples
///
/// ```
/// use reflex_core::{MemoryEvents, NewEvent, StreamOptions};
/// use reflex_testing::collect;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
/// events.append(NewEvent::new("order-13", 1));
/// let read = collect(&events, StreamOptions::new().after(1)).await?;
/// assert_eq!(read[0].foreign_id(), "order-13");
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
pub async fn collect(source: &impl StreamFunc, options: StreamOptions) -> Result<Vec<Event>> {
    let opened = source.open(options.to_head()).await?;
    let mut stream = pin!(opened.events);
    let mut events = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(event) => events.push(event),
            Err(end) if end.is_head_reached() => return Ok(events),
            Err(error) => return Err(error),
        }
    }
    Err(Error::stream("read a stream to its head", "it ended without saying that it reached the head"))
}

/// Waits until a consumer's stored cursor has reached `cursor`, and returns the stored one.
///
/// An integer is reached by any integer that is not below it, other text only by the same text.
///
/// # Errors
///
/// If the store cannot be read, or the cursor was not reached in time; the error says how far it got.
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{CursorStore, MemoryCursors};
/// use reflex_testing::await_cursor;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cursors = MemoryCursors::new();
/// cursors.set("billing", &7.into()).await?;
/// assert_eq!(await_cursor(&cursors, "billing", 5, Duration::from_secs(10)).await?, 7.into());
/// # Ok::<(), reflex_core::HandlerError>(()) }).unwrap();
/// ```
pub async fn await_cursor(
    store: &impl CursorStore,
    consumer: &str,
    cursor: impl Into<Cursor>,
    deadline: Duration,
) -> Result<Cursor, HandlerError> {
    let wanted = cursor.into();
    let due = Instant::now() + deadline;
    loop {
        let stored = store.get(consumer).await?;
        match stored {
            Some(stored) if reached(&stored, &wanted) => return Ok(stored),
            _ if Instant::now() < due => sleep(INTERVAL).await,
            _ => return Err(HandlerError::new(not_reached(consumer, &wanted, stored.as_ref(), deadline))),
        }
    }
}

fn reached(stored: &Cursor, wanted: &Cursor) -> bool {
    match (stored.as_i64(), wanted.as_i64()) {
        (Some(stored), Some(wanted)) => stored >= wanted,
        _ => stored == wanted,
    }
}

fn not_reached(consumer: &str, wanted: &Cursor, stored: Option<&Cursor>, deadline: Duration) -> String {
    let stored = stored.map_or_else(|| "no cursor".to_owned(), Cursor::to_string);
    format!("consumer `{consumer}` did not reach cursor {wanted} within {deadline:?}: it has {stored}")
}

/// Waits until a condition holds, looking again every few milliseconds.
///
/// # Panics
///
/// If it does not hold in time; the message says `what` was waited for.
///
/// # Cancel safety
///
/// Dropping the future drops the condition's.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{CursorStore, MemoryCursors};
/// use reflex_testing::eventually;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cursors = MemoryCursors::new();
/// cursors.set("billing", &7.into()).await?;
/// eventually("a cursor", Duration::from_secs(10), || async { cursors.get("billing").await.is_ok() }).await;
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
pub async fn eventually<Fut>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Fut)
where
    Fut: Future<Output = bool>,
{
    let due = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < due, "waited {deadline:?} for {what}");
        sleep(INTERVAL).await;
    }
}

/// Polls a future at most `times` times, whenever it is woken, and then drops it. Returns its output if it got there.
///
/// For tests of what remains when a future is dropped at each of its await points.
///
/// # Cancel safety
///
/// Dropping the future drops the one inside.
///
/// # Examples
///
/// ```
/// use reflex_testing::poll_times;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(poll_times(1, tokio::task::yield_now()).await, None);
/// assert_eq!(poll_times(2, tokio::task::yield_now()).await, Some(()));
/// # });
/// ```
pub async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future: Pin<_> = pin!(future);
    let mut polls = 0;
    poll_fn(|cx| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll was used up: there is no wake-up to wait for.
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
