//! Streams that follow their source, alone and beside others.

use futures_util::future::{join_all, try_join, try_join_all};
use reflex_core::{Event, StreamFunc, StreamOptions};

use super::{
    StreamHarness,
    reader::{Bench, Reader, ensure_numbered, ids, numbered, open},
};
use crate::{
    conformance::runner::{Outcome, ensure, ensure_equal},
    poll_times,
};

pub(super) async fn after_idle<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let mut reader = bench.open(StreamOptions::new()).await?;
    for round in 0..3 {
        reader.is_idle().await?;
        bench.append(round * 2 + 1..=round * 2 + 2).await?;
        ensure_numbered(&reader.take(2).await?, round * 2 + 1..=round * 2 + 2)?;
    }
    Ok(())
}

/// What is committed between `open` and the first poll is delivered.
pub(super) async fn open_pins_the_start<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=2).await?;
    let mut from_beginning = bench.open(StreamOptions::new()).await?;
    let mut from_cursor = {
        let cursor = bench.read(2).await?[1].id().clone();
        bench.open(StreamOptions::new().after(cursor)).await?
    };
    bench.append(3..=4).await?;
    ensure_numbered(&from_beginning.take(4).await?, 1..=4)?;
    ensure_numbered(&from_cursor.take(2).await?, 3..=4)
}

pub(super) async fn many_streams_at_once<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=40).await?;
    let source = bench.source().await?;
    let all = open(&source, StreamOptions::new()).await?.take(40).await?;
    let streams = (0..40).map(|at: usize| {
        let (source, all) = (&source, &all);
        async move { read_from(source, all, at, 60).await }
    });
    let append = async {
        for number in 41..=60 {
            bench.append(number..=number).await?;
        }
        Ok(())
    };
    try_join(try_join_all(streams), append).await.map(drop)
}

/// Reads from after the event at `at` to the event `last`.
async fn read_from<S: StreamFunc<Stream: 'static>>(source: &S, all: &[Event], at: usize, last: usize) -> Outcome {
    let mut reader = open(source, StreamOptions::new().after(all[at].id().clone())).await?;
    ensure_numbered(&reader.take(last - at - 1).await?, at + 2..=last)
}

pub(super) async fn slow_beside_fast<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    const ALL: usize = 600;
    bench.append(1..=10).await?;
    let source = bench.source().await?;
    let mut slow = open(&source, StreamOptions::new()).await?;
    let mut fast = open(&source, StreamOptions::new()).await?;
    ensure_numbered(&slow.take(1).await?, 1..=1)?;
    ensure_numbered(&fast.take(10).await?, 1..=10)?;
    for first in (11..ALL).step_by(59) {
        bench.append(first..=first + 58).await?;
        ensure_numbered(&fast.take(59).await?, first..=first + 58)?;
    }
    ensure_numbered(&slow.take(ALL - 1).await?, 2..=ALL)
}

pub(super) async fn dropped_in_mid_stream<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=400).await?;
    let source = bench.source().await?;
    let mut neighbour = open(&source, StreamOptions::new()).await?;
    for count in 0..30 {
        let mut reader = open(&source, StreamOptions::new()).await?;
        ensure_numbered(&reader.take(count).await?, 1..=count)?;
        // One poll more, so that it is dropped while it waits for something.
        drop(poll_times(1, reader.next()).await);
        drop(reader);
    }
    ensure_numbered(&neighbour.take(400).await?, 1..=400)?;
    ensure_numbered(&open(&source, StreamOptions::new()).await?.take(400).await?, 1..=400)
}

pub(super) async fn dropped_while_opening<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=10).await?;
    let source = bench.source().await?;
    for polls in 0..30 {
        drop(poll_times(polls % 10, source.open(StreamOptions::new())).await);
    }
    ensure_numbered(&open(&source, StreamOptions::new()).await?.take(10).await?, 1..=10)
}

/// Writers commit in any order; all streams agree about it, whenever they read.
pub(super) async fn concurrent_writers<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let mut live = bench.open(StreamOptions::new()).await?;
    let writes = try_join_all((0..WRITERS).map(|writer| async move {
        for at in 0..EACH {
            bench.harness.append(numbered(writer * EACH + at)).await?;
        }
        Outcome::Ok(())
    }));
    let (events, _) = try_join(live.take(WRITERS * EACH), writes).await?;
    let mut foreign_ids: Vec<_> = events.iter().map(|event| event.foreign_id().to_owned()).collect();
    foreign_ids.sort_unstable();
    foreign_ids.dedup();
    ensure_equal("the number of distinct events", foreign_ids.len(), WRITERS * EACH)?;
    ensure_writers_in_order(&events, EACH, WRITERS)?;
    let again = bench.read(WRITERS * EACH).await?;
    ensure_equal("the ids on reading again", ids(&again), ids(&events))
}

/// Each writer appended one event after the other.
fn ensure_writers_in_order(events: &[Event], each: usize, writers: usize) -> Outcome {
    let number = |event: &Event| event.foreign_id().trim_start_matches("event-").parse::<usize>().unwrap_or(usize::MAX);
    let numbers: Vec<_> = events.iter().map(number).collect();
    for writer in 0..writers {
        let own: Vec<_> = numbers.iter().filter(|number| **number / each == writer).collect();
        ensure(own.is_sorted(), || format!("the events of one writer are out of order: {own:?}"))?;
    }
    Ok(())
}

pub(super) async fn second_source<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let sources = [bench.source().await?, bench.source().await?];
    let opened = join_all(sources.iter().map(|source| open(source, StreamOptions::new()))).await;
    let mut readers = opened.into_iter().collect::<Outcome<Vec<Reader>>>()?;
    bench.append(1..=5).await?;
    for reader in &mut readers {
        ensure_numbered(&reader.take(5).await?, 1..=5)?;
    }
    Ok(())
}
