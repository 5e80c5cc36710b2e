use std::{
    any::Any,
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use prometheus::IntCounter;
use reflex_core::{Consumer, Cursor, Error, Event, HandlerError, Progress, Result, Shutdown};
use tokio::{select, task::coop::consume_budget};
use tracing::Instrument;

use super::board::{Board, Next, Task};

/// Handles the events of a queue, one after the other, with a consumer of its own.
pub(crate) struct Worker<K> {
    board: Arc<Board>,
    queue: usize,
    consumer: K,
    skipped: IntCounter,
    /// What the consumer was handed and is not done with, in that order.
    open: VecDeque<(u64, Cursor)>,
    /// How often it has drained.
    drained: u64,
    /// What the consumer works on: names a failure.
    in_hand: Option<Event>,
}

impl<K: Consumer> Worker<K> {
    pub(crate) fn new(board: Arc<Board>, queue: usize, consumer: K, skipped: IntCounter) -> Self {
        Self { board, queue, consumer, skipped, open: VecDeque::new(), drained: 0, in_hand: None }
    }

    /// Works until it is told to stop, or something fails, and stops the consumer. Just ends when the run was dropped.
    pub(crate) async fn work(self) -> Result<(), HandlerError> {
        select! {
            biased;
            () = Shutdown::current().over() => Ok(()),
            ended = self.work_and_stop() => ended,
        }
    }

    async fn work_and_stop(mut self) -> Result<(), HandlerError> {
        let board = self.board.clone();
        let ended = select! {
            biased;
            () = board.until_stopped() => Ok(()),
            ended = caught(self.follow()) => ended,
        };
        if let Err(error) = ended {
            board.fail(match &self.in_hand {
                Some(event) => error.at_event(event),
                None => error,
            });
        }
        self.consumer.stop().await
    }

    async fn follow(&mut self) -> Result<()> {
        self.consumer.reset().await.map_err(Error::from_handler)?;
        self.board.note_start();
        loop {
            let next = select! {
                biased;
                () = self.consumer.ready() => None,
                next = self.board.next(self.queue, self.drained) => Some(next),
            };
            match next {
                None => self.advance().await?,
                Some(Next::Consume(task)) => self.consume(task).await?,
                Some(Next::Drain(drain)) => self.drain(drain).await?,
                Some(Next::End) => return Ok(()),
            }
            consume_budget().await;
        }
    }

    async fn consume(&mut self, task: Task) -> Result<()> {
        let Task { number, event, span } = task;
        self.in_hand = Some(event.clone());
        self.open.push_back((number, event.id().clone()));
        let progress = self.consumer.consume(event).instrument(span).await.map_err(Error::from_handler)?;
        self.in_hand = None;
        if progress == Progress::Skipped {
            self.skipped.inc();
        }
        let done = match progress {
            Progress::Done | Progress::Skipped => self.open.len(),
            other => self.covered(&other),
        };
        self.board.answer(self.open.drain(..done).map(|(number, _)| number));
        Ok(())
    }

    async fn advance(&mut self) -> Result<()> {
        let progress = self.consumer.advance().await.map_err(Error::from_handler)?;
        self.note_done(&progress);
        Ok(())
    }

    async fn drain(&mut self, drain: u64) -> Result<()> {
        let progress = self.consumer.drain().await.map_err(Error::from_handler)?;
        self.note_done(&progress);
        self.drained = drain;
        self.board.note_drained(drain);
        Ok(())
    }

    fn note_done(&mut self, progress: &Progress) {
        let done = self.covered(progress);
        self.board.note_done(self.open.drain(..done).map(|(number, _)| number));
    }

    /// How many of the open events an answer covers that is not about an event.
    fn covered(&self, progress: &Progress) -> usize {
        let Progress::UpTo(cursor) = progress else { return 0 };
        self.open.iter().position(|(_, open)| open == cursor).map_or(0, |at| at + 1)
    }
}

/// Makes a panic an error.
async fn caught(future: impl Future<Output = Result<()>>) -> Result<()> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))))
    })
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::from_handler(HandlerError::new(format!("it panicked: {text}")))
}
