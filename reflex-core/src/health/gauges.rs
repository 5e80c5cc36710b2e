//! The health in a Prometheus registry.

use prometheus::{
    GaugeVec, IntGaugeVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{ConsumerState, Health};
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

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.healthy.desc(), self.state.desc(), self.stalled.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for consumer in self.health.consumers() {
            let name = consumer.name.as_str();
            self.healthy.with_label_values(&[name]).set(consumer.healthy.into());
            self.stalled.with_label_values(&[name]).set(consumer.stalled.as_secs_f64());
            for state in ConsumerState::ALL {
                self.state.with_label_values(&[name, state.as_str()]).set((state == consumer.state).into());
            }
        }
        [self.healthy.collect(), self.state.collect(), self.stalled.collect()].concat()
    }
}
