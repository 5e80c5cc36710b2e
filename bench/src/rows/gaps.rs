//! From the commit to the consumer, while many writers leave gaps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use reflex_core::Event;
use sqlx::{MySql, Postgres};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::latency::{QUANTILES, quantile_ids};
use crate::{
    backend::{Backend, Db},
    bench::Bench,
    latency::{Latencies, Quantiles, now},
    measure::alone,
    report::{Requirement, Row, Unit},
    specs::follow,
    writer::Writer,
};

const WRITERS: u64 = 32;
/// One of so many transactions is rolled back.
const ROLLED_BACK: u64 = 10;
const SECONDS: f64 = 3.0;
const PATIENCE: Duration = Duration::from_secs(60);
/// More than can be inserted in the time.
const MOST: usize = 1_000_000;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    under_fire::<Postgres>(bench, 50.0)?;
    under_fire::<MySql>(bench, 200.0)
}

fn under_fire<D: Backend>(bench: &Bench, bound: f64) -> Result<()> {
    let ids = quantile_ids(&format!("gaps/{}", D::KEY));
    bench.with_database::<D>(&ids, async |db| {
        let seconds = bench.seconds(SECONDS);
        let runs = alone(bench.runs(), async || fire(&db, seconds).await).await?;
        let what = format!("{}: commit to consumer, {WRITERS} writers, a tenth rolled back", D::TITLE);
        for (id, (at, of)) in ids.iter().zip(QUANTILES) {
            let row = Row::new(id, format!("{what}, {at}"), Unit::Milliseconds, &of(&runs));
            bench.add(if at == "p99" { row.required(Requirement::Below(bound)) } else { row });
        }
        Ok(())
    })
}

/// When each event was committed and when it arrived, by its number; 0 if it was not.
struct Board {
    committed: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
    next: AtomicU64,
    delivered: AtomicU64,
}

impl Board {
    fn new() -> Self {
        let zeros = || (0..MOST).map(|_| AtomicU64::new(0)).collect();
        Self { committed: zeros(), arrived: zeros(), next: AtomicU64::new(0), delivered: AtomicU64::new(0) }
    }

    fn draw(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn arrive(&self, event: &Event) -> Result<(), reflex_core::HandlerError> {
        let order: Order = event.metadata_json()?;
        self.arrived[order.order].store(now(), Ordering::Relaxed);
        self.delivered.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn quantiles(&self) -> Result<Quantiles> {
        let mut latencies = Latencies::new()?;
        for (committed, arrived) in self.committed.iter().zip(&self.arrived) {
            match (committed.load(Ordering::Relaxed), arrived.load(Ordering::Relaxed)) {
                (0, _) | (_, 0) => {}
                (committed, arrived) => latencies.record(committed, arrived)?,
            }
        }
        Ok(latencies.quantiles())
    }
}

#[derive(serde::Deserialize)]
struct Order {
    order: usize,
}

async fn fire<D: Backend>(db: &Db<D>, seconds: f64) -> Result<Quantiles> {
    let table = db.empty("fire").await?;
    let (events, board) = (db.open(table.as_str().into()).await?, Arc::new(Board::new()));
    let mut reader = JoinSet::new();
    {
        let (events, board) = (events.clone(), board.clone());
        let arrive = move |event: Event| std::future::ready(board.arrive(&event));
        reader.spawn(async move { follow(events, 0, arrive).await });
    }
    let writer = Writer::Ours(events);
    writer.warm_up(&db.pool, WRITERS).await?;
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(db.pool.clone(), writer.clone(), board.clone(), until));
    }
    let mut committed = 0;
    while let Some(ended) = writers.join_next().await {
        committed += ended??;
    }
    let delivered = timeout(PATIENCE, async {
        while board.delivered.load(Ordering::Acquire) < committed {
            if let Some(ended) = reader.try_join_next() {
                ended??;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    });
    delivered.await.context("wait for all events")??;
    board.quantiles()
}

/// Returns how many events it committed.
async fn write<D: Backend>(pool: sqlx::Pool<D>, writer: Writer<D>, board: Arc<Board>, until: Instant) -> Result<u64> {
    let mut committed = 0;
    while Instant::now() < until {
        let number = board.draw();
        if number.is_multiple_of(ROLLED_BACK) {
            writer.roll_back(&pool, number).await?;
        } else {
            let at = writer.insert(&pool, number).await?;
            board.committed[number as usize].store(at, Ordering::Relaxed);
            committed += 1;
        }
    }
    Ok(committed)
}
