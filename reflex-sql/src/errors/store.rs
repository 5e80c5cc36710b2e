use std::collections::{HashMap, HashSet};

use reflex_core::{AttemptStore, Cursor, DeadLetter, DeadLetterStore, Event, HandlerError, Result};

use super::{ErrorsTable, Session};
use crate::dialect::{Dialect, errors::Value};

impl<D: Dialect> ErrorsTable<D> {
    async fn add(&self, attempted: &str, letter: &DeadLetter) -> crate::Result<()> {
        let consumer = &*letter.consumer;
        let done = self.write(attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                let position = session.lock(1).await?;
                session.add(letter, position).await?;
                session.done(()).await
            }
        });
        done.await.map(|done| self.finish(consumer, done))
    }

    /// Whether one of these events has a foreign id with an open letter. The usual answer is no, and costs no lock.
    async fn is_behind(&self, attempted: &str, consumer: &str, events: &[Event]) -> crate::Result<bool> {
        self.read(attempted, async |conn: &mut D::Connection| {
            let first = Session::<D>::new(conn, &self.inner, consumer).first_of(events).await?;
            Ok(!first.is_empty())
        })
        .await
    }

    async fn park(&self, attempted: &str, consumer: &str, events: &[Event]) -> crate::Result<Vec<bool>> {
        let done = self.write(attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                let last = session.lock(events.len()).await?;
                let first = session.first_of(events).await?;
                for (event, position) in events.iter().zip(last - events.len() as i64 + 1..) {
                    if let Some(&first) = first.get(event.foreign_id()) {
                        let letter = session.parked(event, first).await?;
                        session.add(&letter, position).await?;
                    }
                }
                session.done(events.iter().map(|event| first.contains_key(event.foreign_id())).collect()).await
            }
        });
        done.await.map(|done| self.finish(consumer, done))
    }

    /// Whether a letter may be redriven. The usual answer is no, and costs no lock; the gauge learns what others did.
    async fn has_candidate(&self, attempted: &str, consumer: &str) -> crate::Result<bool> {
        let done = self.read(attempted, async |conn: &mut D::Connection| {
            let mut session = Session::<D>::new(conn, &self.inner, consumer);
            let found = session.candidate().await?.is_some();
            session.done(found).await
        });
        done.await.map(|done| self.finish(consumer, done))
    }

    async fn take(&self, attempted: &str, consumer: &str) -> crate::Result<Option<DeadLetter>> {
        if !self.has_candidate(attempted, consumer).await? {
            return Ok(None);
        }
        let done = self.write(attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                let claim = session.lock(1).await?;
                let letter = session.claim(claim, self.inner.options.claim_lease).await?;
                session.done(letter.map(|stored| stored.letter)).await
            }
        });
        done.await.map(|done| self.finish(consumer, done))
    }

    /// Returns false if the claim was taken over, or the letter is open no more.
    async fn end(&self, attempted: &str, letter: &DeadLetter, failure: Option<&str>) -> crate::Result<bool> {
        let consumer = &*letter.consumer;
        let done = self.write(attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                session.lock(0).await?;
                let claimed = session.claimed(letter).await?;
                match (&claimed, failure) {
                    (Some(claimed), None) => session.redriven(claimed).await?,
                    (Some(claimed), Some(failure)) => session.redrive_failed(claimed, failure).await?,
                    (None, _) => {}
                }
                session.done(claimed.is_some()).await
            }
        });
        done.await.map(|done| self.finish(consumer, done))
    }
}

impl<D: Dialect> DeadLetterStore for ErrorsTable<D> {
    async fn put(&self, consumer: &str, event: &Event, error: &HandlerError) -> Result<()> {
        let attempted = format!("put event {} of consumer `{consumer}` aside", event.id());
        let letter = DeadLetter::new(consumer, event.clone(), error.to_string());
        self.add(&attempted, &letter).await.map_err(|error| error.into_store_error(attempted))
    }

    async fn park_behind(&self, consumer: &str, events: &[Event]) -> Result<Vec<bool>> {
        let attempted = format!("park events of consumer `{consumer}`");
        let parked = match self.is_behind(&attempted, consumer, events).await {
            Ok(true) => self.park(&attempted, consumer, events).await,
            behind => behind.map(|_| vec![false; events.len()]),
        };
        parked.map_err(|error| error.into_store_error(attempted))
    }

    async fn open_events(&self, consumer: &str) -> Result<HashSet<Cursor>> {
        let attempted = format!("list the open letters of consumer `{consumer}`");
        let open = self.read(&attempted, async |conn: &mut D::Connection| {
            let open = D::read_texts(conn, self.inner.sql.open.clone(), &[Value::Text(consumer)]).await;
            open.map_err(self.failed(&attempted))
        });
        let open = open.await.map_err(|error| error.into_store_error(attempted))?;
        Ok(open.into_iter().map(|(event, _)| event.into()).collect())
    }

    async fn claim(&self, consumer: &str) -> Result<Option<DeadLetter>> {
        let attempted = format!("claim a letter of consumer `{consumer}`");
        self.take(&attempted, consumer).await.map_err(|error| error.into_store_error(attempted))
    }

    async fn settle(&self, letter: &DeadLetter, outcome: Result<(), &HandlerError>) -> Result<()> {
        let (consumer, event) = (&letter.consumer, letter.event.id());
        let attempted = format!("end the claim of event {event} of consumer `{consumer}`");
        let failure = outcome.err().map(HandlerError::to_string);
        let ended = self.end(&attempted, letter, failure.as_deref()).await;
        if !ended.map_err(|error| error.into_store_error(attempted))? {
            tracing::warn!(
                consumer = %consumer,
                event_id = %event,
                redriven = failure.is_none(),
                "the outcome of a redrive does not count: its claim ran out and was taken over, or the event was discarded"
            );
        }
        Ok(())
    }
}

impl<D: Dialect> AttemptStore for ErrorsTable<D> {
    async fn attempts(&self, consumer: &str) -> Result<HashMap<Cursor, u32>> {
        let attempted = format!("read the counted attempts of consumer `{consumer}`");
        let counts = self.read(&attempted, async |conn: &mut D::Connection| {
            let counts = D::read_texts(conn, self.inner.sql.attempts.clone(), &[Value::Text(consumer)]).await;
            counts.map_err(self.failed(&attempted))
        });
        let counts = counts.await.map_err(|error| error.into_store_error(attempted))?;
        let count = |(event, count): (String, i64)| (event.into(), u32::try_from(count).unwrap_or(u32::MAX));
        Ok(counts.into_iter().map(count).collect())
    }

    async fn set_attempts(&self, consumer: &str, event: &Cursor, attempts: u32) -> Result<()> {
        let attempted = format!("count attempts at event {event} of consumer `{consumer}`");
        let event = event.to_string();
        let (consumer, event) = (Value::Text(consumer), Value::Text(&event));
        let sql = &self.inner.sql;
        let set = self.write(&attempted, || {
            async |conn: &mut D::Connection| {
                let set = match attempts {
                    0 => D::change(conn, sql.forget_attempts.clone(), &[consumer, event]).await,
                    _ => {
                        D::change(conn, sql.set_attempts.clone(), &[consumer, event, Value::Int(attempts.into())]).await
                    }
                };
                set.map(drop).map_err(self.failed(&attempted))
            }
        });
        set.await.map_err(|error| error.into_store_error(attempted))
    }
}
