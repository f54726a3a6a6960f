//! The schedule of requests.

use std::time::{Duration, Instant};

/// An even rate, or none: as fast as answers come.
pub(super) struct Schedule {
    gap: Option<Duration>,
    next: Instant,
}

impl Schedule {
    /// A schedule of so many requests a second; 0: none.
    pub(super) fn new(rate: f64) -> Self {
        let gap = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
        Self { gap, next: Instant::now() }
    }

    /// A request may be sent now: when it was due. Without a schedule it always is.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let Some(gap) = self.gap else { return Some(now) };
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.next += gap;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_even_and_catches_up() {
        let mut schedule = Schedule::new(1000.0);
        let start = schedule.next;
        assert_eq!(schedule.take(start), Some(start));
        assert_eq!(schedule.take(start), None);
        let late = start + Duration::from_millis(3);
        let due: Vec<_> = std::iter::from_fn(|| schedule.take(late)).collect();
        assert_eq!(due, [1, 2, 3].map(|ms| start + Duration::from_millis(ms)));
        assert_eq!(Schedule::new(0.0).take(late), Some(late));
    }
}
