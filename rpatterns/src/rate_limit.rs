use std::{collections::VecDeque, fmt, pin::pin, time::Duration};

use reflex_core::{Consumer, Error, HandlerError, Progress, Shutdown};
use tokio::{
    select,
    time::{Instant, sleep},
};

/// Hands over at most `n` inputs within any `period`, wherever it begins; what is more waits.
///
/// Around a consumer of events, it limits events; inside of [`batch`](crate::batch()), batches; around lanes, all of them
/// together. The limit is this consumer's: each process has its own, and it begins anew with each value that is made.
///
/// While an input waits, timers of the consumer inside go on. A shutdown ends the wait at once: the input counts as not
/// handled, and the next run gets it again.
///
/// # Errors
///
/// An `n` or a `period` of zero is an error of each run, before its stream is opened.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::rate_limit;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// for order in 1..=5 {
///     events.append(NewEvent::new(order, 1));
/// }
/// let call = consumer_fn("call", |event: Event| async move { Ok(println!("calling {}", event.foreign_id())) });
/// let mut spec = Spec::new(events, MemoryCursors::new(), rate_limit(2, Duration::from_secs(1), call)).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn rate_limit<K>(n: usize, period: Duration, inner: K) -> RateLimit<K> {
    RateLimit { inner, n, period, handed_over: VecDeque::new() }
}

/// A consumer that is handed so much and no more, made by [`rate_limit`].
#[derive(Clone)]
pub struct RateLimit<K> {
    inner: K,
    n: usize,
    period: Duration,
    /// When the last inputs were handed over, at most `n`, oldest first.
    handed_over: VecDeque<Instant>,
}

impl<K> RateLimit<K> {
    fn check(&self) -> Result<(), Error> {
        if self.n == 0 {
            return Err(Error::invalid("a rate limit of 0 would hand over nothing: make it 1 or more"));
        }
        if self.period.is_zero() {
            return Err(Error::invalid("a rate limit has a period of 0: make it longer"));
        }
        Ok(())
    }

    /// How long the next input has to wait, if it has to.
    fn time_left(&self) -> Option<Duration> {
        if self.handed_over.len() < self.n {
            return None;
        }
        let oldest = self.handed_over.front()?;
        self.period.checked_sub(oldest.elapsed()).filter(|left| !left.is_zero())
    }

    fn note(&mut self) {
        if self.handed_over.len() == self.n {
            self.handed_over.pop_front();
        }
        self.handed_over.push_back(Instant::now());
    }

    /// Waits until the next input may be handed over. Returns how far the consumer inside got meanwhile.
    async fn admit<T>(&mut self) -> Result<Progress, HandlerError>
    where
        K: Consumer<T>,
    {
        let progress = match self.time_left() {
            Some(left) => self.wait(left).await?,
            None => Progress::Pending,
        };
        self.note();
        Ok(progress)
    }

    /// Waits, and lets the consumer inside do what it has to do meanwhile. Returns how far it got.
    async fn wait<T>(&mut self, left: Duration) -> Result<Progress, HandlerError>
    where
        K: Consumer<T>,
    {
        let mut progress = Progress::Pending;
        let mut stopping = pin!(Shutdown::current().requested());
        let mut due = pin!(sleep(left));
        loop {
            select! {
                biased;
                () = stopping.as_mut() => return Err(Error::stopped().into()),
                () = self.inner.ready() => {
                    if let advanced @ Progress::UpTo(_) = self.inner.advance().await? {
                        progress = advanced;
                    }
                }
                () = due.as_mut() => return Ok(progress),
            }
        }
    }
}

impl<T: Send, K: Consumer<T>> Consumer<T> for RateLimit<K> {
    forward_the_rest!();

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        let advanced = self.admit().await?;
        match self.inner.consume(input).await? {
            Progress::Pending => Ok(advanced),
            progress => Ok(progress),
        }
    }

    async fn redrive(&mut self, input: T) -> Result<Progress, HandlerError> {
        drop(self.admit().await?);
        self.inner.redrive(input).await
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.check()?;
        self.inner.reset().await
    }
}

impl<K> fmt::Debug for RateLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("n", &self.n).field("period", &self.period).finish_non_exhaustive()
    }
}
