//! One consumer from the beginning to the head.

use std::{hint::black_box, process::Stdio};

use anyhow::{Context, Result, ensure};
use reflex_core::BufferedCursors;
use reflex_sql::EventsTableOptions;
use sqlx::{MySql, Postgres, Sqlite};
use tokio::process::Command;

use crate::{
    backend::{Backend, Db},
    bench::Bench,
    measure::{Sample, Stopwatch, in_turns},
    report::{Requirement, Row, Unit},
    specs::{idle_consumer, in_task, metrics, run_to_head},
};

const ROWS: u64 = 1_000_000;
const PAGES: [u32; 2] = [10_000, 1_000];

pub(crate) fn rows(bench: &Bench) -> Result<()> {
    by_pages::<Postgres>(bench)?;
    by_pages::<MySql>(bench)?;
    by_pages::<Sqlite>(bench)?;
    back_fill(bench)
}

/// Beside a loop that reads pages of the same size with sqlx, and does nothing else.
fn by_pages<D: Backend>(bench: &Bench) -> Result<()> {
    for page in PAGES {
        let id = format!("read/{}/{page}", D::KEY);
        bench.with_database::<D>(&[&id], async |db| {
            let rows = bench.size(ROWS);
            let table = db.filled(rows).await?;
            let options = EventsTableOptions::new(&table).page_size(page);
            let turns = in_turns(
                bench.runs(),
                async || bare(&db, &table, rows, page).await,
                async || consumer(&db, options.clone(), rows).await,
            );
            let turns = turns.await?;
            let what = format!("{}: one consumer to the head, pages of {page}", D::TITLE);
            let row = Row::new(&id, what, Unit::PerSecond, &turns.ours);
            bench.add(row.beside("a loop with sqlx", &turns.reference).required(Requirement::RatioOf(0.9)));
            Ok(())
        })?;
    }
    Ok(())
}

/// With the options as they are, beside the fastest way there is to get rows out of Postgres.
fn back_fill(bench: &Bench) -> Result<()> {
    let id = "back-fill/postgres";
    bench.with_database::<Postgres>(&[id], async |db| {
        let rows = bench.size(ROWS);
        let table = db.filled(rows).await?;
        let turns = in_turns(
            bench.runs(),
            async || copy(&db, &table, rows).await,
            async || consumer(&db, EventsTableOptions::new(&table), rows).await,
        );
        let turns = turns.await?;
        let row = Row::new(id, "Postgres: one consumer through a long backlog", Unit::PerSecond, &turns.ours);
        bench.add(row.beside("binary `COPY` by psql", &turns.reference).required(Requirement::RatioOf(0.75)));
        Ok(())
    })
}

async fn consumer<D: Backend>(db: &Db<D>, options: EventsTableOptions, rows: u64) -> Result<Sample> {
    let (events, cursors, metrics) = (db.open(options).await?, BufferedCursors::new(db.cursors().await?), metrics()?);
    let watch = Stopwatch::start();
    let run = async move { run_to_head(events, cursors, idle_consumer(), &metrics, rows).await };
    in_task(run).await?;
    Ok(watch.stop(rows))
}

async fn bare<D: Backend>(db: &Db<D>, table: &str, rows: u64, page: u32) -> Result<Sample> {
    let (mut conn, table) = (db.pool.acquire().await?, table.to_owned());
    let watch = Stopwatch::start();
    let read = async move {
        let (mut after, mut count) = (0, 0);
        loop {
            let events = D::page(&mut conn, &table, after, page).await?;
            let Some(last) = events.last() else { return anyhow::Ok(count) };
            after = last.id;
            count += events.len() as u64;
            black_box(events);
        }
    };
    let count = in_task(read).await?;
    ensure!(count == rows, "the loop read {count} rows of {rows}");
    Ok(watch.stop(rows))
}

async fn copy(db: &Db<Postgres>, table: &str, rows: u64) -> Result<Sample> {
    let columns = "id, foreign_id, timestamp, type, metadata, trace";
    let copy = format!("copy (select {columns} from {table} order by id) to stdout (format binary)");
    let watch = Stopwatch::start();
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", &db.url, "--command", &copy]).stdout(Stdio::null());
    let status = psql.status().await.context("run psql")?;
    ensure!(status.success(), "psql failed: {status}");
    // What psql itself spends is not ours to count.
    Ok(watch.stop(rows).value.into())
}
