use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_stream::stream;
use chrono::Utc;
use tokio::sync::Notify;

use crate::{
    BoxEventStream, Cursor, CursorStore, Error, Event, EventParts, NewEvent, Opened, Result, Start, StreamFunc,
    StreamOptions, check_forward,
};

/// How many events a stream copies out under one lock.
const PAGE: usize = 256;

/// An events table in memory, for tests and examples. Clones share the events.
///
/// It keeps the contract of [`StreamFunc`] as the real sources do, lag included, and can be told to fail. Ids count from 1.
/// It holds every event that was appended until it is dropped.
///
/// # Examples
///
/// ```
/// use reflex_core::{MemoryEvents, NewEvent};
///
/// let events = MemoryEvents::new();
/// let event = events.append(NewEvent::new("order-12", 1));
/// assert_eq!(event.id().as_i64(), Some(1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryEvents(Arc<EventsInner>);

#[derive(Debug, Default)]
struct EventsInner {
    log: Mutex<Log>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Event>,
    stopped: bool,
    open_faults: VecDeque<Error>,
    read_faults: VecDeque<Error>,
}

/// What a stream finds when it looks at the log.
enum Found {
    Events(Vec<Event>),
    Nothing,
    End(Error),
}

impl MemoryEvents {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an event and wakes the streams. Placeholders are not refused: they are stored and never delivered.
    pub fn append(&self, event: NewEvent) -> Event {
        let event = {
            let mut log = self.log();
            let event = number(log.events.len() + 1, &event);
            log.events.push(event.clone());
            event
        };
        self.0.changed.notify_waiters();
        event
    }

    /// Ends all streams, and those opened later, with [`Error::stopped`].
    pub fn stop(&self) {
        self.log().stopped = true;
        self.0.changed.notify_waiters();
    }

    /// Lets the next call of [`open`](StreamFunc::open) fail. Several faults are used up one by one.
    pub fn fail_next_open(&self, error: Error) {
        self.log().open_faults.push_back(error);
    }

    /// Lets the next stream that looks for events fail. Several faults are used up one by one.
    pub fn fail_next_read(&self, error: Error) {
        self.log().read_faults.push_back(error);
        self.0.changed.notify_waiters();
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, after: usize) -> Found {
        let mut log = self.log();
        if let Some(error) = log.read_faults.pop_front() {
            return Found::End(error);
        }
        if log.stopped {
            return Found::End(Error::stopped());
        }
        match log.events.get(after..) {
            Some([]) | None => Found::Nothing,
            Some(events) => Found::Events(events[..events.len().min(PAGE)].to_vec()),
        }
    }

    fn follow(self, mut after: usize, options: StreamOptions) -> BoxEventStream {
        Box::pin(stream! {
            loop {
                let mut changed = pin!(self.0.changed.notified());
                changed.as_mut().enable();
                match self.look(after) {
                    Found::End(error) => {
                        yield Err(error);
                        return;
                    }
                    Found::Events(events) => {
                        for event in events {
                            if let Err(end) = options.hold_back(&event).await {
                                yield Err(end);
                                return;
                            }
                            after += 1;
                            if !event.is_noop() {
                                yield Ok(event);
                            }
                        }
                    }
                    Found::Nothing if options.is_to_head() => {
                        yield Err(Error::head_reached());
                        return;
                    }
                    Found::Nothing => changed.await,
                }
            }
        })
    }
}

impl StreamFunc for MemoryEvents {
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        let head = {
            let mut log = self.log();
            if let Some(error) = log.open_faults.pop_front() {
                return Err(error);
            }
            log.events.len()
        };
        let after = match options.start() {
            Start::Beginning => 0,
            Start::Head => head,
            Start::After(cursor) => position(cursor, head)?,
        };
        let pinned = matches!(options.start(), Start::Head);
        let opened = Opened::new(self.clone().follow(after, options));
        Ok(if pinned { opened.at(after as i64) } else { opened })
    }
}

fn number(id: usize, event: &NewEvent) -> Event {
    let parts = event.parts();
    Event::from(EventParts {
        id: (id as i64).into(),
        event_type: parts.event_type,
        foreign_id: parts.foreign_id,
        timestamp: parts.timestamp.unwrap_or_else(Utc::now),
        metadata: parts.metadata,
        trace: parts.trace,
    })
}

fn position(cursor: &Cursor, head: usize) -> Result<usize> {
    let position = cursor.as_i64().and_then(|id| usize::try_from(id).ok());
    let position = position.ok_or_else(|| {
        Error::invalid(format!("open the events in memory after cursor `{cursor}`: it is not a positive integer"))
    })?;
    if position > head {
        return Err(Error::invalid(format!(
            "open the events in memory after cursor {cursor}: it is ahead of the last event, {head}"
        )));
    }
    Ok(position)
}

/// A cursor store in memory, for tests and examples. Clones share the cursors. It can be told to fail.
///
/// # Examples
///
/// ```
/// use reflex_core::{CursorStore, MemoryCursors};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let cursors = MemoryCursors::new();
/// cursors.set("billing", &7.into()).await.unwrap();
/// assert!(cursors.set("billing", &6.into()).await.unwrap_err().is_cursor_backwards());
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryCursors(Arc<Mutex<Cursors>>);

#[derive(Debug, Default)]
struct Cursors {
    by_consumer: HashMap<String, Cursor>,
    faults: Vec<(Operation, Error)>,
}

/// An operation of a [`CursorStore`], to say which one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`CursorStore::get`].
    Get,
    /// [`CursorStore::set`].
    Set,
    /// [`CursorStore::flush`].
    Flush,
}

impl MemoryCursors {
    /// A store without cursors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All cursors, by consumer.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Cursor> {
        self.lock().by_consumer.clone().into_iter().collect()
    }

    /// Lets the next such operation fail, of whatever consumer. Several faults are used up one by one.
    pub fn fail_next(&self, operation: Operation, error: Error) {
        self.lock().faults.push((operation, error));
    }

    fn lock(&self) -> MutexGuard<'_, Cursors> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cursors {
    fn fault(&mut self, operation: Operation) -> Result<()> {
        match self.faults.iter().position(|(failing, _)| *failing == operation) {
            Some(at) => Err(self.faults.remove(at).1),
            None => Ok(()),
        }
    }
}

impl CursorStore for MemoryCursors {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        let mut cursors = self.lock();
        cursors.fault(Operation::Get)?;
        Ok(cursors.by_consumer.get(consumer).cloned())
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        let mut cursors = self.lock();
        cursors.fault(Operation::Set)?;
        match cursors.by_consumer.get_mut(consumer) {
            Some(stored) => {
                check_forward(consumer, stored, cursor)?;
                *stored = cursor.clone();
            }
            None => {
                cursors.by_consumer.insert(consumer.to_owned(), cursor.clone());
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        self.lock().fault(Operation::Flush)
    }
}
