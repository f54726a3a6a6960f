//! The promises of the whole system, each held against the built programs: `cargo xtask e2e [FILTER]` runs them.
//!
//! Counts are asserted exactly. Times are asserted at ten times the goal, because the machine that runs this may be busy;
//! with `SLUICE_LONG` set (`--long`) at the goal itself, on the median of what was measured.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, like tests

mod access;
mod crash;
mod cycle;
mod flood;
mod house;
mod interop;
mod isolation;
mod limit;
mod live;
mod nack;
mod plan;
mod routes;
mod smoke;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use e2e::{
    harness::{eventually, http, manifests::HOST},
    load::Report,
};

/// Whether the full matrices and the goals themselves were asked for.
fn long() -> bool {
    std::env::var_os("SLUICE_LONG").is_some()
}

/// The time to assert for a goal.
fn bound(goal: Duration) -> Duration {
    if long() { goal } else { goal * 10 }
}

/// The gateway's address on this port.
fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Waits until a GET of this path is answered 200.
#[track_caller]
fn serves(port: u16, path: &str) {
    let served = || http::get(at(port), HOST, path).is_ok_and(|answer| answer.status == 200).then_some(());
    eventually(&format!("{path} is served"), Duration::from_secs(10), served).unwrap();
}

/// Nothing failed, every answer was a 200, and at most 0.1 % had to be sent again.
#[track_caller]
fn assert_clean(report: &Report) {
    assert_eq!(report.failures(), 0, "\n{report}");
    assert_eq!(report.statuses.get(&200), Some(&report.requests), "\n{report}");
    assert!(report.retried() * 1000 <= report.requests, "\n{report}");
}

/// What the promises ask of such a run: enough of everything.
#[track_caller]
fn assert_heavy(report: &Report) {
    assert!(report.requests >= 50_000, "\n{report}");
    assert!(report.rps >= 2000.0, "\n{report}");
}
