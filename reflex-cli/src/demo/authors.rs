//! The exactly-once consumer: totals per author, in one transaction with its cursor.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::SecondsFormat;
use reflex_core::{Consumer, Cursor, CursorStore, Event, HandlerError, Progress};
use reflex_sql::CursorsTable;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{change::Change, data::Data};

pub(crate) const NAME: &str = "author-totals";

/// Where this run believes the cursor to be.
type Position = Arc<Mutex<Option<i64>>>;

/// The consumer and the store of its cursor, which belong together.
pub(crate) fn author_totals(data: &Data) -> (AuthorTotals, MovedByConsumer) {
    let position = Position::default();
    let consumer = AuthorTotals { writer: data.writer.clone(), position: position.clone() };
    (consumer, MovedByConsumer { cursors: data.cursors.clone(), position })
}

/// A cursor store for a consumer that moves its cursor itself.
#[derive(Debug)]
pub(crate) struct MovedByConsumer {
    cursors: CursorsTable<Sqlite>,
    position: Position,
}

impl CursorStore for MovedByConsumer {
    async fn get(&self, consumer: &str) -> reflex_core::Result<Option<Cursor>> {
        let cursor = self.cursors.get(consumer).await?;
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = cursor.as_ref().and_then(Cursor::as_i64);
        Ok(cursor)
    }

    /// Nothing is left to do: the transaction of the consumer has moved it.
    async fn set(&self, _consumer: &str, _cursor: &Cursor) -> reflex_core::Result<()> {
        Ok(())
    }
}

/// Adds up what each author did.
#[derive(Debug)]
pub(crate) struct AuthorTotals {
    writer: SqlitePool,
    position: Position,
}

impl Consumer for AuthorTotals {
    fn name(&self) -> &str {
        NAME
    }

    /// Commits the totals and the cursor, or neither.
    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        let id = event.id_as_i64()?;
        let before = *self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tx = self.writer.begin_with("begin immediate").await?;
        move_cursor(&mut tx, before, id).await?;
        add(&mut tx, &event).await?;
        tx.commit().await?;
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(Progress::Done)
    }
}

/// Moves the cursor from where this run believes it to be.
async fn move_cursor(tx: &mut SqliteConnection, before: Option<i64>, id: i64) -> Result<(), HandlerError> {
    const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    let moved = match before {
        Some(before) => {
            let update =
                format!("update cursors set last_event_id = ?, updated_at = {NOW} where id = ? and last_event_id = ?");
            let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(id).bind(NAME).bind(before);
            update.execute(tx).await?
        }
        None => {
            let insert = "insert into cursors (id, last_event_id) values (?, ?) on conflict do nothing";
            sqlx::query(insert).bind(NAME).bind(id).execute(tx).await?
        }
    };
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let place = before.map_or_else(|| "before the first event".to_owned(), |before| format!("at event {before}"));
    Err(HandlerError::new(format!("the cursor is no longer {place}: somebody else runs or moves this consumer")))
}

async fn add(tx: &mut SqliteConnection, event: &Event) -> Result<(), HandlerError> {
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

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use reflex_core::{EventParts, Metrics};

    use super::*;
    use crate::demo::data::Kind;

    fn event(id: i64) -> Event {
        Event::from(EventParts {
            id: id.into(),
            event_type: 1.into(),
            foreign_id: "ann",
            timestamp: Default::default(),
            metadata: b"",
            trace: b"",
        })
    }

    #[tokio::test]
    async fn of_two_runners_one_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let data = Data::open(folder.path().join("demo.sqlite"), Kind::Git, &metrics).await.unwrap();
        let (mut first, first_cursors) = author_totals(&data);
        let (mut second, second_cursors) = author_totals(&data);
        for (id, refused) in [(1, 1), (2, 3), (4, 4)] {
            first_cursors.get(NAME).await.unwrap();
            second_cursors.get(NAME).await.unwrap();
            assert_eq!(first.consume(event(id)).await.unwrap(), Progress::Done);
            let error = second.consume(event(refused)).await.unwrap_err().to_string();
            assert!(error.contains("somebody else runs or moves this consumer"), "{error}");
        }
        assert_eq!(data.cursors.get(NAME).await.unwrap(), Some(4.into()));
        let commits: i64 = sqlx::query_scalar("select commits from authors").fetch_one(&data.writer).await.unwrap();
        assert_eq!(commits, 3);
    }
}
