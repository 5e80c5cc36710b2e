use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use reflex_core::{
    BoxEventStream, Error, Event, HandlerError, MemoryEvents, NewEvent, Opened, Result, Start, StreamFunc,
    StreamOptions,
};
use reflex_testing::conformance::{StreamCapabilities, StreamHarness, stream_func};

use crate::check_found;

/// What is wrong with the source.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Loses,
    Repeats,
    Swaps,
    IgnoresTheCursor,
    RepeatsTheCursor,
    PinsTheHeadLate,
    PassesOverTheHead,
    TellsAWrongPosition,
    TellsNoPosition,
    IgnoresToHead,
    EndsTooEarly,
    EndsSilently,
    IgnoresLag,
    SkipsTheYoung,
    AcceptsACursorAhead,
    AcceptsText,
    EndsWhenIdle,
    LosesWhatComesBeforeTheFirstPoll,
    DeliversPlaceholders,
    DropsMetadata,
    MetadataIsText,
    DropsTrace,
    LocalTime,
    OwnTime,
    LowerCase,
    SmallTypes,
}

#[derive(Clone)]
struct Broken {
    events: MemoryEvents,
    flaw: Flaw,
}

impl StreamHarness for Broken {
    type Source = Self;

    async fn source(&self) -> Result<Self, HandlerError> {
        Ok(self.clone())
    }

    async fn append(&self, event: NewEvent) -> Result<(), HandlerError> {
        self.events.append(self.write(event));
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn append_placeholder(&self) -> Result<(), HandlerError> {
        let event_type = i32::from(self.flaw == Flaw::DeliversPlaceholders);
        self.append(NewEvent::new(0, event_type)).await
    }
}

impl Broken {
    fn write(&self, event: NewEvent) -> NewEvent {
        let parts = event.parts();
        match self.flaw {
            Flaw::DropsMetadata => event.metadata([]),
            Flaw::MetadataIsText => {
                let text = String::from_utf8_lossy(parts.metadata).into_owned();
                event.metadata(text)
            }
            Flaw::DropsTrace => event.trace([]),
            Flaw::LocalTime => {
                let local = parts.timestamp.unwrap_or_else(chrono::Utc::now) + TimeDelta::hours(2);
                event.timestamp(local)
            }
            Flaw::OwnTime => event.timestamp(chrono::Utc::now()),
            Flaw::LowerCase => copy(&event, &parts.foreign_id.to_lowercase(), parts.event_type.0),
            Flaw::SmallTypes => copy(&event, parts.foreign_id, parts.event_type.0 & 0xffff),
            _ => event,
        }
    }

    fn read(&self, options: &StreamOptions) -> StreamOptions {
        let numbered = options.start_after().and_then(|cursor| cursor.as_i64());
        let start = match (self.flaw, options.start(), numbered) {
            (Flaw::IgnoresTheCursor, Start::After(_), _) | (Flaw::AcceptsText, Start::After(_), None) => {
                Start::Beginning
            }
            (Flaw::RepeatsTheCursor, _, Some(id)) if id < 1_000 => Start::After((id - 1).into()),
            (Flaw::AcceptsACursorAhead, _, Some(id)) if id > 1_000 => Start::Head,
            (_, start, _) => start.clone(),
        };
        let lag = if self.flaw == Flaw::IgnoresLag { Default::default() } else { options.min_age() };
        let read = StreamOptions::new().starting(start).lag(lag);
        if options.is_to_head() && self.flaw != Flaw::IgnoresToHead { read.to_head() } else { read }
    }

    async fn stream(&self, options: &StreamOptions) -> Result<Opened<BoxEventStream>> {
        let from_head = options.start() == &Start::Head;
        let late = match self.flaw {
            Flaw::PinsTheHeadLate => from_head,
            Flaw::LosesWhatComesBeforeTheFirstPoll => options.start_after().is_some(),
            _ => false,
        };
        if late {
            let (events, options) = (self.events.clone(), options.clone().from_head());
            return Ok(Opened::new(Box::pin(
                stream::once(async move { events.open(options).await.unwrap().events }).flatten(),
            )));
        }
        let opened = self.events.open(self.read(options)).await?;
        let Some(head) = opened.position.as_ref().and_then(|head| head.as_i64()).filter(|_| from_head) else {
            return Ok(opened);
        };
        Ok(match self.flaw {
            Flaw::PassesOverTheHead => Opened::new(Box::pin(opened.events.skip(1)) as BoxEventStream).at(head),
            Flaw::TellsAWrongPosition => opened.at(head + 1),
            Flaw::TellsNoPosition => Opened::new(opened.events),
            _ => opened,
        })
    }
}

impl StreamFunc for Broken {
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        let Opened { events, position, .. } = self.stream(&options).await?;
        let spoiled = Opened::new(spoil(self.flaw, events));
        Ok(match position {
            Some(position) => spoiled.at(position),
            None => spoiled,
        })
    }
}

fn copy(event: &NewEvent, foreign_id: &str, event_type: i32) -> NewEvent {
    let parts = event.parts();
    let copy = NewEvent::new(foreign_id, event_type).metadata(parts.metadata).trace(parts.trace);
    match parts.timestamp {
        Some(timestamp) => copy.timestamp(timestamp),
        None => copy,
    }
}

/// Passes the items of a stream on as the flaw has it.
fn spoil(flaw: Flaw, events: BoxEventStream) -> BoxEventStream {
    match flaw {
        Flaw::Loses => Box::pin(events.filter(|item| std::future::ready(id(item) != Some(7)))),
        Flaw::Repeats => Box::pin(events.flat_map(|item| {
            let again = item.as_ref().ok().filter(|event| event.id_as_i64().ok() == Some(7)).cloned();
            stream::iter([item].into_iter().chain(again.map(Ok)))
        })),
        Flaw::Swaps => Box::pin(stream::unfold((events, None), |(mut events, held)| async move {
            if let Some(held) = held {
                return Some((held, (events, None)));
            }
            let item = events.next().await?;
            if id(&item) != Some(7) {
                return Some((item, (events, None)));
            }
            let next = events.next().await?;
            Some((next, (events, Some(item))))
        })),
        Flaw::EndsTooEarly => Box::pin(events.take(100).chain(stream::iter([Err(Error::head_reached())]))),
        Flaw::EndsSilently => Box::pin(events.take_while(|item| std::future::ready(item.is_ok()))),
        Flaw::SkipsTheYoung => Box::pin(events.filter(|item| {
            let young = |event: &Event| event.timestamp() > chrono::Utc::now() - TimeDelta::milliseconds(200);
            std::future::ready(!item.as_ref().is_ok_and(young))
        })),
        Flaw::EndsWhenIdle => Box::pin(stream::unfold(events, |mut events| async move {
            let next = reflex_testing::poll_times(1, events.next()).await;
            Some((next.flatten()?, events))
        })),
        _ => events,
    }
}

fn id(item: &Result<Event>) -> Option<i64> {
    item.as_ref().ok().and_then(|event| event.id_as_i64().ok())
}

async fn check(flaw: Flaw, case: &str) {
    check_with(flaw, StreamCapabilities::default(), case).await;
}

async fn check_with(flaw: Flaw, capabilities: StreamCapabilities, case: &str) {
    let factory = |_case| std::future::ready(Ok(Broken { events: MemoryEvents::new(), flaw }));
    check_found(stream_func(factory, capabilities), case).await;
}

#[tokio::test(start_paused = true)]
async fn wrong_sequences_are_found() {
    check(Flaw::Loses, "order").await;
    check(Flaw::Loses, "large backlog").await;
    check(Flaw::Repeats, "order").await;
    check(Flaw::Repeats, "slow beside fast").await;
    check(Flaw::Swaps, "order").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_starts_are_found() {
    check(Flaw::IgnoresTheCursor, "after a cursor").await;
    check(Flaw::RepeatsTheCursor, "after a cursor").await;
    check(Flaw::PinsTheHeadLate, "from head pins its start").await;
    check(Flaw::PinsTheHeadLate, "from head of nothing").await;
    check(Flaw::PinsTheHeadLate, "from head beside a writer").await;
    check(Flaw::PassesOverTheHead, "from head pins its start").await;
    check(Flaw::TellsAWrongPosition, "from head tells its position").await;
    check(Flaw::TellsNoPosition, "from head tells its position").await;
    check(Flaw::AcceptsACursorAhead, "cursor ahead of the events").await;
    check(Flaw::AcceptsText, "text as a cursor").await;
    check(Flaw::LosesWhatComesBeforeTheFirstPoll, "open pins the start").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_ends_are_found() {
    check(Flaw::IgnoresToHead, "to head").await;
    check(Flaw::IgnoresToHead, "to head of nothing").await;
    check(Flaw::EndsTooEarly, "to head").await;
    check(Flaw::EndsSilently, "to head of nothing").await;
    check(Flaw::EndsWhenIdle, "follows after idle").await;
}

/// Ages are told by the wall clock, so this clock must not be paused.
#[tokio::test]
async fn wrong_lags_are_found() {
    check(Flaw::IgnoresLag, "lag holds events back").await;
    check(Flaw::IgnoresLag, "lag keeps the order").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_fields_are_found() {
    check(Flaw::SkipsTheYoung, "follows after idle").await;
    check(Flaw::DeliversPlaceholders, "placeholders").await;
    check(Flaw::DropsMetadata, "metadata").await;
    check(Flaw::MetadataIsText, "metadata").await;
    check(Flaw::DropsTrace, "trace").await;
    check(Flaw::LocalTime, "timestamps").await;
    check(Flaw::LocalTime, "timestamps by default").await;
    check(Flaw::OwnTime, "timestamps").await;
    check(Flaw::LowerCase, "foreign ids").await;
    check(Flaw::SmallTypes, "types").await;
}

#[tokio::test(start_paused = true)]
async fn options_that_are_not_refused_are_found() {
    let all = StreamCapabilities::default();
    let case = "unsupported options are refused";
    check_with(Flaw::IgnoresLag, StreamCapabilities { lag: false, ..all.clone() }, case).await;
    check_with(Flaw::IgnoresToHead, StreamCapabilities { to_head: false, ..all.clone() }, case).await;
    check_with(Flaw::LowerCase, StreamCapabilities { from_head: false, ..all }, case).await;
}
