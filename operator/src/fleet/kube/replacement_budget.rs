//! How many pods that are held back may be replaced: a proxy that was killed is there again in seconds, and a fleet whose
//! proxies all end again and again makes no storm of pods.

use std::time::{Duration, Instant};

/// Replacements at once, besides as many as there are replicas; then one more each minute.
const BURST: f64 = 5.0;
const REFILL_INTERVAL: Duration = Duration::from_secs(60);

/// The replacements that were taken of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplacementBudget {
    taken: f64,
    at: Option<Instant>,
}

impl ReplacementBudget {
    /// How many there are for a fleet of this size.
    pub(super) fn left(&self, replicas: u32, now: Instant) -> u32 {
        (BURST + f64::from(replicas) - self.taken(now)).max(0.0) as u32
    }

    /// Takes some.
    pub(super) fn take(&mut self, count: usize, now: Instant) {
        (self.taken, self.at) = (self.taken(now) + count as f64, Some(now));
    }

    fn taken(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        (self.taken - passed.as_secs_f64() / REFILL_INTERVAL.as_secs_f64()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_makes_no_storm() {
        let start = Instant::now();
        let mut replacements = ReplacementBudget::default();
        let mut made = 0;
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            if replacements.left(2, now) > 0 {
                replacements.take(1, now);
                made += 1;
            }
        }
        assert_eq!(made, 7 + 59);
        assert_eq!(replacements.left(2, start + Duration::from_secs(3600 + 8 * 60)), 7);
        // A larger fleet may lose more at once.
        assert_eq!(ReplacementBudget::default().left(50, start), 55);
    }
}
