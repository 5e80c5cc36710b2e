use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use prometheus::{IntCounter, local::LocalHistogram};

use super::Metrics;
use crate::{
    Monitoring,
    clock::{Clock, Lap, Moment, nanos},
};

/// How long recorded values may wait before they reach the registry, while events keep coming.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Records what happens to one consumer during one run, and hands it to the registry now and then.
pub(crate) struct Recorder {
    metrics: Metrics,
    consumer: Arc<str>,
    monitoring: Monitoring,
    age: LocalHistogram,
    latency: LocalHistogram,
    skipped: IntCounter,
    from_future: IntCounter,
    clock: Clock,
    wall: Wall,
    last: Option<LastEvent>,
    /// Before the first event nothing is flushed.
    is_fresh: bool,
    has_failed: bool,
}

struct LastEvent {
    lag: f64,
    at: Moment,
}

/// The wall clock, read once; until it is read again, time on it passes as on the clock of the run.
struct Wall {
    read_at: Moment,
    /// In microseconds, which are subtracted more cheaply than a date.
    micros: i64,
}

impl Wall {
    fn read(clock: Clock) -> Self {
        Self { read_at: clock.now(), micros: Utc::now().timestamp_micros() }
    }

    /// Seconds from `timestamp` to `at`; negative if the timestamp is in the future.
    fn age(&self, timestamp: DateTime<Utc>, at: Moment) -> f64 {
        let until_read = (self.micros - timestamp.timestamp_micros()) as f64 * 1e-6;
        until_read + seconds(at.since(self.read_at))
    }
}

impl Recorder {
    pub(crate) fn new(metrics: Metrics, consumer: Arc<str>, monitoring: Monitoring, clock: Clock) -> Self {
        let label: &[&str] = &[&consumer];
        let families = &*metrics.0;
        // The series exist from the start of a run, so that a consumer without events is seen too.
        families.lag.with_label_values(label);
        families.errors.with_label_values(label);
        families.dead_lettered.with_label_values(label);
        if monitoring.lag_alert.is_some() {
            families.lag_alert.with_label_values(label);
        }
        if let Some(ttl) = monitoring.activity_ttl {
            families.active.watch(&consumer, ttl);
        }
        Self {
            age: families.age.with_label_values(label).local(),
            latency: families.latency.with_label_values(label).local(),
            skipped: families.skipped.with_label_values(label),
            from_future: families.from_future.with_label_values(label),
            clock,
            wall: Wall::read(clock),
            last: None,
            is_fresh: true,
            has_failed: false,
            metrics,
            consumer,
            monitoring,
        }
    }

    /// Notes that the consumer is about to get an event.
    #[inline]
    pub(crate) fn begin(&mut self, timestamp: DateTime<Utc>, at: Moment) {
        let age = self.wall.age(timestamp, at);
        if age < 0.0 {
            self.from_future.inc();
        }
        let lag = age.max(0.0);
        self.age.observe(lag);
        self.last = Some(LastEvent { lag, at });
        // Before the event is consumed, so that a consumer that is stuck shows what it is stuck on.
        if self.is_fresh || at.since(self.wall.read_at) >= FLUSH_INTERVAL {
            self.flush();
        }
    }

    /// Notes how long events took.
    pub(crate) fn consumed(&mut self, lap: Lap) {
        let took = seconds(lap.took);
        let (each, last) = if lap.by_the_last { (0.0, took) } else { (took / f64::from(lap.events), 0.0) };
        for _ in 1..lap.events {
            self.latency.observe(each);
        }
        self.latency.observe(each + last);
    }

    pub(crate) fn skipped(&self) {
        self.skipped.inc();
    }

    /// Notes that the run ends with an error that nobody wanted.
    pub(crate) fn failed(&mut self) {
        self.has_failed = true;
        self.metrics.0.errors.with_label_values(&[&*self.consumer]).inc();
    }

    pub(crate) fn flush(&mut self) {
        self.age.flush();
        self.latency.flush();
        if let Some(last) = self.last.take() {
            self.show(&last);
        }
        self.wall = Wall::read(self.clock);
        self.is_fresh = false;
    }

    fn show(&self, last: &LastEvent) {
        let label: &[&str] = &[&self.consumer];
        let families = &*self.metrics.0;
        families.lag.with_label_values(label).set(last.lag);
        if let Some(threshold) = self.monitoring.lag_alert {
            let alert = last.lag > threshold.as_secs_f64();
            families.lag_alert.with_label_values(label).set(alert.into());
        }
        if self.monitoring.activity_ttl.is_some() {
            families.active.mark(&self.consumer, self.clock.instant(last.at));
        }
    }

    /// Takes out of the registry what could raise an alert for a consumer that nobody wants to run any more.
    fn retire(&self) {
        let label: &[&str] = &[&self.consumer];
        let families = &*self.metrics.0;
        // They are gone already if another run of the same name ended before.
        let _ = families.lag.remove_label_values(label);
        let _ = families.lag_alert.remove_label_values(label);
        families.active.forget(&self.consumer);
    }
}

impl Drop for Recorder {
    /// A run that ended as intended was stopped, and so was one whose future is dropped. One that failed keeps what it shows.
    fn drop(&mut self) {
        self.flush();
        if std::thread::panicking() {
            self.failed();
        }
        if !self.has_failed {
            self.retire();
        }
    }
}

/// Without the division of `as_secs_f64`, which is no more exact than a bucket needs.
fn seconds(duration: Duration) -> f64 {
    nanos(duration) as f64 * 1e-9
}
