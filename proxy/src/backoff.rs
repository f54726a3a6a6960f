//! Exponential back-off with jitter: how long to wait before the next try of what failed. All proxies of a fleet lose
//! their operator at the same moment, and must not come back at the same moment.

use std::time::Duration;

/// Delays that double from the least to the longest.
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failed: u32,
}

impl Backoff {
    /// A back-off whose first delay is at most `min`, and no delay more than `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failed: 0 }
    }

    /// Begins anew: a try succeeded.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }

    /// The next delay: half of it fixed, half random.
    pub(crate) fn next(&mut self) -> Duration {
        self.delay(fastrand::f64())
    }

    fn delay(&mut self, random: f64) -> Duration {
        let full = self.min.saturating_mul(2_u32.saturating_pow(self.failed)).min(self.max);
        self.failed = self.failed.saturating_add(1);
        full / 2 + full.mul_f64(random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_second_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let ms: Vec<_> = (0..8).map(|_| backoff.delay(1.0).as_millis()).collect();
        assert_eq!(ms, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(backoff.delay(0.0).as_millis(), 500);
        backoff.reset();
        assert_eq!(backoff.delay(0.0).as_millis(), 25);
    }

    #[test]
    fn no_number_of_failures_is_too_many() {
        let mut backoff = Backoff { failed: u32::MAX, ..Backoff::new(Duration::from_secs(1), Duration::from_secs(60)) };
        assert_eq!(backoff.delay(1.0), Duration::from_secs(60));
        assert_eq!(backoff.delay(1.0), Duration::from_secs(60));
    }
}
