//! What one run yields, and runs in turns.

use std::time::Instant;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// The outcome of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    /// CPU seconds of this process per million events.
    pub(crate) cpu_per_million: Option<f64>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self { value, cpu_per_million: None }
    }
}

/// Measures how fast a number of events is dealt with, and the CPU time that this process spends on them.
pub(crate) struct Stopwatch {
    began: Instant,
    cpu: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu_seconds() }
    }

    /// Events per second.
    pub(crate) fn stop(self, events: u64) -> Sample {
        let (wall, cpu) = self.elapsed();
        let events = events as f64;
        Sample { value: events / wall, cpu_per_million: Some(cpu / events * 1e6) }
    }

    /// Seconds on the clock, and of CPU time.
    pub(crate) fn elapsed(&self) -> (f64, f64) {
        (self.began.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}

/// The samples of the runs of one row.
pub(crate) struct Turns<T = Sample> {
    pub(crate) reference: Vec<T>,
    pub(crate) ours: Vec<T>,
}

/// Runs both in turns, after one run of each that does not count.
pub(crate) async fn in_turns<T>(
    runs: usize,
    mut reference: impl AsyncFnMut() -> Result<T>,
    mut ours: impl AsyncFnMut() -> Result<T>,
) -> Result<Turns<T>> {
    let mut turns = Turns { reference: Vec::new(), ours: Vec::new() };
    for run in 0..=runs {
        let (before, after) = (reference().await?, ours().await?);
        if run > 0 {
            turns.reference.push(before);
            turns.ours.push(after);
        }
    }
    Ok(turns)
}

/// Runs what has no reference, after one run that does not count.
pub(crate) async fn alone<T>(runs: usize, mut ours: impl AsyncFnMut() -> Result<T>) -> Result<Vec<T>> {
    let mut samples = Vec::new();
    for run in 0..=runs {
        let sample = ours().await?;
        if run > 0 {
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// The middle one; of an even number the lower of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_ordered_values() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median([9.0, 1.0, 5.0, 7.0]), Some(5.0));
    }
}
