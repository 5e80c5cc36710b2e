//! Reading for streams that are behind the ring: streams at about the same place share one *reading*.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{
    select,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    Result,
    dialect::Dialect,
    error::{Error, Problem},
    pack::{Member, Pack},
    page::Range,
    state::Reached,
    table::{Lease, Table},
    tail::{Status, Tail},
    window::{Chunk, Chunker, Found, Window},
};

/// The first rows of a reading, and those after a gap.
const FIRST_ROWS: u32 = 1_000;
/// A connection that others wait for is given back after about so many rows.
const ROWS_PER_TURN: u32 = 50_000;
/// One of the caller after so many; no query on it asks for more.
const ROWS_OF_CALLER: u32 = 10_000;
/// All readings of a table together aim at this many bytes of events, and each at no more than half of them.
const TOTAL_BYTES: usize = 32 << 20;
/// Of what a reading may hold, this part is one query, and this part is ahead of the foremost stream when the next begins.
const PART: usize = 4;
/// A reading that waits at a gap looks again after this long.
const GAP_PAUSE: Duration = Duration::from_millis(50);

/// The readings of a table, as long as streams follow them.
#[derive(Debug, Default)]
pub(crate) struct Backfill(Mutex<Vec<Weak<Reading>>>);

/// A task that reads rows in order, ahead of the foremost of the streams that hold it. Dropped by the last of them it ends, and
/// a query that is under way is abandoned.
#[derive(Debug)]
pub(crate) struct Reading {
    shared: Arc<Shared>,
    told: watch::Receiver<Told>,
    /// Aborts the reader when dropped.
    _reader: JoinSet<()>,
}

/// What the reader tells the streams. It changes when the window does.
#[derive(Debug, Default)]
struct Told {
    failed: Option<Error>,
}

#[derive(Debug)]
struct Shared {
    window: Mutex<Window>,
    pack: Pack,
    /// Rung when a stream has taken something, waits or leaves.
    demand: Notify,
}

impl Backfill {
    /// The reading that got farthest of those that a stream at `position` can follow. One is started if there is none.
    pub(crate) fn follow<D: Dialect>(table: &Arc<Table<D>>, tail: &Arc<Tail>, position: i64) -> Arc<Reading> {
        let mut readings = tail.backfill.readings();
        if let Some(reading) = farthest(&readings, |window| window.covers(position)) {
            return reading;
        }
        let reading = Arc::new(Reading::start(table.clone(), tail.clone(), position));
        readings.push(Arc::downgrade(&reading));
        reading
    }

    /// A reading that has what follows `position` already.
    pub(crate) fn ahead_of(&self, position: i64) -> Option<Arc<Reading>> {
        farthest(&self.readings(), |window| window.covers(position) && window.end() > position)
    }

    /// How many bytes one reading may hold.
    fn share(&self) -> usize {
        TOTAL_BYTES / self.readings().len().max(2)
    }

    fn readings(&self) -> MutexGuard<'_, Vec<Weak<Reading>>> {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|reading| reading.strong_count() > 0);
        readings
    }
}

fn farthest(readings: &[Weak<Reading>], is_fit: impl Fn(&Window) -> bool) -> Option<Arc<Reading>> {
    let fit = readings.iter().filter_map(|reading| {
        let reading = reading.upgrade().filter(|reading| reading.told.borrow().failed.is_none())?;
        let end = Some(reading.shared.window()).filter(|window| is_fit(window)).map(|window| window.end())?;
        Some((end, reading))
    });
    fit.max_by_key(|(end, _)| *end).map(|(_, reading)| reading)
}

impl Reading {
    fn start<D: Dialect>(table: Arc<Table<D>>, tail: Arc<Tail>, position: i64) -> Self {
        let window = Mutex::new(Window::new(position));
        let shared = Arc::new(Shared { window, pack: Pack::default(), demand: Notify::new() });
        let (tell, told) = watch::channel(Told::default());
        let rows = FIRST_ROWS.min(table.options.page_size);
        let status = tail.status();
        let reader = Reader { table, tail, status, shared: shared.clone(), tell, rows, more: true };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.run());
        Self { shared, told, _reader: tasks }
    }

    /// What follows `position`.
    pub(crate) fn after(&self, position: i64) -> Found {
        let found = self.shared.window().after(position);
        self.shared.demand.notify_one();
        found
    }

    /// Lets a stream, which shows how far it is, follow the reading.
    pub(crate) fn join(&self, reached: &Reached) -> Listener {
        self.shared.pack.join(reached);
        Listener { told: self.told.clone(), shared: self.shared.clone(), reached: reached.clone() }
    }
}

/// Hears of the changes of a reading, for a stream that follows it.
#[derive(Debug)]
pub(crate) struct Listener {
    told: watch::Receiver<Told>,
    shared: Arc<Shared>,
    reached: Reached,
}

impl Listener {
    /// Counts what changed up to here as heard. Fails if the reading did.
    pub(crate) fn heard(&mut self) -> Result<()> {
        match &self.told.borrow_and_update().failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Waits for the next change. Returns false if the reader is gone.
    pub(crate) async fn changed(&mut self) -> bool {
        self.told.changed().await.is_ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.pack.leave(&self.reached);
        self.shared.demand.notify_one();
    }
}

impl Shared {
    fn end(&self) -> i64 {
        self.window().end()
    }

    /// Who holds it must not ask for the list of readings: those who look for one in the list lock it second.
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader<D: Dialect> {
    table: Arc<Table<D>>,
    tail: Arc<Tail>,
    status: watch::Receiver<Status>,
    shared: Arc<Shared>,
    tell: watch::Sender<Told>,
    /// How many rows to ask for.
    rows: u32,
    /// Whether the last query left rows.
    more: bool,
}

/// What one query brought.
struct Outcome {
    /// Whether it moved the end.
    moved: bool,
    /// The id that a missing one comes before.
    blocked: Option<i64>,
    rows: u32,
    /// Whether it was abandoned, and its connection with it.
    abandoned: bool,
}

impl<D: Dialect> Reader<D> {
    async fn run(mut self) {
        let Err(error) = self.read().await;
        self.tell.send_modify(|told| told.failed = Some(error));
    }

    async fn read(&mut self) -> Result<Infallible> {
        loop {
            while !self.is_wanted() {
                self.shared.demand.notified().await;
            }
            self.wait_for_the_last().await;
            let outcome = self.take_turn().await?;
            self.wait_for_proof(&outcome).await?;
        }
    }

    /// Lets those come up whom the next query could push out of the window: they would have to read by themselves.
    async fn wait_for_the_last(&self) {
        while let Some(last) = self.last_in_danger() {
            let began = Instant::now();
            // Without an answer the patience is over.
            let _ = timeout(last.patience, self.shared.demand.notified()).await;
            self.shared.pack.waited_for(&last, began.elapsed());
        }
    }

    fn last_in_danger(&self) -> Option<Member> {
        let share = self.tail.backfill.share();
        let window = self.shared.window();
        let last = self.shared.pack.last(window.start())?;
        window.loses(last.position(), share / 2, share).then_some(last)
    }

    /// Queries on one connection, as long as the streams keep up.
    async fn take_turn(&mut self) -> Result<Outcome> {
        let table = self.table.clone();
        let _turn = table.turns.acquire().await;
        let mut conn = table.acquire().await?;
        let server = table.within("identify the server", D::server(&mut conn, &table.sql)).await?;
        if server != self.tail.server() {
            return Err(Problem::ServerChanged { table: table.sql.table.to_string() }.into());
        }
        let mut rows = 0;
        loop {
            let outcome = self.query(&mut conn).await?;
            rows += outcome.rows;
            if outcome.abandoned {
                return Ok(outcome);
            }
            let most = if D::SHARES_POOL { ROWS_OF_CALLER } else { ROWS_PER_TURN };
            if !self.more || rows >= most || !self.is_wanted() || self.last_in_danger().is_some() {
                conn.release();
                return Ok(outcome);
            }
        }
    }

    async fn query(&mut self, conn: &mut Lease<D>) -> Result<Outcome> {
        // A read that starts after a proof may rely on it.
        let proven = self.tail.proven();
        let (limit, share) = (self.rows, self.tail.backfill.share());
        let after = self.shared.end();
        let mut chunker = Chunker::new(after, proven);
        let (shared, tell) = (&self.shared, &self.tell);
        let mut publish = |chunk: Chunk| {
            shared.window().push(chunk, share);
            tell.send_modify(|_| {});
        };
        let take = |entry| chunker.take(entry).into_iter().for_each(&mut publish);
        let range = Range { after, limit, max_bytes: share / 2 };
        let scan = self.table.scan_many(conn, range, take).await?;
        self.table.metrics.cache_misses.inc();
        let (last, blocked) = chunker.finish(!scan.full);
        if last.last > self.shared.end() {
            publish(last);
        }
        self.more = scan.full && blocked.is_none();
        self.rows = if self.more { scan.next_limit(share / PART, self.most_rows()) } else { FIRST_ROWS.min(limit) };
        let moved = self.shared.end() > after;
        Ok(Outcome { moved, blocked, rows: scan.rows, abandoned: scan.abandoned })
    }

    fn most_rows(&self) -> u32 {
        let most = if D::SHARES_POOL { ROWS_OF_CALLER } else { u32::MAX };
        self.table.options.page_size.min(most)
    }

    fn is_wanted(&self) -> bool {
        let ahead = if self.more { self.tail.backfill.share() / PART } else { 0 };
        self.shared.window().wants_more(ahead)
    }

    /// Lets some time pass when a query brought nothing to deliver, so that the next one may.
    async fn wait_for_proof(&mut self, outcome: &Outcome) -> Result<()> {
        if let Some(next) = outcome.blocked {
            let after = self.shared.end();
            self.tail.report_gap(after, next);
            self.table.wake.notify_one();
        }
        if outcome.moved {
            return Ok(());
        }
        let ended = || Problem::ReaderEnded { table: self.table.sql.table.to_string() };
        select! {
            changed = self.status.changed() => changed.map_err(|_| ended().into()),
            () = sleep(GAP_PAUSE) => Ok(()),
        }
    }
}
