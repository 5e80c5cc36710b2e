use std::{iter, time::Duration};

/// Delays that double from `first` up to `longest`, without an end: [`take`](Iterator::take) as many as there are to be
/// attempts.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let delays = rpatterns::exponential(Duration::from_secs(1), Duration::from_secs(5)).take(4);
/// assert_eq!(delays.map(|delay| delay.as_secs()).collect::<Vec<_>>(), [1, 2, 4, 5]);
/// ```
pub fn exponential(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> + Clone + Send + 'static {
    iter::successors(Some(first.min(longest)), move |delay| Some(delay.saturating_mul(2).min(longest)))
}

/// Shortens a delay by up to half, so that those who failed together do not come back together.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_delays_never_overflow() {
        let last = exponential(Duration::from_secs(1), Duration::MAX).nth(1_000);
        assert_eq!(last, Some(Duration::MAX));
    }

    #[test]
    fn jitter_keeps_between_half_and_all() {
        let delays: Vec<_> = (0..1_000).map(|_| jittered(Duration::from_secs(2))).collect();
        assert!(delays.iter().all(|delay| (1.0..=2.0).contains(&delay.as_secs_f64())));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
        assert!(jittered(Duration::MAX) <= Duration::MAX);
    }
}
