use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{AttemptStore, Cursor, DeadLetter, DeadLetterStore, Error, Event, HandlerError, Result, Selection};

/// Dead letters and counts of attempts in memory, for tests and examples. Clones share them. It can be told to fail.
///
/// Claims are held until they are settled.
///
/// # Examples
///
/// ```
/// use reflex_core::{DeadLetterStore, HandlerError, MemoryDeadLetters, MemoryEvents, NewEvent, Selection};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let letters = MemoryDeadLetters::new();
/// let event = MemoryEvents::new().append(NewEvent::new("order-12", 1));
/// letters.put("billing", &event, &HandlerError::new("no such card")).await.unwrap();
/// assert_eq!(letters.open("billing")[0].error, "no such card");
///
/// letters.request("billing", &Selection::All).unwrap();
/// let letter = letters.claim("billing").await.unwrap().unwrap();
/// letters.settle(&letter, Ok(())).await.unwrap();
/// assert!(letters.open("billing").is_empty());
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryDeadLetters(Arc<Mutex<Letters>>);

#[derive(Debug, Default)]
struct Letters {
    open: Vec<Entry>,
    bound: Option<usize>,
    attempts: HashMap<String, HashMap<Cursor, u32>>,
    faults: Vec<Error>,
}

#[derive(Debug)]
struct Entry {
    letter: DeadLetter,
    requested: bool,
    claimed: bool,
}

impl MemoryDeadLetters {
    /// A store without letters and without a bound.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that refuses to hold more than so many open letters for one consumer.
    #[must_use]
    pub fn bounded(letters: usize) -> Self {
        let store = Self::new();
        store.lock().bound = Some(letters);
        store
    }

    /// The open letters of a consumer, oldest first.
    #[must_use]
    pub fn open(&self, consumer: &str) -> Vec<DeadLetter> {
        self.lock().of(consumer).map(|entry| entry.letter.clone()).collect()
    }

    /// Requests that these are redriven. Returns them, oldest first.
    ///
    /// # Errors
    ///
    /// If one is parked behind an event that is open and not requested.
    pub fn request(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>> {
        let mut letters = self.lock();
        let selected = letters.select(consumer, selection);
        for &at in &selected {
            let waits_for =
                letters.before(at).find(|before| !selected.contains(before) && !letters.open[*before].requested);
            if let (true, Some(before)) = (letters.open[at].letter.parked, waits_for) {
                let (event, first) = (&letters.open[at].letter.event, &letters.open[before].letter.event);
                return Err(Error::invalid(format!(
                    "redrive event {} of consumer `{consumer}`: event {} of the same foreign id `{}` is open and comes first",
                    event.id(),
                    first.id(),
                    event.foreign_id()
                )));
            }
        }
        for &at in &selected {
            letters.open[at].requested = true;
        }
        Ok(selected.into_iter().map(|at| letters.open[at].letter.clone()).collect())
    }

    /// Discards letters: they are open no more. Returns them, oldest first.
    pub fn discard(&self, consumer: &str, selection: &Selection) -> Vec<DeadLetter> {
        let mut letters = self.lock();
        let selected = letters.select(consumer, selection);
        // From the last to the first, so that no index moves before its turn.
        let mut discarded: Vec<_> = selected.into_iter().rev().map(|at| letters.open.remove(at).letter).collect();
        discarded.reverse();
        discarded
    }

    /// Lets the next operation of any kind fail. Several faults are used up one by one.
    pub fn fail_next(&self, error: Error) {
        self.lock().faults.push(error);
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The letters, unless it is to fail.
    fn operate(&self) -> Result<MutexGuard<'_, Letters>> {
        let mut letters = self.lock();
        if letters.faults.is_empty() { Ok(letters) } else { Err(letters.faults.remove(0)) }
    }
}

impl Letters {
    fn of<'a>(&'a self, consumer: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.open.iter().filter(move |entry| &*entry.letter.consumer == consumer)
    }

    /// Where the letter of an event is.
    fn position(&self, consumer: &str, event: &Cursor) -> Option<usize> {
        let wanted = |entry: &Entry| &*entry.letter.consumer == consumer && entry.letter.event.id() == event;
        self.open.iter().position(wanted)
    }

    /// The letters of the same consumer and foreign id that are older.
    fn before(&self, at: usize) -> impl Iterator<Item = usize> {
        let of = &self.open[at].letter;
        let same = move |before: &usize| {
            let letter = &self.open[*before].letter;
            letter.consumer == of.consumer && letter.event.foreign_id() == of.event.foreign_id()
        };
        (0..at).filter(same)
    }

    fn select(&self, consumer: &str, selection: &Selection) -> Vec<usize> {
        let limit = match selection {
            Selection::Oldest(limit) => *limit as usize,
            _ => usize::MAX,
        };
        let wanted = |entry: &Entry| match selection {
            Selection::Event(id) => entry.letter.event.id() == id,
            Selection::ForeignId(foreign_id) => entry.letter.event.foreign_id() == foreign_id,
            Selection::Oldest(_) | Selection::All => true,
        };
        let of = self.open.iter().enumerate().filter(|(_, entry)| &*entry.letter.consumer == consumer);
        of.filter(|(_, entry)| wanted(entry)).map(|(at, _)| at).take(limit).collect()
    }

    fn put(&mut self, letter: DeadLetter) -> Result<()> {
        if self.position(&letter.consumer, letter.event.id()).is_some() {
            return Ok(());
        }
        let consumer = letter.consumer.clone();
        if let Some(bound) = self.bound
            && self.of(&consumer).count() >= bound
        {
            return Err(Error::invalid(format!(
                "put event {} of consumer `{consumer}` aside: {bound} are put aside already, which is the bound; redrive or \
                 discard some",
                letter.event.id()
            )));
        }
        self.open.push(Entry { letter, requested: false, claimed: false });
        Ok(())
    }

    /// Puts the event aside if its foreign id has an open letter.
    fn park_behind(&mut self, consumer: &str, event: &Event) -> Result<bool> {
        let same = |entry: &&Entry| entry.letter.event.foreign_id() == event.foreign_id();
        let Some(first) = self.of(consumer).find(same).map(|entry| entry.letter.event.id().clone()) else {
            return Ok(false);
        };
        let error = format!("waits behind event {first} of the same foreign id");
        self.put(DeadLetter::new(consumer, event.clone(), error).parked())?;
        Ok(true)
    }

    fn claim(&mut self, consumer: &str) -> Option<DeadLetter> {
        let free = |at: &usize| {
            let entry = &self.open[*at];
            let blocked = entry.letter.parked && self.before(*at).next().is_some();
            &*entry.letter.consumer == consumer && entry.requested && !entry.claimed && !blocked
        };
        let at = (0..self.open.len()).find(free)?;
        self.open[at].claimed = true;
        Some(self.open[at].letter.clone())
    }

    fn settle(&mut self, at: usize, redriven: bool) {
        if redriven {
            self.open.remove(at);
            return;
        }
        self.open[at].letter.redrives += 1;
        self.open[at].claimed = false;
        let failed = self.open[at].letter.clone();
        for entry in &mut self.open[at..] {
            let letter = &entry.letter;
            let same = letter.consumer == failed.consumer && letter.event.foreign_id() == failed.event.foreign_id();
            entry.requested &= !same;
        }
    }
}

impl DeadLetterStore for MemoryDeadLetters {
    async fn put(&self, consumer: &str, event: &Event, error: &HandlerError) -> Result<()> {
        self.operate()?.put(DeadLetter::new(consumer, event.clone(), error.to_string()))
    }

    async fn park_behind(&self, consumer: &str, events: &[Event]) -> Result<Vec<bool>> {
        let mut letters = self.operate()?;
        events.iter().map(|event| letters.park_behind(consumer, event)).collect()
    }

    async fn open_events(&self, consumer: &str) -> Result<HashSet<Cursor>> {
        Ok(self.operate()?.of(consumer).map(|entry| entry.letter.event.id().clone()).collect())
    }

    async fn claim(&self, consumer: &str) -> Result<Option<DeadLetter>> {
        Ok(self.operate()?.claim(consumer))
    }

    async fn settle(&self, letter: &DeadLetter, outcome: Result<(), &HandlerError>) -> Result<()> {
        let mut letters = self.operate()?;
        if let Some(at) = letters.position(&letter.consumer, letter.event.id()) {
            letters.settle(at, outcome.is_ok());
        }
        Ok(())
    }
}

impl AttemptStore for MemoryDeadLetters {
    async fn attempts(&self, consumer: &str) -> Result<HashMap<Cursor, u32>> {
        Ok(self.operate()?.attempts.get(consumer).cloned().unwrap_or_default())
    }

    async fn set_attempts(&self, consumer: &str, event: &Cursor, attempts: u32) -> Result<()> {
        let mut letters = self.operate()?;
        let counts = letters.attempts.entry(consumer.to_owned()).or_default();
        match attempts {
            0 => counts.remove(event),
            count => counts.insert(event.clone(), count),
        };
        Ok(())
    }
}
