//! Patterns around a consumer that does nothing.

use std::time::Duration;

use anyhow::Result;
use reflex_core::{BufferedCursors, Consumer, CursorStore, Event, MemoryCursors, StreamFunc, consumer_fn};
use rpatterns::{Key, batch, keyed_lanes};
use sqlx::Postgres;

use crate::{
    bench::Bench,
    measure::{Sample, Stopwatch, Turns, in_turns},
    ready::Ready,
    report::{Requirement, Row, Unit},
    specs::{fresh_name, idle_consumer, metrics, run_to_head},
};

const EVENTS: u64 = 1_000_000;
const LANES: usize = 4;
const BATCH: usize = 100;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    in_memory(bench)?;
    on_postgres(bench)
}

fn in_memory(bench: &Bench) -> Result<()> {
    let count = bench.size(EVENTS);
    for pattern in [Pattern::Lanes, Pattern::Batches] {
        let id = format!("{}/memory", pattern.id());
        if bench.wants(&[&id]) {
            let events = Ready::new(count);
            let run = async |pattern| through(pattern, events.clone(), MemoryCursors::new(), count).await;
            let turns = in_turns(bench.runs(), async || run(Pattern::None).await, async || run(pattern).await);
            add(bench, &id, "in memory", pattern, &bench.block_on(turns)?);
        }
    }
    Ok(())
}

fn on_postgres(bench: &Bench) -> Result<()> {
    for pattern in [Pattern::Lanes, Pattern::Batches] {
        let id = format!("{}/postgres", pattern.id());
        bench.with_database::<Postgres>(&[&id], async |db| {
            let count = bench.size(EVENTS);
            let table = db.filled(count).await?;
            let run = async |pattern| {
                let events = db.open(table.as_str().into()).await?;
                through(pattern, events, db.cursors().await?, count).await
            };
            let turns = in_turns(bench.runs(), async || run(Pattern::None).await, async || run(pattern).await).await?;
            add(bench, &id, "from Postgres", pattern, &turns);
            Ok(())
        })?;
    }
    Ok(())
}

fn add(bench: &Bench, id: &str, place: &str, pattern: Pattern, turns: &Turns) {
    let row = Row::new(id, format!("{}, {place}, no-op", pattern.title()), Unit::PerSecond, &turns.ours);
    bench.add(row.beside("without the pattern", &turns.reference).required(Requirement::AtLeast(6e5)));
}

#[derive(Clone, Copy)]
enum Pattern {
    None,
    Lanes,
    Batches,
}

impl Pattern {
    fn id(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Lanes => "lanes",
            Self::Batches => "batches",
        }
    }

    fn title(self) -> String {
        match self {
            Self::None => "plain consumer".to_owned(),
            Self::Lanes => format!("keyed lanes, n = {LANES}"),
            Self::Batches => format!("batches of {BATCH}"),
        }
    }
}

async fn through(pattern: Pattern, events: impl StreamFunc, cursors: impl CursorStore, count: u64) -> Result<Sample> {
    match pattern {
        Pattern::None => timed(events, cursors, idle_consumer(), count).await,
        Pattern::Lanes => {
            let lanes = keyed_lanes(LANES, Key::by_foreign_id(), idle_consumer());
            timed(events, cursors, lanes, count).await
        }
        Pattern::Batches => {
            let inner = consumer_fn(fresh_name(), |_batch: Vec<Event>| async { Ok(()) });
            timed(events, cursors, batch(BATCH, Duration::from_secs(1), inner), count).await
        }
    }
}

async fn timed(
    events: impl StreamFunc,
    cursors: impl CursorStore,
    consumer: impl Consumer,
    count: u64,
) -> Result<Sample> {
    let metrics = metrics()?;
    let watch = Stopwatch::start();
    run_to_head(events, BufferedCursors::new(cursors), consumer, &metrics, count).await?;
    Ok(watch.stop(count))
}
