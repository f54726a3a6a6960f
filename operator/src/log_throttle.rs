//! Log lines that would repeat: one in an interval, with the number of those that were left out before it.

use std::time::{Duration, Instant};

/// The interval of lines about an outage.
const MINUTE: Duration = Duration::from_secs(60);

/// The last line, and how many were left out since.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    interval: Duration,
    last: Option<Instant>,
    left_out: u64,
}

impl Default for LogThrottle {
    /// A line a minute.
    fn default() -> Self {
        Self::new(MINUTE)
    }
}

impl LogThrottle {
    /// A line in each interval.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, last: None, left_out: 0 }
    }

    /// A line a minute, for a `static`.
    pub(crate) const fn each_minute() -> Self {
        Self::new(MINUTE)
    }

    /// How many were left out since the last line.
    #[cfg(test)]
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many were left out before, if there is to be a line now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < self.interval) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute() {
        let start = Instant::now();
        let mut throttle = LogThrottle::default();
        let lines = (0..4_600).filter_map(|i| throttle.due(start + Duration::from_millis(i * 100))).collect::<Vec<_>>();
        // 460 s.
        assert_eq!(lines, [0, 599, 599, 599, 599, 599, 599, 599]);
    }
}
