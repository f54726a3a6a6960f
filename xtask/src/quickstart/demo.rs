//! `--demo`: a burst of load, so that the fleet is seen to grow and to shrink.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::Value;

use super::{
    children::{Gateway, signal},
    pause_until,
    view::{Look, View},
};
use crate::shell;

/// Requests a second: a calm start, a burst that asks for all four proxies (the target is 600 for each), and calm again
/// for as long as the fleet takes to shrink.
const CALM: u32 = 200;
const BURST: u32 = 2200;
const BEFORE: Duration = Duration::from_secs(4);
const DURING: Duration = Duration::from_secs(15);
const SHRINKS_WITHIN: Duration = Duration::from_secs(120);

/// The outcome of the demo.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// The last line to print.
    pub(super) line: String,
    /// Whether no request failed, and the fleet grew and shrank.
    pub(super) passed: bool,
}

/// Drives the load and says how it went.
pub(super) fn run(target: SocketAddr, gateway: &mut Gateway, stop: &AtomicBool) -> anyhow::Result<Verdict> {
    let steps =
        format!("{CALM}:{}s,{BURST}:{}s,{CALM}:{}s", BEFORE.as_secs(), DURING.as_secs(), SHRINKS_WITHIN.as_secs());
    println!(
        "demo: {CALM} requests a second, {BURST} from second {} to {}\n",
        BEFORE.as_secs(),
        (BEFORE + DURING).as_secs()
    );
    let load = Command::new(shell::bin_dir().join("sluice-load"))
        .args(["--target", &target.to_string(), "--host", "api.shop.example", "--path", "/orders/7"])
        .args(["--path", "/v1/stock/7", "--ws", "4", "--ws-path", "/live", "--h1", "32", "--h2", "4"])
        .args(["--h2-streams", "2", "--new-per-second", "10", "--steps", &steps, "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start sluice-load")?;
    let replicas = watch(gateway, stop);
    // It finishes what is under way, and then says what it counted.
    signal(load.id(), Signal::TERM);
    let output = load.wait_with_output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("sluice-load gave no report")?;
    Ok(verdict(&report, replicas?))
}

/// The replicas at the start, at most, and at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Replicas {
    first: u64,
    most: u64,
    last: u64,
}

/// Shows the fleet each second until it has shrunk again.
fn watch(gateway: &mut Gateway, stop: &AtomicBool) -> anyhow::Result<Replicas> {
    let started = Instant::now();
    let mut view = View::new();
    let mut replicas: Option<Replicas> = None;
    let mut next = started;
    while started.elapsed() < BEFORE + DURING + SHRINKS_WITHIN {
        gateway.check()?;
        let look = view.look(gateway);
        println!("{}", view.show(&look));
        if let Some(ready) = look.ready {
            let seen = replicas.get_or_insert(Replicas { first: ready, most: ready, last: ready });
            (seen.most, seen.last) = (seen.most.max(ready), ready);
            if started.elapsed() > BEFORE + DURING && shrunk(&look, seen) {
                break;
            }
        }
        next += Duration::from_secs(1);
        pause_until(next, stop);
        anyhow::ensure!(!stop.load(Ordering::Relaxed), "stopped before the demo was through");
    }
    replicas.context("the operator wrote no status of the fleet")
}

fn shrunk(look: &Look, seen: &Replicas) -> bool {
    look.ready == Some(seen.first) && look.desired == Some(seen.first) && look.processes as u64 == seen.first
}

fn verdict(report: &Value, replicas: Replicas) -> Verdict {
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let requests = count("/requests");
    let failed = count("/failed") + count("/ws/failed") + count("/ws/closedOther");
    if failed > 0 {
        println!("{report:#}");
    }
    let Replicas { first, most, last } = replicas;
    Verdict {
        line: format!("demo: {requests} requests, {failed} failed, replicas {first} -> {most} -> {last}"),
        passed: requests > 0 && failed == 0 && most > 1 && last == first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(ws_failed: u64, replicas: [u64; 3], line: &str, passed: bool) {
        let report = json!({"requests": 10, "failed": 0, "ws": {"failed": ws_failed, "closedOther": 0}});
        let [first, most, last] = replicas;
        let verdict = verdict(&report, Replicas { first, most, last });
        assert_eq!(verdict, Verdict { line: line.to_owned(), passed });
    }

    #[test]
    fn only_a_clean_run_that_grew_and_shrank_passes() {
        check(0, [1, 4, 1], "demo: 10 requests, 0 failed, replicas 1 -> 4 -> 1", true);
        check(0, [1, 1, 1], "demo: 10 requests, 0 failed, replicas 1 -> 1 -> 1", false);
        check(0, [1, 4, 2], "demo: 10 requests, 0 failed, replicas 1 -> 4 -> 2", false);
        check(2, [1, 4, 1], "demo: 10 requests, 2 failed, replicas 1 -> 4 -> 1", false);
    }
}
