use std::{
    convert::Infallible,
    future::{self, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use crate::{
    Consumer, Cursor, CursorStore, Error, Event, Metrics, Opened, Progress, Result, Spec, StreamFunc,
    clock::{Clock, Lap, Laps},
    ends,
    health::Watch,
    metrics::Recorder,
    shutdown::Request,
    span::consume_in_span,
    spec::SpecOptions,
    stream::time_left,
};
use futures_core::Stream;
use tokio::{
    select,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout},
};

/// A stream that yielded nothing for this long is idle: delayed cursors are written.
const IDLE: Duration = Duration::from_millis(100);

/// How long delayed cursors may take to be written on the way out.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// While events keep coming, everything else is looked at after this many.
const EVENTS_PER_TURN: u32 = 32;

/// After events have kept coming for this long other tasks are let in, and the runtime looks at its sockets: who reads the
/// events may wait for one. Often would be dear: the runtime hands tasks that wait for their turn to another core.
const BUSY: Duration = Duration::from_millis(1);

/// After an event that took longer than this, everything else is looked at as well.
const SLOW: Duration = Duration::from_millis(1);

/// Runs a consumer until something ends it, which is always an error.
///
/// Gets the cursor, resets the consumer, opens the stream after the cursor, and then for each event: waits until it is as
/// old as the spec's lag, hands it to the consumer, and stores the cursor that the consumer allows. Delayed cursors are
/// flushed when the stream has yielded nothing for 100 ms, and on the way out, where they get 10 seconds.
///
/// An unexpected end is told to `tracing` as one event at ERROR, with the consumer, the event id and the foreign id. Each
/// event is consumed inside a span `consume` at DEBUG; where that level is switched off there is no span, and no trace is
/// continued.
///
/// `Display` of the returned error says where it happened; why it happened is its `source()`, as with all errors here. Print
/// the whole chain, as `anyhow` does with `{:#}`.
///
/// Nothing is tried again. A service that wants to go on calls `run` in a loop, after a pause.
///
/// # Errors
///
/// The first error of the stream, the store or the consumer, with the consumer and the event where there is one. The
/// cursor stays in front of the event that failed; call `run` again to go on there. The end of a
/// [to-head](Spec::to_head) spec is an error too, one that [`is_head_reached`](Error::is_head_reached). If the run ended as
/// intended but a delayed cursor could not be written, that is the error.
///
/// # Panics
///
/// As [`Metrics::global`] does, if the spec has no metrics of its own. A panic of the consumer is not caught: it counts as an
/// error in metrics and health, and passes through this future to whoever polls it, so look at what the task ends with.
///
/// # Cancel safety
///
/// The future may be dropped at any await point. Events whose cursor was not yet written are delivered again by the next
/// run; nothing else is lost.
///
/// # Examples
///
/// See [`Spec`].
pub async fn run<S: StreamFunc, C: CursorStore, K: Consumer>(spec: &mut Spec<S, C, K>) -> Result<Infallible> {
    run_until(spec, future::pending()).await
}

/// Runs a consumer as [`run`] does, until `shutdown` is done as well.
///
/// On a shutdown the event in hand is finished, the consumer drained and the cursors flushed. A wait for lag or for the
/// next event ends at once, and so does one inside the consumer that listens to [`Shutdown`](crate::Shutdown). A handler
/// that never returns is waited for without a limit: put a timeout around the call if the service must end by a certain
/// time.
///
/// # Errors
///
/// As [`run`]; a shutdown ends with an error that [`is_stopped`](Error::is_stopped).
///
/// # Panics
///
/// As [`run`].
///
/// # Cancel safety
///
/// As [`run`].
///
/// # Examples
///
/// ```
/// use reflex_core::{MemoryCursors, MemoryEvents, Spec, consumer_fn, run_until};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let consumer = consumer_fn("ship", |_event| async { Ok(()) });
/// let mut spec = Spec::new(MemoryEvents::new(), MemoryCursors::new(), consumer);
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// stop.send(()).unwrap();
/// let error = run_until(&mut spec, async { stopped.await.unwrap_or_default() }).await.unwrap_err();
/// assert!(error.is_stopped());
/// # });
/// ```
pub async fn run_until<S: StreamFunc, C: CursorStore, K: Consumer>(
    spec: &mut Spec<S, C, K>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Infallible> {
    let metrics = spec.metrics.clone().unwrap_or_else(Metrics::global);
    let consumer: Arc<str> = spec.consumer.name().into();
    let clock = Clock::start();
    let mut engine = Engine {
        recorder: Recorder::new(metrics, consumer.clone(), spec.consumer.monitoring(), clock),
        watch: Watch::start(spec.track.clone(), clock),
        laps: Laps::new(clock),
        name: consumer,
        cursors: &spec.cursors,
        consumer: &mut spec.consumer,
        lag: spec.options.lag,
        foreign_id: Vec::new(),
        turn: 0,
        busy_since: std::time::Instant::now(),
        unflushed: false,
    };
    let shutdown = pin!(shutdown);
    let (mut request, requested) = Request::new(shutdown);
    let ended = requested.scope(engine.follow(&spec.stream, &spec.options, &mut request)).await;
    let error = request.attend(pin!(engine.close(ended))).await;
    let error = error.in_consumer(&engine.name);
    engine.watch.ended(&error, ends::ending(&error, request.is_asked()));
    Err(error)
}

/// One run: the loop and what it remembers.
struct Engine<'a, C, K> {
    name: Arc<str>,
    cursors: &'a C,
    consumer: &'a mut K,
    laps: Laps,
    recorder: Recorder,
    watch: Watch,
    lag: Duration,
    /// That of the event in hand, in case it fails. A clone of the event would cost more: where many consumers read the same
    /// events, its count of references goes from core to core.
    foreign_id: Vec<u8>,
    /// Events since everything else was looked at.
    turn: u32,
    /// Since when events have kept coming, on a clock that no test can stop.
    busy_since: std::time::Instant,
    /// Whether there may be a cursor or a metric to flush.
    unflushed: bool,
}

impl<C: CursorStore, K: Consumer> Engine<'_, C, K> {
    /// Consumes the stream to its end and returns the error that ended it.
    async fn follow<S: StreamFunc>(
        &mut self,
        stream: &S,
        options: &SpecOptions,
        shutdown: &mut Request<'_, impl Future<Output = ()>>,
    ) -> Result<Infallible> {
        let opened = select! {
            biased;
            () = &mut *shutdown => return Err(Error::stopped()),
            opened = self.open(stream, options) => opened?,
        };
        self.watch.opened(opened.status);
        let end = self.consume_all(pin!(opened.events), shutdown).await;
        self.rest();
        let end = end?;
        if end.is_stopped() || end.is_head_reached() || end.is_ended() {
            self.watch.busy();
            let progress = shutdown.attend(pin!(self.consumer.drain())).await.map_err(Error::from_handler)?;
            self.watch.took_long();
            self.settle(progress, shutdown).await?;
        }
        Err(end)
    }

    /// Consumes what the stream yields, and returns the stream's end or a shutdown.
    ///
    /// All that each event goes through stands in here: futures of parts of it would be moved for each event.
    async fn consume_all<S: Stream<Item = Result<Event>>>(
        &mut self,
        mut events: Pin<&mut S>,
        shutdown: &mut Request<'_, impl Future<Output = ()>>,
    ) -> Result<Error> {
        loop {
            let next = match self.next_at_once(events.as_mut()).await {
                Poll::Ready(next) => next,
                Poll::Pending => self.next(events.as_mut(), shutdown).await?,
            };
            let event = match next {
                Ok(event) => event,
                Err(end) => return Ok(end),
            };
            if let Some(left) = time_left(self.lag, &event)
                && let Err(end) = self.wait_for_lag(left, shutdown).await?
            {
                return Ok(end);
            }
            self.begin(&event);
            let id = event.id().clone();
            let consumed = if tracing::enabled!(tracing::Level::DEBUG) {
                // Boxed, so that the future is small where there is no span.
                shutdown.attend(Box::pin(consume_in_span(self.consumer, event)).as_mut()).await
            } else {
                shutdown.attend(pin!(self.consumer.consume(event))).await
            };
            let slow = self.consumed(shutdown.has_waited() || consumed.is_err());
            let progress = consumed.map_err(|error| self.in_hand(Error::from_handler(error), &id))?;
            if let Some(cursor) = self.reached(&progress, Some(&id)) {
                let set = shutdown.attend(pin!(self.cursors.set(&self.name, cursor))).await;
                set.map_err(|error| self.in_hand(error, &id))?;
                self.watch.settled(cursor);
                if shutdown.has_waited() {
                    self.interrupted();
                }
            }
            if slow {
                self.turn = EVENTS_PER_TURN;
                self.rest();
                self.let_others_in().await;
            }
        }
    }

    async fn open<S: StreamFunc>(&mut self, stream: &S, options: &SpecOptions) -> Result<Opened<S::Stream>> {
        let stored = self.cursors.get(&self.name).await?;
        self.consumer.reset().await.map_err(Error::from_handler)?;
        let opened = stream.open(options.stream_options(stored.as_ref())).await?;
        let Some(position) = &opened.position else {
            return Ok(opened);
        };
        match self.store_position(position).await {
            Err(error) if error.is_cursor_backwards() => {
                // Everything up to the stored cursor was consumed before: the head is behind it.
                let from_cursor = SpecOptions { from_head: false, ..options.clone() };
                stream.open(from_cursor.stream_options(stored.as_ref())).await
            }
            Err(error) if !error.is_cursor_unchanged() => Err(error),
            _ => Ok(opened),
        }
    }

    async fn store_position(&mut self, position: &Cursor) -> Result<()> {
        self.cursors.set(&self.name, position).await?;
        self.cursors.flush().await
    }

    /// The next event if it is there, for the price of a poll; pending as well when everything else is to be looked at.
    async fn next_at_once<S: Stream<Item = Result<Event>>>(&mut self, mut events: Pin<&mut S>) -> Poll<Result<Event>> {
        self.turn += 1;
        if self.turn >= EVENTS_PER_TURN {
            return Poll::Pending;
        }
        let polled = poll_fn(|cx| Poll::Ready(events.as_mut().poll_next(cx))).await;
        polled.map(arrived)
    }

    /// Waits for the next event. The inner error is the end of the stream or a shutdown, the outer one a failure.
    async fn next<S: Stream<Item = Result<Event>>>(
        &mut self,
        mut events: Pin<&mut S>,
        shutdown: &mut Request<'_, impl Future<Output = ()>>,
    ) -> Result<Result<Event>> {
        self.rest();
        if self.busy_since.elapsed() >= BUSY {
            self.let_others_in().await;
        }
        let mut has_waited = false;
        let idle_at = Instant::now() + IDLE;
        loop {
            self.turn = 0;
            select! {
                biased;
                () = &mut *shutdown => return Ok(Err(Error::stopped())),
                () = self.consumer.ready() => self.advance(shutdown).await?,
                item = next_or_wait(events.as_mut(), &mut self.watch, &mut has_waited) => {
                    if has_waited {
                        self.busy_since = std::time::Instant::now();
                    }
                    return Ok(arrived(item));
                }
                () = sleep_until(idle_at), if self.unflushed => shutdown.attend(pin!(self.flush())).await?,
            }
        }
    }

    async fn let_others_in(&mut self) {
        yield_now().await;
        self.busy_since = std::time::Instant::now();
    }

    /// Waits until the event is old enough, which takes so long. The inner error is a shutdown.
    async fn wait_for_lag(
        &mut self,
        left: Duration,
        shutdown: &mut Request<'_, impl Future<Output = ()>>,
    ) -> Result<Result<()>> {
        self.rest();
        let mut due = pin!(sleep(left));
        let idle_at = Instant::now() + IDLE;
        loop {
            self.watch.waits_for_lag();
            select! {
                biased;
                () = &mut *shutdown => return Ok(Err(Error::stopped())),
                () = self.consumer.ready() => self.advance(shutdown).await?,
                () = due.as_mut() => return Ok(Ok(())),
                () = sleep_until(idle_at), if self.unflushed => shutdown.attend(pin!(self.flush())).await?,
            }
        }
    }

    /// Notes that an event is about to be consumed.
    fn begin(&mut self, event: &Event) {
        self.unflushed = true;
        self.foreign_id.clear();
        self.foreign_id.extend_from_slice(event.foreign_id_bytes());
        let at = self.laps.begin();
        self.recorder.begin(event.timestamp(), at);
        self.watch.begin(event, at);
    }

    /// Notes that an event was consumed. Returns whether that took long.
    fn consumed(&mut self, waited: bool) -> bool {
        let lap = self.laps.end(waited);
        let slow = lap.is_some_and(|lap| lap.took > SLOW);
        self.record(lap);
        if slow {
            self.watch.took_long();
        }
        slow
    }

    /// Notes that the time that comes belongs to no event.
    fn rest(&mut self) {
        let lap = self.laps.stop();
        self.record(lap);
    }

    /// Notes that the time since the last event belongs to none.
    fn interrupted(&mut self) {
        let lap = self.laps.interrupted();
        self.record(lap);
    }

    fn record(&mut self, lap: Option<Lap>) {
        if let Some(lap) = lap {
            self.recorder.consumed(lap);
        }
    }

    async fn advance(&mut self, shutdown: &mut Request<'_, impl Future<Output = ()>>) -> Result<()> {
        self.watch.busy();
        let progress = shutdown.attend(pin!(self.consumer.advance())).await.map_err(Error::from_handler)?;
        self.watch.took_long();
        self.settle(progress, shutdown).await
    }

    /// Names the event in hand.
    fn in_hand(&self, error: Error, id: &Cursor) -> Error {
        error.at(id, &String::from_utf8_lossy(&self.foreign_id))
    }

    /// How far the cursor may move.
    fn reached<'p>(&self, progress: &'p Progress, consumed: Option<&'p Cursor>) -> Option<&'p Cursor> {
        match progress {
            Progress::Pending => None,
            Progress::Done => consumed,
            Progress::Skipped => {
                self.recorder.skipped();
                consumed
            }
            Progress::UpTo(cursor) => Some(cursor),
        }
    }

    /// Moves the cursor as far as the consumer allows without an event.
    async fn settle(&mut self, progress: Progress, shutdown: &mut Request<'_, impl Future<Output = ()>>) -> Result<()> {
        let Some(cursor) = self.reached(&progress, None) else {
            return Ok(());
        };
        self.unflushed = true;
        shutdown.attend(pin!(self.cursors.set(&self.name, cursor))).await?;
        self.watch.settled(cursor);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.watch.busy();
        self.recorder.flush();
        self.cursors.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    /// Stops the consumer and writes delayed cursors, whatever ended the run, and decides what its error is.
    async fn close(&mut self, ended: Result<Infallible>) -> Error {
        let Err(end) = ended;
        let stopped = self.consumer.stop().await.map_err(Error::from_handler);
        let flushed = match timeout(FLUSH_DEADLINE, self.cursors.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(Error::store(
                "write delayed cursors at the end of a run",
                format!("no answer within {} s", FLUSH_DEADLINE.as_secs()),
            )),
        };
        let error = ends::most_telling(&self.name, end, stopped);
        let error = ends::most_telling(&self.name, error, flushed);
        if !ends::as_intended(&error) {
            self.recorder.failed();
            ends::report(&self.name, &error);
        }
        error
    }
}

/// The next item; notes it where there is none yet.
async fn next_or_wait<S: Stream>(mut stream: Pin<&mut S>, watch: &mut Watch, has_waited: &mut bool) -> Option<S::Item> {
    poll_fn(|cx| {
        let polled = stream.as_mut().poll_next(cx);
        if polled.is_pending() {
            *has_waited = true;
            watch.waits();
        }
        polled
    })
    .await
}

fn arrived(item: Option<Result<Event>>) -> Result<Event> {
    item.unwrap_or_else(|| Err(Error::ended()))
}
