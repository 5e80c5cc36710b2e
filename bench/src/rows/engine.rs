//! What the engine costs by itself, on one core.

use std::{hint::black_box, pin::pin};

use anyhow::Result;
use futures_util::{Stream, StreamExt};
use reflex_core::{BufferedCursors, Event, MemoryCursors, MemoryEvents, StreamFunc, StreamOptions};

use crate::{
    backend::NewRow,
    bench::Bench,
    measure::{Stopwatch, Turns, in_turns},
    ready::Ready,
    report::{Requirement, Row, Unit},
    specs::{idle_consumer, metrics, run_to_head},
};

const EVENTS: u64 = 1_000_000;
/// As many times a run goes through the events.
const ROUNDS: u64 = 4;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let count = bench.size(EVENTS);
    let (ready, in_memory) = ("engine/run", "engine/memory-events");
    if bench.wants(&[ready]) {
        let turns = beside_a_loop(bench, Ready::new(count), count)?;
        let row =
            Row::new(ready, "`run`, one core: events that are ready, no-op consumer", Unit::PerSecond, &turns.ours);
        bench.add(row.beside("a loop over the stream", &turns.reference).required(Requirement::AtLeast(6e6)));
    }
    if bench.wants(&[in_memory]) {
        let events = MemoryEvents::new();
        for number in 1..=count {
            events.append(NewRow::numbered(number).into());
        }
        let turns = beside_a_loop(bench, events, count)?;
        let row = Row::new(in_memory, "the same over `MemoryEvents`", Unit::PerSecond, &turns.ours);
        bench.add(row.beside("a loop over the stream", &turns.reference));
    }
    Ok(())
}

fn beside_a_loop(bench: &Bench, events: impl StreamFunc + Clone, count: u64) -> Result<Turns> {
    let metrics = metrics()?;
    bench.on_one_core(in_turns(
        bench.runs(),
        async || {
            let watch = Stopwatch::start();
            for _ in 0..ROUNDS {
                bare_loop(events.open(StreamOptions::new().to_head()).await?.events).await;
            }
            Ok(watch.stop(count * ROUNDS))
        },
        async || {
            let watch = Stopwatch::start();
            for _ in 0..ROUNDS {
                let cursors = BufferedCursors::new(MemoryCursors::new());
                run_to_head(events.clone(), cursors, idle_consumer(), &metrics, count).await?;
            }
            Ok(watch.stop(count * ROUNDS))
        },
    ))
}

/// The least that somebody would write who has a stream: no cursor, no metrics.
async fn bare_loop(events: impl Stream<Item = reflex_core::Result<Event>>) {
    let mut events = pin!(events);
    while let Some(Ok(event)) = events.next().await {
        black_box(event);
    }
}
