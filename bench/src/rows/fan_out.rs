//! Many consumers on one table.

use std::{hint::black_box, sync::Arc};

use anyhow::{Result, anyhow};
use reflex_core::BufferedCursors;
use reflex_sql::EventsTableOptions;
use sqlx::{MySql, Postgres};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    backend::{Backend, BareEvent, Db},
    bench::Bench,
    measure::{Sample, Stopwatch, in_turns},
    report::{Requirement, Row, Unit},
    specs::{idle_consumer, metrics, run_to_head},
};

/// Events for all consumers together.
const EVENTS: u64 = 10_000_000;
const PAGE: u32 = 10_000;
/// Pages on their way to a consumer.
const QUEUE: usize = 4;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    for consumers in [10, 100] {
        together::<Postgres>(bench, consumers)?;
    }
    together::<MySql>(bench, 10)
}

/// From the beginning to the head, all at once.
fn together<D: Backend>(bench: &Bench, consumers: u64) -> Result<()> {
    let id = format!("fan-out/{}/{consumers}", D::KEY);
    bench.with_database::<D>(&[&id], async |db| {
        let rows = bench.size(EVENTS / consumers);
        let table = db.filled(rows).await?;
        let turns = in_turns(
            bench.runs(),
            async || bare(&db, &table, rows, consumers).await,
            async || ours(&db, &table, rows, consumers).await,
        );
        let turns = turns.await?;
        let what = format!("{}: {consumers} consumers from the beginning, in total", D::TITLE);
        let row = Row::new(&id, what, Unit::PerSecond, &turns.ours);
        let row = row.beside("one loop with sqlx that hands pages to as many tasks", &turns.reference);
        bench.add(if consumers == 10 { row.required(Requirement::AtLeast(5e6)) } else { row });
        Ok(())
    })
}

async fn ours<D: Backend>(db: &Db<D>, table: &str, rows: u64, consumers: u64) -> Result<Sample> {
    let (events, cursors) = (db.open(EventsTableOptions::new(table)).await?, db.cursors().await?);
    let metrics = metrics()?;
    let watch = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for _ in 0..consumers {
        let (events, cursors, metrics) = (events.clone(), BufferedCursors::new(cursors.clone()), metrics.clone());
        tasks.spawn(async move { run_to_head(events, cursors, idle_consumer(), &metrics, rows).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(watch.stop(rows * consumers))
}

async fn bare<D: Backend>(db: &Db<D>, table: &str, rows: u64, consumers: u64) -> Result<Sample> {
    let mut conn = db.pool.acquire().await?;
    let watch = Stopwatch::start();
    let mut tasks = JoinSet::new();
    let senders: Vec<_> = (0..consumers)
        .map(|_| {
            let (sender, pages) = mpsc::channel(QUEUE);
            tasks.spawn(take_all(pages));
            sender
        })
        .collect();
    let mut after = 0;
    loop {
        let page: Arc<[BareEvent]> = D::page(&mut conn, table, after, PAGE).await?.into();
        let Some(last) = page.last() else { break };
        after = last.id;
        for sender in &senders {
            sender.send(page.clone()).await.map_err(|_| anyhow!("a consumer ended early"))?;
        }
    }
    drop(senders);
    tasks.join_all().await;
    Ok(watch.stop(rows * consumers))
}

/// Looks at each event.
async fn take_all(mut pages: mpsc::Receiver<Arc<[BareEvent]>>) {
    while let Some(page) = pages.recv().await {
        for event in page.iter() {
            black_box(event.id);
        }
    }
}
