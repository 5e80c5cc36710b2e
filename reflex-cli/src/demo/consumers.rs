//! The three specs of the demo.

use anyhow::Result;
use reflex_core::{BoxSpec, BufferedCursors, CursorStore, Event, HandlerError, Metrics, Spec, consumer_fn};
use sqlx::SqlitePool;

use super::{
    authors::{self, author_totals},
    change::{Change, MERGE},
    data::Data,
};

const DAYS: &str = "commits-per-day";
const MERGES: &str = "merges";

/// The names of the consumers, in the order in which they are shown.
pub(crate) const NAMES: [&str; 3] = [authors::NAME, DAYS, MERGES];

/// The consumers with their stream and their cursors.
pub(crate) fn specs(data: &Data, metrics: &Metrics, to_head: bool) -> Vec<BoxSpec> {
    let (authors, cursors) = author_totals(data);
    let buffered = || BufferedCursors::new(data.cursors.clone());
    let (days, merges) = (data.writer.clone(), data.writer.clone());
    let days = consumer_fn(DAYS, move |event| note_day(days.clone(), event)).no_lag_alert();
    let merges = consumer_fn(MERGES, move |event| note_merge(merges.clone(), event))
        .filter(|event| Ok(event.is_type(MERGE)))
        .no_lag_alert();
    let specs = [
        Spec::new(data.events.clone(), cursors, authors).boxed(),
        Spec::new(data.events.clone(), buffered(), days).boxed(),
        Spec::new(data.events.clone(), buffered(), merges).boxed(),
    ];
    specs.map(|spec| if to_head { spec.to_head() } else { spec }.metrics(metrics)).into()
}

/// Notes the day of each event instead of adding to a sum, so that an event that is delivered a second time, as it may be
/// after a crash, changes nothing: the way to be exact without a transaction around the cursor.
async fn note_day(writer: SqlitePool, event: Event) -> Result<(), HandlerError> {
    let insert = "insert into commit_days (event_id, day) values (?, ?) on conflict do nothing";
    let day = event.timestamp().format("%Y-%m-%d").to_string();
    sqlx::query(insert).bind(event.id_as_i64()?).bind(day).execute(&writer).await?;
    Ok(())
}

/// Does nothing for an event that is delivered a second time either.
async fn note_merge(writer: SqlitePool, event: Event) -> Result<(), HandlerError> {
    let change = Change::of(&event);
    let insert = "insert into merges (event_id, author, subject) values (?, ?, ?) on conflict do nothing";
    sqlx::query(insert).bind(event.id_as_i64()?).bind(change.author).bind(change.subject).execute(&writer).await?;
    Ok(())
}

/// How many events are before the consumers, all three together.
///
/// # Errors
///
/// If the data file cannot be read.
pub(crate) async fn backlog(data: &Data) -> Result<u64> {
    let mut backlog = 0;
    for name in NAMES {
        let cursor = data.cursors.get(name).await?;
        backlog += data.events.backlog(cursor.as_ref()).await?.events;
    }
    Ok(backlog)
}
