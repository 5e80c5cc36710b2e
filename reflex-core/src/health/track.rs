//! What a run notes about itself, at the price of a few relaxed stores per event, and what is read from it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::StreamPosition;
use crate::{
    Cursor, Error, Event,
    clock::{Clock, Moment, nanos},
    stream::StreamStatus,
};

/// What a consumer is doing, as its run sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    NotStarted,
    Starting,
    Busy,
    Waiting,
    WaitingForLag,
    Ended,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::NotStarted, Self::Starting, Self::Busy, Self::Waiting, Self::WaitingForLag, Self::Ended];
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As its service wanted it.
    Intended,
    /// By the other side, as it happens.
    Expected,
    Failed,
}

/// The place where the runs of one consumer note how they are. Times are nanoseconds after `base`, and 0 is none.
#[derive(Debug)]
pub(crate) struct Track {
    pub(super) name: Arc<str>,
    base: Instant,
    phase: AtomicU8,
    phase_at: AtomicU64,
    handed: LastCursor,
    settled: LastCursor,
    /// Since when something was handed over and the cursor has not moved.
    unsettled_at: AtomicU64,
    progress_at: AtomicU64,
    /// When somebody who looked found it behind for the first time since there was progress.
    behind_at: AtomicU64,
    events: AtomicU64,
    slow: Mutex<Slow>,
}

/// What changes only when a run begins or ends.
#[derive(Default)]
struct Slow {
    runs: u64,
    failures: u64,
    followed: bool,
    failing: Option<Failing>,
    last_error: Option<Failure>,
    ending: Option<Ending>,
    status: Option<StreamStatus>,
}

/// It has not recovered yet from a failure.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) since: Instant,
    pub(crate) event_id: Option<Cursor>,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) at: Instant,
    pub(crate) event_id: Option<Cursor>,
    pub(crate) foreign_id: Option<String>,
}

/// What was read from a track at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) name: Arc<str>,
    pub(crate) now: Instant,
    pub(crate) phase: Phase,
    pub(crate) phase_at: Instant,
    pub(crate) handed: Option<Cursor>,
    pub(crate) settled: Option<Cursor>,
    pub(crate) unsettled_at: Option<Instant>,
    pub(crate) progress_at: Option<Instant>,
    pub(crate) events: u64,
    pub(crate) runs: u64,
    pub(crate) failures: u64,
    pub(crate) followed: bool,
    pub(crate) failing: Option<Failing>,
    pub(crate) last_error: Option<Failure>,
    pub(crate) ending: Option<Ending>,
    pub(crate) position: StreamPosition,
    pub(crate) behind_since: Option<Instant>,
}

impl Track {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            base: Instant::now(),
            phase: AtomicU8::new(Phase::NotStarted as u8),
            phase_at: AtomicU64::new(1),
            handed: LastCursor::default(),
            settled: LastCursor::default(),
            unsettled_at: AtomicU64::new(0),
            progress_at: AtomicU64::new(0),
            behind_at: AtomicU64::new(0),
            events: AtomicU64::new(0),
            slow: Mutex::default(),
        }
    }

    pub(crate) fn look(&self) -> Snapshot {
        let slow = self.slow();
        let position = slow.status.as_ref().map(|status| status()).unwrap_or_default();
        // The phase first: the time that belongs to it was written before it, so it cannot be an older one.
        let phase = Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))];
        Snapshot {
            name: self.name.clone(),
            phase,
            phase_at: self.instant(&self.phase_at).unwrap_or(self.base),
            unsettled_at: self.instant(&self.unsettled_at),
            progress_at: self.instant(&self.progress_at),
            handed: self.handed.get(),
            settled: self.settled.get(),
            events: self.events.load(Ordering::Relaxed),
            runs: slow.runs,
            failures: slow.failures,
            followed: slow.followed,
            failing: slow.failing.clone(),
            last_error: slow.last_error.clone(),
            ending: slow.ending,
            behind_since: self.behind_since(position.behind.unwrap_or(0)),
            position,
            now: Instant::now(),
        }
    }

    /// A source cannot tell since when a stream is behind: it may have been at the head until a moment ago.
    fn behind_since(&self, behind: u64) -> Option<Instant> {
        let known = self.behind_at.load(Ordering::Relaxed);
        if behind == 0 {
            self.behind_at.store(0, Ordering::Relaxed);
        } else if known == 0 || known < self.progress_at.load(Ordering::Relaxed) {
            self.behind_at.store(self.nanos(Instant::now()), Ordering::Relaxed);
        }
        self.instant(&self.behind_at)
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.base)) + 1
    }

    fn instant(&self, nanos: &AtomicU64) -> Option<Instant> {
        let nanos = nanos.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base + Duration::from_nanos(nanos))
    }
}

/// The end of a run that writes to a track; does nothing for a spec without health.
pub(crate) struct Watch {
    track: Option<Arc<Track>>,
    clock: Clock,
    /// When the clock was started, in the time of the track.
    started: u64,
    phase: Phase,
    /// The time, as far as the run knows it without asking.
    at: Moment,
    unsettled: bool,
    /// The failure that the run has to recover from.
    failing: Option<Failing>,
    events: u64,
}

impl Watch {
    /// Notes that a run begins.
    pub(crate) fn start(track: Option<Arc<Track>>, clock: Clock) -> Self {
        let started = track.as_ref().map_or(0, |track| track.nanos(clock.instant(Moment::START)));
        let mut watch = Self {
            track,
            clock,
            started,
            phase: Phase::Ended,
            at: Moment::START,
            unsettled: false,
            failing: None,
            events: 0,
        };
        if let Some(track) = &watch.track {
            let mut slow = track.slow();
            slow.runs += 1;
            slow.ending = None;
            watch.failing = slow.failing.clone();
            watch.events = track.events.load(Ordering::Relaxed);
        }
        watch.enter(Phase::Starting);
        watch
    }

    /// Notes that the stream is open.
    pub(crate) fn opened(&mut self, status: Option<StreamStatus>) {
        if let Some(track) = &self.track {
            let mut slow = track.slow();
            slow.followed = true;
            slow.status = status;
        }
        self.busy();
    }

    /// Notes that something is done that is not an event.
    pub(crate) fn busy(&mut self) {
        self.enter(Phase::Busy);
    }

    /// Notes that the stream has nothing to yield.
    pub(crate) fn waits(&mut self) {
        self.enter(Phase::Waiting);
    }

    /// Notes that the next event is not old enough.
    pub(crate) fn waits_for_lag(&mut self) {
        self.enter(Phase::WaitingForLag);
    }

    /// Notes that an event is handed over.
    #[inline]
    pub(crate) fn begin(&mut self, event: &Event, at: Moment) {
        let Some(track) = &self.track else { return };
        self.at = at;
        track.handed.set(event.id());
        self.events += 1;
        track.events.store(self.events, Ordering::Relaxed);
        if !self.unsettled {
            self.unsettled = true;
            track.unsettled_at.store(self.started + at.nanos(), Ordering::Relaxed);
        }
        self.enter_at(Phase::Busy, |_| at);
    }

    /// Notes that what was done last took so long that its time is not the present one.
    pub(crate) fn took_long(&mut self) {
        self.at = self.clock.now();
    }

    /// Notes that the cursor has moved.
    #[inline]
    pub(crate) fn settled(&mut self, cursor: &Cursor) {
        if self.track.is_some() {
            self.settle(cursor);
        }
    }

    fn settle(&mut self, cursor: &Cursor) {
        let Some(track) = &self.track else { return };
        let at = self.started + self.at.nanos();
        track.settled.set(cursor);
        track.progress_at.store(at, Ordering::Relaxed);
        self.unsettled = !track.handed.is(cursor);
        track.unsettled_at.store(if self.unsettled { at } else { 0 }, Ordering::Relaxed);
        if let Some(failing) = &self.failing
            && failing.is_passed_by(cursor)
        {
            self.failing = None;
            track.slow().failing = None;
        }
    }

    /// Notes why the run ended.
    pub(crate) fn ended(&mut self, error: &Error, ending: Ending) {
        let failure = Failure {
            message: chain(error),
            at: Instant::now(),
            event_id: error.event_id().cloned(),
            foreign_id: error.foreign_id().map(str::to_owned),
        };
        self.end(ending, (ending != Ending::Intended).then_some(failure));
    }

    fn end(&mut self, ending: Ending, failure: Option<Failure>) {
        let Some(track) = self.track.take() else { return };
        // Whether it had recovered is asked of what it was until this moment.
        let recovered = ending == Ending::Failed && super::judge::has_recovered(&track.look());
        let mut slow = track.slow();
        slow.status = None;
        slow.ending = Some(ending);
        if let (Ending::Failed, Some(failure)) = (ending, &failure) {
            let since = slow.failing.take().filter(|_| !recovered).map_or(failure.at, |failing| failing.since);
            slow.failing = Some(Failing { since, event_id: failure.event_id.clone() });
            slow.failures += 1;
        }
        if failure.is_some() {
            slow.last_error = failure;
        }
        track.unsettled_at.store(0, Ordering::Relaxed);
        track.phase_at.store(track.nanos(Instant::now()), Ordering::Relaxed);
        track.phase.store(Phase::Ended as u8, Ordering::Release);
    }

    fn enter(&mut self, phase: Phase) {
        self.enter_at(phase, Clock::now);
    }

    #[inline]
    fn enter_at(&mut self, phase: Phase, at: impl FnOnce(&Clock) -> Moment) {
        if self.phase == phase {
            return;
        }
        self.phase = phase;
        if let Some(track) = &self.track {
            track.phase_at.store(self.started + at(&self.clock).nanos(), Ordering::Relaxed);
            track.phase.store(phase as u8, Ordering::Release);
        }
    }
}

impl Drop for Watch {
    /// The run was dropped, or its handler panicked.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.end(Ending::Intended, None);
        }
        let handed = self.track.as_ref().filter(|_| self.unsettled).and_then(|track| track.handed.get());
        let message = "the run panicked".to_owned();
        self.end(Ending::Failed, Some(Failure { message, at: Instant::now(), event_id: handed, foreign_id: None }));
    }
}

impl Failing {
    /// Whether a consumer that has come this far has passed what it failed at.
    fn is_passed_by(&self, cursor: &Cursor) -> bool {
        match (self.event_id.as_ref().and_then(Cursor::as_i64), cursor.as_i64()) {
            (Some(failed), Some(reached)) => reached >= failed,
            _ => true,
        }
    }
}

/// A cursor that one writes and others read. An integer costs no lock.
#[derive(Debug, Default)]
struct LastCursor {
    integer: AtomicI64,
    kind: AtomicU8,
    text: Mutex<Option<Cursor>>,
}

const INTEGER: u8 = 1;
const TEXT: u8 = 2;

impl LastCursor {
    #[inline]
    fn set(&self, cursor: &Cursor) {
        let kind = match cursor.as_i64() {
            Some(integer) => {
                self.integer.store(integer, Ordering::Relaxed);
                INTEGER
            }
            None => {
                *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.clone());
                TEXT
            }
        };
        self.kind.store(kind, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Cursor> {
        match self.kind.load(Ordering::Relaxed) {
            INTEGER => Some(self.integer.load(Ordering::Relaxed).into()),
            TEXT => self.text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            _ => None,
        }
    }

    #[inline]
    fn is(&self, cursor: &Cursor) -> bool {
        match cursor.as_i64() {
            Some(integer) => {
                self.kind.load(Ordering::Relaxed) == INTEGER && self.integer.load(Ordering::Relaxed) == integer
            }
            None => self.get().as_ref() == Some(cursor),
        }
    }
}

/// An error with its causes. Some libraries repeat the cause in their own message: it is said once.
fn chain(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut messages: Vec<String> = Vec::new();
    for message in causes.map(ToString::to_string) {
        if !messages.last().is_some_and(|last| last.ends_with(&message)) {
            messages.push(message);
        }
    }
    messages.join(": ")
}

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slow").field("runs", &self.runs).field("ending", &self.ending).finish_non_exhaustive()
    }
}
