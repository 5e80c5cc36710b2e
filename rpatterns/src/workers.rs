mod board;
mod worker;

use std::{fmt, sync::Arc};

use reflex_core::{Consumer, Error, Event, HandlerError, Metrics, Monitoring, Progress, Shutdown};
use tokio::task::JoinSet;
use tracing::Span;

use self::{board::Board, worker::Worker};
use crate::Key;

/// How many events may be on their way at once, unless the user says otherwise.
const WINDOW: usize = 1_024;

/// So many events are collected before they are handed over to the tasks, unless the stream pauses before.
const HAND_OVER: usize = 32;

/// A consumer whose events are handled by several tasks, made by [`keyed_lanes`](crate::keyed_lanes) and
/// [`concurrent`](crate::concurrent).
///
/// # Cursor
///
/// There is one cursor, and it moves over the contiguous prefix of done events only: everything up to it is done. Events that
/// were done after an unfinished one come again after a crash or a failure.
///
/// At most a [window](Workers::window) of events is on its way at once, counted from the stored cursor: this is the most that
/// comes again. While the window is full the stream is not read, so one slow event holds up the others only when
/// they are a window ahead of it. On a shutdown all events on their way are finished.
///
/// # Tasks
///
/// Each task works with a consumer of its own, which is made at the start of each run and may be any pattern: it is reset,
/// asked to advance, drained and stopped inside its task. Where the window is full of events that these consumers hold back,
/// for example in batches that are not full, they are drained, and go on afterwards.
///
/// The first failure ends the run at once, with an error that names the event: the other tasks take no further event, and
/// their handlers are dropped at their next await point. What was done by then counts for the cursor. A handler that panics
/// is a failure too. The tasks end with the run; if its future is dropped, at their next await point.
///
/// # Metrics
///
/// An event counts as consumed when it is handed over to a task, so the latency is not that of the handler. What the
/// consumers inside skip is counted as skipped in the metrics that [`metrics`](Workers::metrics) names. The span of the event
/// is entered by the task.
///
/// # Panics
///
/// The start of a run panics outside of a tokio runtime.
pub struct Workers<K> {
    /// Tells name and monitoring; handles nothing.
    template: K,
    make: Box<dyn FnMut(usize) -> K + Send>,
    route: Route,
    workers: usize,
    window: usize,
    metrics: Option<Metrics>,
    board: Arc<Board>,
    tasks: JoinSet<Result<(), HandlerError>>,
    /// What was consumed and not yet handed over, each with its queue.
    collected: Vec<(usize, Event, Span)>,
    /// Events that were consumed and that the cursor has not moved over.
    on_their_way: usize,
}

/// Which task gets an event.
#[derive(Debug)]
pub(crate) enum Route {
    /// Each has a queue, chosen by the key.
    ByKey(Key),
    /// All have one queue.
    Any,
}

impl Route {
    fn queues(&self, workers: usize) -> usize {
        match self {
            Self::ByKey(_) => workers,
            Self::Any => 1,
        }
    }

    fn queue(&self, event: &Event, workers: usize) -> Result<usize, HandlerError> {
        match self {
            Self::ByKey(key) => key.index(event, workers),
            Self::Any => Ok(0),
        }
    }
}

impl<K: Consumer + 'static> Workers<K> {
    pub(crate) fn cloned(workers: usize, route: Route, inner: K) -> Self
    where
        K: Clone,
    {
        let original = inner.clone();
        Self::new(workers, route, inner, Box::new(move |_| original.clone()))
    }

    pub(crate) fn made(workers: usize, route: Route, mut make: impl FnMut(usize) -> K + Send + 'static) -> Self {
        Self::new(workers, route, make(0), Box::new(make))
    }

    fn new(workers: usize, route: Route, template: K, make: Box<dyn FnMut(usize) -> K + Send>) -> Self {
        Self {
            template,
            make,
            route,
            workers,
            window: WINDOW,
            metrics: None,
            board: Arc::default(),
            tasks: JoinSet::new(),
            collected: Vec::new(),
            on_their_way: 0,
        }
    }

    /// Sets how many events may be on their way at once, done ones behind an unfinished one included. Default: 1,024.
    ///
    /// A shutdown finishes what is on its way. If that takes longer than the service has to stop, with slow handlers and few
    /// tasks, make the window smaller.
    ///
    /// A window of zero is an error of each run.
    #[must_use]
    pub fn window(mut self, events: usize) -> Self {
        self.window = events;
        self
    }

    /// Counts skipped events there. Default: [`Metrics::global`].
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    fn check(&self) -> Result<(), Error> {
        if self.workers == 0 {
            return Err(Error::invalid("there are 0 tasks to handle events: make it 1 or more"));
        }
        if self.window == 0 {
            return Err(Error::invalid("the window is 0 events: make it 1 or more"));
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if !self.collected.is_empty() {
            self.board.push(self.collected.drain(..));
        }
    }

    /// Waits until events are done, or a task failed.
    async fn make_room(&mut self) {
        if self.board.stalled().await {
            self.board.ask_to_drain();
            self.board.changed().await;
        }
    }

    fn take_done(&mut self) -> Progress {
        match self.board.take_done() {
            Some((count, cursor)) => {
                self.on_their_way -= count;
                Progress::UpTo(cursor)
            }
            None => Progress::Pending,
        }
    }

    /// What is done, before a failure: the cursor moves over it first.
    fn settle(&mut self) -> Result<Progress, HandlerError> {
        match self.take_done() {
            Progress::Pending => self.board.take_failure().map_or(Ok(Progress::Pending), |error| Err(error.into())),
            progress => Ok(progress),
        }
    }
}

impl<K: Consumer + 'static> Consumer for Workers<K> {
    fn name(&self) -> &str {
        self.template.name()
    }

    async fn consume(&mut self, event: Event) -> Result<Progress, HandlerError> {
        let queue = self.route.queue(&event, self.workers)?;
        let mut progress = Progress::Pending;
        if self.on_their_way >= self.window {
            self.hand_over();
            self.make_room().await;
            progress = self.take_done();
        }
        self.collected.push((queue, event, Span::current()));
        self.on_their_way += 1;
        if self.collected.len() >= HAND_OVER {
            self.hand_over();
        }
        Ok(progress)
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.check()?;
        self.tasks.shutdown().await;
        self.collected.clear();
        self.on_their_way = 0;
        let queues = self.route.queues(self.workers);
        self.board = Arc::new(Board::new(queues, self.workers));
        let metrics = self.metrics.clone().unwrap_or_else(Metrics::global);
        let skipped = metrics.skipped(self.template.name());
        for index in 0..self.workers {
            let worker = Worker::new(self.board.clone(), index % queues, (self.make)(index), skipped.clone());
            self.tasks.spawn(Shutdown::current().scope(worker.work()));
        }
        self.board.started().await;
        self.board.take_failure().map_or(Ok(()), |error| Err(error.into()))
    }

    async fn ready(&mut self) {
        if self.collected.is_empty() {
            self.board.changed().await;
        }
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        self.hand_over();
        self.settle()
    }

    async fn drain(&mut self) -> Result<Progress, HandlerError> {
        self.hand_over();
        self.board.ask_to_drain();
        self.board.drained().await;
        self.settle()
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.board.stop();
        let mut stopped = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            stopped = stopped.and(ended.map_err(HandlerError::from).flatten());
        }
        self.collected.clear();
        self.board.take_failure().map_or(stopped, |error| Err(error.into()))
    }

    fn monitoring(&self) -> Monitoring {
        self.template.monitoring()
    }
}

impl<K: Consumer> fmt::Debug for Workers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("consumer", &self.template.name())
            .field("route", &self.route)
            .field("workers", &self.workers)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
