//! The exactly-once consumer: totals per author, in one transaction with its cursor.

use chrono::SecondsFormat;
use reflex_core::{Consumer, Event, HandlerError};
use reflex_sql::{TransactionalCursors, Tx};
use rpatterns::batch;
use sqlx::{Sqlite, SqliteConnection};

use super::{change::Change, consumers::PERIOD};

pub(crate) const NAME: &str = "author-totals";

/// Events per transaction.
const LEN: usize = 100;

/// Adds up what each author did. A batch of events, its totals and its cursor are committed together, or none of them.
pub(crate) fn author_totals(cursors: &TransactionalCursors<Sqlite>) -> impl Consumer + use<> {
    batch(LEN, PERIOD, cursors.consumer(NAME, add_all))
}

async fn add_all(mut tx: Tx<Sqlite>, batch: Vec<Event>) -> Result<(), HandlerError> {
    for event in &batch {
        add(&mut tx, event).await?;
    }
    Ok(())
}

async fn add(tx: &mut SqliteConnection, event: &Event) -> Result<(), sqlx::Error> {
    let change = Change::of(event);
    sqlx::query(
        "insert into authors (author, commits, added, deleted, last_seen) values (?, 1, ?, ?, ?)
         on conflict (author) do update set
             commits = commits + 1,
             added = added + excluded.added,
             deleted = deleted + excluded.deleted,
             last_seen = max(last_seen, excluded.last_seen)",
    )
    .bind(change.author)
    .bind(change.added)
    .bind(change.deleted)
    .bind(event.timestamp().to_rfc3339_opts(SecondsFormat::Secs, true))
    .execute(tx)
    .await?;
    Ok(())
}
