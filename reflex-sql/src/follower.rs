use std::sync::{Arc, atomic::Ordering};

use futures_util::future::OptionFuture;
use reflex_core::Event;
use tokio::{select, sync::watch};

use crate::{
    Error, Result,
    backfill::{Backfill, Listener, Reading},
    dialect::Dialect,
    error::Problem,
    ring::Lookup,
    state::Reached,
    table::Table,
    tail::{Status, Tail},
    window::{Chunk, Found},
};

/// How many events a stream takes from the ring at once.
const BATCH: usize = 500;

/// One stream: where it is, and whom it follows.
pub(crate) struct Follower<D: Dialect> {
    table: Arc<Table<D>>,
    tail: Arc<Tail>,
    status: watch::Receiver<Status>,
    position: i64,
    /// Where others see the position.
    reached: Reached,
    to_head: bool,
    /// The question how far the head is, once everything at hand was delivered.
    asked: Option<u64>,
    /// Who reads for it while it is behind the ring.
    followed: Option<(Arc<Reading>, Listener)>,
}

/// Some events in their order.
pub(crate) enum Events {
    Own(std::vec::IntoIter<Event>),
    /// Those of a chunk from here on.
    Shared(Arc<Chunk>, usize),
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        match self {
            Self::Own(events) => events.next(),
            Self::Shared(chunk, next) => {
                let event = chunk.events.get(*next).cloned();
                *next += 1;
                event
            }
        }
    }
}

impl<D: Dialect> Follower<D> {
    pub(crate) fn new(table: Arc<Table<D>>, tail: Arc<Tail>, position: i64, reached: Reached, to_head: bool) -> Self {
        let status = tail.status();
        Self { table, tail, status, position, reached, to_head, asked: None, followed: None }
    }

    /// The events that follow, or `None` at the head of a stream that ends there.
    pub(crate) async fn next(&mut self) -> Result<Option<Events>> {
        loop {
            self.reached.store(self.position, Ordering::Relaxed);
            // Looked at before the events, so that none is missing that was there when the reader failed.
            let (head, failed) = self.heard();
            if head.is_some_and(|head| self.position >= head) {
                return Ok(None);
            }
            match self.tail.after(self.position, BATCH) {
                Lookup::Events(events, position) => {
                    self.table.metrics.cache_hits.inc();
                    self.followed = None;
                    self.position = position;
                    if !events.is_empty() {
                        return Ok(Some(Events::Own(events.into_iter())));
                    }
                }
                Lookup::AtEnd => {
                    failed.map_or(Ok(()), Err)?;
                    self.wait_at_end().await?;
                }
                Lookup::Behind => {
                    failed.map_or(Ok(()), Err)?;
                    if let Some(events) = self.catch_up().await? {
                        return Ok(Some(events));
                    }
                }
            }
        }
    }

    /// The head, if it was asked for, and why the reader ended, if it did.
    fn heard(&mut self) -> (Option<i64>, Option<Error>) {
        let status = self.status.borrow_and_update();
        let head = self.asked.filter(|asked| status.head.0 >= *asked).map(|_| status.head.1);
        (head, status.failed.clone())
    }

    async fn wait_at_end(&mut self) -> Result<()> {
        self.followed = None;
        if self.to_head && self.asked.is_none() {
            self.asked = Some(self.tail.ask_for_head());
            self.table.wake.notify_one();
        }
        self.changed().await
    }

    /// What follows from a reading, or nothing after a wait for it.
    async fn catch_up(&mut self) -> Result<Option<Events>> {
        if let Some((reading, listener)) = &mut self.followed {
            // Before the events as well.
            let heard = listener.heard();
            let found = reading.after(self.position);
            match found {
                Found::Chunk(chunk, first) => return Ok(self.take(chunk, first)),
                Found::AtEnd if heard.is_err() => return heard.map(|()| None),
                Found::AtEnd => match self.tail.backfill.ahead_of(self.position) {
                    Some(other) => self.follow(other),
                    None => self.changed().await?,
                },
                Found::Outside => self.followed = None,
            }
        } else {
            self.follow(Backfill::follow(&self.table, &self.tail, self.position));
        }
        Ok(None)
    }

    fn follow(&mut self, reading: Arc<Reading>) {
        // It may be the same one, which would forget the stream when it left after it joined.
        self.followed = None;
        let listener = reading.join(&self.reached);
        self.followed = Some((reading, listener));
    }

    fn take(&mut self, chunk: Arc<Chunk>, first: usize) -> Option<Events> {
        self.position = chunk.last;
        (first < chunk.events.len()).then_some(Events::Shared(chunk, first))
    }

    /// Waits until one of those who read for this stream has something to tell.
    async fn changed(&mut self) -> Result<()> {
        let ended = || Problem::ReaderEnded { table: self.table.sql.table.to_string() };
        let read = OptionFuture::from(self.followed.as_mut().map(|(_, listener)| listener.changed()));
        let heard = select! {
            changed = self.status.changed() => changed.is_ok(),
            Some(changed) = read => changed,
        };
        heard.then_some(()).ok_or_else(|| ended().into())
    }
}
