//! Pauses between attempts that fail: each is twice as long as the one before, between two bounds.
//!
//! [`Bounds::pause`] is for a state machine that has `now` as an argument, and is the same each time. [`Backoff`] is for a
//! task that tries again by itself: it has jitter, so that operators, and tasks of one operator, that an outage stopped at
//! the same moment do not all come back at the same moment.

use std::time::Duration;

use tokio::time::Instant;

/// The bounds of a watch that fails: as kube has them, whose first pause is 0.8 to 1.6 s.
pub(crate) const WATCH: Bounds = Bounds::new(Duration::from_millis(1200), Duration::from_secs(30));

/// The first pause, and the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    first: Duration,
    longest: Duration,
}

impl Bounds {
    /// Pauses from `first` to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// These bounds with another longest pause.
    pub(crate) const fn up_to(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// The pause after so many failures in a row: none after 0, `first` after 1, then doubled each time.
    pub(crate) fn pause(self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => self.first.saturating_mul(2u32.saturating_pow(n.min(20) - 1)).min(self.longest),
        }
    }
}

/// After so long without a failure the next one is the first: a watch that is quiet does not say that it works.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// Failures in a row of one task.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    bounds: Bounds,
    failures: u32,
    /// The end of the last pause.
    until: Option<Instant>,
}

impl Backoff {
    /// No failure yet.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, failures: 0, until: None }
    }

    /// Takes a failure, and returns the pause after it: three quarters of [`Bounds::pause`], and up to a quarter more.
    pub(crate) fn pause(&mut self) -> Duration {
        self.jittered(fastrand::f64())
    }

    /// A success: the next pause is the first one again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn jittered(&mut self, random: f64) -> Duration {
        let now = Instant::now();
        if self.until.is_some_and(|until| now.duration_since(until) > FORGOTTEN_AFTER) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = self.bounds.pause(self.failures).mul_f64(0.75 + random / 4.0);
        self.until = Some(now + pause);
        pause
    }
}

/// For streams of kube's watches, which never end for want of a pause.
impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        Backoff::reset(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds::new(Duration::from_millis(500), Duration::from_secs(60));

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<_> = (0..10).map(|failures| BOUNDS.pause(failures).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(BOUNDS.pause(u32::MAX), Duration::from_secs(60));
        assert_eq!(BOUNDS.up_to(Duration::from_secs(3)).pause(4), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_long_ago_is_forgotten() {
        let mut backoff = Backoff::new(BOUNDS);
        for _ in 0..8 {
            backoff.pause();
        }
        tokio::time::advance(Duration::from_secs(60) + FORGOTTEN_AFTER / 2).await;
        assert!(backoff.pause() >= Duration::from_secs(45));
        tokio::time::advance(Duration::from_secs(61) + FORGOTTEN_AFTER).await;
        assert!(backoff.pause() <= Duration::from_millis(500));
    }

    #[test]
    fn jitter_stays_within_a_quarter_below() {
        let mut backoff = Backoff::new(BOUNDS);
        assert_eq!(backoff.jittered(1.0).as_millis(), 500);
        assert_eq!(backoff.jittered(0.0).as_millis(), 750);
        for _ in 0..100 {
            assert!(backoff.pause() <= Duration::from_secs(60));
        }
        assert!(backoff.pause() >= Duration::from_secs(45));
        backoff.reset();
        assert!((375..=500).contains(&backoff.pause().as_millis()));
    }
}
