//! Time inside a run: reading the clock costs one subtraction, and everything after that is integers.

use std::time::Duration;

use tokio::time::Instant;

/// Counts from when a run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

/// Nanoseconds since a [`Clock`] was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(crate) fn now(&self) -> Moment {
        Moment(nanos(self.0.elapsed()))
    }

    pub(crate) fn instant(&self, at: Moment) -> Instant {
        self.0 + Duration::from_nanos(at.0)
    }
}

impl Moment {
    /// When the clock was started.
    pub(crate) const START: Self = Self(0);

    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.0
    }
}

/// Enough for 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}
