mod recorder;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::time::Instant;

pub(crate) use self::recorder::Recorder;
use crate::{Error, Result};

const AGE_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0];
const LATENCY_BUCKETS: &[f64] = &[0.01, 0.1, 1.0, 5.0, 10.0, 60.0, 300.0];
const LOADING_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// The metrics of reflex in one Prometheus registry. Cheap to clone.
///
/// Names and labels are luno/reflex's. Everything uses [`Metrics::global`] unless it is told otherwise.
///
/// Of a consumer, with the label `consumer_name`:
///
/// | name | kind | tells |
/// |---|---|---|
/// | `reflex_consumer_lag_seconds` | gauge | how old the last event was when it was consumed |
/// | `reflex_consumer_event_age_seconds` | histogram | the same of all events |
/// | `reflex_consumer_lag_alert` | gauge | 1 if that lag is above its threshold, also while nothing is left to consume |
/// | `reflex_consumer_active` | gauge | 1 if the consumer had an event, or was started, within its activity TTL |
/// | `reflex_consumer_latency_seconds` | histogram | how long the consumer took for an event |
/// | `reflex_consumer_error_count` | counter | runs that ended with an unexpected error; what a recovery function swallowed is not among them |
/// | `reflex_consumer_skipped_events_count` | counter | events that types or a filter excluded |
/// | `reflex_consumer_dead_lettered_events_count` | counter | events that were put aside |
/// | `reflex_consumer_dead_letters_open` | gauge | events that are put aside and neither redriven nor discarded |
/// | `reflex_consumer_given_up_events_count` | counter | events that a best-effort pattern passed over because they could not be handled |
/// | `reflex_consumer_retries_count` | counter | times that a retry pattern handed an input over again |
/// | `reflex_consumer_restarts_count` | counter | times that a pattern ran the consumer again after its run had ended |
/// | `reflex_consumer_future_events_count` | counter | events whose timestamp was ahead of the clock |
///
/// Those of a table are in [`EventsTableMetrics`]; `reflex_cursors_table_set_total` counts the writes to a cursors table.
/// [`Health::register`](crate::Health::register) adds whether consumers are healthy.
///
/// # Examples
///
/// ```
/// use reflex_core::{Metrics, prometheus};
///
/// let registry = prometheus::Registry::new();
/// let metrics = Metrics::register(&registry)?;
/// # let _ = metrics;
/// # Ok::<(), reflex_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    lag: GaugeVec,
    age: HistogramVec,
    lag_alert: IntGaugeVec,
    active: ActiveConsumers,
    latency: HistogramVec,
    errors: IntCounterVec,
    skipped: IntCounterVec,
    dead_lettered: IntCounterVec,
    dead_letters_open: IntGaugeVec,
    given_up: IntCounterVec,
    retries: IntCounterVec,
    restarts: IntCounterVec,
    from_future: IntCounterVec,
    cursor_sets: IntCounterVec,
    polls: IntCounterVec,
    blocking_gap: IntGaugeVec,
    blocked_seconds: GaugeVec,
    gaps_detected: IntCounterVec,
    gaps_filled: IntCounterVec,
    gaps_skipped: IntCounterVec,
    gap_proofs: IntCounterVec,
    gap_listening: IntGaugeVec,
    gap_mode: IntGaugeVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
    deserialization: CounterVec,
    loading: HistogramVec,
    deserialized: IntCounterVec,
    wake_ups_received: IntCounterVec,
    wake_ups_sent: IntCounterVec,
    wake_ups_failed: IntCounterVec,
    wake_ups_connected: IntGaugeVec,
}

impl Metrics {
    /// Registers the metrics in a registry. One registry takes them once; clone the value to share it.
    ///
    /// # Errors
    ///
    /// If the registry has a metric of one of the names already.
    pub fn register(registry: &Registry) -> Result<Self> {
        let families = Families::new().map_err(|error| Error::store("create the metrics", error))?;
        for collector in families.collectors() {
            registry.register(collector).map_err(|error| {
                Error::store("register the metrics, which a registry takes once (share the value by cloning it)", error)
            })?;
        }
        Ok(Self(Arc::new(families)))
    }

    /// The metrics in Prometheus's default registry, registered by the first call.
    ///
    /// # Panics
    ///
    /// If something else registered one of the names in the default registry.
    #[must_use]
    pub fn global() -> Self {
        static GLOBAL: OnceLock<Metrics> = OnceLock::new();
        GLOBAL
            .get_or_init(|| {
                Self::register(prometheus::default_registry())
                    .expect("the default registry holds no foreign metric with a reflex_ name")
            })
            .clone()
    }

    /// The handles for one events table; looked up once per table.
    #[must_use]
    pub fn events_table(&self, table: &str) -> EventsTableMetrics {
        let families = &*self.0;
        let label = &[table];
        EventsTableMetrics {
            polls: families.polls.with_label_values(label),
            blocking_gap: families.blocking_gap.with_label_values(label),
            blocked_seconds: families.blocked_seconds.with_label_values(label),
            gaps_detected: families.gaps_detected.with_label_values(label),
            gaps_filled: families.gaps_filled.with_label_values(label),
            gaps_skipped: families.gaps_skipped.with_label_values(label),
            gap_proofs: families.gap_proofs.with_label_values(label),
            gap_listening: families.gap_listening.with_label_values(label),
            gap_mode: families.gap_mode.clone(),
            cache_hits: families.cache_hits.with_label_values(label),
            cache_misses: families.cache_misses.with_label_values(label),
            deserialization_seconds: families.deserialization.with_label_values(label),
            loading_seconds: families.loading.with_label_values(label),
            events_deserialized: families.deserialized.with_label_values(label),
            wake_ups_received: families.wake_ups_received.with_label_values(label),
            wake_ups_sent: families.wake_ups_sent.with_label_values(label),
            wake_ups_failed: families.wake_ups_failed.with_label_values(label),
            wake_ups_connected: families.wake_ups_connected.with_label_values(label),
        }
    }

    /// The counter of events of one consumer that types or a filter excluded. [`run`](crate::run) counts what a consumer
    /// answers; patterns count what they hear from the consumers inside.
    #[must_use]
    pub fn skipped(&self, consumer: &str) -> IntCounter {
        self.0.skipped.with_label_values(&[consumer])
    }

    /// The counter of events of one consumer that were put aside, for those who put events aside.
    #[must_use]
    pub fn dead_lettered(&self, consumer: &str) -> IntCounter {
        self.0.dead_lettered.with_label_values(&[consumer])
    }

    /// The gauge of events of one consumer that are put aside and open, for those who put events aside.
    #[must_use]
    pub fn dead_letters_open(&self, consumer: &str) -> IntGauge {
        self.0.dead_letters_open.with_label_values(&[consumer])
    }

    /// The counter of events of one consumer that were passed over for good, for patterns that do so.
    #[must_use]
    pub fn given_up(&self, consumer: &str) -> IntCounter {
        self.0.given_up.with_label_values(&[consumer])
    }

    /// The counter of inputs that were handed to one consumer again after an error, for patterns that do so.
    #[must_use]
    pub fn retries(&self, consumer: &str) -> IntCounter {
        self.0.retries.with_label_values(&[consumer])
    }

    /// The counter of runs of one consumer that were started again, for patterns that do so.
    #[must_use]
    pub fn restarts(&self, consumer: &str) -> IntCounter {
        self.0.restarts.with_label_values(&[consumer])
    }

    /// The counter of cursor writes to one cursors table.
    #[must_use]
    pub fn cursor_sets(&self, table: &str) -> IntCounter {
        self.0.cursor_sets.with_label_values(&[table])
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one events table, for the sources that read it. All have the label `table`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventsTableMetrics {
    /// `reflex_events_table_poll_total`: looks at the table by its shared reader.
    pub polls: IntCounter,
    /// `reflex_events_table_blocking_gap`: 1 while a missing id holds the stream back.
    pub blocking_gap: IntGauge,
    /// `reflex_events_table_blocked_seconds`: for how long it has been held back.
    pub blocked_seconds: Gauge,
    /// `reflex_events_table_gap_detected_total`: times that missing ids stopped the stream.
    pub gaps_detected: IntCounter,
    /// `reflex_events_table_gap_filled_total`: placeholders that were inserted; only in noop mode.
    pub gaps_filled: IntCounter,
    /// `reflex_events_table_gap_skipped_ids_total`: ids that were proven dead and passed over at the head; those in a backlog
    /// are not counted.
    pub gaps_skipped: IntCounter,
    /// `reflex_events_table_gap_proofs_total`: proofs that no open transaction can fill a gap any more.
    pub gap_proofs: IntCounter,
    /// `reflex_events_table_gap_listening`: how many shared readers of this process follow the table and resolve its gaps.
    pub gap_listening: IntGauge,
    /// `reflex_events_table_gap_mode`: 1 for the label `mode` that is in use.
    pub gap_mode: IntGaugeVec,
    /// `reflex_events_table_rcache_hits_total`: reads served from the shared ring of recent events.
    pub cache_hits: IntCounter,
    /// `reflex_events_table_rcache_misses_total`: reads that went to the database.
    pub cache_misses: IntCounter,
    /// `reflex_events_table_deserialization_duration_seconds`: seconds spent decoding rows, estimated from a sample.
    pub deserialization_seconds: Counter,
    /// `reflex_events_table_loading_duration_seconds`: seconds per page that was loaded.
    pub loading_seconds: Histogram,
    /// `reflex_events_table_events_deserialized_total`: rows that were decoded.
    pub events_deserialized: IntCounter,
    /// `reflex_events_table_wake_ups_received_total`: hints of others that there is something to read.
    pub wake_ups_received: IntCounter,
    /// `reflex_events_table_wake_ups_sent_total`: hints to others; many commits share one.
    pub wake_ups_sent: IntCounter,
    /// `reflex_events_table_wake_ups_failed_total`: hints that could not be sent.
    pub wake_ups_failed: IntCounter,
    /// `reflex_events_table_wake_ups_connected`: how many readers of this process hear the hints of others.
    pub wake_ups_connected: IntGauge,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        const CONSUMER: &[&str] = &["consumer_name"];
        const TABLE: &[&str] = &["table"];
        Ok(Self {
            lag: gauge("reflex_consumer_lag_seconds", "Age of the event that was consumed last", CONSUMER)?,
            age: histogram(
                "reflex_consumer_event_age_seconds",
                "Age of events when they are consumed",
                CONSUMER,
                AGE_BUCKETS,
            )?,
            lag_alert: int_gauge("reflex_consumer_lag_alert", "1 if the lag is above its threshold", CONSUMER)?,
            active: ActiveConsumers::new()?,
            latency: histogram(
                "reflex_consumer_latency_seconds",
                "Time that the consumer took for an event",
                CONSUMER,
                LATENCY_BUCKETS,
            )?,
            errors: int_counter("reflex_consumer_error_count", "Runs that ended with an unexpected error", CONSUMER)?,
            skipped: int_counter(
                "reflex_consumer_skipped_events_count",
                "Events that were not for this consumer",
                CONSUMER,
            )?,
            dead_lettered: int_counter(
                "reflex_consumer_dead_lettered_events_count",
                "Events that were put aside because they could not be handled",
                CONSUMER,
            )?,
            dead_letters_open: int_gauge(
                "reflex_consumer_dead_letters_open",
                "Events that are put aside and neither redriven nor discarded",
                CONSUMER,
            )?,
            given_up: int_counter(
                "reflex_consumer_given_up_events_count",
                "Events that were passed over because they could not be handled",
                CONSUMER,
            )?,
            retries: int_counter("reflex_consumer_retries_count", "Inputs handed over again after an error", CONSUMER)?,
            restarts: int_counter("reflex_consumer_restarts_count", "Runs started again", CONSUMER)?,
            from_future: int_counter(
                "reflex_consumer_future_events_count",
                "Events whose timestamp was ahead of the clock",
                CONSUMER,
            )?,
            cursor_sets: int_counter("reflex_cursors_table_set_total", "Cursor writes", TABLE)?,
            polls: int_counter("reflex_events_table_poll_total", "Looks at the table by its shared reader", TABLE)?,
            blocking_gap: int_gauge(
                "reflex_events_table_blocking_gap",
                "1 while a missing id holds the stream back",
                TABLE,
            )?,
            blocked_seconds: gauge(
                "reflex_events_table_blocked_seconds",
                "For how long a missing id has held the stream back",
                TABLE,
            )?,
            gaps_detected: int_counter(
                "reflex_events_table_gap_detected_total",
                "Times that missing ids stopped the stream",
                TABLE,
            )?,
            gaps_filled: int_counter("reflex_events_table_gap_filled_total", "Placeholders inserted into gaps", TABLE)?,
            gaps_skipped: int_counter(
                "reflex_events_table_gap_skipped_ids_total",
                "Ids that were proven dead and passed over",
                TABLE,
            )?,
            gap_proofs: int_counter(
                "reflex_events_table_gap_proofs_total",
                "Proofs that no open transaction can fill a gap",
                TABLE,
            )?,
            gap_listening: int_gauge(
                "reflex_events_table_gap_listening",
                "Shared readers of this process that resolve gaps",
                TABLE,
            )?,
            gap_mode: int_gauge("reflex_events_table_gap_mode", "How gaps are resolved", &["table", "mode"])?,
            cache_hits: int_counter("reflex_events_table_rcache_hits_total", "Reads served from memory", TABLE)?,
            cache_misses: int_counter("reflex_events_table_rcache_misses_total", "Reads sent to the database", TABLE)?,
            deserialization: CounterVec::new(
                Opts::new("reflex_events_table_deserialization_duration_seconds", "Seconds spent decoding rows"),
                TABLE,
            )?,
            loading: histogram(
                "reflex_events_table_loading_duration_seconds",
                "Time to load a page of events",
                TABLE,
                LOADING_BUCKETS,
            )?,
            deserialized: int_counter("reflex_events_table_events_deserialized_total", "Rows decoded", TABLE)?,
            wake_ups_received: int_counter(
                "reflex_events_table_wake_ups_received_total",
                "Hints of others that there is something to read",
                TABLE,
            )?,
            wake_ups_sent: int_counter("reflex_events_table_wake_ups_sent_total", "Hints to others", TABLE)?,
            wake_ups_failed: int_counter(
                "reflex_events_table_wake_ups_failed_total",
                "Hints that could not be sent",
                TABLE,
            )?,
            wake_ups_connected: int_gauge(
                "reflex_events_table_wake_ups_connected",
                "Readers of this process that hear the hints of others",
                TABLE,
            )?,
        })
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.lag.clone()),
            Box::new(self.age.clone()),
            Box::new(self.lag_alert.clone()),
            Box::new(self.active.clone()),
            Box::new(self.latency.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.skipped.clone()),
            Box::new(self.dead_lettered.clone()),
            Box::new(self.dead_letters_open.clone()),
            Box::new(self.given_up.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.restarts.clone()),
            Box::new(self.from_future.clone()),
            Box::new(self.cursor_sets.clone()),
            Box::new(self.polls.clone()),
            Box::new(self.blocking_gap.clone()),
            Box::new(self.blocked_seconds.clone()),
            Box::new(self.gaps_detected.clone()),
            Box::new(self.gaps_filled.clone()),
            Box::new(self.gaps_skipped.clone()),
            Box::new(self.gap_proofs.clone()),
            Box::new(self.gap_listening.clone()),
            Box::new(self.gap_mode.clone()),
            Box::new(self.cache_hits.clone()),
            Box::new(self.cache_misses.clone()),
            Box::new(self.deserialization.clone()),
            Box::new(self.loading.clone()),
            Box::new(self.deserialized.clone()),
            Box::new(self.wake_ups_received.clone()),
            Box::new(self.wake_ups_sent.clone()),
            Box::new(self.wake_ups_failed.clone()),
            Box::new(self.wake_ups_connected.clone()),
        ]
    }
}

/// `reflex_consumer_healthy`, of [`Health`](crate::Health).
pub(crate) fn healthy() -> prometheus::Result<IntGaugeVec> {
    int_gauge("reflex_consumer_healthy", "1 if the consumer is healthy", &["consumer_name"])
}

/// `reflex_consumer_state`, of [`Health`](crate::Health).
pub(crate) fn health_state() -> prometheus::Result<IntGaugeVec> {
    int_gauge("reflex_consumer_state", "1 for the state that the consumer is in", &["consumer_name", "state"])
}

/// `reflex_consumer_stalled_seconds`, of [`Health`](crate::Health).
pub(crate) fn stalled_seconds() -> prometheus::Result<GaugeVec> {
    let help = "For how long the consumer has been without progress though it is not at the head";
    gauge("reflex_consumer_stalled_seconds", help, &["consumer_name"])
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    GaugeVec::new(Opts::new(name, help), labels)
}

fn int_gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn int_counter(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn histogram(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}

/// `reflex_consumer_active`, which is decided when it is scraped: it falls back to 0 without anybody writing it.
#[derive(Clone)]
struct ActiveConsumers {
    gauges: IntGaugeVec,
    consumers: Arc<Mutex<HashMap<String, Activity>>>,
}

struct Activity {
    /// The last event, or the start of the run while there was none.
    last: Instant,
    ttl: Duration,
}

impl ActiveConsumers {
    fn new() -> prometheus::Result<Self> {
        let gauges = int_gauge(
            "reflex_consumer_active",
            "1 if the consumer had an event, or was started, not long ago",
            &["consumer_name"],
        )?;
        Ok(Self { gauges, consumers: Arc::default() })
    }

    fn watch(&self, consumer: &str, ttl: Duration) {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.entry(consumer.to_owned()).or_insert_with(|| Activity { last: Instant::now(), ttl }).ttl = ttl;
    }

    fn mark(&self, consumer: &str, at: Instant) {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(activity) = consumers.get_mut(consumer) {
            activity.last = at;
        }
    }

    fn forget(&self, consumer: &str) {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).remove(consumer);
        // There is no series if nobody looked.
        let _ = self.gauges.remove_label_values(&[consumer]);
    }
}

impl Collector for ActiveConsumers {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (consumer, activity) in &*self.consumers.lock().unwrap_or_else(PoisonError::into_inner) {
            let active = activity.last.elapsed() < activity.ttl;
            self.gauges.with_label_values(&[consumer]).set(active.into());
        }
        self.gauges.collect()
    }
}
