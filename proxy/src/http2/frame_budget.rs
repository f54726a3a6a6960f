//! How much of what costs us and is no request a client may send: floods of PING, SETTINGS, PRIORITY, RST_STREAM, empty
//! DATA, WINDOW_UPDATE and unknown frames (CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2025-8671).
//!
//! Each class has tokens that come back with time and with honest work: a client that asks for much may also cancel
//! much, and acknowledge much. Beyond them the connection ends with ENHANCE_YOUR_CALM.

use std::time::{Duration, Instant};

use super::frames::{Frame, FrameType};

/// The classes of frames: those of one are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// RST_STREAM, the client's and those that it makes us send.
    Resets,
    /// PING, WINDOW_UPDATE, PRIORITY, and frames of unknown types.
    Control,
    /// SETTINGS.
    Settings,
    /// DATA that carries nothing and ends nothing, and CONTINUATION.
    Empty,
    /// Heads, by what they come to beyond the bytes that they came as (`heads.rs`).
    Heads,
}

impl Class {
    /// A fixed word, for logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Control => "control frames",
            Self::Settings => "SETTINGS",
            Self::Empty => "empty frames",
            Self::Heads => "heads",
        }
    }
}

/// Tokens of one class.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// Most that are saved up: what may come at once.
    burst: f64,
    /// Tokens that come back in a second.
    per_second: f64,
    /// Tokens that come back with each request, or each DATA frame with content in either direction.
    per_work: f64,
}

impl Bucket {
    const fn new(burst: f64, per_second: f64, per_work: f64) -> Self {
        Self { tokens: burst, burst, per_second, per_work }
    }

    fn add(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.burst);
    }
}

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct FrameBudget {
    classes: [(Class, Bucket); 4],
    refilled: Instant,
    exceeded: Option<Class>,
}

/// Tokens come back in steps, so that a frame costs no look at the clock's arithmetic.
const REFILL_STEP: Duration = Duration::from_millis(100);

impl FrameBudget {
    /// The budget of a connection that may have so many streams open.
    pub(super) fn new(now: Instant, streams: u32) -> Self {
        let classes = [
            // All that may be open may be cancelled at once, twice, and half of what is asked for after that.
            (Class::Resets, Bucket::new((2.0 * f64::from(streams)).max(200.0), 20.0, 0.5)),
            // A gRPC client answers each DATA frame with a WINDOW_UPDATE or two and a PING.
            (Class::Control, Bucket::new(1000.0, 100.0, 4.0)),
            (Class::Settings, Bucket::new(20.0, 1.0, 0.0)),
            (Class::Empty, Bucket::new(100.0, 10.0, 0.1)),
        ];
        Self { classes, refilled: now, exceeded: None }
    }

    /// Time passed; answers how much, once it is a step.
    pub(super) fn refill(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.refilled);
        if passed < REFILL_STEP {
            return None;
        }
        self.refilled = now;
        self.classes.iter_mut().for_each(|(_, b)| b.add(b.per_second * passed.as_secs_f64()));
        Some(passed)
    }

    /// The client sent this.
    pub(super) fn received(&mut self, frame: Frame) {
        match frame.kind {
            FrameType::Headers => self.work(),
            FrameType::Data if frame.length > 0 => self.work(),
            FrameType::Data if frame.flag => {}
            FrameType::Data | FrameType::Continuation => self.spend(Class::Empty),
            FrameType::Reset => self.spend(Class::Resets),
            // An acknowledgement answers what we sent.
            FrameType::Settings | FrameType::Ping if frame.flag => {}
            FrameType::Settings => self.spend(Class::Settings),
            FrameType::Ping | FrameType::Priority | FrameType::WindowUpdate | FrameType::Other => {
                self.spend(Class::Control);
            }
        }
    }

    /// We sent this.
    pub(super) fn sent(&mut self, frame: Frame) {
        match frame.kind {
            FrameType::Data if frame.length > 0 => self.work(),
            FrameType::Reset => self.spend(Class::Resets),
            _ => {}
        }
    }

    /// The class whose tokens were used up first.
    pub(super) fn exceeded(&self) -> Option<Class> {
        self.exceeded
    }

    fn work(&mut self) {
        self.classes.iter_mut().for_each(|(_, b)| b.add(b.per_work));
    }

    fn spend(&mut self, class: Class) {
        for (_, bucket) in self.classes.iter_mut().filter(|(c, _)| *c == class) {
            bucket.tokens -= 1.0;
            if bucket.tokens < 0.0 {
                self.exceeded.get_or_insert(class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameType, length: u32, flag: bool) -> Frame {
        Frame { kind, length, flag, end_headers: true, stream: 1 }
    }

    /// `each` of a second, over and over: after how many frames the budget is exceeded.
    #[track_caller]
    fn check(each: &[Frame], per_second: u32, expect: Option<(Class, u32)>) {
        let mut now = Instant::now();
        let mut budget = FrameBudget::new(now, 100);
        for n in 1..=20_000 {
            now += Duration::from_secs(1) / per_second;
            budget.refill(now);
            each.iter().for_each(|f| budget.received(*f));
            if let Some(class) = budget.exceeded() {
                let (expected, within) = expect.unwrap_or_else(|| panic!("{class:?} after {n}"));
                assert!(class == expected && n <= within, "{class:?} after {n}");
                return;
            }
        }
        assert_eq!(expect, None);
    }

    #[test]
    fn floods_are_noticed() {
        check(&[frame(FrameType::Ping, 8, false)], 10_000, Some((Class::Control, 1020)));
        check(&[frame(FrameType::Settings, 0, false)], 10_000, Some((Class::Settings, 21)));
        check(&[frame(FrameType::Priority, 5, false)], 10_000, Some((Class::Control, 1020)));
        check(&[frame(FrameType::Data, 0, false)], 10_000, Some((Class::Empty, 102)));
        check(&[frame(FrameType::Continuation, 1, false)], 10_000, Some((Class::Empty, 102)));
        // Rapid reset: each stream is cancelled as it begins.
        let rapid = [frame(FrameType::Headers, 50, true), frame(FrameType::Reset, 4, false)];
        check(&rapid, 10_000, Some((Class::Resets, 405)));
    }

    #[test]
    fn honest_clients_are_not_disturbed() {
        // A gRPC stream: each message with a WINDOW_UPDATE of the stream and the connection, and a PING.
        let update = frame(FrameType::WindowUpdate, 4, false);
        let grpc = [frame(FrameType::Data, 100, false), update, update, frame(FrameType::Ping, 8, false)];
        check(&grpc, 10_000, None);
        // A browser: requests with priorities, one of three cancelled.
        let get = frame(FrameType::Headers, 50, true);
        let browser = [get, get, get, frame(FrameType::Priority, 5, false), frame(FrameType::Reset, 4, false)];
        check(&browser, 1000, None);
        check(&[frame(FrameType::Ping, 8, true), frame(FrameType::Settings, 0, true)], 10_000, None);
    }
}
