//! Cursors that move with the effects, and cursors that move with each event.

use std::{hint::black_box, time::Duration};

use anyhow::Result;
use reflex_core::{CursorStore, Event};
use reflex_sql::{TransactionalCursors, Tx};
use rpatterns::batch;
use sqlx::{MySql, Postgres, Sqlite};

use crate::{
    backend::{Backend, Db},
    bench::Bench,
    measure::{Sample, Stopwatch, in_turns},
    report::{Requirement, Row, Unit},
    specs::{fresh_name, idle_named, metrics, run_to_head},
};

const BATCH: usize = 100;
/// What is handled in batches, and one by one.
const EVENTS: [u64; 2] = [100_000, 1_000];
const PAGE: u32 = 10_000;

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    each_way::<Postgres>(bench)?;
    each_way::<MySql>(bench)?;
    each_way::<Sqlite>(bench)
}

fn each_way<D: Backend>(bench: &Bench) -> Result<()> {
    for way in [Way::Batches, Way::BatchesWithEffect, Way::Events, Way::CursorPerEvent] {
        let id = format!("{}/{}", way.id(), D::KEY);
        bench.with_database::<D>(&[&id], async |db| {
            let rows = bench.size(way.events());
            let table = db.filled(rows).await?;
            let turns = in_turns(
                bench.runs(),
                async || bare(&db, &table, way, rows).await,
                async || ours(&db, &table, way, rows).await,
            );
            let turns = turns.await?;
            let row = Row::new(&id, format!("{}: {}", D::TITLE, way.title()), Unit::PerSecond, &turns.ours);
            let row = row.beside("the same with sqlx", &turns.reference);
            let needed = way.is_required() && D::KEY == Postgres::KEY;
            bench.add(if needed { row.required(Requirement::AtLeast(1.5e5)) } else { row });
            Ok(())
        })?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Way {
    Batches,
    BatchesWithEffect,
    Events,
    CursorPerEvent,
}

impl Way {
    fn id(self) -> &'static str {
        match self {
            Self::Batches => "transactional/batches",
            Self::BatchesWithEffect => "transactional/batches-upsert",
            Self::Events => "transactional/events",
            Self::CursorPerEvent => "cursor-per-event",
        }
    }

    fn title(self) -> String {
        match self {
            Self::Batches => format!("transactional, batches of {BATCH}, no effect"),
            Self::BatchesWithEffect => format!("transactional, batches of {BATCH}, one upsert each"),
            Self::Events => "transactional, event by event".to_owned(),
            Self::CursorPerEvent => "plain consumer, a cursor written per event".to_owned(),
        }
    }

    fn is_required(self) -> bool {
        matches!(self, Self::Batches | Self::BatchesWithEffect)
    }

    /// How many events move the cursor once.
    fn step(self) -> usize {
        match self {
            Self::Batches | Self::BatchesWithEffect => BATCH,
            Self::Events | Self::CursorPerEvent => 1,
        }
    }

    fn events(self) -> u64 {
        EVENTS[usize::from(self.step() == 1)]
    }
}

async fn ours<D: Backend>(db: &Db<D>, table: &str, way: Way, rows: u64) -> Result<Sample> {
    let (events, cursors, metrics) = (db.open(table.into()).await?, db.cursors().await?, metrics()?);
    let (name, transactional) = (fresh_name(), TransactionalCursors::new(cursors.clone()));
    let store = transactional.clone();
    let watch = Stopwatch::start();
    match way {
        Way::Batches => {
            let nothing = transactional.consumer(name, |_tx: Tx<D>, _batch: Vec<Event>| async { Ok(()) });
            run_to_head(events, store, batch(BATCH, Duration::from_secs(1), nothing), &metrics, rows).await?;
        }
        Way::BatchesWithEffect => {
            let add = transactional.consumer(name, |mut tx: Tx<D>, batch: Vec<Event>| async move {
                Ok(D::add_to_total(&mut tx, account(batch[0].id_as_i64()?), batch.len() as i64).await?)
            });
            run_to_head(events, store, batch(BATCH, Duration::from_secs(1), add), &metrics, rows).await?;
        }
        Way::Events => {
            let nothing = transactional.consumer(name, |_tx: Tx<D>, _event: Event| async { Ok(()) });
            run_to_head(events, store, nothing, &metrics, rows).await?;
        }
        Way::CursorPerEvent => run_to_head(events, cursors, idle_named(name), &metrics, rows).await?,
    }
    Ok(watch.stop(rows))
}

/// What a service would write for it: pages, and for each step a transaction that moves the cursor.
async fn bare<D: Backend>(db: &Db<D>, table: &str, way: Way, rows: u64) -> Result<Sample> {
    let name = fresh_name();
    db.cursors().await?.set(&name, &0.into()).await?;
    let mut reader = db.pool.acquire().await?;
    let mut writer = db.pool.acquire().await?;
    let watch = Stopwatch::start();
    let mut after = 0;
    loop {
        let page = D::page(&mut reader, table, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for step in page.chunks(way.step()) {
            let cursor = black_box(step)[step.len() - 1].id;
            if matches!(way, Way::CursorPerEvent) {
                D::move_cursor(&mut writer, &name, cursor).await?;
                continue;
            }
            let mut tx = sqlx::Connection::begin(&mut *writer).await?;
            D::move_cursor(&mut tx, &name, cursor).await?;
            if matches!(way, Way::BatchesWithEffect) {
                D::add_to_total(&mut tx, account(cursor), step.len() as i64).await?;
            }
            tx.commit().await?;
        }
    }
    Ok(watch.stop(rows))
}

fn account(id: i64) -> i64 {
    id % 1_000
}
