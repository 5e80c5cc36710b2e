use std::{future::poll_fn, pin::pin, time::Duration};

use futures_core::Stream;
use reflex_core::{Error, Event, EventType, HandlerError, Result, StreamFunc, StreamOptions};
use tokio::{select, time::sleep};

/// How long to wait between two questions.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for an event of this foreign id and one of these types, of any type if there are none, and returns it.
///
/// Only events that are committed after the call count; a few from just before may do so too. Use [`await_event_or`] where
/// what is waited for may have happened before. It waits without a limit: put a timeout around it.
///
/// # Errors
///
/// Any error of the stream.
///
/// # Cancel safety
///
/// Dropping the future closes the stream.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryEvents, NewEvent};
/// use rpatterns::await_event;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// const SHIPPED: i32 = 2;
/// let events = MemoryEvents::new();
/// let ship = async { events.append(NewEvent::new("order-12", SHIPPED)) };
/// let (shipped, _) = tokio::join!(await_event(&events, [SHIPPED], "order-12"), ship);
/// assert_eq!(shipped.unwrap().foreign_id(), "order-12");
/// # });
/// ```
pub async fn await_event<S: StreamFunc, T: Into<EventType>>(
    stream: &S,
    types: impl IntoIterator<Item = T>,
    foreign_id: &str,
) -> Result<Event> {
    let types: Vec<_> = types.into_iter().map(Into::into).collect();
    let opened = stream.open(StreamOptions::new().from_head()).await?;
    find(opened.events, &types, foreign_id).await
}

/// Waits for an event as [`await_event`] does, or until `poll` answers yes; the result is `None` then.
///
/// `poll` asks for the state that the event announces. It is asked when the stream is open, so that nothing that happens
/// between the question and the wait is missed, and then once a second, for what is changed without an event.
///
/// # Errors
///
/// Any error of the stream or of `poll`.
///
/// # Cancel safety
///
/// Dropping the future closes the stream and drops the one of `poll`.
///
/// # Examples
///
/// ```
/// use reflex_core::MemoryEvents;
/// use rpatterns::await_event_or;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let is_shipped = || async { Ok(true) };
/// let event = await_event_or(&MemoryEvents::new(), [2], "order-12", is_shipped).await?;
/// assert!(event.is_none());
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
pub async fn await_event_or<S, T, P, Fut>(
    stream: &S,
    types: impl IntoIterator<Item = T>,
    foreign_id: &str,
    poll: P,
) -> Result<Option<Event>>
where
    S: StreamFunc,
    T: Into<EventType>,
    P: FnMut() -> Fut,
    Fut: Future<Output = Result<bool, HandlerError>>,
{
    let types: Vec<_> = types.into_iter().map(Into::into).collect();
    let opened = stream.open(StreamOptions::new().from_head()).await?;
    select! {
        event = find(opened.events, &types, foreign_id) => event.map(Some),
        answered = ask(poll) => answered.map(|()| None),
    }
}

async fn find(events: impl Stream<Item = Result<Event>>, types: &[EventType], foreign_id: &str) -> Result<Event> {
    let mut events = pin!(events);
    while let Some(event) = poll_fn(|cx| events.as_mut().poll_next(cx)).await.transpose()? {
        if event.foreign_id() == foreign_id && (types.is_empty() || types.contains(&event.event_type())) {
            return Ok(event);
        }
    }
    let attempted = format!("wait for an event of foreign id `{foreign_id}`");
    Err(Error::stream(attempted, "the stream ended without an error"))
}

async fn ask<Fut>(mut poll: impl FnMut() -> Fut) -> Result<()>
where
    Fut: Future<Output = Result<bool, HandlerError>>,
{
    while !poll().await.map_err(Error::from_handler)? {
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
