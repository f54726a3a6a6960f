//! The rate at which one proxy's messages are read: one that sends more waits, and no other does. What has come already
//! is taken up; the next message is read once what came before it is paid for.

use std::time::{Duration, Instant};

/// Messages a second. A proxy tells its load once a second; what acknowledges a push is paid for by the push.
const MESSAGES_PER_SECOND: f64 = 10.0;
/// Messages at once: a proxy that was not read for a minute has as many windows to send.
const MESSAGES_AT_ONCE: f64 = 100.0;
/// Bytes a second, and at once. An `Ack` in which 10,000 routes are refused has 3 MB.
const BYTES_PER_SECOND: f64 = 1e6;
const BYTES_AT_ONCE: f64 = 16e6;

/// The messages and bytes that one proxy may still send. Either may be overdrawn by one message.
#[derive(Debug)]
pub(super) struct ReadRate {
    messages: f64,
    bytes: f64,
    at: Instant,
}

impl ReadRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { messages: MESSAGES_AT_ONCE, bytes: BYTES_AT_ONCE, at: now }
    }

    /// A message of so many bytes came. `is_asked_for`: it answers to one of ours.
    pub(super) fn take(&mut self, bytes: usize, is_asked_for: bool, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.messages = (self.messages + seconds * MESSAGES_PER_SECOND).min(MESSAGES_AT_ONCE);
        self.bytes = (self.bytes + seconds * BYTES_PER_SECOND).min(BYTES_AT_ONCE) - bytes as f64;
        if !is_asked_for {
            self.messages -= 1.0;
        }
    }

    /// When the next may be read.
    pub(super) fn next(&self) -> Instant {
        let owed = (-self.messages / MESSAGES_PER_SECOND).max(-self.bytes / BYTES_PER_SECOND).max(0.0);
        self.at + Duration::from_secs_f64(owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until so many messages of this size are read, one as soon as it may be.
    fn seconds(messages: usize, bytes: usize, is_asked_for: bool) -> f64 {
        let start = Instant::now();
        let (mut pace, mut now) = (ReadRate::new(start), start);
        for _ in 0..messages {
            now = now.max(pace.next());
            pace.take(bytes, is_asked_for, now);
        }
        (now - start).as_secs_f64()
    }

    #[test]
    fn who_says_more_waits() {
        assert_eq!(seconds(100, 1_000, false), 0.0);
        assert!((9.0..11.0).contains(&seconds(200, 1_000, false)));
        assert_eq!(seconds(10_000, 100, true), 0.0, "acknowledgements, one for each push");
        let mebibytes = seconds(40, 4 << 20, false);
        assert!((140.0..160.0).contains(&mebibytes), "{mebibytes} s for 160 MiB");
    }

    /// What a proxy says by itself never waits.
    #[test]
    fn a_window_a_second_with_a_thousand_policies_never_waits() {
        let start = Instant::now();
        let mut pace = ReadRate::new(start);
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            assert!(pace.next() <= now);
            pace.take(60_000, false, now);
        }
    }
}
