//! How long to wait before the operator is dialled again: short, because a new one may be there within a second, and
//! jittered, because all proxies lose it at the same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(1);

/// Doubles from [`FIRST`] to [`LAST`].
#[derive(Default)]
pub(super) struct Backoff {
    failed: u32,
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// The next wait: half of it fixed, half random.
    pub(super) fn next(&mut self) -> Duration {
        self.wait(fastrand::f64())
    }

    fn wait(&mut self, random: f64) -> Duration {
        // 2^5 * 50 ms is over a second.
        let full = (FIRST * 2u32.pow(self.failed.min(5))).min(LAST);
        self.failed = self.failed.saturating_add(1);
        full / 2 + full.mul_f64(random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_second_and_starts_again() {
        let mut backoff = Backoff::default();
        let ms: Vec<_> = (0..8).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(ms, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(backoff.wait(0.0).as_millis(), 500);
        backoff.reset();
        assert_eq!(backoff.wait(0.0).as_millis(), 25);
    }
}
