use std::{
    convert::Infallible,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reflex_core::{Consumer, CursorStore, Error, Metrics, Result, Spec, StreamFunc, run_until};
use tokio::{
    select,
    time::{Instant, sleep},
};

use crate::delays::{exponential, jittered};

/// The pause after an unexpected end, if nothing else is said: first, and at the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after an expected end, if nothing else is said.
const EXPECTED_PAUSE: Duration = Duration::from_millis(100);

/// How [`run_forever`] goes on after a run has ended.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use rpatterns::RunForever;
///
/// let options = RunForever::new().pause(Duration::from_secs(2), Duration::from_secs(300));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RunForever {
    first: Duration,
    longest: Duration,
    expected: Duration,
    metrics: Option<Metrics>,
}

impl Default for RunForever {
    fn default() -> Self {
        Self { first: FIRST_PAUSE, longest: LONGEST_PAUSE, expected: EXPECTED_PAUSE, metrics: None }
    }
}

impl RunForever {
    /// Pauses of 1 second to 1 minute, and of 100 ms after an expected end.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the pause after an unexpected end: `first`, then twice as long each time, up to `longest`. Each is shortened at
    /// random by up to half. Default: 1 second and 1 minute.
    pub fn pause(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// Sets the pause after an end that [`is_expected`](Error::is_expected), such as a peer that was stopped. Default: 100 ms.
    pub fn expected_pause(mut self, pause: Duration) -> Self {
        self.expected = pause;
        self
    }

    /// Counts restarts here. Default: [`Metrics::global`].
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    fn check(&self) -> Result<()> {
        if self.first.is_zero() || self.longest < self.first || self.expected.is_zero() {
            return Err(Error::invalid(format!(
                "pauses of {:?} to {:?}, and {:?} after an expected end: each must be longer than 0, and the first not \
                 longer than the longest",
                self.first, self.longest, self.expected
            )));
        }
        Ok(())
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        exponential(self.first, self.longest).map(jittered)
    }
}

/// Runs a consumer again whenever its run has ended, until `shutdown` is done or the head of a
/// [to-head](Spec::to_head) spec is reached, and returns the error of that end.
///
/// After an end that [`is_expected`](Error::is_expected), of a source that was stopped for example, it goes on almost at
/// once; after any other, with a pause that grows each time and begins anew after a run that lasted for the longest pause.
/// That holds for all errors: also for one that [says](Error::is_fenced) that another process runs the consumer, which may
/// end, and for one about options or cursors, which somebody may put right. [`run`](reflex_core::run) tells each of them to
/// `tracing`; this function tells when it goes on, and counts it in `reflex_consumer_restarts_count`.
///
/// # Errors
///
/// Always one: it [`is_stopped`](Error::is_stopped) after a shutdown and [`is_head_reached`](Error::is_head_reached) at the
/// head. If a cursor could not be written on the way out, that is the error. Options that cannot be used are an error too.
///
/// # Panics
///
/// As [`run`](reflex_core::run): a panic of the consumer ends this function too.
///
/// # Cancel safety
///
/// As [`run`](reflex_core::run).
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn};
/// use rpatterns::{RunForever, run_forever};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
/// let mut attempts = 0;
/// let ship = consumer_fn("ship", move |_event: Event| {
///     attempts += 1;
///     async move { if attempts == 1 { Err(HandlerError::new("no answer")) } else { Ok(()) } }
/// });
/// let mut spec = Spec::new(events, MemoryCursors::new(), ship).to_head();
/// let signal = std::future::pending(); // a service passes its signal here
/// let error = run_forever(&mut spec, RunForever::new(), signal).await.unwrap_err();
/// assert!(error.is_head_reached());
/// # });
/// ```
pub async fn run_forever<S: StreamFunc, C: CursorStore, K: Consumer>(
    spec: &mut Spec<S, C, K>,
    options: RunForever,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Infallible> {
    options.check()?;
    let restarts = options.metrics.clone().unwrap_or_else(Metrics::global).restarts(spec.name());
    let asked = AtomicBool::new(false);
    let mut shutdown = pin!(async {
        shutdown.await;
        asked.store(true, Ordering::Relaxed);
    });
    let mut pauses = options.pauses();
    loop {
        let since = Instant::now();
        let Err(error) = run_until(spec, shutdown.as_mut()).await;
        if error.is_head_reached() || asked.load(Ordering::Relaxed) {
            return Err(error);
        }
        if since.elapsed() >= options.longest {
            pauses = options.pauses();
        }
        let pause = if error.is_expected() { Some(options.expected) } else { pauses.next() };
        let pause = pause.unwrap_or(options.longest);
        tracing::info!(consumer = spec.name(), ?pause, "the consumer is run again after the pause");
        select! {
            biased;
            () = shutdown.as_mut() => return Err(Error::stopped().in_consumer(spec.name())),
            () = sleep(pause) => restarts.inc(),
        }
    }
}
