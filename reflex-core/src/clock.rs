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

/// As long as events are quick, the clock is looked at once for so many of them.
pub(crate) const STRIDE: u32 = 8;

/// Events are quick as long as those of one look take less than this together. It is less than any bucket of a histogram, so
/// that each is counted where it belongs.
pub(crate) const QUICK: Duration = Duration::from_millis(1);

/// Tells how long events take, without looking at the clock, which costs as much as a quick event, for each of them.
#[derive(Debug)]
pub(crate) struct Laps {
    clock: Clock,
    /// When the clock was looked at, unless time has passed since then that belongs to no event.
    at: Option<Moment>,
    /// Events since then.
    events: u32,
    stride: u32,
}

/// Events that followed each other, and how long they took together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lap {
    pub(crate) events: u32,
    pub(crate) took: Duration,
    /// Whether all of the time is the last one's.
    pub(crate) by_the_last: bool,
}

impl Laps {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, at: None, events: 0, stride: 1 }
    }

    /// The time at which an event begins, or not long before.
    #[inline]
    pub(crate) fn begin(&mut self) -> Moment {
        let clock = self.clock;
        *self.at.get_or_insert_with(|| clock.now())
    }

    /// Counts an event that has ended; `waited` is whether it was not done at once.
    #[inline]
    pub(crate) fn end(&mut self, waited: bool) -> Option<Lap> {
        self.events += 1;
        if self.events < self.stride && !waited { None } else { self.look(waited) }
    }

    /// Ends the time that belongs to events.
    pub(crate) fn stop(&mut self) -> Option<Lap> {
        let lap = self.look(false);
        self.at = None;
        lap
    }

    /// The same after something else took time. What came before it was quick, as far as anybody knows; from here on the
    /// clock is looked at before such a thing.
    pub(crate) fn interrupted(&mut self) -> Option<Lap> {
        let events = std::mem::take(&mut self.events);
        self.at = None;
        self.stride = 1;
        (events > 0).then_some(Lap { events, took: Duration::ZERO, by_the_last: false })
    }

    fn look(&mut self, waited: bool) -> Option<Lap> {
        let events = std::mem::take(&mut self.events);
        let before = self.at.filter(|_| events > 0)?;
        let now = self.clock.now();
        let took = now.since(before);
        self.at = Some(now);
        self.stride = if took < QUICK && !waited { STRIDE } else { 1 };
        Some(Lap { events, took, by_the_last: waited })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn lap(events: u32, millis: u64, by_the_last: bool) -> Option<Lap> {
        Some(Lap { events, took: Duration::from_millis(millis), by_the_last })
    }

    fn quick(laps: &mut Laps, events: u32) {
        for _ in 0..events {
            laps.begin();
            assert_eq!(laps.end(false), None);
        }
    }

    async fn take(laps: &mut Laps, millis: u64, waited: bool) -> Option<Lap> {
        laps.begin();
        advance(Duration::from_millis(millis)).await;
        laps.end(waited)
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_is_looked_at_until_they_are_quick() {
        let mut laps = Laps::new(Clock::start());
        assert_eq!(take(&mut laps, 2, false).await, lap(1, 2, false));
        assert_eq!(take(&mut laps, 0, false).await, lap(1, 0, false));
        quick(&mut laps, STRIDE - 1);
        assert_eq!(take(&mut laps, 2, false).await, lap(STRIDE, 2, false));
        assert_eq!(take(&mut laps, 2, false).await, lap(1, 2, false));
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_of_the_event_that_waited() {
        let mut laps = Laps::new(Clock::start());
        take(&mut laps, 0, false).await;
        quick(&mut laps, 2);
        assert_eq!(take(&mut laps, 7, true).await, lap(3, 7, true));
        assert_eq!(take(&mut laps, 0, true).await, lap(1, 0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn time_between_events_is_of_none() {
        let mut laps = Laps::new(Clock::start());
        take(&mut laps, 0, false).await;
        quick(&mut laps, 2);
        assert_eq!(laps.stop(), lap(2, 0, false));
        assert_eq!(laps.stop(), None);
        advance(Duration::from_millis(9)).await;
        quick(&mut laps, 1);
        advance(Duration::from_millis(9)).await;
        assert_eq!(laps.interrupted(), lap(1, 0, false));
        advance(Duration::from_millis(9)).await;
        assert_eq!(take(&mut laps, 3, false).await, lap(1, 3, false));
    }
}
