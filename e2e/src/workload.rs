use std::{
    ops::{AddAssign, Range},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use reflex_sql::EventsTable;
use sqlx::Pool;
use tokio::{
    select,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{Backend, writer::Writer};

/// Many writers that insert into the default events table in every way that a service may.
///
/// The foreign id of each event is unique: the number of its writer times [`Workload::PER_WRITER`], plus a sequence.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Decides what each writer does.
    pub seed: u64,
    /// The numbers of the writers.
    pub writers: Range<u32>,
    /// How long they go on.
    pub duration: Duration,
    /// How many rows all of them insert on average.
    pub rows_per_second: u64,
    /// How many of a thousand transactions hold their ids for 300 ms.
    pub slow_per_mille: u32,
    /// Whether a duplicate key is no failure: the transaction counts as rolled back.
    pub duplicates_allowed: bool,
    /// Whether a writer that gets an error connects again and goes on. What it was committing may be in the table, untold.
    pub survives: bool,
}

/// What writers did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transactions committed.
    pub commits: u64,
    /// Events committed.
    pub committed: u64,
    /// Transactions rolled back.
    pub rollbacks: u64,
    /// Connections dropped in mid-transaction.
    pub aborts: u64,
    /// Events inserted and then rolled back, in whole transactions, to savepoints or by aborts.
    pub undone: u64,
    /// Transactions that held their ids for 300 ms.
    pub slow: u64,
    /// Transactions that failed on a duplicate key.
    pub refused: u64,
    /// Transactions that failed on anything else.
    pub failures: u64,
}

impl Workload {
    /// Each writer has room for so many events.
    pub const PER_WRITER: i64 = 100_000_000;

    /// Runs all writers to their end.
    ///
    /// `committed` gets the foreign ids of each transaction after its commit.
    ///
    /// # Errors
    ///
    /// The first error that any writer gets.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the writers.
    pub async fn run<D: Backend>(
        &self,
        pool: &Pool<D>,
        table: &EventsTable<D>,
        committed: mpsc::Sender<Vec<i64>>,
    ) -> Result<Tally> {
        self.run_until(sleep(self.duration), pool, table, committed).await
    }

    /// As [`run`](Self::run), until `stop` is done, whatever the duration says.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    pub async fn run_until<D: Backend>(
        &self,
        stop: impl Future<Output = ()>,
        pool: &Pool<D>,
        table: &EventsTable<D>,
        committed: mpsc::Sender<Vec<i64>>,
    ) -> Result<Tally> {
        let pace = Arc::new(Pace::new(self.rows_per_second));
        let stopped = Arc::new(AtomicBool::new(false));
        // All are connected before the first event, which is what those wait for who then cut connections.
        let mut connected = Vec::new();
        for number in self.writers.clone() {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_add(number.into()));
            let writer = Writer::connect(number, rng, pool, table, self.clone(), pace.clone(), committed.clone());
            connected.push(writer.await?);
        }
        let mut writers: JoinSet<_> = connected.into_iter().map(|writer| writer.run(stopped.clone())).collect();
        drop(committed);
        let mut stop = pin!(stop);
        let mut tally = Tally::default();
        loop {
            select! {
                () = &mut stop, if !stopped.load(Ordering::Relaxed) => stopped.store(true, Ordering::Relaxed),
                ended = writers.join_next() => match ended {
                    Some(ended) => tally += ended??,
                    None => return Ok(tally),
                },
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.commits += other.commits;
        self.committed += other.committed;
        self.rollbacks += other.rollbacks;
        self.aborts += other.aborts;
        self.undone += other.undone;
        self.slow += other.slow;
        self.refused += other.refused;
        self.failures += other.failures;
    }
}

/// Keeps the number of rows down, so that they can be checked: writers wait between transactions, never within.
#[derive(Debug)]
pub struct Pace {
    rows_per_second: u64,
    since: Instant,
    rows: AtomicU64,
}

impl Pace {
    /// A pace of so many rows.
    #[must_use]
    pub fn new(rows_per_second: u64) -> Self {
        Self { rows_per_second, since: Instant::now(), rows: AtomicU64::new(0) }
    }

    /// Counts rows that were inserted.
    pub fn count(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Waits until the next transaction may begin.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait(&self) {
        while self.rows.load(Ordering::Relaxed) as f64
            > self.rows_per_second as f64 * self.since.elapsed().as_secs_f64()
        {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Begins a transaction with this statement and inserts events with these foreign ids; returns the id of the first.
///
/// # Errors
///
/// If the database fails.
///
/// # Cancel safety
///
/// If the future is dropped, close the connection.
pub async fn begin_with_rows<D: Backend>(
    conn: &mut D::Connection,
    begin: &str,
    foreign_ids: Range<i64>,
) -> Result<i64> {
    let first = foreign_ids.start;
    D::run_sql(conn, begin.to_owned()).await?;
    D::run_sql(conn, insert_statement(foreign_ids)).await?;
    let sql = format!("select id from events where foreign_id = '{first}'");
    Ok(D::rows(conn, sql).await?.first().context("a transaction sees what it inserted")?.0)
}

/// The statement that inserts an event for each of these foreign ids.
#[must_use]
pub fn insert_statement(foreign_ids: Range<i64>) -> String {
    let rows: Vec<_> = foreign_ids.map(|id| format!("('{id}', 1)")).collect();
    format!("insert into events (foreign_id, type) values {}", rows.join(", "))
}
