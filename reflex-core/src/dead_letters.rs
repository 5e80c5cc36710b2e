use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{Cursor, Event, HandlerError, Result};

/// An event that was put aside for a consumer because it could not handle it, or because an earlier event of the same
/// foreign id could not be handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The consumer that it was put aside for.
    pub consumer: Arc<str>,
    /// The event, whole.
    pub event: Event,
    /// Why it was put aside: the first error.
    pub error: String,
    /// How often it was handed to the consumer's code again since then.
    pub redrives: u32,
    /// Whether it only waits behind an earlier event of its foreign id.
    pub parked: bool,
    /// What a store with claims that run out tells this claim from later ones by; 0 if it needs nothing.
    pub claim: i64,
}

impl DeadLetter {
    /// A letter that was not redriven yet.
    pub fn new(consumer: impl Into<Arc<str>>, event: Event, error: impl Into<String>) -> Self {
        Self { consumer: consumer.into(), event, error: error.into(), redrives: 0, parked: false, claim: 0 }
    }

    /// Says that it only waits behind an earlier event of its foreign id.
    #[must_use]
    pub fn parked(mut self) -> Self {
        self.parked = true;
        self
    }
}

/// Which of the events that were put aside for a consumer are meant, for a redrive or to discard them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// The one with this event id.
    Event(Cursor),
    /// Those of this foreign id.
    ForeignId(String),
    /// The oldest ones, at most so many.
    Oldest(u32),
    /// All.
    All,
}

/// Keeps events that a consumer could not handle, until somebody redrives or discards them.
///
/// A letter is *open* from the time it was put aside until it was redriven with success or discarded. All letters are kept
/// under the name of the consumer, so that the shards of one consumer share them. Handles are used from many tasks and
/// processes at once.
///
/// Obligations of an implementer:
///
/// - What was put aside is durable when the future is done.
/// - An event that is put aside again while it is open keeps its first error; one that is not open any more is opened again.
/// - A bound on the open letters of a consumer is an error when it is hit, so that the run ends: nothing is dropped.
pub trait DeadLetterStore: Send + Sync {
    /// Puts an event aside.
    ///
    /// # Errors
    ///
    /// If it could not be stored, or too many letters of the consumer are open. The event must then not be passed over.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the event is there or not; putting it again does no harm.
    fn put(&self, consumer: &str, event: &Event, error: &HandlerError) -> impl Future<Output = Result<()>> + Send;

    /// Puts aside those of these events whose foreign id has an open letter, in their order. Answers for each event
    /// whether it is put aside, which an event that was open before is, too.
    ///
    /// The question and the writing are one step for each foreign id: no event passes one of its foreign id that is put
    /// aside at the same time, and none is put aside behind a letter that is open no more.
    ///
    /// # Errors
    ///
    /// As [`put`](DeadLetterStore::put).
    ///
    /// # Cancel safety
    ///
    /// As [`put`](DeadLetterStore::put).
    fn park_behind(&self, consumer: &str, events: &[Event]) -> impl Future<Output = Result<Vec<bool>>> + Send;

    /// The ids of all events that are put aside for a consumer and open.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn open_events(&self, consumer: &str) -> impl Future<Output = Result<HashSet<Cursor>>> + Send;

    /// Takes the oldest letter whose redrive was requested, for this caller alone. An event that is parked is not taken
    /// while an earlier one of its foreign id is open.
    ///
    /// The claim ends with [`settle`](DeadLetterStore::settle), or after a while of the store's choice if the claimer died.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped a letter may be claimed by nobody until its claim has run out.
    fn claim(&self, consumer: &str) -> impl Future<Output = Result<Option<DeadLetter>>> + Send;

    /// Ends a claim. With `Ok` the letter is open no more. With an error it stays open and counts one more redrive, and the
    /// requests for it and for what is parked behind it are withdrawn.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the claim has ended or not.
    fn settle(
        &self,
        letter: &DeadLetter,
        outcome: Result<(), &HandlerError>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Counts failed attempts at events, so that they survive a restart.
pub trait AttemptStore: Send + Sync {
    /// All counts of a consumer, by event id.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    fn attempts(&self, consumer: &str) -> impl Future<Output = Result<HashMap<Cursor, u32>>> + Send;

    /// Sets the count of an event; 0 forgets it.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the count is the old one or the new one.
    fn set_attempts(&self, consumer: &str, event: &Cursor, attempts: u32) -> impl Future<Output = Result<()>> + Send;
}

impl<S: DeadLetterStore> DeadLetterStore for Arc<S> {
    async fn put(&self, consumer: &str, event: &Event, error: &HandlerError) -> Result<()> {
        S::put(self, consumer, event, error).await
    }

    async fn park_behind(&self, consumer: &str, events: &[Event]) -> Result<Vec<bool>> {
        S::park_behind(self, consumer, events).await
    }

    async fn open_events(&self, consumer: &str) -> Result<HashSet<Cursor>> {
        S::open_events(self, consumer).await
    }

    async fn claim(&self, consumer: &str) -> Result<Option<DeadLetter>> {
        S::claim(self, consumer).await
    }

    async fn settle(&self, letter: &DeadLetter, outcome: Result<(), &HandlerError>) -> Result<()> {
        S::settle(self, letter, outcome).await
    }
}

impl<S: AttemptStore> AttemptStore for Arc<S> {
    async fn attempts(&self, consumer: &str) -> Result<HashMap<Cursor, u32>> {
        S::attempts(self, consumer).await
    }

    async fn set_attempts(&self, consumer: &str, event: &Cursor, attempts: u32) -> Result<()> {
        S::set_attempts(self, consumer, event, attempts).await
    }
}
