use std::{
    io::{self, Write},
    pin::pin,
};

use anyhow::Result;
use chrono::SecondsFormat;
use futures_util::{FutureExt, Stream, StreamExt};
use reflex_core::{Event, Start, StreamOptions};
use reflex_sql::{Dialect, EventsTable};
use sqlx::Pool;

use crate::{
    args::TailArgs,
    database::{Database, with_pool},
    exit::Absent,
    ndjson::write_event,
    output::Output,
    place::Access,
    table::printable,
};

/// Prints events, for ever or to the head.
pub(crate) async fn run(args: TailArgs, output: &mut Output) -> Result<()> {
    let database = Database::connect(&args.database.database_url, Access::Read).await?;
    with_pool!(database, pool => tail(pool, &args, output))
}

async fn tail<D: Dialect>(pool: &Pool<D>, args: &TailArgs, output: &mut Output) -> Result<()> {
    let table = EventsTable::open(pool, args.table.name.as_str()).await?;
    let printed = match table.open_stream(options(args)).await {
        Ok(opened) => print(opened.events, if args.json { write_event } else { write_text }, output).await,
        Err(error) => Err(error.into()),
    };
    // What came before an error is output too.
    let flushed = output.flush().await;
    match (printed, args.after) {
        (Err(error), Some(after)) if is_ahead(&error) => Err(explain_ahead(&table, after).await?),
        (printed, _) => printed.and(flushed),
    }
}

fn is_ahead(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|error| error.downcast_ref()).any(reflex_sql::Error::is_cursor_ahead)
}

/// The error itself tells what to do about a stored cursor, and there is none.
async fn explain_ahead<D: Dialect>(table: &EventsTable<D>, after: i64) -> Result<anyhow::Error> {
    let highest = table.head().await?.unwrap_or(0);
    let ahead = format!("--after {after} is ahead of the table, whose highest id so far is {highest}");
    Ok(Absent(format!("{ahead}: use that or a lower one")).into())
}

fn options(args: &TailArgs) -> StreamOptions {
    let start = match args.after {
        Some(id) => Start::After(id.into()),
        None if args.from_head => Start::Head,
        None => Start::Beginning,
    };
    let options = StreamOptions::new().starting(start);
    if args.to_head { options.to_head() } else { options }
}

/// Prints the events of a stream until its head or an error; nothing stays unprinted while it waits.
async fn print(
    events: impl Stream<Item = reflex_core::Result<Event>>,
    write: fn(&mut Vec<u8>, &Event) -> io::Result<()>,
    output: &mut Output,
) -> Result<()> {
    let mut events = pin!(events);
    loop {
        let next = match events.next().now_or_never() {
            Some(next) => next,
            None => {
                if !output.is_flushed() {
                    output.flush().await?;
                }
                events.next().await
            }
        };
        match next {
            Some(Ok(event)) => output.with(|line| write(line, &event)).await?,
            Some(Err(error)) if error.is_head_reached() => return Ok(()),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

/// A line for people.
fn write_text(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    let timestamp = event.timestamp().to_rfc3339_opts(SecondsFormat::Millis, true);
    let foreign_id = printable(event.foreign_id());
    let metadata = printable(&String::from_utf8_lossy(event.metadata()));
    write!(line, "{}  {timestamp}  type {}  {foreign_id}  {metadata}", event.id(), event.event_type())?;
    line.truncate(line.trim_ascii_end().len());
    Ok(())
}
