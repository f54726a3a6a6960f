//! The promises of Sluice on a Kubernetes, each held against a real one: `cargo xtask test --cluster` runs them.
//!
//! Counts are asserted exactly. Times are asserted at ten times the goal, because the machine that runs this may be busy;
//! with `SLUICE_LONG` set (`--long`) at the goal itself, on the median of what was measured.
//!
//! They run in the order of their names. `chart`, the first, begins without a release; the first test after it that needs one
//! installs it, the others use it too. `walkthrough`, the last, begins without it and
//! ends without it; after a run of single tests it is left there: `helm uninstall sluice --namespace sluice-system`.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, like tests

mod chart;
mod conditions;
mod cycle;
mod fleet;
mod grants;
mod house;
mod isolation;
mod live;
mod schema;
mod takeover;
mod walkthrough;

use std::time::Duration;

use e2e::load::Report;

/// The mix that the promises are measured with, for as long as the test takes: kept HTTP/1.1 connections, new ones, HTTP/2
/// with two streams on each, WebSockets.
const MIXED: &str = "--h1 32 --new-per-second 20 --h2 4 --h2-streams 2 --ws 8 --duration 60m";

/// Whether the full matrices and the goals themselves were asked for.
fn long() -> bool {
    std::env::var_os("SLUICE_LONG").is_some()
}

/// The time to assert for a goal.
fn bound(goal: Duration) -> Duration {
    if long() { goal } else { goal * 10 }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// How often what a time is asserted of is done: the median counts.
fn rounds() -> usize {
    if long() { 3 } else { 1 }
}

/// The median of these times is within the goal.
#[track_caller]
fn assert_median(goal: Duration, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort();
    assert!(sorted[sorted.len() / 2] <= bound(goal), "{times:?}, the goal is {goal:?}");
}

/// Nothing failed, every answer was a 200, and at most 0.1 % had to be sent again.
#[track_caller]
fn assert_clean(report: &Report) {
    assert_eq!(report.failures(), 0, "\n{report}");
    assert!(report.requests > 0, "\n{report}");
    assert_eq!(report.statuses.get(&200), Some(&report.requests), "\n{report}");
    assert!(report.retried() * 1000 <= report.requests, "\n{report}");
}
