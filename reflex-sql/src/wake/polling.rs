use std::{iter, time::Duration};

/// Where no hints arrive, the table is looked at again so soon after something was found.
const SOON: Duration = Duration::from_millis(5);
/// What is tried again is tried after this long at first.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// When an idle table is looked at again, unless somebody rings before.
#[derive(Debug)]
pub(crate) struct Polling {
    interval: Duration,
    next: Duration,
}

impl Polling {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, next: interval }
    }

    /// Events were found, and where there are some there may soon be more.
    pub(crate) fn found(&mut self) {
        self.next = SOON.min(self.interval);
    }

    /// How long to wait. Where hints of others arrive they make looking early needless.
    pub(crate) fn pause(&mut self, hears: bool) -> Duration {
        if hears {
            return self.interval;
        }
        let pause = self.next;
        self.next = (pause * 3 / 2).min(self.interval);
        pause
    }
}

/// The delays before something that failed is tried again, without end: doubling, with jitter, up to `longest`.
pub(super) fn delays(longest: Duration) -> impl Iterator<Item = Duration> + Send {
    let delays = iter::successors(Some(FIRST_DELAY), move |delay| Some((*delay * 2).min(longest)));
    delays.map(|delay| delay.mul_f64(rand::random_range(0.5..1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pauses(polling: &mut Polling, hears: bool, count: usize) -> Vec<Duration> {
        iter::repeat_with(|| polling.pause(hears)).take(count).collect()
    }

    #[test]
    fn an_idle_table_is_looked_at_once_per_interval() {
        let mut polling = Polling::new(SECOND);
        assert_eq!(pauses(&mut polling, false, 3), [SECOND; 3]);
        assert_eq!(pauses(&mut polling, true, 3), [SECOND; 3]);
    }

    #[test]
    fn after_something_was_found_the_pauses_begin_short_and_grow_to_the_interval() {
        let mut polling = Polling::new(SECOND);
        polling.found();
        let pauses = pauses(&mut polling, false, 20);
        assert_eq!(pauses[0], SOON);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().filter(|pause| **pause < SECOND).count() <= 14, "{pauses:?}");
        assert_eq!(pauses[19], SECOND);
        polling.found();
        assert_eq!(polling.pause(false), SOON);
    }

    #[test]
    fn who_hears_of_more_does_not_look_early() {
        let mut polling = Polling::new(SECOND);
        polling.found();
        assert_eq!(pauses(&mut polling, true, 3), [SECOND; 3]);
        assert_eq!(polling.pause(false), SOON);
    }

    #[test]
    fn no_pause_is_longer_than_the_interval() {
        let interval = Duration::from_millis(2);
        let mut polling = Polling::new(interval);
        polling.found();
        assert_eq!(pauses(&mut polling, false, 3), [interval; 3]);
    }

    #[test]
    fn delays_grow_and_stay_bounded() {
        let delays: Vec<_> = delays(SECOND).take(50).collect();
        assert!(delays[0] <= FIRST_DELAY, "{delays:?}");
        assert!(delays[10..].iter().all(|delay| (SECOND / 2..=SECOND).contains(delay)), "{delays:?}");
    }
}
