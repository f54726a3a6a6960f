//! How often a proxy that crashes is started again.

use std::time::{Duration, Instant};

/// Most restarts within [`RESTART_PERIOD`].
const MAX_RESTARTS: usize = 3;
const RESTART_PERIOD: Duration = Duration::from_secs(60);

/// The restarts that there were.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    count: u64,
    /// The last of them.
    recent: Vec<Instant>,
}

impl Restarts {
    /// Whether it is started once more now, which is then counted.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        self.recent.retain(|at| now.duration_since(*at) < RESTART_PERIOD);
        let is_allowed = self.recent.len() < MAX_RESTARTS;
        if is_allowed {
            self.recent.push(now);
            self.count += 1;
        }
        is_allowed
    }

    /// The number of restarts.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_a_minute() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let mut at = |second| restarts.allow(start + Duration::from_secs(second));
        assert_eq!([0, 1, 20, 21, 59].map(&mut at), [true, true, true, false, false]);
        assert_eq!([60, 60, 61, 79, 80].map(&mut at), [true, false, true, false, true]);
        assert_eq!(restarts.count(), 6);
    }
}
