use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_stream::stream;
use reflex_core::{BoxEventStream, Cursor, Event, Start, StreamOptions};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Result,
    dialect::Dialect,
    error::Problem,
    frontier::{Frontiers, deliverable},
    page::Page,
    ring::Lookup,
    state::Reached,
    table::Table,
    tail::{Status, Tail},
};

/// How many events a stream takes from the ring at once.
const BATCH: usize = 500;
/// The first page of a stream that is behind.
const FIRST_PAGE: u32 = 1_000;
/// A stream that waits at a gap before the ring looks again after this long.
const GAP_PAUSE: Duration = Duration::from_millis(50);
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
    Box::pin(stream! {
        loop {
            match follower.next().await {
                Ok(Some(events)) => {
                    for event in events {
                        if let Err(end) = options.hold_back(&event).await {
                            yield Err(end);
                            return;
                        }
                        yield Ok(event);
                    }
                }
                Ok(None) => {
                    yield Err(reflex_core::Error::head_reached());
                    return;
                }
                Err(error) => {
                    yield Err(error.into_stream_error(&name));
                    return;
                }
            }
        }
    })
}

/// One stream: where it is, and what it is about to read.
struct Follower<D: Dialect> {
    table: Arc<Table<D>>,
    tail: Arc<Tail>,
    status: watch::Receiver<Status>,
    position: i64,
    /// Where others see the position.
    reached: Reached,
    to_head: bool,
    /// The question how far the head is, once everything at hand was delivered.
    asked: Option<u64>,
    /// The page that is read ahead, while the stream is behind the ring. Dropping it ends the read.
    ahead: JoinSet<Result<Read>>,
    page_size: u32,
}

/// A page, and what was proven when its read began.
struct Read {
    page: Page,
    proven: i64,
}

impl<D: Dialect> Follower<D> {
    fn new(table: Arc<Table<D>>, tail: Arc<Tail>, position: i64, reached: Reached, to_head: bool) -> Self {
        let status = tail.status();
        let page_size = FIRST_PAGE.min(table.options.page_size);
        Self { table, tail, status, position, reached, to_head, asked: None, ahead: JoinSet::new(), page_size }
    }

    /// The events that follow, or `None` at the head of a stream that ends there.
    async fn next(&mut self) -> Result<Option<Vec<Event>>> {
        loop {
            self.reached.store(self.position, Ordering::Relaxed);
            let head = {
                let status = self.status.borrow_and_update();
                if let Some(error) = &status.failed {
                    return Err(error.clone());
                }
                status.head
            };
            if self.asked.is_some_and(|asked| head.0 >= asked && self.position >= head.1) {
                return Ok(None);
            }
            let events = match self.tail.after(self.position, BATCH) {
                Lookup::Events(events, position) => {
                    self.table.metrics.cache_hits.inc();
                    self.forget_ahead();
                    self.position = position;
                    events
                }
                Lookup::Behind => {
                    self.table.metrics.cache_misses.inc();
                    self.next_page().await?
                }
                Lookup::AtEnd => {
                    self.wait_at_end().await?;
                    continue;
                }
            };
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }

    async fn wait_at_end(&mut self) -> Result<()> {
        self.forget_ahead();
        if self.to_head && self.asked.is_none() {
            self.asked = Some(self.tail.ask_for_head());
            self.table.wake.notify_one();
        }
        self.changed().await
    }

    async fn changed(&mut self) -> Result<()> {
        let ended = || Problem::ReaderEnded { table: self.table.sql.table.to_string() };
        self.status.changed().await.map_err(|_| ended().into())
    }

    /// The next page from the database, as far as it may be delivered.
    async fn next_page(&mut self) -> Result<Vec<Event>> {
        let Read { page, proven } = self.read().await?;
        let count = deliverable(page.ids(), self.position, proven);
        if count < page.entries.len() || page.entries.is_empty() {
            self.wait_for_proof(&page, count, proven).await?;
        }
        let complete = count == page.entries.len();
        if let Some(last) = page.entries[..count].last() {
            self.position = last.id;
        }
        if complete && !page.full {
            // There is nothing more up to what is proven.
            self.position = self.position.max(proven);
        }
        if complete && page.full {
            self.page_size = page.next_limit(self.table.options.page_size);
            self.read_ahead();
        }
        Ok(page.entries.into_iter().take(count).filter_map(|entry| entry.event).collect())
    }

    /// Lets some time pass when a page had nothing to deliver, so that the next one may.
    async fn wait_for_proof(&mut self, page: &Page, count: usize, proven: i64) -> Result<()> {
        if let Some(blocked) = page.entries.get(count) {
            let after = if count == 0 { self.position } else { page.entries[count - 1].id };
            self.tail.report_gap(after, blocked.id);
            self.table.wake.notify_one();
        }
        if count > 0 || (page.entries.is_empty() && proven > self.position) {
            return Ok(());
        }
        select! {
            changed = self.changed() => changed,
            () = sleep(GAP_PAUSE) => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<Read> {
        if self.ahead.is_empty() {
            self.read_ahead();
        }
        let table = || self.table.sql.table.to_string();
        match self.ahead.join_next().await {
            Some(Ok(read)) => read,
            Some(Err(source)) => Err(Problem::Panicked { table: table(), source }.into()),
            None => Err(Problem::ReaderEnded { table: table() }.into()),
        }
    }

    /// What was read ahead begins before the position once events came from the ring.
    fn forget_ahead(&mut self) {
        if !self.ahead.is_empty() {
            self.ahead = JoinSet::new();
        }
    }

    fn read_ahead(&mut self) {
        let read = read_behind(self.table.clone(), self.tail.clone(), self.position, self.page_size);
        self.ahead.spawn(read);
    }
}

async fn read_behind<D: Dialect>(table: Arc<Table<D>>, tail: Arc<Tail>, after: i64, limit: u32) -> Result<Read> {
    let _turn = table.turns.acquire().await;
    let mut conn = table.acquire().await?;
    let server = table.within("identify the server", D::server(&mut conn, &table.sql)).await?;
    if server != tail.server() {
        return Err(Problem::ServerChanged { table: table.sql.table.to_string() }.into());
    }
    // A read that starts after a proof may rely on it.
    let proven = tail.proven();
    let page = table.read_page(&mut conn, after, limit).await?;
    conn.release();
    Ok(Read { page, proven })
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
