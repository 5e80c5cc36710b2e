//! A second process for the end-to-end tests: it writes to an events table, or consumes it, and tells what it did on its
//! standard output, one line per event. The tests kill it at random.

use std::{env, error::Error as _, future::pending, io::Write, time::Duration};

use anyhow::{Context, Result, bail};
use reflex_core::{BufferedCursors, Event, HandlerError, Spec, consumer_fn, run};
use reflex_e2e::{Backend, Workload, begin_with_rows, write_effects};
use reflex_sql::{CursorsTable, EventsTable, EventsTableOptions, TransactionalCursors};
use rpatterns::{Key, batch, keyed_lanes};
use sqlx::{MySql, Postgres, Sqlite};
use tokio::{
    io::{AsyncWriteExt, stdout},
    sync::mpsc,
    task::yield_now,
    time::sleep,
};

/// What a handler says when it fails at random.
const ON_PURPOSE: &str = "on purpose";

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [url, rest @ ..] if url.starts_with("postgres:") => Box::pin(act::<Postgres>(url, rest)).await,
        [url, rest @ ..] if url.starts_with("mysql:") => Box::pin(act::<MySql>(url, rest)).await,
        [url, rest @ ..] if url.starts_with("sqlite:") => Box::pin(act::<Sqlite>(url, rest)).await,
        _ => bail!(
            "usage: reflex-e2e URL write SEED FIRST LAST SECONDS ROWS_PER_SECOND | URL hold FIRST ROWS | \
                   URL consume NAME EVENTS | URL lanes NAME LANES WINDOW | URL transact NAME LENGTH"
        ),
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
                survives: false,
            };
            write::<D>(url, workload).await
        }
        ["hold", first, rows] => hold::<D>(url, first.parse()?, rows.parse()?).await,
        ["consume", name, events] => consume::<D>(url, name, events.parse()?).await,
        ["lanes", name, lanes, window] => consume_in_lanes::<D>(url, name, lanes.parse()?, window.parse()?).await,
        ["transact", name, length] => transact::<D>(url, name, length.parse()?).await,
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

/// Inserts events, says the id of the first, and never ends the transaction.
async fn hold<D: Backend>(url: &str, first: i64, rows: i64) -> Result<()> {
    let mut conn = D::connect(&D::pool(url)?).await?;
    let held = begin_with_rows::<D>(&mut conn, D::BEGIN, first..first + rows).await?;
    say_at_once(&format!("{held}\n"))?;
    pending().await
}

/// Consumes so many events. The handler of the one after them says that it has begun, and never ends.
async fn consume<D: Backend>(url: &str, name: &str, events: u64) -> Result<()> {
    let (table, cursors) = open::<D>(url).await?;
    let mut left = events;
    let consumer = consumer_fn(name, |event: Event| {
        let begun = left.checked_sub(1);
        left = begun.unwrap_or_default();
        async move {
            if begun.is_none() {
                say_at_once("begun\n")?;
                return pending().await;
            }
            let line = format!("{} {}\n", event.id(), event.foreign_id());
            say(&line).await.map_err(HandlerError::new)
        }
    });
    let mut spec = Spec::new(table, BufferedCursors::new(cursors).max_sets(20), consumer);
    let Err(error) = run(&mut spec).await;
    Err(error).context("consume")
}

/// Consumes in lanes whose handlers take their time and fail now and then, and says which event is done, and when a run ended.
async fn consume_in_lanes<D: Backend>(url: &str, name: &str, lanes: usize, window: usize) -> Result<()> {
    let (table, cursors) = open::<D>(url).await?;
    let consumer = keyed_lanes(lanes, Key::by_foreign_id(), consumer_fn(name, handle_or_fail)).window(window);
    let mut spec = Spec::new(table, cursors, consumer);
    loop {
        let Err(error) = run(&mut spec).await;
        if error.source().is_none_or(|cause| cause.to_string() != ON_PURPOSE) {
            return Err(error).context("consume in lanes");
        }
        say_at_once("failed\n")?;
    }
}

async fn handle_or_fail(event: Event) -> Result<(), HandlerError> {
    match rand::random_range(0..2_000) {
        0 => return Err(HandlerError::new(ON_PURPOSE)),
        1..200 => sleep(Duration::from_millis(rand::random_range(0..3))).await,
        200..400 => yield_now().await,
        _ => {}
    }
    Ok(say_at_once(&format!("{} {}\n", event.id(), event.foreign_id()))?)
}

/// Consumes batches exactly once. Says the last id of each before its commit, and goes on after another runner was found.
async fn transact<D: Backend>(url: &str, name: &str, length: usize) -> Result<()> {
    let (table, cursors) = open::<D>(url).await?;
    let cursors = TransactionalCursors::new(cursors);
    let consumer = cursors.consumer(name, |mut tx, events: Vec<Event>| async move {
        write_effects::<D>(&mut tx, &events).await?;
        let last = events.last().map(|event| event.id().to_string());
        Ok(say_at_once(&format!("{}\n", last.unwrap_or_default()))?)
    });
    let mut spec = Spec::new(table, cursors, batch(length, Duration::from_millis(50), consumer));
    loop {
        let Err(error) = run(&mut spec).await;
        if !error.is_fenced() {
            return Err(error).context("consume exactly once");
        }
        say_at_once("fenced\n")?;
    }
}

async fn open<D: Backend>(url: &str) -> Result<(EventsTable<D>, CursorsTable<D>)> {
    let pool = D::pool(url)?;
    let options = EventsTableOptions::new("events").poll_interval(Duration::from_millis(50));
    Ok((EventsTable::open(&pool, options).await?, CursorsTable::open(&pool, "cursors").await?))
}

/// Says it before anything else happens, so that no line is on its way when a handler is dropped.
fn say_at_once(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

async fn say(lines: &str) -> Result<()> {
    let mut stdout = stdout();
    stdout.write_all(lines.as_bytes()).await?;
    Ok(stdout.flush().await?)
}
