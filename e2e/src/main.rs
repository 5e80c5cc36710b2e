//! A second process for the end-to-end tests: it writes to an events table, or consumes it, and tells what it did on its
//! standard output, one line per event. The tests kill it at random.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail};
use reflex_core::{BufferedCursors, Event, Spec, consumer_fn, run};
use reflex_e2e::{Backend, Workload};
use reflex_sql::{CursorsTable, EventsTable, EventsTableOptions};
use sqlx::{MySql, Postgres};
use tokio::{
    io::{AsyncWriteExt, stdout},
    sync::mpsc,
};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [url, rest @ ..] if url.starts_with("postgres:") => act::<Postgres>(url, rest).await,
        [url, rest @ ..] if url.starts_with("mysql:") => act::<MySql>(url, rest).await,
        _ => bail!("usage: reflex-e2e URL write SEED FIRST LAST SECONDS ROWS_PER_SECOND | URL consume NAME"),
    }
}

async fn act<D: Backend>(url: &str, args: &[&str]) -> Result<()> {
    match args {
        ["write", numbers @ ..] => {
            let numbers: Vec<u64> = numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>()?;
            let &[seed, first, last, seconds, rows_per_second] = numbers.as_slice() else { bail!("5 numbers, please") };
            let workload = Workload {
                seed,
                writers: u32::try_from(first)?..u32::try_from(last)?,
                duration: Duration::from_secs(seconds),
                rows_per_second,
                slow_per_mille: 50,
                duplicates_allowed: false,
            };
            write::<D>(url, workload).await
        }
        ["consume", name] => consume::<D>(url, name).await,
        other => bail!("unknown arguments {other:?}"),
    }
}

async fn write<D: Backend>(url: &str, workload: Workload) -> Result<()> {
    let pool = D::pool(url)?;
    let table = EventsTable::<D>::open(&pool, "events").await?;
    let (committed, mut told) = mpsc::channel::<Vec<i64>>(1_000);
    let tell = async {
        while let Some(foreign_ids) = told.recv().await {
            let lines: String = foreign_ids.iter().map(|id| format!("{id}\n")).collect();
            say(&lines).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(workload.run(&pool, &table, committed), tell).map(drop)
}

async fn consume<D: Backend>(url: &str, name: &str) -> Result<()> {
    let pool = D::pool(url)?;
    let table =
        EventsTable::<D>::open(&pool, EventsTableOptions::new("events").poll_interval(Duration::from_millis(50)));
    let cursors = CursorsTable::<D>::open(&pool, "cursors").await?;
    let consumer = consumer_fn(name, |event: Event| async move {
        let line = format!("{} {}\n", event.id(), event.foreign_id());
        say(&line).await.map_err(reflex_core::HandlerError::new)
    });
    let mut spec = Spec::new(table.await?, BufferedCursors::new(cursors).max_sets(20), consumer);
    let Err(error) = run(&mut spec).await;
    Err(error).context("consume")
}

async fn say(lines: &str) -> Result<()> {
    let mut stdout = stdout();
    stdout.write_all(lines.as_bytes()).await?;
    Ok(stdout.flush().await?)
}
