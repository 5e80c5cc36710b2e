//! Latencies, between processes too.

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::measure::Sample;

/// Nanoseconds on a clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The latencies of one run.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    /// What arrived before its commit was answered took no time.
    pub(crate) fn record(&mut self, committed: u64, arrived: u64) -> Result<()> {
        Ok(self.0.record(arrived.saturating_sub(committed))?)
    }

    /// In milliseconds.
    pub(crate) fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        Quantiles { p50: at(0.5), p99: at(0.99) }
    }
}

/// Milliseconds that half of the events, and all but one of a hundred, did not exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    pub(crate) fn p50(all: &[Self]) -> Vec<Sample> {
        all.iter().map(|quantiles| quantiles.p50.into()).collect()
    }

    pub(crate) fn p99(all: &[Self]) -> Vec<Sample> {
        all.iter().map(|quantiles| quantiles.p99.into()).collect()
    }
}
