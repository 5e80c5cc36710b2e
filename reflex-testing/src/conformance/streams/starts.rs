//! Where a stream starts, and in which order it goes on.

use std::collections::HashSet;

use futures_util::future::try_join;
use reflex_core::StreamOptions;

use super::{
    StreamHarness,
    reader::{Bench, ensure_numbered, ids},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal, with_causes};

pub(super) async fn order<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=50).await?;
    let events = bench.read(50).await?;
    ensure_numbered(&events, 1..=50)?;
    let distinct: HashSet<_> = events.iter().map(|event| event.id()).collect();
    ensure_equal("the number of distinct ids", distinct.len(), 50)?;
    if bench.capabilities.integer_ids {
        let integers = events.iter().map(|event| event.id_as_i64()).collect::<Result<Vec<_>, _>>()?;
        ensure(integers.is_sorted(), || format!("the ids do not ascend: {integers:?}"))?;
    }
    Ok(())
}

pub(super) async fn beginning<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=3).await?;
    let first = bench.read(3).await?;
    let second = bench.read(3).await?;
    ensure_numbered(&first, 1..=3)?;
    ensure_equal("the events of a second stream", second, first)
}

pub(super) async fn after_a_cursor<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=10).await?;
    let all = bench.read(10).await?;
    for (number, event) in (1..).zip(&all[..9]) {
        let mut reader = bench.open(StreamOptions::new().after(event.id().clone())).await?;
        ensure_numbered(&reader.take(10 - number).await?, number + 1..=10)?;
    }
    let mut reader = bench.open(StreamOptions::new().after(all[9].id().clone())).await?;
    reader.is_idle().await?;
    bench.append(11..=11).await?;
    ensure_numbered(&reader.take(1).await?, 11..=11)
}

pub(super) async fn large_backlog<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let backlog = bench.capabilities.backlog;
    bench.append(1..=backlog).await?;
    let mut reader = bench.open(StreamOptions::new()).await?;
    let events = reader.take(backlog).await?;
    ensure_numbered(&events, 1..=backlog)?;
    bench.append(backlog + 1..=backlog + 1).await?;
    ensure_numbered(&reader.take(1).await?, backlog + 1..=backlog + 1)?;

    let middle = backlog / 2;
    let mut reader = bench.open(StreamOptions::new().after(events[middle - 1].id().clone())).await?;
    ensure_numbered(&reader.take(backlog + 1 - middle).await?, middle + 1..=backlog + 1)
}

pub(super) async fn cursor_ahead<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !(bench.capabilities.cursor_ahead && bench.capabilities.integer_ids) {
        return Ok(());
    }
    bench.append(1..=3).await?;
    let last = bench.read(3).await?[2].id_as_i64()?;
    for ahead in [last + 1_000, i64::MAX] {
        let error = bench.open_refused(StreamOptions::new().after(ahead)).await?;
        ensure(!error.is_expected(), || format!("the error about a cursor ahead counts as expected: {error}"))?;
        ensure_names(&error, &ahead.to_string())?;
    }
    Ok(())
}

pub(super) async fn text_as_a_cursor<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.integer_ids {
        return Ok(());
    }
    bench.append(1..=3).await?;
    for text in ["yesterday", "1-0", "007", "9223372036854775808", "1; drop table events"] {
        let error = bench.open_refused(StreamOptions::new().after(text)).await?;
        ensure_names(&error, text)?;
    }
    Ok(())
}

fn ensure_names(error: &reflex_core::Error, cursor: &str) -> Outcome {
    let text = with_causes(error);
    ensure(text.contains(cursor), || format!("the error does not name the cursor {cursor:?}: {text}"))
}

pub(super) async fn from_head_pins_its_start<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.from_head {
        return Ok(());
    }
    bench.append(1..=3).await?;
    let mut reader = bench.open(StreamOptions::new().from_head()).await?;
    bench.append(4..=5).await?;
    ensure_tail(&reader.until("event-5").await?, 4, 5)
}

pub(super) async fn from_head_of_nothing<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.from_head {
        return Ok(());
    }
    let mut reader = bench.open(StreamOptions::new().from_head()).await?;
    bench.append(1..=3).await?;
    ensure_numbered(&reader.take(3).await?, 1..=3)
}

pub(super) async fn from_head_beside_a_writer<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.from_head {
        return Ok(());
    }
    for round in 0..10 {
        let number = |at: usize| round * 10 + at;
        let writes = async {
            for at in 1..=8 {
                bench.append(number(at)..=number(at)).await?;
            }
            Ok(())
        };
        let open = bench.open(StreamOptions::new().from_head());
        let (mut reader, ()) = try_join(open, writes).await?;
        bench.append(number(9)..=number(10)).await?;
        let last = format!("event-{}", number(10));
        ensure_tail(&reader.until(&last).await?, number(9), number(10))?;
    }
    Ok(())
}

/// Checks that these are the numbered events up to the last, starting at `first` or a little before.
fn ensure_tail(events: &[reflex_core::Event], first: usize, last: usize) -> Outcome {
    let start = last + 1 - events.len().min(last);
    ensure(start <= first, || format!("the stream started with event {start}, after event {first}"))?;
    ensure_numbered(events, start..=last)
}

pub(super) async fn from_head_tells_its_position<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !(bench.capabilities.from_head && bench.capabilities.position) {
        return Ok(());
    }
    for round in 0..3 {
        let mut reader = bench.open(StreamOptions::new().from_head()).await?;
        let Some(position) = reader.position.clone() else {
            return crate::conformance::runner::fail("it opened a stream from head without telling its position");
        };
        bench.append(round * 3 + 1..=round * 3 + 3).await?;
        let last = format!("event-{}", round * 3 + 3);
        let from_head = reader.until(&last).await?;
        let from_position = bench.open(StreamOptions::new().after(position)).await?.until(&last).await?;
        ensure_equal("the ids after the position", ids(&from_position), ids(&from_head))?;
    }
    Ok(())
}
