//! Streams that are behind, and share what is read for them.

use futures_util::{FutureExt, StreamExt};
use reflex_core::StreamOptions;

use crate::{
    bench::{Bench, Reader, on, options},
    database::{Backend, Result},
};

on!(each:
    streams_that_begin_together_share_one_reading,
    a_stream_that_comes_up_to_another_one_misses_nothing,
    streams_of_all_speeds_and_positions_miss_nothing,
    the_last_stream_takes_the_reading_with_it,
);

/// A table with this backlog, whose reader starts after it.
async fn with_backlog<D: Backend>(events: usize, page: u32) -> Result<Bench<D>> {
    let bench = Bench::<D>::with(options().page_size(page)).await?;
    bench.append(events).await?;
    Ok(bench)
}

async fn streams_that_begin_together_share_one_reading<D: Backend>() -> Result<()> {
    let bench = with_backlog::<D>(3_000, 700).await?;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(bench.follow().await?);
    }
    let mut first = Vec::new();
    for stream in &mut streams {
        first.push(stream.next().await);
    }
    for stream in &mut streams {
        assert_eq!(stream.ids(2_999).await, (2..=3_000).collect::<Vec<_>>());
    }
    assert!(first.iter().all(|event| event.foreign_id().as_ptr() == first[0].foreign_id().as_ptr()));
    assert_eq!(bench.metrics.events_deserialized.get(), 3_000);
    Ok(())
}

async fn a_stream_that_comes_up_to_another_one_misses_nothing<D: Backend>() -> Result<()> {
    let bench = with_backlog::<D>(3_000, 1_000).await?;
    let mut ahead = bench.read(StreamOptions::new().after(1_250)).await?;
    assert_eq!(ahead.ids(1).await, [1_251]);
    let mut behind = bench.follow().await?;
    assert_eq!(behind.ids(3_000).await, (1..=3_000).collect::<Vec<_>>());
    assert_eq!(ahead.ids(1_749).await, (1_252..=3_000).collect::<Vec<_>>());
    Ok(())
}

/// Some are dropped in the middle, and the table grows meanwhile.
async fn streams_of_all_speeds_and_positions_miss_nothing<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::with(options().page_size(50).ring_events(20)).await?;
    bench.append(600).await?;
    let mut streams: Vec<(Reader, i64, usize)> = Vec::new();
    for (at, step) in [(0, 97), (0, 1), (0, 97), (13, 40), (300, 61), (599, 3), (600, 200)] {
        streams.push((bench.read(StreamOptions::new().after(at)).await?, at, step));
    }
    let mut total = 600;
    for round in 0..12 {
        bench.append(40).await?;
        total += 40;
        for (stream, at, step) in &mut streams {
            let count = (*step).min(usize::try_from(total - *at).unwrap_or(0));
            let to = *at + i64::try_from(count).unwrap_or(0);
            assert_eq!(stream.ids(count).await, (*at + 1..=to).collect::<Vec<_>>());
            *at = to;
        }
        if round == 5 {
            streams.swap_remove(0);
        }
    }
    for (stream, at, _) in &mut streams {
        let rest = usize::try_from(total - *at).unwrap_or(0);
        assert_eq!(stream.ids(rest).await, (*at + 1..=total).collect::<Vec<_>>());
        stream.waits().await;
    }
    Ok(())
}

async fn the_last_stream_takes_the_reading_with_it<D: Backend>() -> Result<()> {
    let bench = with_backlog::<D>(2_000, 100).await?;
    let mut other = bench.read(StreamOptions::new().after(2_000)).await?;
    assert!(other.stream.next().now_or_never().is_none());
    for _ in 0..5 {
        let mut dropped = bench.follow().await?;
        assert_eq!(dropped.ids(150).await, (1..=150).collect::<Vec<_>>());
    }
    let mut stream = bench.follow().await?;
    assert_eq!(stream.ids(2_000).await, (1..=2_000).collect::<Vec<_>>());
    bench.append(1).await?;
    assert_eq!((other.ids(1).await, stream.ids(1).await), (vec![2_001], vec![2_001]));
    Ok(())
}
