//! How fast the bodies of one exchange move.
//!
//! Each second that somebody is waited for counts, and each byte that comes of it is worth a part of a second. Whoever
//! is behind by all the time that he has is too slow: so a trickle is worth no more than silence, and one that moves
//! faster than the least rate is waited for without end. What is waited for of somebody else meanwhile costs him
//! nothing.

use std::{num::NonZeroU32, time::Duration};

use super::timeout::TimeoutKind;
use crate::timers::until;

/// The direction of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Request,
    Response,
}

/// The time that each peer who may be waited for is behind the least rate.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Bytes in a second, of the request's body and of the response's; `None`: any byte makes good all of the time
    /// before it.
    least: [Option<NonZeroU32>; 2],
    /// Timeout that runs, and the second of the worker's clock since which it does.
    waiting: Option<(TimeoutKind, u32)>,
    /// In the order of [`TimeoutKind`], from the request's body on.
    behind: [Duration; 5],
}

impl Pace {
    /// A pace at the beginning: nobody was waited for yet.
    pub(crate) fn new(least: Option<NonZeroU32>) -> Self {
        Self { least: [least; 2], waiting: None, behind: [Duration::ZERO; 5] }
    }

    /// From now on this body is of a stream, in which a message may be long in coming.
    pub(crate) fn is_of_stream(&mut self, way: Way) {
        self.least[way as usize] = None;
    }

    /// From now on, this is waited for. Whether it was not before.
    pub(crate) fn wait(&mut self, waiting: TimeoutKind, now: u32) -> bool {
        if self.waiting() == Some(waiting) {
            return false;
        }
        self.stop(now);
        self.waiting = Some((waiting, now));
        true
    }

    /// Bytes came that are waited for, whether or not they were just then; nothing is until somebody says so again.
    pub(crate) fn moved(&mut self, what: TimeoutKind, bytes: u64, now: u32) {
        self.stop(now);
        self.pay(what, bytes);
        if what == TimeoutKind::Body {
            // An upstream that has begun to answer may have waited for it.
            self.pay(TimeoutKind::UpstreamToSend, bytes);
        }
    }

    /// Nothing is waited for.
    pub(crate) fn stop(&mut self, now: u32) {
        if let Some((waiting, since)) = self.waiting.take()
            && let Some(behind) = self.behind(waiting)
        {
            *behind += Duration::from_secs(now.saturating_sub(since).into());
        }
    }

    /// The timeout that runs, if one does.
    pub(crate) fn waiting(&self) -> Option<TimeoutKind> {
        self.waiting.map(|(waiting, _)| waiting)
    }

    /// The second at which whoever is waited for has used up so much time.
    pub(crate) fn until(&mut self, limit: Duration) -> u32 {
        let Some((waiting, since)) = self.waiting else { return u32::MAX };
        let behind = self.behind(waiting).map_or(Duration::ZERO, |behind| *behind);
        if behind < limit { until(since, limit - behind) } else { since }
    }

    fn pay(&mut self, what: TimeoutKind, bytes: u64) {
        let way = match what {
            TimeoutKind::ClientToRead | TimeoutKind::UpstreamToAnswer | TimeoutKind::UpstreamToSend => Way::Response,
            _ => Way::Request,
        };
        let least = self.least[way as usize];
        if bytes > 0
            && let Some(behind) = self.behind(what)
            && !behind.is_zero()
        {
            let worth = least.map_or(Duration::MAX, |least| {
                Duration::from_micros(bytes.saturating_mul(1_000_000) / u64::from(least.get()))
            });
            *behind = behind.saturating_sub(worth);
        }
    }

    fn behind(&mut self, waiting: TimeoutKind) -> Option<&mut Duration> {
        self.behind.get_mut((waiting as usize).checked_sub(TimeoutKind::Body as usize)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: u32 = 240;
    const LIMIT: Duration = Duration::from_secs(30);

    fn pace(least: u32) -> Pace {
        Pace::new(NonZeroU32::new(least))
    }

    /// Waits all the time for what comes so: bytes at seconds. The second at which it is too slow, up to an hour.
    fn too_slow_at(mut pace: Pace, what: TimeoutKind, mut comes: impl FnMut(u32) -> u64) -> Option<u32> {
        pace.wait(what, 0);
        (1..3600).find(|now| {
            match comes(*now) {
                0 => {}
                bytes => pace.moved(what, bytes, *now),
            }
            pace.wait(what, *now);
            *now >= pace.until(LIMIT)
        })
    }

    #[test]
    fn a_trickle_is_worth_no_more_than_silence() {
        let at = |least, bytes| too_slow_at(pace(least), TimeoutKind::Body, |_| bytes);
        assert_eq!(at(LEAST, 0), Some(31));
        assert_eq!(at(LEAST, 1), Some(31));
        assert_eq!(at(LEAST, 120), Some(60));
        assert_eq!(at(LEAST, 216), Some(300));
        assert_eq!(at(LEAST, 240), None);
        // One byte is enough where there is no least rate, and in a stream.
        assert_eq!(at(0, 1), None);
        let mut nothing = pace(0);
        nothing.wait(TimeoutKind::ClientToRead, 0);
        nothing.moved(TimeoutKind::ClientToRead, 0, 30);
        nothing.wait(TimeoutKind::ClientToRead, 30);
        assert_eq!(nothing.until(LIMIT), 30);
        let mut stream = pace(LEAST);
        stream.is_of_stream(Way::Request);
        assert!(too_slow_at(stream.clone(), TimeoutKind::UpstreamToSend, |now| (now % 30 == 0).into()).is_some());
        stream.is_of_stream(Way::Response);
        assert_eq!(too_slow_at(stream, TimeoutKind::UpstreamToSend, |now| (now % 30 == 0).into()), None);
    }

    #[test]
    fn large_pieces_may_be_long_in_coming() {
        let every = |seconds, bytes| {
            too_slow_at(pace(LEAST), TimeoutKind::Body, move |now| if now % seconds == 0 { bytes } else { 0 })
        };
        assert_eq!(every(29, 7200), None);
        assert_eq!(every(29, 29 * 240), None);
        assert_eq!(every(32, 1 << 20), Some(31));
        // What came at once, before, is worth nothing later.
        assert_eq!(too_slow_at(pace(LEAST), TimeoutKind::Body, |now| if now == 1 { 1 << 30 } else { 1 }), Some(32));
    }

    #[test]
    fn each_answers_for_himself() {
        let mut pace = pace(LEAST);
        for round in 0..100 {
            // The client is fast, the upstream sends a byte in ten seconds.
            pace.wait(TimeoutKind::UpstreamToSend, 10 * round);
            if 10 * round >= pace.until(LIMIT) {
                assert_eq!(round, 4);
                return;
            }
            pace.moved(TimeoutKind::UpstreamToSend, 1, 10 * round + 10);
            pace.wait(TimeoutKind::ClientToRead, 10 * round + 10);
            assert!(10 * round + 10 < pace.until(LIMIT));
        }
        panic!("it is waited for without end");
    }

    proptest! {
        /// Whoever is never behind by the time that he has goes on, however unevenly it comes; and who is, does not.
        #[test]
        fn the_least_rate_decides(least in 1..1000u32, comes in proptest::collection::vec(0..3000u64, 1..200)) {
            let (mut behind, mut expect) = (0.0_f64, None);
            for (at, bytes) in comes.iter().enumerate() {
                behind = (behind + 1.0 - *bytes as f64 / f64::from(least)).max(0.0);
                // A second more where nothing has come since: the one under way does not count.
                if behind >= 32.0 {
                    expect = Some(at as u32 + 1);
                    break;
                }
            }
            let got = too_slow_at(pace(least), TimeoutKind::Body, |now| comes.get(now as usize - 1).copied().unwrap_or(1 << 20));
            match (expect, got) {
                (Some(expect), Some(got)) => prop_assert!(got <= expect),
                (Some(_), None) => prop_assert!(false, "it goes on"),
                (None, Some(at)) => {
                    // Nearly so.
                    let behind = comes[..at as usize].iter().fold(0.0, |behind: f64, bytes| {
                        (behind + 1.0 - *bytes as f64 / f64::from(least)).max(0.0)
                    });
                    prop_assert!(behind > 29.99, "{behind}");
                }
                (None, None) => {}
            }
        }
    }
}
