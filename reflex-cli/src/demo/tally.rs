//! What the metrics know about the consumers.

use anyhow::{Context, Result};
use prometheus::{Registry, proto::MetricFamily};
use reflex_core::Health;

use super::consumers::NAMES;

/// The metrics of this process.
#[derive(Clone, Debug)]
pub(crate) struct Tally(Registry);

/// What one consumer did in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Events that it was handed.
    pub(crate) events: u64,
    /// Those of them that its filter passed over.
    pub(crate) skipped: u64,
    /// Runs that failed.
    pub(crate) errors: u64,
}

impl Tally {
    pub(crate) fn new(registry: Registry) -> Self {
        Self(registry)
    }

    /// Shows how the consumers are as well.
    ///
    /// # Errors
    ///
    /// If it was shown before.
    pub(crate) fn show(&self, health: &Health) -> Result<()> {
        health.register(&self.0).context("register the health")
    }

    /// All metrics, in the order of their names.
    pub(crate) fn families(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    /// What a consumer did.
    pub(crate) fn of(&self, consumer: &str) -> Counts {
        counts(&self.families(), consumer)
    }

    /// The events that all consumers together were handed.
    pub(crate) fn events(&self) -> u64 {
        let families = self.families();
        NAMES.iter().map(|name| counts(&families, name).events).sum()
    }
}

fn counts(families: &[MetricFamily], consumer: &str) -> Counts {
    let mut counts = Counts::default();
    for family in families {
        for metric in family.get_metric() {
            if !metric.get_label().iter().any(|label| label.name() == "consumer_name" && label.value() == consumer) {
                continue;
            }
            match family.name() {
                "reflex_consumer_latency_seconds" => counts.events = metric.get_histogram().get_sample_count(),
                "reflex_consumer_skipped_events_count" => counts.skipped = whole(metric.get_counter().get_value()),
                "reflex_consumer_error_count" => counts.errors = whole(metric.get_counter().get_value()),
                _ => {}
            }
        }
    }
    counts
}

/// Counters of whole things are kept as floats by the format.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter is a whole number from 0")]
fn whole(counter: f64) -> u64 {
    counter as u64
}

#[cfg(test)]
mod tests {
    use reflex_core::{HandlerError, MemoryCursors, MemoryEvents, Metrics, NewEvent, Spec, consumer_fn, run};

    use super::*;

    #[tokio::test]
    async fn the_counts_are_those_of_the_consumer() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let events = MemoryEvents::new();
        for event_type in [1, 1, 2] {
            events.append(NewEvent::new("a", event_type));
        }
        let handler = |_event| async { Err(HandlerError::new("no")) };
        let consumer = consumer_fn("picky", handler).include_types([2]);
        let mut spec = Spec::new(events, MemoryCursors::new(), consumer).metrics(&metrics).to_head();
        run(&mut spec).await.unwrap_err();
        let tally = Tally::new(registry);
        assert_eq!(tally.of("picky"), Counts { events: 3, skipped: 2, errors: 1 });
        assert_eq!(tally.of("other"), Counts::default());
    }
}
