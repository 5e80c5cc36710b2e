//! The three specs of the demo.

use std::time::Duration;

use anyhow::Result;
use reflex_core::{BoxSpec, BufferedCursors, Consumer, CursorStore, Event, HandlerError, Metrics, Spec, consumer_fn};
use reflex_sql::TransactionalCursors;
use rpatterns::{Key, batch, keyed_lanes};
use sqlx::{QueryBuilder, SqlitePool};

use super::{
    authors::{self, author_totals},
    change::{Change, MERGE},
    data::Data,
};

const DAYS: &str = "commits-per-day";
const MERGES: &str = "merges";

/// The names of the consumers, in the order in which they are shown.
pub(crate) const NAMES: [&str; 3] = [authors::NAME, DAYS, MERGES];

/// How long a batch waits for more events.
pub(crate) const PERIOD: Duration = Duration::from_millis(50);
const DAYS_LEN: usize = 500;
const LANES: usize = 4;

/// The consumers with their stream and their cursors.
pub(crate) fn specs(data: &Data, metrics: &Metrics, to_head: bool) -> Vec<BoxSpec> {
    let transactional = TransactionalCursors::new(data.cursors.clone());
    let buffered = || BufferedCursors::new(data.cursors.clone());
    let specs = [
        Spec::new(data.events.clone(), transactional.clone(), author_totals(&transactional)).boxed(),
        Spec::new(data.events.clone(), buffered(), commits_per_day(data)).boxed(),
        Spec::new(data.events.clone(), buffered(), merges(data, metrics)).boxed(),
    ];
    specs.map(|spec| if to_head { spec.to_head() } else { spec }.metrics(metrics)).into()
}

/// Notes the day of each event, many in one statement.
fn commits_per_day(data: &Data) -> impl Consumer + use<> {
    let writer = data.writer.clone();
    let days = consumer_fn(DAYS, move |batch: Vec<Event>| note_days(writer.clone(), batch)).no_lag_alert();
    batch(DAYS_LEN, PERIOD, days)
}

/// It notes days instead of adding to a sum, so that a batch that is delivered a second time, as it may be after a crash,
/// changes nothing: the way to be exact without a transaction around the cursor.
async fn note_days(writer: SqlitePool, batch: Vec<Event>) -> Result<(), HandlerError> {
    let mut days = Vec::with_capacity(batch.len());
    for event in &batch {
        days.push((event.id_as_i64()?, event.timestamp().format("%Y-%m-%d").to_string()));
    }
    let mut insert = QueryBuilder::new("insert into commit_days (event_id, day) ");
    insert.push_values(days, |mut row, (id, day)| {
        row.push_bind(id).push_bind(day);
    });
    insert.push(" on conflict do nothing").build().execute(&writer).await?;
    Ok(())
}

/// Notes merge commits: those of one author in their order, those of several authors at the same time.
fn merges(data: &Data, metrics: &Metrics) -> impl Consumer + use<> {
    let writer = data.writer.clone();
    let merges = consumer_fn(MERGES, move |event: Event| note_merge(writer.clone(), event))
        .filter(|event| Ok(event.is_type(MERGE)))
        .no_lag_alert();
    keyed_lanes(LANES, Key::by(|event| Ok(Change::of(event).author)), merges).metrics(metrics)
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
