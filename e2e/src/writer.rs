//! One writer: a random mix of transactions on a connection of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{RngExt, rngs::StdRng};
use reflex_core::NewEvent;
use reflex_sql::{EventsTable, Notify};
use sqlx::Pool;
use tokio::{sync::mpsc, time::sleep};

use crate::{Backend, Pace, Tally, Workload};

/// How long a slow transaction holds its ids.
const SLOW: Duration = Duration::from_millis(300);

/// A writer without a connection tries to get one this often.
const RECONNECT: Duration = Duration::from_millis(20);

/// SQLite joins no more of them.
const MAX_SELECTS: usize = 500;

pub(crate) struct Writer<D: Backend> {
    number: u32,
    sequence: i64,
    rng: StdRng,
    pool: Pool<D>,
    conn: D::Connection,
    table: EventsTable<D>,
    workload: Workload,
    pace: Arc<Pace>,
    committed: mpsc::Sender<Vec<i64>>,
    tally: Tally,
    /// The foreign ids of the open transaction.
    open: Vec<i64>,
    /// What the open transaction owes the readers of this process.
    notify: Option<Notify>,
}

impl<D: Backend> Writer<D> {
    pub(crate) async fn connect(
        number: u32,
        rng: StdRng,
        pool: &Pool<D>,
        table: &EventsTable<D>,
        workload: Workload,
        pace: Arc<Pace>,
        committed: mpsc::Sender<Vec<i64>>,
    ) -> Result<Self> {
        let conn = D::connect(pool).await.with_context(|| format!("writer {number} connects"))?;
        let (pool, table, tally) = (pool.clone(), table.clone(), Tally::default());
        Ok(Self {
            number,
            sequence: 0,
            rng,
            pool,
            conn,
            table,
            workload,
            pace,
            committed,
            tally,
            open: Vec::new(),
            notify: None,
        })
    }

    pub(crate) async fn run(mut self, stopped: Arc<AtomicBool>) -> Result<Tally> {
        if self.is_first() {
            let outcome = self.slow().await;
            self.settle(outcome, &stopped).await?;
        }
        while !stopped.load(Ordering::Relaxed) || self.owes_some_of_each() {
            self.pace.wait().await;
            let outcome = self.transaction().await;
            self.settle(outcome, &stopped).await?;
            self.idle(5).await;
        }
        Ok(self.tally)
    }

    /// The first writer commits and rolls back, however slow the machine and whatever fails meanwhile.
    fn owes_some_of_each(&self) -> bool {
        self.is_first() && (self.tally.commits == 0 || self.tally.rollbacks == 0)
    }

    fn is_first(&self) -> bool {
        self.number == self.workload.writers.start
    }

    async fn settle(&mut self, outcome: Result<()>, stopped: &AtomicBool) -> Result<()> {
        match outcome {
            Err(error) if self.workload.duplicates_allowed && is_duplicate(&error) => self.refused().await,
            Err(_) if self.workload.survives => {
                self.failed(stopped).await;
                Ok(())
            }
            outcome => outcome.with_context(|| format!("writer {}", self.number)),
        }
    }

    /// Connects again, when that is possible.
    async fn failed(&mut self, stopped: &AtomicBool) {
        self.tally.failures += 1;
        self.forget();
        loop {
            sleep(RECONNECT).await;
            if let Ok(conn) = D::connect(&self.pool).await {
                self.conn = conn;
                return;
            }
            if stopped.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn transaction(&mut self) -> Result<()> {
        if self.rng.random_range(0..1_000) < self.workload.slow_per_mille {
            return self.slow().await;
        }
        match self.rng.random_range(0..100) {
            0..30 => self.single().await,
            30..45 => self.statement().await,
            45..52 => self.bulk().await,
            52..65 => self.several().await,
            65..80 => self.savepoints().await,
            80..92 => self.undone().await,
            _ => self.abort().await,
        }
    }

    async fn single(&mut self) -> Result<()> {
        self.begin().await?;
        self.insert_by_library(1).await?;
        self.commit().await
    }

    /// One plain statement that is its own transaction.
    async fn statement(&mut self) -> Result<()> {
        let rows = self.rng.random_range(1..=5);
        self.insert_by_sql(rows).await?;
        self.done().await
    }

    async fn bulk(&mut self) -> Result<()> {
        // As many small ones as large ones.
        let rows = 1_000_f64.powf(self.rng.random_range(0.0..=1.0)).round() as usize;
        self.begin().await?;
        self.insert(rows).await?;
        self.commit().await
    }

    async fn several(&mut self) -> Result<()> {
        self.begin().await?;
        for _ in 0..self.rng.random_range(2..=6) {
            self.insert_few().await?;
            self.idle(5).await;
        }
        self.commit().await
    }

    async fn slow(&mut self) -> Result<()> {
        self.tally.slow += 1;
        self.begin().await?;
        self.insert_few().await?;
        sleep(SLOW).await;
        if self.rng.random_bool(0.5) {
            self.insert_few().await?;
        }
        if self.rng.random_bool(0.75) { self.commit().await } else { self.rollback().await }
    }

    async fn savepoints(&mut self) -> Result<()> {
        self.begin().await?;
        if self.rng.random_bool(0.5) {
            self.insert_few().await?;
        }
        for name in ["a", "b", "c"] {
            self.savepoint(name).await?;
        }
        self.commit().await
    }

    async fn savepoint(&mut self, name: &str) -> Result<()> {
        self.execute(&format!("savepoint {name}")).await?;
        let before = self.open.len();
        self.insert_few().await?;
        if self.rng.random_bool(0.5) {
            return self.execute(&format!("release savepoint {name}")).await;
        }
        self.execute(&format!("rollback to savepoint {name}")).await?;
        self.tally.undone += (self.open.len() - before) as u64;
        self.open.truncate(before);
        self.idle(3).await;
        Ok(())
    }

    async fn undone(&mut self) -> Result<()> {
        self.begin().await?;
        self.insert_few().await?;
        self.idle(10).await;
        self.rollback().await
    }

    /// Drops the connection in mid-transaction, as a service that dies does.
    async fn abort(&mut self) -> Result<()> {
        self.begin().await?;
        self.insert_few().await?;
        self.conn = D::connect(&self.pool).await.context("connect again")?;
        self.tally.aborts += 1;
        self.forget();
        Ok(())
    }

    async fn insert_few(&mut self) -> Result<()> {
        let rows = self.rng.random_range(1..=10);
        self.insert(rows).await
    }

    async fn insert(&mut self, rows: usize) -> Result<()> {
        if self.rng.random_bool(0.7) { self.insert_by_library(rows).await } else { self.insert_by_sql(rows).await }
    }

    async fn insert_by_library(&mut self, rows: usize) -> Result<()> {
        let foreign_ids = self.next(rows);
        let event = |id: &i64| NewEvent::new(id, 1).metadata(vec![b'm'; usize::try_from(id % 40).unwrap_or(0)]);
        let notify = match foreign_ids.as_slice() {
            [id] => self.table.insert(&mut self.conn, event(id)).await?,
            ids => self.table.insert_all(&mut self.conn, ids.iter().map(event)).await?,
        };
        self.notify = Some(notify);
        self.open.extend(foreign_ids);
        Ok(())
    }

    /// Databases hand out the ids of these two forms in different ways.
    async fn insert_by_sql(&mut self, rows: usize) -> Result<()> {
        let foreign_ids = self.next(rows);
        let row = |(form, separator): (fn(&i64) -> String, &str)| {
            foreign_ids.iter().map(form).collect::<Vec<_>>().join(separator)
        };
        let source = if rows <= MAX_SELECTS && self.rng.random_bool(0.5) {
            row((|id| format!("select '{id}', 1"), " union all "))
        } else {
            format!("values {}", row((|id| format!("('{id}', 1)"), ", ")))
        };
        self.execute(&format!("insert into events (foreign_id, type) {source}")).await?;
        self.open.extend(foreign_ids);
        Ok(())
    }

    fn next(&mut self, rows: usize) -> Vec<i64> {
        self.pace.count(rows as u64);
        let first = i64::from(self.number) * Workload::PER_WRITER + self.sequence;
        self.sequence += rows as i64;
        (first..).take(rows).collect()
    }

    async fn begin(&mut self) -> Result<()> {
        self.execute(D::BEGIN).await
    }

    async fn commit(&mut self) -> Result<()> {
        self.execute("commit").await?;
        self.done().await
    }

    /// The transaction is committed.
    async fn done(&mut self) -> Result<()> {
        self.tally.commits += 1;
        self.tally.committed += self.open.len() as u64;
        if let Some(notify) = self.notify.take() {
            notify.send();
        }
        self.committed.send(std::mem::take(&mut self.open)).await.context("tell what was committed")
    }

    async fn rollback(&mut self) -> Result<()> {
        self.execute("rollback").await?;
        self.tally.rollbacks += 1;
        self.forget();
        Ok(())
    }

    async fn refused(&mut self) -> Result<()> {
        self.execute("rollback").await?;
        self.tally.refused += 1;
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.tally.undone += self.open.len() as u64;
        self.open.clear();
        self.notify = None;
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        let shown = || sql.chars().take(80).collect::<String>();
        D::run_sql(&mut self.conn, sql.to_owned()).await.with_context(shown)
    }

    async fn idle(&mut self, max_millis: u64) {
        let pause = self.rng.random_range(0..=max_millis * 1_000);
        sleep(Duration::from_micros(pause)).await;
    }
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => error.is_unique_violation(),
        _ => false,
    })
}
