use std::{collections::HashMap, time::Duration};

use reflex_core::{DeadLetter, Event, NewEvent, Selection};
use sqlx::SqlStr;

use super::{Done, ErrorStatus, Inner, StoredLetter};
use crate::{
    Notify, Result,
    dialect::{
        Dialect,
        errors::{ErrorsSql, LetterRow, Value, Which, event_of, which},
    },
    error::{Error, Problem},
};

/// Messages are cut to so many characters, which fit into 64 KiB whatever they are.
const MAX_MESSAGE: usize = 16_000;

/// So many foreign ids are asked about in one statement.
const MAX_KEYS: usize = 10_000;

/// The letters of one consumer, on one connection. What writes is in a transaction, and locks first.
pub(super) struct Session<'c, D: Dialect> {
    conn: &'c mut D::Connection,
    table: &'c Inner<D>,
    consumer: &'c str,
    added: u64,
    notify: Option<Notify>,
}

impl<'c, D: Dialect> Session<'c, D> {
    pub(super) fn new(conn: &'c mut D::Connection, table: &'c Inner<D>, consumer: &'c str) -> Self {
        Self { conn, table, consumer, added: 0, notify: None }
    }

    /// Waits until no other transaction is at the letters of this consumer, and keeps others out until the end of this one.
    /// Returns the last of so many positions that nobody has used.
    pub(super) async fn lock(&mut self, positions: usize) -> Result<i64> {
        self.check_length("consumer", self.consumer)?;
        let consumer = Value::Text(self.consumer);
        let positions = Value::Int(positions as i64);
        self.change(self.sql().lock.clone(), &[consumer, positions]).await?;
        let last = self.numbers(self.sql().position.clone(), &[consumer]).await?;
        Ok(last.first().copied().unwrap_or(0))
    }

    /// How many letters are open.
    async fn count(&mut self) -> Result<i64> {
        let count = self.numbers(self.sql().count.clone(), &[Value::Text(self.consumer)]).await?;
        Ok(count.first().copied().unwrap_or(0))
    }

    /// What the transaction did, once there is nothing more to do.
    pub(super) async fn done<T>(mut self, answer: T) -> Result<Done<T>> {
        Ok(Done { answer, open: self.count().await?, added: self.added, notify: self.notify })
    }

    /// The positions of the oldest open letters of the events' foreign ids.
    pub(super) async fn first_of(&mut self, events: &[Event]) -> Result<HashMap<String, i64>> {
        let mut keys: Vec<_> = events.iter().map(Event::foreign_id).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut first = HashMap::new();
        for keys in keys.chunks(MAX_KEYS) {
            let values: Vec<_> = [self.consumer].iter().chain(keys).map(|text| Value::Text(text)).collect();
            let found = D::read_texts(self.conn, self.sql().first_of(keys.len()), &values).await;
            first.extend(found.map_err(self.failed("look for open letters"))?);
        }
        Ok(first)
    }

    /// A letter of an event that waits behind the one at this position.
    pub(super) async fn parked(&mut self, event: &Event, first: i64) -> Result<DeadLetter> {
        let first = self.letters_of(&Which::Position(first), false).await?;
        let first = first.first().map_or("", |first| &first.event_id);
        let error = format!("waits behind event {first} of the same foreign id");
        Ok(DeadLetter::new(self.consumer, event.clone(), error).parked())
    }

    /// Adds a letter at a position, unless the event has one.
    pub(super) async fn add(&mut self, letter: &DeadLetter, position: i64) -> Result<()> {
        let event_id = letter.event.id().to_string();
        self.check_length("event id", &event_id)?;
        self.check_length("foreign id", letter.event.foreign_id())?;
        let found =
            self.numbers(self.sql().find.clone(), &[Value::Text(self.consumer), Value::Text(&event_id)]).await?;
        if !found.is_empty() {
            return Ok(());
        }
        let bound = self.table.options.max_open;
        if usize::try_from(self.count().await?).is_ok_and(|open| open >= bound) {
            let (table, consumer) = (self.sql().table.to_string(), self.consumer.to_owned());
            return Err(Problem::TooManyLetters { table, consumer, event: event_id, bound }.into());
        }
        let message: String = letter.error.chars().take(MAX_MESSAGE).collect();
        let error_id = self.record(&event_id, &message).await?;
        self.insert(letter, position, error_id, &event_id, &message).await?;
        self.added += 1;
        self.tell(&[error_id], ErrorStatus::Recorded, letter.event.trace()).await
    }

    async fn insert(
        &mut self,
        letter: &DeadLetter,
        position: i64,
        error_id: i64,
        event_id: &str,
        message: &str,
    ) -> Result<()> {
        let event = &letter.event;
        let values = [
            Value::Text(self.consumer),
            Value::Int(position),
            Value::Text(event_id),
            Value::Int(error_id),
            Value::Text(event.foreign_id()),
            Value::Int(event.event_type().0.into()),
            Value::Time(event.timestamp()),
            Value::Bytes(event.metadata()),
            Value::Bytes(event.trace()),
            Value::Text(message),
            Value::Flag(letter.parked),
        ];
        self.change(self.sql().insert.clone(), &values).await.map(drop)
    }

    /// Sees to it that the errors table has a row for this event, with its first error unless that one is resolved. Returns
    /// the id of the row.
    async fn record(&mut self, event_id: &str, message: &str) -> Result<i64> {
        let recorded = Value::Int(ErrorStatus::Recorded.number());
        let (consumer, event_id, message) = (Value::Text(self.consumer), Value::Text(event_id), Value::Text(message));
        if let Some((id, status)) = self.find_error(&[consumer, event_id]).await? {
            if status != ErrorStatus::Recorded {
                self.change(self.sql().reopen_error.clone(), &[message, recorded, Value::Int(id)]).await?;
            }
            return Ok(id);
        }
        self.change(self.sql().insert_error.clone(), &[consumer, event_id, message, recorded]).await?;
        let found = self.find_error(&[consumer, event_id]).await?;
        Ok(found.map_or(0, |(id, _)| id))
    }

    async fn find_error(&mut self, event: &[Value<'_>]) -> Result<Option<(i64, ErrorStatus)>> {
        let found = D::read_pairs(self.conn, self.sql().find_error.clone(), event).await;
        let found = found.map_err(self.failed("look for an error"))?;
        Ok(found.first().map(|(id, status)| (*id, i32::try_from(*status).unwrap_or(i32::MAX).into())))
    }

    /// The letter of an event, whole.
    pub(super) async fn get(&mut self, event: &str) -> Result<Option<StoredLetter>> {
        let letters = self.letters_of(&Which::Event(event), true).await?;
        Ok(letters.first().map(StoredLetter::from))
    }

    /// The letters that are meant, oldest first, without metadata and trace.
    pub(super) async fn select(&mut self, selection: &Selection) -> Result<Vec<LetterRow>> {
        if let Selection::Oldest(limit) = selection {
            let values = [Value::Text(self.consumer), Value::Int((*limit).into())];
            return self.letters(self.sql().oldest(), &values).await;
        }
        let event = event_of(selection);
        self.letters_of(&which(selection, &event, None), false).await
    }

    /// Requests the redrive of letters, which the selection means.
    pub(super) async fn request(&mut self, selection: &Selection, letters: &[LetterRow]) -> Result<()> {
        // All other selections contain what comes before the parked letters in them.
        if let (Selection::Event(_), [letter]) = (selection, letters) {
            self.check_first(letter).await?;
        }
        let event = event_of(selection);
        let which = which(selection, &event, letters.last().map(|letter| letter.position));
        self.change(self.sql().request(&which), &which.values(self.consumer)).await.map(drop)
    }

    async fn check_first(&mut self, letter: &LetterRow) -> Result<()> {
        if !letter.parked {
            return Ok(());
        }
        let values = [Value::Text(self.consumer), Value::Text(&letter.foreign_id), Value::Int(letter.position)];
        let first = D::read_texts(self.conn, self.sql().predecessor.clone(), &values).await;
        let Some((first, _)) = first.map_err(self.failed("look for earlier letters"))?.pop() else { return Ok(()) };
        Err(Problem::NotFirst {
            consumer: self.consumer.to_owned(),
            event: letter.event_id.clone(),
            first,
            foreign_id: letter.foreign_id.clone(),
        }
        .into())
    }

    /// Discards letters, which the selection means.
    pub(super) async fn discard(&mut self, selection: &Selection, letters: &[LetterRow]) -> Result<()> {
        let event = event_of(selection);
        let which = which(selection, &event, letters.last().map(|letter| letter.position));
        self.change(self.sql().discard(&which), &which.values(self.consumer)).await?;
        let ids: Vec<_> = letters.iter().map(|letter| letter.error_id).collect();
        self.resolve(&ids, ErrorStatus::Discarded).await
    }

    /// Claims the oldest letter that may be redriven; `claim` is a number that nobody has used.
    pub(super) async fn claim(&mut self, claim: i64, lease: Duration) -> Result<Option<StoredLetter>> {
        let Some(position) = self.candidate().await? else { return Ok(None) };
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        let values = [Value::Int(claim), Value::Int(lease), Value::Text(self.consumer), Value::Int(position)];
        self.change(self.sql().take.clone(), &values).await?;
        let letters = self.letters_of(&Which::Position(position), true).await?;
        Ok(letters.first().map(StoredLetter::from))
    }

    /// The position of the oldest letter that may be redriven.
    pub(super) async fn candidate(&mut self) -> Result<Option<i64>> {
        let found = self.numbers(self.sql().candidate.clone(), &[Value::Text(self.consumer)]).await?;
        Ok(found.first().copied())
    }

    /// The letter of an event, as long as this claim has not been taken over.
    pub(super) async fn claimed(&mut self, letter: &DeadLetter) -> Result<Option<LetterRow>> {
        let event = letter.event.id().to_string();
        let mut letters = self.letters_of(&Which::Claimed(&event, letter.claim), false).await?;
        Ok(letters.pop())
    }

    pub(super) async fn redriven(&mut self, letter: &LetterRow) -> Result<()> {
        let values = [Value::Text(self.consumer), Value::Int(letter.position)];
        self.change(self.sql().remove.clone(), &values).await?;
        self.resolve(&[letter.error_id], ErrorStatus::Redriven).await
    }

    /// Withdraws the requests for what is parked behind it, too.
    pub(super) async fn redrive_failed(&mut self, letter: &LetterRow, message: &str) -> Result<()> {
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        let (consumer, position) = (Value::Text(self.consumer), Value::Int(letter.position));
        self.change(self.sql().fail.clone(), &[Value::Text(&message), consumer, position]).await?;
        let behind = [consumer, Value::Text(&letter.foreign_id), position];
        self.change(self.sql().withdraw.clone(), &behind).await.map(drop)
    }

    async fn resolve(&mut self, errors: &[i64], status: ErrorStatus) -> Result<()> {
        for errors in errors.chunks(MAX_KEYS) {
            let mut values = vec![Value::Int(status.number())];
            values.extend(errors.iter().map(|&id| Value::Int(id)));
            self.change(self.sql().resolve_errors(errors.len()), &values).await?;
        }
        self.tell(errors, status, &[]).await
    }

    /// Inserts error events.
    async fn tell(&mut self, errors: &[i64], status: ErrorStatus, trace: &[u8]) -> Result<()> {
        let Some(events) = self.table.events.as_ref().filter(|_| !errors.is_empty()) else { return Ok(()) };
        let event = |id: &i64| NewEvent::new(id, status).metadata(self.consumer).trace(trace);
        let told: Vec<_> = errors.iter().map(event).collect();
        self.notify = Some(events.insert_all(self.conn, told).await?);
        Ok(())
    }

    fn check_length(&self, what: &'static str, text: &str) -> Result<()> {
        let length = text.chars().count();
        if length <= D::MAX_KEY {
            return Ok(());
        }
        let (table, start) = (self.sql().table.to_string(), text.chars().take(40).collect());
        Err(Problem::TooLong { table, what, start, length, most: D::MAX_KEY }.into())
    }

    async fn letters_of(&mut self, which: &Which<'_>, whole: bool) -> Result<Vec<LetterRow>> {
        self.letters(self.sql().select(which, whole), &which.values(self.consumer)).await
    }

    async fn letters(&mut self, sql: SqlStr, values: &[Value<'_>]) -> Result<Vec<LetterRow>> {
        D::read_letters(self.conn, sql, values).await.map_err(self.failed("read letters"))
    }

    async fn numbers(&mut self, sql: SqlStr, values: &[Value<'_>]) -> Result<Vec<i64>> {
        D::read_numbers(self.conn, sql, values).await.map_err(self.failed("read letters"))
    }

    async fn change(&mut self, sql: SqlStr, values: &[Value<'_>]) -> Result<u64> {
        D::change(self.conn, sql, values).await.map_err(self.failed("write letters"))
    }

    fn sql(&self) -> &'c ErrorsSql {
        &self.table.sql
    }

    fn failed(&self, attempted: &str) -> impl FnOnce(sqlx::Error) -> Error + use<D> {
        Problem::database(format!("{attempted} of consumer `{}` in table `{}`", self.consumer, self.sql().table))
    }
}
