use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use reflex_core::{Cursor, Error, Event};
use tokio::sync::{Notify, watch};
use tracing::Span;

use crate::window::Window;

/// What a run and its workers know together. All waits look at the state before they wait, and are cancel safe.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// For each queue: there is something to look at.
    to_workers: Vec<Notify>,
    /// Something happened that the run waits for.
    to_run: Notify,
    stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    queues: Vec<VecDeque<Task>>,
    /// Tasks in all queues, and tasks that workers took and have not answered for.
    queued: usize,
    in_hand: usize,
    workers: usize,
    starting: usize,
    /// How often the workers were asked to drain, and how many have not done so since.
    drain: u64,
    draining: usize,
    /// Whether the run waits for a stall.
    full: bool,
    failed: bool,
    failure: Option<Error>,
}

/// An event that a worker shall handle.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) number: u64,
    pub(crate) event: Event,
    /// Where it is handled as far as tracing is concerned.
    pub(crate) span: Span,
}

/// What a worker shall do.
#[derive(Debug)]
pub(crate) enum Next {
    Consume(Task),
    /// Drain, for the nth time.
    Drain(u64),
    /// Nothing more: another worker failed.
    End,
}

/// What a run uses.
impl Board {
    pub(crate) fn new(queues: usize, workers: usize) -> Self {
        let state = State {
            queues: (0..queues).map(|_| VecDeque::new()).collect(),
            workers,
            starting: workers,
            ..State::default()
        };
        let to_workers = (0..queues).map(|_| Notify::new()).collect();
        Self { state: Mutex::new(state), to_workers, ..Self::default() }
    }

    /// Hands events over, in the order of the stream, each to its queue.
    pub(crate) fn push(&self, events: impl ExactSizeIterator<Item = (usize, Event, Span)>) {
        let mut woken = vec![0; self.to_workers.len()];
        let mut state = self.lock();
        state.queued += events.len();
        for (queue, event, span) in events {
            let number = state.window.push(event.id().clone());
            state.queues[queue].push_back(Task { number, event, span });
            woken[queue] += 1;
        }
        let workers_per_queue = state.workers / self.to_workers.len();
        drop(state);
        for (notify, events) in self.to_workers.iter().zip(woken) {
            (0..events.min(workers_per_queue)).for_each(|_| notify.notify_one());
        }
    }

    /// Takes what is done in front of the first event that is not.
    pub(crate) fn take_done(&self) -> Option<(usize, Cursor)> {
        self.lock().window.take_done()
    }

    /// Takes the first failure of a worker.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// Waits until there is something to take.
    pub(crate) async fn changed(&self) {
        self.until(State::has_news).await;
    }

    /// Waits until there is something to take, or nothing moves without further events. Returns whether nothing moves.
    pub(crate) async fn stalled(&self) -> bool {
        self.lock().full = true;
        self.until(|state| state.has_news() || state.is_stalled()).await;
        let mut state = self.lock();
        state.full = false;
        !state.has_news()
    }

    /// Asks all workers to drain their consumers once their queue is empty.
    pub(crate) fn ask_to_drain(&self) {
        let mut state = self.lock();
        state.drain += 1;
        state.draining = state.workers;
        drop(state);
        self.to_workers.iter().for_each(Notify::notify_waiters);
    }

    /// Waits until all workers have drained, or one failed.
    pub(crate) async fn drained(&self) {
        self.until(|state| state.draining == 0 || state.failed).await;
    }

    /// Waits until all workers have started, or one failed.
    pub(crate) async fn started(&self) {
        self.until(|state| state.starting == 0 || state.failed).await;
    }

    /// Tells all workers to end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        while !reached(&self.lock()) {
            self.to_run.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the workers use.
impl Board {
    pub(crate) fn note_start(&self) {
        self.lock().starting -= 1;
        self.to_run.notify_one();
    }

    /// Waits until the run says that workers shall end.
    pub(crate) async fn until_stopped(&self) {
        // An error would mean that the board is gone, and the worker holds it.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Waits for something to do. A worker says how often it has drained.
    pub(crate) async fn next(&self, queue: usize, drained: u64) -> Next {
        if let Some(next) = self.lock().next(queue, drained) {
            return next;
        }
        loop {
            let mut woken = pin!(self.to_workers[queue].notified());
            woken.as_mut().enable();
            if let Some(next) = self.lock().next(queue, drained) {
                return next;
            }
            woken.await;
        }
    }

    /// The worker has dealt with a task; its consumer is done with these ones.
    pub(crate) fn answer(&self, done: impl IntoIterator<Item = u64>) {
        let mut state = self.lock();
        state.in_hand -= 1;
        let news = state.note_done(done) || (state.full && state.is_stalled());
        drop(state);
        if news {
            self.to_run.notify_one();
        }
    }

    /// A worker's consumer is done with these tasks, without a further one.
    pub(crate) fn note_done(&self, done: impl IntoIterator<Item = u64>) {
        if self.lock().note_done(done) {
            self.to_run.notify_one();
        }
    }

    /// A worker has drained for the nth time.
    pub(crate) fn note_drained(&self, drain: u64) {
        let mut state = self.lock();
        if state.drain == drain {
            state.draining -= 1;
        }
        drop(state);
        self.to_run.notify_one();
    }

    /// A worker failed. The run learns of the first failure.
    pub(crate) fn fail(&self, error: Error) {
        let mut state = self.lock();
        if state.failed {
            drop(state);
            tracing::error!(error = &error as &dyn std::error::Error, "another task of the consumer failed as well");
            return;
        }
        state.failed = true;
        state.failure = Some(error);
        drop(state);
        self.to_run.notify_one();
        self.to_workers.iter().for_each(Notify::notify_waiters);
    }
}

impl State {
    fn has_news(&self) -> bool {
        self.window.is_due() || self.failure.is_some()
    }

    fn is_stalled(&self) -> bool {
        self.queued == 0 && self.in_hand == 0
    }

    fn next(&mut self, queue: usize, drained: u64) -> Option<Next> {
        if self.failed {
            return Some(Next::End);
        }
        if let Some(task) = self.queues[queue].pop_front() {
            self.queued -= 1;
            self.in_hand += 1;
            return Some(Next::Consume(task));
        }
        (self.drain > drained).then_some(Next::Drain(self.drain))
    }

    /// Returns whether the run has something to take.
    fn note_done(&mut self, done: impl IntoIterator<Item = u64>) -> bool {
        let mut news = false;
        for number in done {
            news |= self.window.done(number);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use reflex_core::EventParts;

    use super::*;

    fn event(id: i64) -> Event {
        Event::from(EventParts {
            id: id.into(),
            event_type: 1.into(),
            foreign_id: "order-12",
            timestamp: Default::default(),
            metadata: b"",
            trace: b"",
        })
    }

    fn push(board: &Board, ids: std::ops::RangeInclusive<i64>) {
        let events: Vec<_> = ids.map(|id| (0, event(id), Span::none())).collect();
        board.push(events.into_iter());
    }

    #[tokio::test]
    async fn after_a_failure_nobody_gets_another_event() {
        let board = Board::new(1, 2);
        push(&board, 1..=3);
        let Next::Consume(first) = board.next(0, 0).await else { panic!("there is an event") };
        board.fail(Error::invalid("no"));
        assert!(matches!(board.next(0, 0).await, Next::End));
        board.answer([first.number]);
        assert_eq!(board.take_done(), Some((1, 1.into())), "what is done counts");
        assert!(board.take_failure().is_some() && board.take_failure().is_none());
        assert!(matches!(board.next(0, 0).await, Next::End));
    }

    #[tokio::test]
    async fn workers_drain_once_their_queue_is_empty_as_often_as_they_are_asked() {
        let board = Board::new(1, 1);
        push(&board, 1..=1);
        board.ask_to_drain();
        assert!(matches!(board.next(0, 0).await, Next::Consume(_)));
        assert!(matches!(board.next(0, 0).await, Next::Drain(1)));
        board.ask_to_drain();
        board.note_drained(1);
        assert!(matches!(board.next(0, 1).await, Next::Drain(2)), "the first answer came too late");
        board.note_drained(2);
        board.drained().await;
        push(&board, 2..=2);
        assert!(matches!(board.next(0, 2).await, Next::Consume(_)));
    }
}
