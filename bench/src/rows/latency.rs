//! From the commit to the consumer, one event at a time.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use reflex_sql::EventsTable;
use sqlx::{MySql, Pool, Postgres};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    backend::{Backend, Db},
    bench::Bench,
    child::{Child, Follower},
    latency::{Latencies, Quantiles, now},
    measure::{Sample, alone, in_turns},
    report::{Requirement, Row, Unit},
    specs::tell_arrivals,
    writer::Writer,
};

const SECONDS: f64 = 3.0;
/// Between two events, so that readers find nothing and go to sleep.
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than the time in which hints to other processes are put together.
const PAUSE_BETWEEN_HINTS: Duration = Duration::from_millis(20);
/// Events that do not count, because connections are made and statements prepared.
const WARM_UP: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const ROWS_AT_ONCE: u32 = 100;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    in_process::<Postgres>(bench)?;
    in_process::<MySql>(bench)?;
    across::<Postgres>(bench)?;
    across::<MySql>(bench)
}

/// Beside the least that somebody would write: a `Notify`, and a task that reads when it is woken.
fn in_process<D: Backend>(bench: &Bench) -> Result<()> {
    let ids = quantile_ids(&format!("latency/in-process/{}", D::KEY));
    bench.with_database::<D>(&ids, async |db| {
        let table = db.empty("latencies").await?;
        let seconds = bench.seconds(SECONDS);
        let turns = in_turns(
            bench.runs(),
            async || {
                let (wake, head) = (Arc::<Notify>::default(), head(&db.open(table.as_str().into()).await?).await?);
                let writer = Writer::Bare { table: table.clone(), wake: wake.clone() };
                let arrivals = Arrivals::of(|to| bare_reader(db.pool.clone(), table.clone(), head, wake, to));
                one_by_one(&db, &writer, arrivals, PAUSE, seconds).await
            },
            async || {
                let events = db.open(table.as_str().into()).await?;
                let head = head(&events).await?;
                let arrivals = Arrivals::of(|to| tell_arrivals(events.clone(), head, to));
                one_by_one(&db, &Writer::Ours(events), arrivals, PAUSE, seconds).await
            },
        );
        let turns = turns.await?;
        let what = format!("{}: commit to consumer, one process", D::TITLE);
        for (id, (at, of)) in ids.iter().zip(QUANTILES) {
            let row = Row::new(id, format!("{what}, {at}"), Unit::Milliseconds, &of(&turns.ours));
            let row = row.beside("a loop with `Notify` and sqlx", &of(&turns.reference));
            bench.add(if D::KEY == Postgres::KEY && at == "p50" { row.required(Requirement::Above(0.2)) } else { row });
        }
        Ok(())
    })
}

type Of = fn(&[Quantiles]) -> Vec<Sample>;
pub(super) const QUANTILES: [(&str, Of); 2] = [("p50", Quantiles::p50), ("p99", Quantiles::p99)];

/// The ids of the rows of one measurement.
pub(super) fn quantile_ids(id: &str) -> [String; 2] {
    QUANTILES.map(|(at, _)| format!("{id}/{at}"))
}

/// To a consumer in another process.
fn across<D: Backend>(bench: &Bench) -> Result<()> {
    let ids = quantile_ids(&format!("latency/processes/{}", D::KEY));
    bench.with_database::<D>(&ids, async |db| {
        let table = db.empty("latencies").await?;
        let seconds = bench.seconds(SECONDS);
        let runs = alone(bench.runs(), async || {
            let events = db.open(table.as_str().into()).await?;
            let follower = Follower { url: db.url.clone(), table: table.clone(), after: head(&events).await? };
            let arrivals = Arrivals::of(|to| Child::Follow(follower).forward(bench.program().to_owned(), to));
            one_by_one(&db, &Writer::Ours(events), arrivals, PAUSE_BETWEEN_HINTS, seconds).await
        });
        let runs = runs.await?;
        let what = format!("{}: commit to consumer in another process", D::TITLE);
        for ((id, (at, of)), bound) in ids.iter().zip(QUANTILES).zip([5.0, 20.0]) {
            let row = Row::new(id, format!("{what}, {at}"), Unit::Milliseconds, &of(&runs));
            bench.add(if D::KEY == Postgres::KEY { row.required(Requirement::Below(bound)) } else { row });
        }
        Ok(())
    })
}

async fn head<D: Backend>(events: &EventsTable<D>) -> Result<i64> {
    Ok(events.head().await?.unwrap_or(0))
}

/// When events arrived at a reader, which runs as long as this lives.
struct Arrivals {
    times: mpsc::Receiver<u64>,
    reader: JoinSet<Result<()>>,
}

impl Arrivals {
    fn of<F>(reader: impl FnOnce(mpsc::Sender<u64>) -> F) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (sender, times) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(reader(sender));
        Self { times, reader: tasks }
    }

    async fn next(&mut self) -> Result<u64> {
        let arrived = timeout(PATIENCE, self.times.recv()).await.context("wait for an event")?;
        match (arrived, self.reader.try_join_next()) {
            (Some(arrived), _) => Ok(arrived),
            (None, Some(ended)) => ended?.and_then(|()| anyhow::bail!("the reader ended")),
            (None, None) => anyhow::bail!("the reader tells no more"),
        }
    }
}

async fn one_by_one<D: Backend>(
    db: &Db<D>,
    writer: &Writer<D>,
    mut arrivals: Arrivals,
    pause: Duration,
    seconds: f64,
) -> Result<Quantiles> {
    let mut latencies = Latencies::new()?;
    for number in 0..WARM_UP {
        writer.insert(&db.pool, number).await?;
        arrivals.next().await?;
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < until {
        sleep(pause).await;
        let committed = writer.insert(&db.pool, WARM_UP).await?;
        latencies.record(committed, arrivals.next().await?)?;
    }
    Ok(latencies.quantiles())
}

async fn bare_reader<D: Backend>(
    pool: Pool<D>,
    table: String,
    mut after: i64,
    wake: Arc<Notify>,
    arrived: mpsc::Sender<u64>,
) -> Result<()> {
    let mut conn = pool.acquire().await?;
    loop {
        wake.notified().await;
        for event in D::page(&mut conn, &table, after, ROWS_AT_ONCE).await? {
            after = event.id;
            arrived.send(now()).await?;
        }
    }
}
