//! What the engine costs by itself, on one core.

use std::{hint::black_box, sync::Arc};

use anyhow::Result;
use futures_util::{Stream, StreamExt, stream};
use reflex_core::{
    BufferedCursors, Cursor, Error, Event, EventParts, MemoryCursors, MemoryEvents, StreamFunc, StreamOptions,
};

use crate::{
    backend::NewRow,
    bench::Bench,
    measure::{Stopwatch, in_turns},
    report::{Requirement, Row, Unit},
    specs::{idle_consumer, metrics, run_to_head},
};

const EVENTS: u64 = 1_000_000;
/// As many times a run goes through the events.
const ROUNDS: u64 = 4;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    loop_alone(bench)?;
    over_memory(bench)
}

/// Events that are ready, cursors in a buffer.
fn loop_alone(bench: &Bench) -> Result<()> {
    let id = "engine/run";
    if !bench.wants(id) {
        return Ok(());
    }
    let events = prebuilt(bench.size(EVENTS));
    let head = events.len() as u64;
    let metrics = metrics()?;
    let turns = bench.on_one_core(in_turns(
        bench.runs(),
        async || {
            let watch = Stopwatch::start();
            for _ in 0..ROUNDS {
                bare_loop(ready(&events)).await?;
            }
            Ok(watch.stop(head * ROUNDS))
        },
        async || {
            let watch = Stopwatch::start();
            for _ in 0..ROUNDS {
                let stream = |_options: StreamOptions| async { Ok(ready(&events)) };
                let cursors = BufferedCursors::new(MemoryCursors::new());
                run_to_head(stream, cursors, idle_consumer(), &metrics, head).await?;
            }
            Ok(watch.stop(head * ROUNDS))
        },
    ))?;
    let row = Row::new(id, "`run` on one core: events that are ready, no-op consumer", Unit::PerSecond, &turns.ours);
    bench.add(row.beside("a loop over the stream", &turns.reference).required(Requirement::AtLeast(6e6)));
    Ok(())
}

/// With the stream that tests use.
fn over_memory(bench: &Bench) -> Result<()> {
    let id = "engine/memory-events";
    if !bench.wants(id) {
        return Ok(());
    }
    let count = bench.size(EVENTS);
    let events = MemoryEvents::new();
    for number in 1..=count {
        events.append(NewRow::numbered(number).into());
    }
    let metrics = metrics()?;
    let turns = bench.on_one_core(in_turns(
        bench.runs(),
        async || {
            let watch = Stopwatch::start();
            let opened = events.open(StreamOptions::new().to_head()).await?;
            bare_loop(opened.events).await?;
            Ok(watch.stop(count))
        },
        async || {
            let watch = Stopwatch::start();
            let cursors = BufferedCursors::new(MemoryCursors::new());
            run_to_head(events.clone(), cursors, idle_consumer(), &metrics, count).await?;
            Ok(watch.stop(count))
        },
    ))?;
    let row = Row::new(id, "the same over `MemoryEvents`", Unit::PerSecond, &turns.ours);
    bench.add(row.beside("a loop over the stream", &turns.reference));
    Ok(())
}

fn prebuilt(count: u64) -> Arc<[Event]> {
    (1..=count).map(event).collect()
}

fn event(number: u64) -> Event {
    let row = NewRow::numbered(number);
    Event::from(EventParts {
        id: Cursor::from(number as i64),
        event_type: row.event_type.into(),
        foreign_id: &row.foreign_id,
        timestamp: chrono::Utc::now(),
        metadata: &row.metadata,
        trace: b"",
    })
}

/// A stream that costs next to nothing.
fn ready(events: &[Event]) -> impl Stream<Item = reflex_core::Result<Event>> + Send {
    stream::iter(events).map(|event| Ok(event.clone())).chain(stream::iter([Err(Error::head_reached())]))
}

/// The least that somebody would write who has a stream: no cursor, no metrics.
async fn bare_loop(events: impl Stream<Item = reflex_core::Result<Event>>) -> Result<()> {
    let mut events = std::pin::pin!(events);
    while let Some(Ok(event)) = events.next().await {
        black_box(event);
    }
    Ok(())
}
