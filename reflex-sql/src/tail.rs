//! The shared reader of a table: it follows the head, proves gaps dead, and fills the ring that all streams read from.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reflex_core::EventsTableMetrics;
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    Result,
    backfill::Backfill,
    dialect::Dialect,
    error::Error,
    frontier::{Frontiers, deliverable},
    page::Page,
    ring::{Lookup, Ring},
    state::{Held, Seen},
    table::{Lease, Table},
    wake::{self, Polling},
};

/// A gap that lasts this long is told to the log, with who holds the ids.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// And again after this long.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// In noop mode a dirty read must not have seen the row for this long.
const NOOP_AFTER: Duration = Duration::from_millis(100);
/// In noop mode one look fills at most this many ids.
const NOOPS_PER_ROUND: usize = 1_000;
/// While ids are missing, the table is looked at after a tenth of the time that this has lasted, within these bounds.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// A gap before the ring counts as long as it was reported within this time.
const GAP_REPORT_TTL: Duration = Duration::from_secs(1);
/// Rows of one look at the head.
const PAGE_SIZE: u32 = 1_000;

/// The shared reader of one table, running as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Tail {
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    /// What is read for streams that are behind the ring.
    pub(crate) backfill: Backfill,
    /// Aborts the reader when dropped.
    _reader: JoinSet<()>,
}

/// What the streams and their reader tell each other.
#[derive(Debug)]
struct Shared {
    ring: RwLock<Ring>,
    /// Where the ring began.
    start: i64,
    /// The server that proofs are valid for.
    server: String,
    /// How often a stream asked how far the head is.
    asked: AtomicU64,
    /// The gaps before the ring that streams wait at, by the id before each.
    gaps: Mutex<BTreeMap<i64, GapBefore>>,
}

/// The ids between `after` and `next` are missing, and a stream waits for them.
#[derive(Clone, Copy, Debug)]
struct GapBefore {
    after: i64,
    next: i64,
    reported: Instant,
}

/// What the reader publishes. It changes when the ring does.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Up to which id the frontiers have proven that no gap can be filled.
    proven: i64,
    /// The end of the ring.
    end: i64,
    /// The answer to the question of this number, and all before it: everything committed before it was asked is at or
    /// below this id.
    pub(crate) head: (u64, i64),
    /// What is known of the ids seen; nobody is woken when it changes.
    pub(crate) seen: Seen,
    /// Why the reader ended.
    pub(crate) failed: Option<Error>,
}

impl Tail {
    pub(crate) async fn start<D: Dialect>(table: Arc<Table<D>>) -> Result<Self> {
        let mut conn = table.acquire().await?;
        let server = table.within("identify the server", D::server(&mut conn, &table.sql)).await?;
        let start = table.within("find the highest id", D::bounds(&mut conn, &table.sql)).await?.highest;
        let shared = Arc::new(Shared {
            ring: RwLock::new(Ring::new(start, table.options.ring_events, table.options.ring_bytes)),
            start,
            server,
            asked: AtomicU64::new(0),
            gaps: Mutex::default(),
        });
        let (publish, status) = watch::channel(Status {
            proven: 0,
            end: start,
            head: (0, start),
            seen: Seen { highest: start, held: None },
            failed: None,
        });
        let grace = table.options.cluster_grace.unwrap_or_default();
        let reader = Reader {
            page_size: PAGE_SIZE,
            polling: Polling::new(table.options.poll_interval),
            conn: (!D::SHARES_POOL).then_some(conn),
            table,
            shared: shared.clone(),
            publish,
            frontiers: Frontiers::new(grace),
            end: start,
            gap: None,
            undrawn_after: None,
            noops: BTreeMap::new(),
        };
        reader.metrics().gap_listening.inc();
        let mut tasks = JoinSet::new();
        tasks.spawn(reader.run_listening());
        Ok(Self { shared, status, backfill: Backfill::default(), _reader: tasks })
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// False if the reader ended, so that another one must be started.
    pub(crate) fn is_running(&self) -> bool {
        self.status.has_changed().is_ok() && self.status.borrow().failed.is_none()
    }

    pub(crate) fn server(&self) -> &str {
        &self.shared.server
    }

    /// Ids up to here are visible to a read that starts after this call, or dead. What went into the ring is settled too,
    /// once everything before the ring is.
    pub(crate) fn proven(&self) -> i64 {
        let status = self.status.borrow();
        if status.proven < self.shared.start { status.proven } else { status.proven.max(status.end) }
    }

    pub(crate) fn after(&self, position: i64, limit: usize) -> Lookup {
        self.shared.ring.read().unwrap_or_else(PoisonError::into_inner).after(position, limit)
    }

    /// Asks how far the head is; the answer is a [`Status::head`] of at least this number.
    pub(crate) fn ask_for_head(&self) -> u64 {
        self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Tells the reader of a gap before the ring, again and again while a stream waits at it.
    pub(crate) fn report_gap(&self, after: i64, next: i64) {
        self.shared.gaps().insert(after, GapBefore { after, next, reported: Instant::now() });
    }
}

impl Shared {
    fn gaps(&self) -> MutexGuard<'_, BTreeMap<i64, GapBefore>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When to look at the table again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// At once: there is more.
    Now,
    /// Soon: ids are missing since then.
    Soon(Instant),
    /// When somebody says so, or after the poll interval.
    Idle,
}

/// A gap that holds the stream back.
#[derive(Debug)]
struct Gap {
    /// The id before it.
    after: i64,
    since: Instant,
    reported: Option<Instant>,
    held_by: Vec<String>,
}

struct Reader<D: Dialect> {
    table: Arc<Table<D>>,
    /// Kept between rounds unless it is the caller's.
    conn: Option<Lease<D>>,
    shared: Arc<Shared>,
    publish: watch::Sender<Status>,
    frontiers: Frontiers,
    end: i64,
    gap: Option<Gap>,
    /// The last id that was handed out, if rows above it were seen.
    undrawn_after: Option<i64>,
    /// Noop mode: missing ids, and when each was first missed.
    noops: BTreeMap<i64, Instant>,
    page_size: u32,
    polling: Polling,
}

impl<D: Dialect> Reader<D> {
    /// Reads, and hears of what others wrote.
    async fn run_listening(self) {
        let bell = self.table.bell.clone();
        select! {
            () = self.run() => {}
            never = Box::pin(wake::listen(bell)) => match never {},
        }
    }

    async fn run(mut self) {
        let opened = Instant::now();
        let error = loop {
            let before = self.end;
            let round = self.round(opened).await;
            if self.end > before {
                self.polling.found();
            }
            match round {
                Ok(pace) => self.pause(pace).await,
                Err(error) => break error,
            }
        };
        self.publish.send_modify(|status| status.failed = Some(error));
    }

    async fn pause(&mut self, pace: Pace) {
        let pause = match pace {
            Pace::Now => return,
            Pace::Soon(since) => (since.elapsed() / 10).clamp(MIN_PAUSE, MAX_PAUSE),
            Pace::Idle => self.polling.pause(self.table.bell.hears()).mul_f64(rand::random_range(1.0..1.2)),
        };
        select! {
            () = self.table.wake.notified() => {}
            () = sleep(pause) => {}
        }
    }

    /// One look at the table.
    async fn round(&mut self, opened: Instant) -> Result<Pace> {
        self.metrics().polls.inc();
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.table.acquire().await?,
        };
        let pace = self.look(&mut conn, opened).await;
        if !D::SHARES_POOL {
            self.conn = Some(conn);
        }
        pace
    }

    async fn look(&mut self, conn: &mut D::Connection, opened: Instant) -> Result<Pace> {
        let asked = self.shared.asked.load(Ordering::SeqCst);
        // A read that starts after a proof may rely on it.
        let proven = self.frontiers.proven();
        let page = self.table.read_page(conn, self.end, self.page_size).await?;
        self.page_size = page.scan.next_page(PAGE_SIZE);
        let visible = page.last_id().unwrap_or(self.end);
        let (full, empty) = (page.scan.full, page.entries.is_empty());
        let missing = self.deliver(page, proven);
        let proven_more = self.resolve(conn, visible, &missing).await?;
        self.answer(conn, asked, visible, full).await?;
        if empty {
            let bounds = self.table.within("find the highest id", D::bounds(conn, &self.table.sql)).await?;
            bounds.check(self.end, &self.table.sql.table)?;
        }
        self.show_gap(conn).await?;
        self.tell(visible);
        Ok(match &self.gap {
            _ if proven_more || (full && missing.is_empty()) => Pace::Now,
            Some(gap) => Pace::Soon(gap.since),
            None if self.frontiers.is_open() || !self.noops.is_empty() => Pace::Soon(opened),
            None => Pace::Idle,
        })
    }

    /// Moves what may be delivered into the ring. Returns the ids after it that hold it back, the first of them at most.
    fn deliver(&mut self, mut page: Page, proven: i64) -> Vec<i64> {
        let count = deliverable(page.ids(), self.end, proven);
        let blocked = page.entries.split_off(count);
        let skipped = skipped(self.end, page.ids());
        if let Some(last) = page.last_id() {
            self.end = last;
            self.gap = None;
            self.shared.ring.write().unwrap_or_else(PoisonError::into_inner).push(page.entries);
            let end = self.end;
            self.publish.send_modify(|status| status.end = end);
        }
        self.metrics().gaps_skipped.inc_by(skipped);
        let before = self.gaps_before().first().map(|gap| gap.after);
        self.note_gap(if blocked.is_empty() { before } else { Some(self.end) });
        missing_ids(self.end, blocked.iter().map(|entry| entry.id)).take(NOOPS_PER_ROUND).collect()
    }

    /// Remembers the id before the gap that holds a stream back.
    fn note_gap(&mut self, after: Option<i64>) {
        let Some(after) = after else {
            self.gap = None;
            return;
        };
        if self.gap.as_ref().is_none_or(|gap| gap.after != after) {
            self.metrics().gaps_detected.inc();
            self.gap = Some(Gap { after, since: Instant::now(), reported: None, held_by: Vec::new() });
        }
    }

    /// The gaps before the ring that streams still wait at.
    fn gaps_before(&self) -> Vec<GapBefore> {
        let mut gaps = self.shared.gaps();
        gaps.retain(|_, gap| gap.reported.elapsed() < GAP_REPORT_TTL && gap.next > self.frontiers.proven());
        gaps.values().copied().collect()
    }

    /// Takes the next step towards knowing what becomes of missing ids. Returns whether more is proven than before.
    async fn resolve(&mut self, conn: &mut D::Connection, visible: i64, missing: &[i64]) -> Result<bool> {
        if !self.table.sql.mode.proves() {
            self.fill(conn, missing).await?;
            return Ok(false);
        }
        let unproven = if missing.is_empty() { self.shared.start } else { visible };
        if unproven <= self.frontiers.proven() && !self.frontiers.is_open() {
            return Ok(false);
        }
        let writers = D::writers(conn, &self.table.sql, &self.shared.server);
        let writers = self.table.within("find the open writers", writers).await?;
        let proven_more = self.frontiers.observe(Some(unproven), &writers);
        self.undrawn_after = writers.highest_drawn.filter(|drawn| *drawn < unproven);
        if proven_more {
            self.metrics().gap_proofs.inc();
            let proven = self.frontiers.proven();
            self.publish.send_modify(|status| status.proven = proven);
        }
        Ok(proven_more)
    }

    /// Noop mode: fills ids that have been missing for long enough.
    async fn fill(&mut self, conn: &mut D::Connection, missing: &[i64]) -> Result<()> {
        let before_ring = self.gaps_before().into_iter().flat_map(|gap| gap.after + 1..gap.next);
        let at = Instant::now();
        let still: BTreeMap<_, _> = missing
            .iter()
            .copied()
            .chain(before_ring)
            .take(NOOPS_PER_ROUND)
            .map(|id| (id, self.noops.get(&id).copied().unwrap_or(at)))
            .collect();
        self.noops = still;
        let due: Vec<_> =
            self.noops.iter().filter(|(_, since)| since.elapsed() >= NOOP_AFTER).map(|(id, _)| *id).collect();
        if !due.is_empty() {
            let filled = self.table.within("fill missing ids", D::fill(conn, &self.table.sql, &due)).await?;
            self.metrics().gaps_filled.inc_by(filled);
            // A stream that still waits there says so again.
            self.shared.gaps().retain(|after, _| due.binary_search(&(after + 1)).is_err());
        }
        Ok(())
    }

    /// Answers streams that want to end at the head.
    async fn answer(&mut self, conn: &mut D::Connection, asked: u64, visible: i64, full: bool) -> Result<()> {
        if asked == self.publish.borrow().head.0 {
            return Ok(());
        }
        let head = if full {
            self.table.within("find the highest id", D::bounds(conn, &self.table.sql)).await?.highest
        } else {
            visible
        };
        self.publish.send_modify(|status| status.head = (asked, head));
        Ok(())
    }

    async fn show_gap(&mut self, conn: &mut D::Connection) -> Result<()> {
        let blocked = self.gap.as_ref().map_or(Duration::ZERO, |gap| gap.since.elapsed());
        self.metrics().blocking_gap.set(self.gap.is_some().into());
        self.metrics().blocked_seconds.set(blocked.as_secs_f64());
        let Some(gap) = &mut self.gap else { return Ok(()) };
        let due = gap.reported.map_or(blocked >= REPORT_AFTER, |reported| reported.elapsed() >= REPORT_EVERY);
        if !due {
            return Ok(());
        }
        gap.reported = Some(Instant::now());
        let after = gap.after;
        let holders = match self.frontiers.blocking() {
            Some(writers) => self.table.within("name the blocking sessions", D::describe(conn, writers)).await?,
            None => Vec::new(),
        };
        if let Some(gap) = &mut self.gap {
            gap.held_by.clone_from(&holders);
        }
        tracing::warn!(
            table = %self.table.sql.table,
            after_id = after,
            blocked_seconds = blocked.as_secs(),
            mode = self.table.sql.mode.label(),
            held_by = holders.join("; "),
            "{}",
            self.reason()
        );
        Ok(())
    }

    /// Tells those who ask how the streams are.
    fn tell(&self, highest: i64) {
        let held = |gap: &Gap| Held { after: gap.after, since: gap.since, by: gap.held_by.clone() };
        let seen = Seen { highest, held: self.gap.as_ref().map(held) };
        self.publish.send_if_modified(|status| {
            status.seen = seen;
            false
        });
    }

    /// Why the stream waits.
    fn reason(&self) -> String {
        match self.undrawn_after {
            Some(drawn) => format!(
                "the stream waits for ids that the sequence has yet to hand out: rows were inserted with ids above {drawn}, \
                 its last value; if that was a restore, set the sequence to the highest id with setval"
            ),
            None => "the stream waits for ids that an open transaction may still write".to_owned(),
        }
    }

    fn metrics(&self) -> &EventsTableMetrics {
        &self.table.metrics
    }
}

impl<D: Dialect> Drop for Reader<D> {
    fn drop(&mut self) {
        self.metrics().gap_listening.dec();
        self.metrics().blocking_gap.set(0);
    }
}

/// How many ids between `position` and the last of `ids` are not among them.
fn skipped(position: i64, ids: impl Iterator<Item = i64>) -> u64 {
    let (last, count) = ids.fold((position, 0), |(_, count), id| (id, count + 1));
    (last - position).unsigned_abs().saturating_sub(count)
}

/// The ids between `position` and the last of `ids` that are not among them.
fn missing_ids(position: i64, ids: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    ids.scan(position, |previous, id| {
        let missing = *previous + 1..id;
        *previous = id;
        Some(missing)
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ids_are_those_between() {
        let missing = |position, ids: &[i64]| missing_ids(position, ids.iter().copied()).collect::<Vec<_>>();
        assert_eq!(missing(0, &[]), [0; 0]);
        assert_eq!(missing(0, &[1, 2]), [0; 0]);
        assert_eq!(missing(0, &[3, 4, 6]), [1, 2, 5]);
    }

    #[test]
    fn skipped_ids_are_counted() {
        assert_eq!(skipped(0, [].into_iter()), 0);
        assert_eq!(skipped(0, [1, 2].into_iter()), 0);
        assert_eq!(skipped(5, [8, 10].into_iter()), 3);
    }
}
