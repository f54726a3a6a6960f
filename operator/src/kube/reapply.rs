//! Pauses before an object is applied again: longer and longer while that fails, and while another undoes it.

use std::time::{Duration, Instant};

use crate::kube::backoff::Bounds;

/// 0.5 s, 1 s, 2 s … 60 s.
const PAUSES: Bounds = Bounds::new(Duration::from_millis(500), Duration::from_secs(60));
/// Undone this soon, it is undone by a program.
const UNDONE_SOON: Duration = Duration::from_secs(10);
/// A program that undoes it once or twice may just be setting up.
const TOLERATED: u32 = 3;

/// Failures, and restorations in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReapplyBackoff {
    failures: u32,
    restored: u32,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl ReapplyBackoff {
    /// Takes a failure: the pause is 0.5 s, 1 s, 2 s … 60 s.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + PAUSES.pause(self.failures));
    }

    /// Takes a success; `again`: of the very same content as before, since something had undone it.
    pub(crate) fn done(&mut self, again: bool, now: Instant) {
        self.failures = 0;
        let soon = self.last.is_some_and(|last| now.duration_since(last) < UNDONE_SOON + PAUSES.pause(self.restored));
        self.restored = if again && soon { self.restored.saturating_add(1) } else { 0 };
        self.last = Some(now);
        self.until = (self.restored > TOLERATED).then(|| now + PAUSES.pause(self.restored - TOLERATED));
    }

    /// Whether something undoes it time and again.
    pub(crate) fn is_contested(&self) -> bool {
        self.restored > TOLERATED
    }

    /// Whether the object may be applied now.
    pub(crate) fn over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// The time before which nothing is to be done.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures() {
        let mut now = Instant::now();
        let mut pace = ReapplyBackoff::default();
        let mut pauses = vec![];
        for _ in 0..10 {
            pace.failed(now);
            let until = pace.until().unwrap();
            assert!(!pace.over(now) && pace.over(until));
            pauses.push(until.duration_since(now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        pace.done(false, now);
        assert!(pace.over(now) && !pace.is_contested());
    }

    #[test]
    fn restorations() {
        let start = Instant::now();
        let mut pace = ReapplyBackoff::default();
        pace.done(false, start);
        for _ in 0..TOLERATED {
            pace.done(true, start);
            assert!(pace.over(start) && !pace.is_contested(), "a few are borne");
        }
        pace.done(true, start);
        assert!(pace.is_contested() && !pace.over(start) && pace.over(start + PAUSES.pause(1)));
        // As long as it goes on, it is seen as one fight, whatever the pauses.
        let mut now = start;
        for _ in 0..20 {
            now = pace.until().unwrap() + Duration::from_secs(1);
            pace.done(true, now);
            assert!(pace.is_contested());
        }
        assert_eq!(pace.until(), Some(now + PAUSES.pause(u32::MAX)));
        pace.done(true, now + PAUSES.pause(u32::MAX) + UNDONE_SOON);
        assert!(!pace.is_contested(), "a while later");
    }
}
