//! The scenarios that are measured, and their goals.

use super::subject::Who;

/// A comparison of subjects.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    /// Bytes of each answer's body.
    pub(super) bytes: usize,
    pub(super) tls: bool,
    /// Routes (ours), locations (nginx), rules (HAProxy), routes (Envoy); the last one is asked for.
    pub(super) routes: usize,
    pub(super) limit: Limit,
    /// The goal in a closed loop.
    pub(super) goal: Goal,
    /// The goal at each of [`PARTS`].
    pub(super) part: Goal,
}

/// Part loads: shares of what the slower of nginx and HAProxy can do. Most gateways have these most of the time, and a closed
/// loop flatters whoever does much in one go.
pub(super) const PARTS: [f64; 2] = [0.3, 0.7];

/// The way in which requests come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// On 64 kept HTTP/1.1 connections.
    Kept,
    /// Each on a connection of its own.
    New,
    /// HTTP/2: 16 connections of 32 streams.
    Http2,
    /// Not at all: memory is what is measured.
    Idle,
}

/// The rate limit, per client address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Ours only, since it is among the features that are on; never reached.
    OursOnly,
    /// Nobody.
    None,
    /// Everybody; never reached.
    Wide,
    /// Everybody; always exceeded.
    Shut,
}

/// The figure that is to be reached.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// CPU per request at most this much of the best of these.
    Of(f64, &'static [Who]),
    /// CPU per request at most this much of our own in another scenario.
    OfOwn(f64, &'static str),
    /// At most so many bytes of memory.
    Memory(u64),
    /// The other side of a comparison.
    Base,
}

const BEST: &[Who] = &[Who::Nginx, Who::HaProxy];

const fn kept(name: &'static str, title: &'static str, bytes: usize, goal: Goal) -> Scenario {
    let (kind, tls, routes, limit) = (Kind::Kept, false, 100, Limit::OursOnly);
    Scenario { name, title, kind, bytes, tls, routes, limit, goal, part: goal }
}

/// The scenarios, all of them.
pub(super) static SCENARIOS: [Scenario; 13] = [
    Scenario { part: Goal::Of(0.90, BEST), ..kept("S1", "128 B, HTTP/1.1 keep-alive", 128, Goal::Of(0.95, BEST)) },
    Scenario { part: Goal::Of(0.90, BEST), ..kept("S2", "4 KiB, HTTP/1.1 keep-alive", 4 << 10, Goal::Of(0.95, BEST)) },
    kept("S2b", "64 KiB, HTTP/1.1 keep-alive", 64 << 10, Goal::Of(0.75, &[Who::HaProxy])),
    Scenario { tls: true, ..kept("S3", "TLS 1.3 keep-alive", 128, Goal::Of(0.80, &[Who::HaProxy])) },
    Scenario {
        tls: true,
        kind: Kind::Http2,
        part: Goal::Of(0.85, &[Who::Nginx]),
        ..kept("S4", "HTTP/2 over TLS, 16 × 32 streams", 128, Goal::Of(0.75, &[Who::Nginx]))
    },
    Scenario { limit: Limit::None, ..kept("S5-0", "no limit", 128, Goal::Base) },
    Scenario { limit: Limit::Wide, ..kept("S5", "per-IP limit, nothing rejected", 128, Goal::OfOwn(1.02, "S5-0")) },
    Scenario { limit: Limit::Shut, ..kept("S5r", "everything rejected with 429", 128, Goal::Of(1.0, &[Who::Nginx])) },
    Scenario { kind: Kind::New, ..kept("S8p", "new connection per request, plain", 128, Goal::Of(1.0, &[Who::Nginx])) },
    Scenario {
        tls: true,
        kind: Kind::New,
        ..kept("S8t", "new connection per request, TLS 1.3, no resumption", 128, Goal::Of(0.75, &[Who::Envoy]))
    },
    Scenario { routes: 1, ..kept("S9-1", "1 route", 128, Goal::Base) },
    Scenario { routes: 10_000, ..kept("S9", "10,000 routes", 128, Goal::OfOwn(1.04, "S9-1")) },
    Scenario { kind: Kind::Idle, ..kept("idle", "memory, idle, 100 routes", 128, Goal::Memory(12 << 20)) },
];

impl Scenario {
    /// The group that it is measured with, side by side and in one mode: those that are compared with each other.
    pub(super) fn group(&self) -> &'static str {
        match self.goal {
            Goal::OfOwn(_, base) => base,
            Goal::Of(..) | Goal::Memory(_) | Goal::Base => self.name,
        }
    }

    /// The path that is asked for: the last route, so that a subject that tries one after the other tries them all.
    pub(super) fn path(&self) -> String {
        format!("/r{:05}/x", self.routes - 1)
    }

    /// The status of every answer.
    pub(super) fn status(&self) -> u16 {
        if self.limit == Limit::Shut { 429 } else { 200 }
    }
}
