use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use async_stream::{stream, try_stream};
use futures_util::{Stream, StreamExt};
use reflex_core::{BoxEventStream, Cursor, Event, Start, StreamOptions};
use tokio::time::{Instant, sleep};

use crate::{
    Result,
    dialect::Dialect,
    error::Problem,
    follower::{Events, Follower},
    frontier::Frontiers,
    state::Reached,
    table::Table,
    tail::Tail,
};

/// A stream that starts at the head waits this long for open writers, to start as late as it can.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// Opens a stream and returns the position that it starts after.
pub(crate) async fn open<D: Dialect>(table: &Arc<Table<D>>, options: &StreamOptions) -> Result<(Arc<Tail>, i64)> {
    let start = match options.start() {
        Start::Beginning => Some(0),
        Start::After(cursor) => Some(parse(table, cursor)?),
        Start::Head => None,
    };
    let tail = table.tail().await?;
    let position = match start {
        Some(position) => {
            let mut conn = table.acquire().await?;
            let bounds = table.within("find the highest id", D::bounds(&mut conn, &table.sql)).await?;
            conn.release();
            bounds.check(position, &table.sql.table)?;
            position
        }
        None => head(table, &tail).await?,
    };
    Ok((tail, position))
}

pub(crate) fn parse<D: Dialect>(table: &Table<D>, cursor: &Cursor) -> Result<i64> {
    let id = cursor.as_i64();
    let not_an_integer = || Problem::NotAnInteger { table: table.sql.table.to_string(), cursor: cursor.to_string() };
    id.ok_or_else(|| not_an_integer().into())
}

/// The position before every event that is committed from here on.
async fn head<D: Dialect>(table: &Table<D>, tail: &Tail) -> Result<i64> {
    let _turn = table.turns.acquire().await;
    let mut conn = table.acquire().await?;
    let position = find_head(table, tail, &mut conn).await?;
    conn.release();
    Ok(position)
}

async fn find_head<D: Dialect>(table: &Table<D>, tail: &Tail, conn: &mut D::Connection) -> Result<i64> {
    let highest = table.within("find the highest id", D::bounds(conn, &table.sql)).await?.highest;
    if !table.sql.mode.proves() {
        let missing = D::missing(conn, &table.sql, tail.proven(), highest);
        let missing = table.within("find the missing ids", missing).await?;
        return Ok(missing.first().map_or(highest, |range| range.start() - 1));
    }
    let mut frontiers = Frontiers::new(table.options.cluster_grace.unwrap_or_default());
    let writers = table.within("find the open writers", D::writers(conn, &table.sql, tail.server())).await?;
    // An id that a client chose may be far above those that are drawn next.
    let highest = writers.highest_drawn.map_or(highest, |drawn| drawn.min(highest));
    if highest == 0 || frontiers.observe(Some(highest), &writers) {
        return Ok(highest);
    }
    let proven = tail.proven();
    let missing = table.within("find the missing ids", D::missing(conn, &table.sql, proven, highest)).await?;
    if missing.is_empty() {
        return Ok(highest);
    }
    let settled = settle(table, tail, conn, &mut frontiers).await?;
    if !settled {
        return Ok(lowest(&missing, &[]).map_or(highest, |id| id - 1));
    }
    let dead = table.within("find the missing ids", D::missing(conn, &table.sql, proven, highest)).await?;
    Ok(lowest(&missing, &dead).map_or(highest, |id| id - 1))
}

/// Waits a while for the writers that may fill a gap. Returns whether all have ended.
async fn settle<D: Dialect>(
    table: &Table<D>,
    tail: &Tail,
    conn: &mut D::Connection,
    frontiers: &mut Frontiers,
) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < HEAD_PATIENCE {
        sleep((began.elapsed() / 10).max(Duration::from_millis(1))).await;
        let writers = D::writers(conn, &table.sql, tail.server());
        let writers = table.within("find the open writers", writers).await?;
        if frontiers.observe(None, &writers) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The lowest id in `missing` that is not in `dead`; both are ascending, and `dead` is a part of `missing`.
fn lowest(missing: &[RangeInclusive<i64>], dead: &[RangeInclusive<i64>]) -> Option<i64> {
    missing.iter().find_map(|range| {
        let mut id = *range.start();
        for dead in dead.iter().filter(|dead| dead.end() >= range.start() && dead.start() <= range.end()) {
            if *dead.start() > id {
                break;
            }
            id = dead.end() + 1;
        }
        (id <= *range.end()).then_some(id)
    })
}

/// The events after `position`.
pub(crate) fn events<D: Dialect>(
    table: Arc<Table<D>>,
    tail: Arc<Tail>,
    position: i64,
    reached: Reached,
    options: StreamOptions,
) -> BoxEventStream {
    let name = table.sql.table.clone();
    let mut follower = Follower::new(table, tail, position, reached, options.is_to_head());
    let batches = stream! {
        loop {
            match follower.next().await {
                Ok(Some(events)) => yield Batch::Events(events),
                Ok(None) => {
                    yield Batch::End(Some(reflex_core::Error::head_reached()));
                    return;
                }
                Err(error) => {
                    yield Batch::End(Some(error.into_stream_error(&name)));
                    return;
                }
            }
        }
    };
    let events = batches.flat_map(futures_util::stream::iter);
    if options.min_age().is_zero() { Box::pin(events) } else { hold_back(events, options) }
}

/// Lets each event wait until it is as old as the options ask.
fn hold_back(
    events: impl Stream<Item = reflex_core::Result<Event>> + Send + 'static,
    options: StreamOptions,
) -> BoxEventStream {
    Box::pin(try_stream! {
        for await event in events {
            let event = event?;
            options.hold_back(&event).await?;
            yield event;
        }
    })
}

/// What a stream yields one by one.
enum Batch {
    Events(Events),
    End(Option<reflex_core::Error>),
}

impl Iterator for Batch {
    type Item = reflex_core::Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Events(events) => events.next().map(Ok),
            Self::End(error) => error.take().map(Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(missing: &[RangeInclusive<i64>], dead: &[RangeInclusive<i64>], expected: Option<i64>) {
        assert_eq!(lowest(missing, dead), expected);
    }

    #[test]
    fn the_lowest_id_that_came_to_life_is_found() {
        check(&[], &[], None);
        check(&[3..=5], &[], Some(3));
        check(&[3..=5], &[3..=5], None);
        check(&[3..=5], &[4..=5], Some(3));
        check(&[3..=5], &[3..=3, 5..=5], Some(4));
        check(&[3..=5, 8..=9], &[3..=5, 8..=8], Some(9));
    }
}
