use std::{ops::RangeInclusive, time::Duration};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, Cursor, Error, Event, NewEvent, StreamFunc, StreamOptions};
use tokio::time::timeout;

use super::{StreamCapabilities, StreamHarness};
use crate::conformance::runner::{Outcome, ensure, ensure_equal, fail, with_causes};

/// How long to wait for one event.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to see to it that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

/// What a case works with.
pub(super) struct Bench<H> {
    pub(super) harness: H,
    pub(super) capabilities: StreamCapabilities,
}

impl<H: StreamHarness> Bench<H> {
    /// Appends numbered events: number 7 has the foreign id `"event-7"`.
    pub(super) async fn append(&self, numbers: RangeInclusive<usize>) -> Outcome {
        self.harness.append_all(numbers.map(numbered).collect()).await
    }

    pub(super) async fn source(&self) -> Outcome<H::Source> {
        self.harness.source().await
    }

    pub(super) async fn open(&self, options: StreamOptions) -> Outcome<Reader> {
        open(&self.source().await?, options).await
    }

    /// Reads events from the beginning.
    pub(super) async fn read(&self, count: usize) -> Outcome<Vec<Event>> {
        self.open(StreamOptions::new()).await?.take(count).await
    }

    /// Opens a stream that the source has to refuse, at once or with its first item, and returns the error.
    pub(super) async fn open_refused(&self, options: StreamOptions) -> Outcome<Error> {
        let what = format!("{options:?}");
        let mut reader = match self.source().await?.open(options).await {
            Ok(opened) => Reader::new(Box::pin(opened.events), None),
            Err(error) => return Ok(error),
        };
        match timeout(PATIENCE, reader.stream.next()).await {
            Ok(Some(Err(error))) if !error.is_head_reached() => Ok(error),
            Ok(item) => fail(format!("it opened {what} and yielded {item:?}")),
            Err(_) => fail(format!("it opened {what} and said nothing")),
        }
    }
}

pub(super) fn numbered(number: usize) -> NewEvent {
    NewEvent::new(format!("event-{number}"), 1)
}

pub(super) async fn open<S>(source: &S, options: StreamOptions) -> Outcome<Reader>
where
    S: StreamFunc<Stream: 'static>,
{
    let opened = source.open(options).await?;
    Ok(Reader::new(Box::pin(opened.events), opened.position))
}

/// An open stream and what it has yielded.
pub(super) struct Reader {
    stream: BoxEventStream,
    pub(super) position: Option<Cursor>,
    count: usize,
}

impl Reader {
    fn new(stream: BoxEventStream, position: Option<Cursor>) -> Self {
        Self { stream, position, count: 0 }
    }

    pub(super) async fn next(&mut self) -> Outcome<Event> {
        let after = self.count;
        match timeout(PATIENCE, self.stream.next()).await {
            Ok(Some(Ok(event))) => {
                self.count += 1;
                Ok(event)
            }
            Ok(Some(Err(error))) => fail(format!("the stream failed after {after} events: {}", with_causes(&error))),
            Ok(None) => fail(format!("the stream ended without an error after {after} events")),
            Err(_) => fail(format!("the stream yielded {after} events and then nothing for {PATIENCE:?}")),
        }
    }

    pub(super) async fn take(&mut self, count: usize) -> Outcome<Vec<Event>> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.next().await?);
        }
        Ok(events)
    }

    /// Reads to the event with this foreign id, which is the last one returned.
    pub(super) async fn until(&mut self, foreign_id: &str) -> Outcome<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await?;
            let found = event.foreign_id() == foreign_id;
            events.push(event);
            if found {
                return Ok(events);
            }
        }
    }

    /// Reads to the head.
    pub(super) async fn rest(&mut self) -> Outcome<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match timeout(PATIENCE, self.stream.next()).await {
                Ok(Some(Ok(event))) => events.push(event),
                Ok(Some(Err(error))) if error.is_head_reached() => return Ok(events),
                Ok(Some(Err(error))) => {
                    return fail(format!("the stream did not end at its head: {}", with_causes(&error)));
                }
                Ok(None) => return fail("the stream ended without an error"),
                Err(_) => {
                    return fail(format!("the stream did not end within {PATIENCE:?} after {} events", events.len()));
                }
            }
        }
    }

    /// Sees to it that the stream waits.
    pub(super) async fn is_idle(&mut self) -> Outcome {
        match timeout(SILENCE, self.stream.next()).await {
            Err(_) => Ok(()),
            Ok(item) => fail(format!("the stream yielded {item:?} where it has to wait")),
        }
    }
}

/// Checks that these are the numbered events, each once and in order.
pub(super) fn ensure_numbered(events: &[Event], numbers: RangeInclusive<usize>) -> Outcome {
    let found: Vec<_> = events.iter().map(|event| event.foreign_id().to_owned()).collect();
    let expected: Vec<_> = numbers.map(|number| format!("event-{number}")).collect();
    if found.len() <= 20 && expected.len() <= 20 {
        return ensure_equal("the events", found, expected);
    }
    ensure_equal("the number of events", found.len(), expected.len())?;
    let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    ensure(wrong.is_none(), || {
        let at = wrong.unwrap_or_default();
        format!("event {at} of the stream is `{}`, expected `{}`", found[at], expected[at])
    })
}

pub(super) fn ids(events: &[Event]) -> Vec<Cursor> {
    events.iter().map(|event| event.id().clone()).collect()
}
