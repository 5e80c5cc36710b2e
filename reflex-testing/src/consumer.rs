use std::{
    collections::HashMap,
    future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reflex_core::{Consumer, Cursor, Event, HandlerError, Monitoring, Progress};
use tokio::sync::Notify;

use crate::eventually;

/// What a [`ScriptedConsumer`] does when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// It gives this answer.
    Answer(Progress),
    /// It fails with this message.
    Fail(String),
    /// It never answers.
    Hang,
}

impl Step {
    /// Fails with a message.
    #[must_use]
    pub fn fail(message: impl Into<String>) -> Self {
        Self::Fail(message.into())
    }

    async fn take(self) -> Result<Progress, HandlerError> {
        match self {
            Self::Answer(progress) => Ok(progress),
            Self::Fail(message) => Err(HandlerError::new(message)),
            Self::Hang => future::pending().await,
        }
    }
}

impl From<Progress> for Step {
    fn from(progress: Progress) -> Self {
        Self::Answer(progress)
    }
}

/// What a [`ScriptedConsumer`] was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// To forget an earlier run.
    Reset,
    /// To consume the event with this id.
    Consume(Cursor),
    /// To do what it had announced.
    Advance,
    /// To finish what is in hand.
    Drain,
    /// To end a run.
    Stop,
}

/// A consumer that does what its script says and remembers what it was asked.
///
/// Without a script it answers `Done` to each event, and `Pending` when it advances or drains.
///
/// # Examples
///
/// ```
/// use reflex_core::{MemoryCursors, MemoryEvents, NewEvent, Progress, Spec, run};
/// use reflex_testing::{Call, ScriptedConsumer};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
/// events.append(NewEvent::new("order-12", 1));
///
/// let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending).on_drain(Progress::UpTo(1.into()));
/// let calls = consumer.calls();
/// let mut spec = Spec::new(events, cursors.clone(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// assert_eq!(calls.all(), [Call::Reset, Call::Consume(1.into()), Call::Drain, Call::Stop]);
/// assert_eq!(cursors.all()["batch"], 1.into());
/// # });
/// ```
#[derive(Debug)]
pub struct ScriptedConsumer {
    name: String,
    monitoring: Monitoring,
    steps: HashMap<usize, Step>,
    on_reset: Step,
    on_advance: Step,
    on_drain: Step,
    on_stop: Step,
    calls: Calls,
}

impl ScriptedConsumer {
    /// A consumer without a script.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            monitoring: Monitoring::default(),
            steps: HashMap::new(),
            on_reset: Progress::Done.into(),
            on_advance: Progress::Pending.into(),
            on_drain: Progress::Pending.into(),
            on_stop: Progress::Done.into(),
            calls: Calls::default(),
        }
    }

    /// What it does with the nth event that it is handed, counted from 0 over all runs. Default: `Done`.
    #[must_use]
    pub fn at(mut self, nth: usize, step: impl Into<Step>) -> Self {
        self.steps.insert(nth, step.into());
        self
    }

    /// What it does at the start of a run; any answer is a success. Default: succeeds.
    #[must_use]
    pub fn on_reset(mut self, step: impl Into<Step>) -> Self {
        self.on_reset = step.into();
        self
    }

    /// What it does after [`Calls::wake`]. Default: `Pending`.
    #[must_use]
    pub fn on_advance(mut self, step: impl Into<Step>) -> Self {
        self.on_advance = step.into();
        self
    }

    /// What it does when no further event will come. Default: `Pending`.
    #[must_use]
    pub fn on_drain(mut self, step: impl Into<Step>) -> Self {
        self.on_drain = step.into();
        self
    }

    /// What it does at the end of a run; any answer is a success. Default: succeeds.
    #[must_use]
    pub fn on_stop(mut self, step: impl Into<Step>) -> Self {
        self.on_stop = step.into();
        self
    }

    /// What is watched about it. Default: [`Monitoring::default`].
    #[must_use]
    pub fn monitored(mut self, monitoring: Monitoring) -> Self {
        self.monitoring = monitoring;
        self
    }

    /// A handle to what it was asked, which stays useful while the consumer runs.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    fn next_step(&mut self, event: Event) -> Step {
        let nth = self.calls.consumed().len();
        self.calls.lock().consumed.push(event.clone());
        self.calls.note(Call::Consume(event.id().clone()));
        self.steps.get(&nth).cloned().unwrap_or(Step::Answer(Progress::Done))
    }
}

impl Consumer for ScriptedConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        self.next_step(event).take().await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.calls.note(Call::Reset);
        self.on_reset.clone().take().await.map(drop)
    }

    async fn ready(&mut self) {
        self.calls.0.wake.notified().await;
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        self.calls.note(Call::Advance);
        self.on_advance.clone().take().await
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        self.calls.note(Call::Drain);
        self.on_drain.clone().take().await
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.calls.note(Call::Stop);
        self.on_stop.clone().take().await.map(drop)
    }

    fn monitoring(&self) -> Monitoring {
        self.monitoring.clone()
    }
}

/// What a [`ScriptedConsumer`] was asked so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<CallsInner>);

#[derive(Debug, Default)]
struct CallsInner {
    log: Mutex<Log>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Log {
    all: Vec<Call>,
    consumed: Vec<Event>,
}

impl Calls {
    /// All calls, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Call> {
        self.lock().all.clone()
    }

    /// How often it was asked this.
    #[must_use]
    pub fn count(&self, call: &Call) -> usize {
        self.lock().all.iter().filter(|made| *made == call).count()
    }

    /// The events that it was handed, in order, those that it failed on included.
    #[must_use]
    pub fn consumed(&self) -> Vec<Event> {
        self.lock().consumed.clone()
    }

    /// The integer ids of the events that it was handed; other ids are left out.
    #[must_use]
    pub fn consumed_ids(&self) -> Vec<i64> {
        self.lock().consumed.iter().filter_map(|event| event.id().as_i64()).collect()
    }

    /// Makes the consumer ready without an event, so that it is asked to advance.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Waits until it was handed at least this many events.
    ///
    /// # Panics
    ///
    /// If that does not happen in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn await_consumed(&self, count: usize, deadline: Duration) {
        eventually(&format!("{count} consumed events"), deadline, || {
            future::ready(self.lock().consumed.len() >= count)
        })
        .await;
    }

    fn note(&self, call: Call) {
        self.lock().all.push(call);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
