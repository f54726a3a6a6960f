//! How long to wait before a crashed proxy is started again: not at all the first time, then 0.1 s, 0.2 s … 10 s.

use std::time::{Duration, Instant};

use crate::kube::backoff::Bounds;

/// The second crash in a row is the first with a pause.
const PAUSES: Bounds = Bounds::new(Duration::from_millis(100), Duration::from_secs(10));
/// A proxy that ran for this long crashed for a new reason.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Crashes in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RestartBackoff {
    /// How many.
    pub(super) crashes: u32,
    /// Not to be started before.
    until: Option<Instant>,
}

impl RestartBackoff {
    /// Takes up a crash after a run of some length.
    pub(super) fn crashed(&mut self, ran: Duration, now: Instant) {
        self.crashes = if ran >= STABLE_AFTER { 1 } else { self.crashes.saturating_add(1) };
        self.until = Some(now + PAUSES.pause(self.crashes - 1));
    }

    /// Whether it may be started.
    pub(super) fn over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline() {
        let start = Instant::now();
        let mut backoff = RestartBackoff::default();
        assert!(backoff.over(start));
        let mut pauses = vec![];
        for _ in 0..10 {
            backoff.crashed(Duration::from_secs(1), start);
            let pause = (0..200).map(|i| Duration::from_millis(100 * i)).find(|p| backoff.over(start + *p));
            pauses.push(pause.unwrap().as_millis());
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.crashed(STABLE_AFTER, start);
        assert!(backoff.over(start));
    }
}
