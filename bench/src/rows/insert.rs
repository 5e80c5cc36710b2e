//! Inserting, in bulk and by many writers at once.

use anyhow::Result;
use reflex_core::NewEvent;
use reflex_sql::{EventsTable, EventsTableOptions};
use sqlx::{MySql, Postgres, Sqlite};
use tokio::task::JoinSet;

use crate::{
    backend::{Backend, Db, NewRow},
    bench::Bench,
    measure::{Sample, Stopwatch, Turns, in_turns},
    report::{Requirement, Row, Unit},
    writer::Writer,
};

const BULK: u64 = 1_000;
const STATEMENTS: u64 = 100;
/// Inserts of each of so many writers.
const WRITERS: [(u64, u64); 3] = [(1, 1_000), (8, 500), (32, 250)];

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    bulk::<Postgres>(bench)?;
    bulk::<MySql>(bench)?;
    bulk::<Sqlite>(bench)?;
    single::<Postgres>(bench)?;
    single::<MySql>(bench)?;
    wake_ups(bench)
}

fn bulk<D: Backend>(bench: &Bench) -> Result<()> {
    let id = format!("insert/{}/bulk", D::KEY);
    bench.with_database::<D>(&[&id], async |db| {
        let table = db.empty("inserts").await?;
        let (statements, events) = (bench.size(STATEMENTS), db.open(table.as_str().into()).await?);
        let turns = in_turns(
            bench.runs(),
            async || bulk_bare(&db, &table, statements).await,
            async || bulk_ours(&db, &events, statements).await,
        );
        let turns = turns.await?;
        let what = format!("{}: events inserted, {BULK} per transaction", D::TITLE);
        let row = Row::new(&id, what, Unit::PerSecond, &turns.ours).beside("one statement with sqlx", &turns.reference);
        bench.add(if D::KEY == Postgres::KEY { row.required(Requirement::RatioOf(0.9)) } else { row });
        Ok(())
    })
}

async fn bulk_ours<D: Backend>(db: &Db<D>, events: &EventsTable<D>, statements: u64) -> Result<Sample> {
    let watch = Stopwatch::start();
    for statement in 0..statements {
        let rows = numbered(statement).map(NewEvent::from);
        let mut tx = db.pool.begin().await?;
        let notify = events.insert_all(&mut tx, rows).await?;
        tx.commit().await?;
        notify.send();
    }
    Ok(watch.stop(statements * BULK))
}

async fn bulk_bare<D: Backend>(db: &Db<D>, table: &str, statements: u64) -> Result<Sample> {
    let watch = Stopwatch::start();
    for statement in 0..statements {
        let mut tx = db.pool.begin().await?;
        D::insert_many(&mut tx, table, numbered(statement).collect()).await?;
        tx.commit().await?;
    }
    Ok(watch.stop(statements * BULK))
}

fn numbered(statement: u64) -> impl Iterator<Item = NewRow> {
    (statement * BULK..(statement + 1) * BULK).map(NewRow::numbered)
}

fn single<D: Backend>(bench: &Bench) -> Result<()> {
    for (writers, each) in WRITERS {
        let id = format!("insert/{}/{writers}", D::KEY);
        bench.with_database::<D>(&[&id], async |db| {
            let table = db.empty("inserts").await?;
            let events = db.open(EventsTableOptions::new(&table).without_wake_ups()).await?;
            let turns = beside(bench, &db, Writer::bare(table), Writer::Ours(events), writers, each).await?;
            let what = format!("{}: {writers} writers, a transaction per event, no wake-ups", D::TITLE);
            let row = Row::new(&id, what, Unit::PerSecond, &turns.ours);
            bench.add(row.beside("the same with sqlx", &turns.reference));
            Ok(())
        })?;
    }
    Ok(())
}

/// While somebody listens in another pool, as another process would.
fn wake_ups(bench: &Bench) -> Result<()> {
    let id = "insert/postgres/wake-ups";
    bench.with_database::<Postgres>(&[id], async |db| {
        let table = db.empty("inserts").await?;
        let with = db.open(table.as_str().into()).await?;
        let without = db.open(EventsTableOptions::new(&table).without_wake_ups()).await?;
        let [.., (writers, each)] = WRITERS;
        let turns = beside(bench, &db, Writer::Ours(without), Writer::Ours(with), writers, each).await?;
        let what = format!("Postgres: {writers} writers, a transaction per event, wake-ups across processes");
        let row = Row::new(id, what, Unit::PerSecond, &turns.ours);
        bench.add(row.beside("the same without", &turns.reference).required(Requirement::RatioOf(0.95)));
        Ok(())
    })
}

async fn beside<D: Backend>(
    bench: &Bench,
    db: &Db<D>,
    reference: Writer<D>,
    ours: Writer<D>,
    writers: u64,
    each: u64,
) -> Result<Turns> {
    let each = bench.size(each);
    let together = async |writer: &Writer<D>| together(db, writer, writers, each).await;
    in_turns(bench.runs(), async || together(&reference).await, async || together(&ours).await).await
}

async fn together<D: Backend>(db: &Db<D>, writer: &Writer<D>, writers: u64, each: u64) -> Result<Sample> {
    let watch = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (pool, writer) = (db.pool.clone(), writer.clone());
        tasks.spawn(async move {
            for number in 0..each {
                writer.insert(&pool, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(watch.stop(writers * each))
}
