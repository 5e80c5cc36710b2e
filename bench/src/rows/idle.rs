//! What a hundred consumers cost while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reflex_core::{BufferedCursors, Event, Spec, consumer_fn, run};
use reflex_sql::EventsTableOptions;
use sqlx::{MySql, Postgres};
use tokio::{select, sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    backend::{Backend, Db},
    bench::Bench,
    measure::{Sample, Stopwatch, alone},
    report::{Requirement, Row, Unit},
    specs::{fresh_name, metrics},
};

const CONSUMERS: usize = 100;
const EVENTS: u64 = 1_000;
/// How long nothing happens, in seconds.
const WINDOW: f64 = 20.0;
/// Longer than a stream has to be quiet until delayed cursors are written.
const CALM: Duration = Duration::from_secs(1);

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    at_head::<Postgres>(bench)?;
    at_head::<MySql>(bench)
}

fn at_head<D: Backend>(bench: &Bench) -> Result<()> {
    let ids = [format!("idle/{}", D::KEY), format!("idle/{}/cpu", D::KEY)];
    bench.with_database::<D>(&ids, async |db| {
        let table = db.filled(bench.size(EVENTS)).await?;
        let window = bench.seconds(WINDOW);
        let runs = alone(1, async || idle(&db, &table, window).await).await?;
        let queries: Vec<_> = runs.iter().filter_map(|run| run.queries).collect();
        let [queries_id, cpu_id] = &ids;
        if !queries.is_empty() {
            let what = format!("{}: {CONSUMERS} consumers at the head, queries per poll interval", D::TITLE);
            bench.add(Row::new(queries_id, what, Unit::Queries, &queries).required(Requirement::AtMost(2.0)));
        }
        let what = format!("{}: {CONSUMERS} consumers at the head, share of a core", D::TITLE);
        let cpu: Vec<_> = runs.iter().map(|run| run.cpu).collect();
        bench.add(Row::new(cpu_id, what, Unit::Percent, &cpu).required(Requirement::Below(1.0)));
        Ok(())
    })
}

struct Idle {
    /// `None` where the server does not count them.
    queries: Option<Sample>,
    cpu: Sample,
}

async fn idle<D: Backend>(db: &Db<D>, table: &str, window: f64) -> Result<Idle> {
    let counted = db.counted().await?;
    let (events, cursors) = (counted.open(table.into()).await?, counted.cursors().await?);
    let (arrived, mut arrivals) = mpsc::channel(CONSUMERS);
    let mut tasks = JoinSet::new();
    let head = events.head().await?.context("the table has events")?;
    for _ in 0..CONSUMERS {
        let arrived = arrived.clone();
        let consumer = consumer_fn(fresh_name(), move |event: Event| {
            let arrived = arrived.clone();
            async move {
                if event.id_as_i64()? == head {
                    arrived.send(()).await?;
                }
                Ok(())
            }
        });
        let mut spec = Spec::new(events.clone(), BufferedCursors::new(cursors.clone()), consumer).metrics(&metrics()?);
        tasks.spawn(async move { run(&mut spec).await });
    }
    for _ in 0..CONSUMERS {
        select! {
            _ = arrivals.recv() => {}
            Some(ended) = tasks.join_next() => {
                let Err(end) = ended?;
                return Err(end.into());
            }
        }
    }
    let calm = watch_calm(db, window).await;
    ensure!(tasks.try_join_next().is_none(), "a consumer ended while it was idle");
    calm
}

async fn watch_calm<D: Backend>(db: &Db<D>, window: f64) -> Result<Idle> {
    sleep(CALM).await;
    let mut observer = db.pool.acquire().await?;
    let before = D::queries(&mut observer).await?;
    let watch = Stopwatch::start();
    sleep(Duration::from_secs_f64(window)).await;
    let (wall, cpu) = watch.elapsed();
    let after = D::queries(&mut observer).await?;
    let intervals = wall / EventsTableOptions::DEFAULT_POLL_INTERVAL.as_secs_f64();
    let queries = before.zip(after).map(|(before, after)| ((after - before) as f64 / intervals).into());
    Ok(Idle { queries, cpu: (cpu / wall * 100.0).into() })
}
