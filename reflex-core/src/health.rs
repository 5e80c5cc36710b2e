//! How the consumers of a service are.

mod gauges;
mod judge;
mod track;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use prometheus::Registry;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use self::gauges::Gauges;
pub(crate) use self::track::{Ending, Track, Watch};
use crate::{Cursor, Error, Result};

/// How the consumers of a service are: which run, which wait and for what, which fail and why. Cheap to clone.
///
/// Attach each spec with [`Spec::health`](crate::Spec::health), and put the [`report`](Health::report) behind the endpoint
/// that your orchestrator asks. A consumer is healthy if it follows its stream and is at its head, or has made progress within
/// the [`patience`](Health::patience), 1 minute if nothing else is said.
///
/// - *Progress* means that the cursor moved. An event that was handed over and is not finished is none, whatever the consumer
///   answered: a handler that hangs is never healthy, be it the consumer itself or one of the lanes or the batch inside a
///   pattern. So choose a patience above the time that the slowest event takes, and above the period of batches.
/// - *At the head* is what the source tells, where it does, as events tables do; being behind counts from the first look that
///   finds it so. Without a source that tells, a consumer is at the head while it waits. Waiting for lag is healthy too.
/// - A consumer that was never run is not healthy, nor is one that has not opened its stream for the first time.
/// - A consumer whose run ended with an unexpected error fails, and goes on failing while it is run again, until its cursor
///   moves past the event that failed. If it did not fail at an event, a second at the head is enough. A panic is such an end,
///   but nobody runs the consumer again unless its service does.
/// - A consumer that has ended because its service wanted it is healthy: by the shutdown of
///   [`run_until`](crate::run_until), at the head of a [to-head](crate::Spec::to_head) spec, or because the future was dropped.
///   One that was stopped or cancelled by the other side is healthy for as long as the patience; then somebody should have run
///   it again.
///
/// Each spec has an entry, which a later spec of the same name takes over when it is gone; otherwise it is kept until the last
/// clone is dropped. Without consumers everything is healthy.
///
/// # Examples
///
/// ```
/// use reflex_core::{ConsumerState, Event, HandlerError, Health, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let health = Health::new();
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
/// let consumer = consumer_fn("ship", |_event: Event| async { Err(HandlerError::new("no answer")) });
/// let mut spec = Spec::new(events, MemoryCursors::new(), consumer).health(&health);
/// assert!(!health.is_healthy(), "it was not run yet");
///
/// assert!(run(&mut spec).await.is_err());
/// let ship = &health.report().consumers[0];
/// assert_eq!(ship.state, ConsumerState::Failing);
/// let error = ship.last_error.as_ref().unwrap();
/// assert_eq!(error.event_id, Some(1.into()));
/// assert!(error.message.ends_with("no answer"));
/// # });
/// ```
#[derive(Clone)]
pub struct Health {
    tracks: Arc<Mutex<Vec<Arc<Track>>>>,
    patience: Duration,
}

impl Health {
    /// For how long a consumer may be without progress while it is not at the head.
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

    /// Without consumers.
    #[must_use]
    pub fn new() -> Self {
        Self { tracks: Arc::default(), patience: Self::DEFAULT_PATIENCE }
    }

    /// Sets for how long a consumer may be without progress while it is not at the head. Default: 1 minute.
    ///
    /// It holds for this handle and clones of it. Handles of different patience look at the same consumers: a short one for
    /// readiness, a long one for a restart by the orchestrator. A database that answers nothing is noticed at the deadline of the
    /// table that is read, by default 30 seconds: a patience below that finds nothing earlier in a consumer that was at its
    /// head.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How all consumers are at this moment, in the order in which they were attached.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let consumers = self.consumers();
        HealthReport { healthy: consumers.iter().all(|consumer| consumer.healthy), consumers }
    }

    /// How each consumer is at this moment, in the order in which they were attached.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerHealth> {
        let tracks = self.tracks().clone();
        tracks.iter().map(|track| judge::judge(&track.look(), self.patience)).collect()
    }

    /// Whether every consumer is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.report().healthy
    }

    /// Shows the health in a Prometheus registry, looked at whenever it is scraped:
    ///
    /// | name | tells |
    /// |---|---|
    /// | `reflex_consumer_healthy` | 1 if the consumer is healthy |
    /// | `reflex_consumer_state` | 1 for the label `state` that it is in |
    /// | `reflex_consumer_stalled_seconds` | for how long it has been without progress though it is not at the head |
    ///
    /// Specs of one name share the series, which show the worst of them, and each state that one of them is in.
    ///
    /// # Errors
    ///
    /// If the registry has a metric of one of the names already: it takes one health.
    pub fn register(&self, registry: &Registry) -> Result<()> {
        let failed = |error| Error::store("register the health, which a registry takes once", error);
        let gauges = Gauges::new(self.clone()).map_err(failed)?;
        registry.register(Box::new(gauges)).map_err(failed)
    }

    /// The place of a consumer; that of an earlier spec of its name, if that is gone.
    pub(crate) fn track(&self, name: &str) -> Arc<Track> {
        let mut tracks = self.tracks();
        let abandoned = |track: &&Arc<Track>| *track.name == *name && Arc::strong_count(track) == 1;
        if let Some(track) = tracks.iter().find(abandoned) {
            return track.clone();
        }
        let track = Arc::new(Track::new(name));
        tracks.push(track.clone());
        track
    }

    fn tracks(&self) -> MutexGuard<'_, Vec<Arc<Track>>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// How all consumers are at one moment. `Display` prints a line for each; it serializes as it is.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether every consumer is healthy.
    pub healthy: bool,
    /// How each is.
    pub consumers: Vec<ConsumerHealth>,
}

/// How one consumer is at one moment.
///
/// It serializes with times as RFC 3339 and cursors as text.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// The name of the consumer.
    pub name: String,
    /// Whether all is well.
    pub healthy: bool,
    /// What it does.
    pub state: ConsumerState,
    /// Since when it does that.
    #[serde(serialize_with = "time")]
    pub since: DateTime<Utc>,
    /// Why it is not healthy.
    pub problem: Option<String>,
    /// For how long it has been without progress though it is not at the head.
    #[serde(rename = "stalled_seconds", serialize_with = "seconds")]
    pub stalled: Duration,
    /// When its cursor moved last, in this process.
    #[serde(serialize_with = "maybe_time")]
    pub last_progress: Option<DateTime<Utc>>,
    /// How far it has come in this process. It may not be written yet.
    #[serde(serialize_with = "maybe_text")]
    pub cursor: Option<Cursor>,
    /// The event that it was handed last.
    #[serde(serialize_with = "maybe_text")]
    pub last_event_id: Option<Cursor>,
    /// How many ids are before it, where the source tells: no fewer than there are events.
    pub behind: Option<u64>,
    /// What holds its stream back.
    pub blocked: Option<Blocked>,
    /// Why a run ended last, if not as intended.
    pub last_error: Option<LastError>,
    /// How many events it was handed.
    pub events: u64,
    /// How often it was started.
    pub runs: u64,
    /// How many runs ended with an unexpected error.
    pub failures: u64,
}

/// What a consumer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConsumerState {
    /// It was never run.
    NotStarted,
    /// It reads its cursor and opens its stream.
    Starting,
    /// It handles events.
    Running,
    /// It has handled everything that there is.
    WaitingForEvents,
    /// The next event is not as old as the spec wants it.
    WaitingForLag,
    /// There is more in the source than it has read.
    Behind,
    /// The source cannot deliver what comes next: missing ids may still appear.
    Blocked,
    /// A run ended with an unexpected error, and it has not recovered.
    Failing,
    /// It has ended, as it was asked to by its service or the other side.
    Stopped,
}

impl ConsumerState {
    pub(crate) const ALL: [Self; 9] = [
        Self::NotStarted,
        Self::Starting,
        Self::Running,
        Self::WaitingForEvents,
        Self::WaitingForLag,
        Self::Behind,
        Self::Blocked,
        Self::Failing,
        Self::Stopped,
    ];

    /// The state in snake case, as it is in JSON and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::WaitingForEvents => "waiting_for_events",
            Self::WaitingForLag => "waiting_for_lag",
            Self::Behind => "behind",
            Self::Blocked => "blocked",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

/// What holds a stream back: ids that are missing and may still appear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Blocked {
    /// The last position before the missing ids.
    #[serde(serialize_with = "text")]
    pub after: Cursor,
    /// For how long.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub lasted: Duration,
    /// Who may still write them, where that is known.
    pub by: Vec<String>,
}

impl Blocked {
    /// Nothing after `after` has been deliverable for so long.
    pub fn new(after: impl Into<Cursor>, lasted: Duration) -> Self {
        Self { after: after.into(), lasted, by: Vec::new() }
    }

    /// Names those who may still write the missing ids.
    #[must_use]
    pub fn by(mut self, holders: impl IntoIterator<Item = String>) -> Self {
        self.by.extend(holders);
        self
    }
}

/// Why a run ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// The error with its causes.
    pub message: String,
    /// When.
    #[serde(serialize_with = "time")]
    pub at: DateTime<Utc>,
    /// The event, if it was about one.
    #[serde(serialize_with = "maybe_text")]
    pub event_id: Option<Cursor>,
    /// The foreign id of that event.
    pub foreign_id: Option<String>,
}

/// Where an open stream is, as its source sees it. See [`Opened::status`](crate::Opened::status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamPosition {
    /// How many ids are between what it has delivered and the head: 0 at the head, `None` if that is not known.
    pub behind: Option<u64>,
    /// What holds it back.
    pub blocked: Option<Blocked>,
}

impl StreamPosition {
    /// So many ids are between what the stream has delivered and the head; 0 at the head.
    #[must_use]
    pub fn behind(ids: u64) -> Self {
        Self { behind: Some(ids), blocked: None }
    }

    /// Something holds the stream back.
    #[must_use]
    pub fn blocked(mut self, blocked: Blocked) -> Self {
        self.blocked = Some(blocked);
        self
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.healthy { "healthy" } else { "not healthy" })?;
        self.consumers.iter().try_for_each(|consumer| write!(f, "\n{consumer}"))
    }
}

impl fmt::Display for ConsumerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consumer `{}`: {} since {}", self.name, self.state, rfc3339(&self.since))?;
        if let Some(problem) = &self.problem {
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str().replace('_', " "))
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ids after {} have been missing for {} s", self.after, self.lasted.as_secs())?;
        if !self.by.is_empty() {
            write!(f, ", held by {}", self.by.join("; "))?;
        }
        Ok(())
    }
}

/// The moment of the wall clock that `instant` was.
fn wall(instant: Instant) -> DateTime<Utc> {
    Utc::now() - instant.elapsed()
}

fn rfc3339(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(time))
}

fn maybe_time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.as_ref().map(rfc3339).serialize(serializer)
}

fn text<S: Serializer>(cursor: &Cursor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cursor)
}

fn maybe_text<S: Serializer>(cursor: &Option<Cursor>, serializer: S) -> Result<S::Ok, S::Error> {
    cursor.as_ref().map(ToString::to_string).serialize(serializer)
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
