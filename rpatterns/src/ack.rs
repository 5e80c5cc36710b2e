use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reflex_core::{
    BoxCursorStore, Consumer, Cursor, CursorStore, Error, Event, HandlerError, Monitoring, Progress, Result, Shutdown,
};
use tokio::{select, sync::Notify};

use crate::window::Window;

/// How many events may wait for their acknowledgement, if nothing else is said.
const MAX_UNACKNOWLEDGED: usize = 10_000;

/// Hands each event to `handler` together with the duty to acknowledge it, later and from any task.
///
/// An acknowledgement stores the cursor at once. Events may be acknowledged in any order: the cursor only moves over events
/// that are acknowledged together with all before them, so none is lost. [`AckEvent::ack_up_to`] acknowledges all earlier
/// events as well, for handlers that collect some and finish them together. An event that is never acknowledged keeps the
/// cursor in front of it; it is delivered again by the next run, with all that follow.
///
/// At most 10,000 events are unacknowledged at a time; then the next one waits, which shows as lag.
///
/// The run itself sets no cursor. `cursors` must be the store of the [`Spec`](reflex_core::Spec). The handler returns once it
/// has taken the event over; its error ends the run.
///
/// # Errors
///
/// A [limit](AckConsumer::max_unacknowledged) of 0 is an error of each run, before its stream is opened.
///
/// # Examples
///
/// ```
/// use reflex_core::{MemoryCursors, MemoryEvents, NewEvent, Spec, run};
/// use rpatterns::{AckEvent, ack};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
/// events.append(NewEvent::new("order-12", 1));
/// let ship = ack("ship", cursors.clone(), |event: AckEvent| async move {
///     println!("shipping {}", event.event().foreign_id());
///     Ok(event.ack().await?)
/// });
/// let mut spec = Spec::new(events, cursors.clone(), ship).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// assert_eq!(cursors.all()["ship"], 1.into());
/// # });
/// ```
pub fn ack<C, F, Fut>(name: impl Into<Arc<str>>, cursors: C, handler: F) -> AckConsumer<F>
where
    C: CursorStore + 'static,
    F: FnMut(AckEvent) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    let name = name.into();
    let cursors = BoxCursorStore::new(cursors);
    AckConsumer {
        acks: Arc::new(Acks::new(name.clone(), cursors.clone())),
        name,
        cursors,
        handler,
        max: MAX_UNACKNOWLEDGED,
        monitoring: Monitoring::default(),
    }
}

/// A consumer whose events are acknowledged, made by [`ack`], with its options.
pub struct AckConsumer<F> {
    name: Arc<str>,
    cursors: BoxCursorStore,
    handler: F,
    max: usize,
    monitoring: Monitoring,
    acks: Arc<Acks>,
}

impl<F> AckConsumer<F> {
    /// Sets how many events may be unacknowledged at a time. Default: 10,000.
    #[must_use]
    pub fn max_unacknowledged(mut self, events: usize) -> Self {
        self.max = events;
        self
    }

    /// Sets what is watched about the consumer. Default: [`Monitoring::default`].
    #[must_use]
    pub fn monitored(mut self, monitoring: Monitoring) -> Self {
        self.monitoring = monitoring;
        self
    }
}

impl<F, Fut> Consumer for AckConsumer<F>
where
    F: FnMut(AckEvent) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        select! {
            biased;
            () = self.acks.room(self.max) => {}
            () = Shutdown::current().requested() => return Err(Error::stopped().into()),
        }
        let number = self.acks.positions().push(event.id().clone());
        (self.handler)(AckEvent { event, number, acks: self.acks.clone() }).await?;
        Ok(Progress::Pending)
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        if self.max == 0 {
            return Err(
                Error::invalid("at most 0 unacknowledged events would hand over nothing: make it 1 or more").into()
            );
        }
        self.acks = Arc::new(Acks::new(self.name.clone(), self.cursors.clone()));
        Ok(())
    }

    fn monitoring(&self) -> Monitoring {
        self.monitoring.clone()
    }
}

impl<F> fmt::Debug for AckConsumer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckConsumer").field("name", &self.name).field("max", &self.max).finish_non_exhaustive()
    }
}

/// An event that is to be acknowledged. Dropping it acknowledges nothing.
#[must_use]
pub struct AckEvent {
    event: Event,
    number: u64,
    acks: Arc<Acks>,
}

impl AckEvent {
    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Acknowledges this event. The cursor is stored up to the first one that is not acknowledged.
    ///
    /// It may be done after the end of the run, and again if it failed.
    ///
    /// # Errors
    ///
    /// If the cursor cannot be stored. After the end of the run that is so, too, once another one has stored a higher cursor.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the event is acknowledged; its cursor is stored by now or with the next acknowledgement.
    pub async fn ack(&self) -> Result<()> {
        self.acks.positions().done(self.number);
        self.acks.store().await
    }

    /// Acknowledges this event and all that were delivered before it.
    ///
    /// # Errors
    ///
    /// As [`ack`](AckEvent::ack).
    ///
    /// # Cancel safety
    ///
    /// As [`ack`](AckEvent::ack).
    pub async fn ack_up_to(&self) -> Result<()> {
        self.acks.positions().done_up_to(self.number);
        self.acks.store().await
    }
}

impl fmt::Debug for AckEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckEvent").field("event", &self.event).finish_non_exhaustive()
    }
}

/// What is acknowledged of one run.
struct Acks {
    consumer: Arc<str>,
    cursors: BoxCursorStore,
    positions: Mutex<Positions>,
    /// One write at a time, so that cursors arrive in their order.
    turn: tokio::sync::Mutex<()>,
    acknowledged: Notify,
}

#[derive(Default)]
struct Positions {
    window: Window,
    /// How many events are in the window.
    held: usize,
    /// The number of the first of them.
    first: u64,
    /// Everything up to here is acknowledged, and it is not stored yet.
    unstored: Option<Cursor>,
}

impl Positions {
    fn push(&mut self, cursor: Cursor) -> u64 {
        self.held += 1;
        self.window.push(cursor)
    }

    fn done(&mut self, number: u64) {
        self.window.done(number);
        self.take_done();
    }

    fn done_up_to(&mut self, number: u64) {
        for earlier in self.first..=number {
            self.window.done(earlier);
        }
        self.take_done();
    }

    fn take_done(&mut self) {
        if let Some((count, cursor)) = self.window.take_done() {
            self.held -= count;
            self.first += count as u64;
            self.unstored = Some(cursor);
        }
    }
}

impl Acks {
    fn new(consumer: Arc<str>, cursors: BoxCursorStore) -> Self {
        let (positions, turn, acknowledged) = Default::default();
        Self { consumer, cursors, positions, turn, acknowledged }
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `max` events are held.
    async fn room(&self, max: usize) {
        while self.positions().held >= max {
            self.acknowledged.notified().await;
        }
    }

    async fn store(&self) -> Result<()> {
        // One that nobody waits for is kept, so that none is missed.
        self.acknowledged.notify_one();
        let _turn = self.turn.lock().await;
        let Some(cursor) = self.positions().unstored.clone() else {
            return Ok(());
        };
        match self.cursors.set(&self.consumer, &cursor).await {
            // An earlier write of it did not come to its end.
            Err(error) if !error.is_cursor_unchanged() => return Err(error),
            _ => self.cursors.flush().await?,
        }
        self.positions().unstored.take_if(|unstored| *unstored == cursor);
        Ok(())
    }
}
