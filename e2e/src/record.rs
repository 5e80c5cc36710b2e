use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result, ensure};
use reflex_core::Event;
use reflex_testing::{History, Report, Violations};
use tokio::{sync::watch, time::Instant};

/// What one reader was handed, in its order.
#[derive(Clone, Debug, Default)]
pub struct Record {
    history: History,
    /// Ids and foreign ids.
    seen: Vec<(i64, i64)>,
    last: i64,
}

impl Record {
    /// The record of a reader that begins with the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The record of a reader that begins after this id.
    #[must_use]
    pub fn after(cursor: i64) -> Self {
        let mut record = Self { last: cursor, ..Self::default() };
        record.history.resume_after(cursor);
        record
    }

    /// The reader starts again, wherever its cursor is.
    pub fn restart(&mut self) {
        self.history.resume();
    }

    /// An event was handed over.
    ///
    /// # Errors
    ///
    /// If it has an id or foreign id that the writers do not make.
    pub fn see(&mut self, event: &Event) -> reflex_core::Result<()> {
        self.see_ids(event.id_as_i64()?, event.foreign_id_as_i64()?);
        Ok(())
    }

    /// An event with these ids was handed over.
    pub fn see_ids(&mut self, id: i64, foreign_id: i64) {
        self.history.see(id);
        self.seen.push((id, foreign_id));
        self.last = self.last.max(id);
    }

    /// The highest id so far.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last
    }

    /// How many events were handed over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing was handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Holds what was seen against the ids of everything committed.
    ///
    /// # Errors
    ///
    /// If an event was lost, made up, repeated within a session or out of order.
    pub fn history(&self, committed: &[(i64, i64)]) -> Result<Report, Violations> {
        let ids: Vec<i64> = committed.iter().map(|(id, _)| *id).collect();
        self.history.check(&ids)
    }

    /// Holds what was seen against everything committed, foreign ids too.
    ///
    /// # Errors
    ///
    /// As [`Record::history`], or if an event came with another one's foreign id.
    pub fn check(&self, committed: &[(i64, i64)]) -> Result<Report> {
        let report = self.history(committed).with_context(|| format!("after id {} it saw nothing", self.last))?;
        let pairs: HashSet<_> = committed.iter().collect();
        let mixed: Vec<_> = self.seen.iter().filter(|seen| !pairs.contains(seen)).take(10).collect();
        ensure!(mixed.is_empty(), "events with the foreign id of another: {mixed:?}");
        Ok(report)
    }
}

/// Where readers stop: at the last committed event once all writers have ended, or when they have taken too long.
#[derive(Clone, Debug)]
pub struct Goal(watch::Receiver<Option<(i64, Instant)>>);

/// Sets a [`Goal`].
#[derive(Debug)]
pub struct Goals(watch::Sender<Option<(i64, Instant)>>);

impl Goals {
    /// A goal that is not set yet.
    #[must_use]
    pub fn new() -> (Self, Goal) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), Goal(receiver))
    }

    /// Sets it: readers end at this id, or after `patience`.
    pub fn set(&self, last: i64, patience: Duration) {
        self.0.send_replace(Some((last, Instant::now() + patience)));
    }
}

impl Goal {
    /// Whether the writers have ended.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Whether a reader that has seen `last` may stop, or must.
    #[must_use]
    pub fn is_over(&self, last: i64) -> bool {
        self.0.borrow().is_some_and(|(goal, due)| last >= goal || Instant::now() >= due)
    }
}
