//! The health in a Prometheus registry.

use prometheus::{
    GaugeVec, IntGaugeVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{ConsumerHealth, ConsumerState, Health};
use crate::metrics::{health_state, healthy, stalled_seconds};

/// Looks when it is scraped, so that what does not move is seen as well.
pub(crate) struct Gauges {
    health: Health,
    healthy: IntGaugeVec,
    state: IntGaugeVec,
    stalled: GaugeVec,
}

impl Gauges {
    pub(crate) fn new(health: Health) -> prometheus::Result<Self> {
        Ok(Self { health, healthy: healthy()?, state: health_state()?, stalled: stalled_seconds()? })
    }
}

impl Gauges {
    /// Shows the worst of all that have the name, as one that is well must not hide another.
    fn show(&self, name: &str, namesakes: &[ConsumerHealth]) {
        let stalled = namesakes.iter().map(|consumer| consumer.stalled).max().unwrap_or_default();
        self.healthy.with_label_values(&[name]).set(namesakes.iter().all(|consumer| consumer.healthy).into());
        self.stalled.with_label_values(&[name]).set(stalled.as_secs_f64());
        for state in ConsumerState::ALL {
            let is_in_it = namesakes.iter().any(|consumer| consumer.state == state);
            self.state.with_label_values(&[name, state.as_str()]).set(is_in_it.into());
        }
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.healthy.desc(), self.state.desc(), self.stalled.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut consumers = self.health.consumers();
        consumers.sort_by(|a, b| a.name.cmp(&b.name));
        for namesakes in consumers.chunk_by(|a, b| a.name == b.name) {
            self.show(&namesakes[0].name, namesakes);
        }
        [self.healthy.collect(), self.state.collect(), self.stalled.collect()].concat()
    }
}
