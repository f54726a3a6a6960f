//! A measurement: load for some seconds, and the subject's accounts before and after.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;

use super::{
    accounts,
    scenario::{Kind, Scenario},
    subject::Subject,
};
use crate::shell;

const CORE: &str = "1";

/// The figures of one subject in one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) sys_us: f64,
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) memory: u64,
    /// The share of its core that it used.
    pub(super) busy: f64,
    pub(super) errors: u64,
}

/// The client that sends requests and the upstream that answers them.
pub(super) struct Load {
    tools: PathBuf,
    upstream: SocketAddr,
    ca: PathBuf,
    /// The upstream of a client that brings none of its own.
    running: Option<Upstream>,
}

struct Upstream(Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Load {
    pub(super) fn new(tools: &Path, upstream: SocketAddr, ca: &Path, scenario: &Scenario) -> anyhow::Result<Self> {
        let mut load = Self { tools: tools.to_owned(), upstream, ca: ca.to_owned(), running: None };
        if scenario.is_http2() {
            let mut command = load.tool("sluice-drive");
            command.args(["--listen", &upstream.to_string(), "--bytes", &scenario.bytes.to_string(), "--seconds", "0"]);
            load.running = Some(Upstream(command.spawn().context("sluice-drive")?));
        }
        Ok(load)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(self.tools.join(name)).stdin(Stdio::null());
        command
    }
}

/// Lets what was just started come to rest.
pub(super) fn settle() {
    shell::pause(Duration::from_secs(3));
}

/// Measures one subject. A `rate` of 0: as fast as it answers.
pub(super) fn run(
    load: &Load,
    subject: &Subject,
    scenario: &Scenario,
    rate: f64,
    seconds: f64,
) -> anyhow::Result<Sample> {
    let pids = subject.pids();
    anyhow::ensure!(!pids.is_empty(), "it does not run any more");
    let measured = match scenario.kind {
        Kind::Http2 => http2(load, subject.address, scenario, rate, seconds, &pids)?,
        Kind::Kept | Kind::New | Kind::Idle => http1(load, subject.address, scenario, rate, seconds, &pids)?,
    };
    let Measured { cpu, time, requests, errors, p50_us, p99_us } = measured;
    anyhow::ensure!(requests > 0.0, "no request was answered");
    let us = cpu.total as f64 / 1000.0 / requests;
    let ticks = (cpu.user + cpu.sys).max(1) as f64;
    Ok(Sample {
        cpu_us: us,
        user_us: us * cpu.user as f64 / ticks,
        sys_us: us * cpu.sys as f64 / ticks,
        requests_per_s: requests / time.as_secs_f64(),
        p50_us,
        p99_us,
        memory: subject.memory()?,
        busy: cpu.total as f64 / time.as_nanos() as f64,
        errors,
    })
}

struct Measured {
    cpu: accounts::Cpu,
    time: Duration,
    requests: f64,
    errors: u64,
    p50_us: f64,
    p99_us: f64,
}

fn http1(
    load: &Load,
    target: SocketAddr,
    scenario: &Scenario,
    rate: f64,
    seconds: f64,
    pids: &[u32],
) -> anyhow::Result<Measured> {
    let mut command = load.tool("sluice-drive");
    command.args(["--listen", &load.upstream.to_string(), "--target", &target.to_string()]);
    command.args(["--bytes", &scenario.bytes.to_string(), "--path", &scenario.path()]);
    command.args(["--status", &scenario.status().to_string(), "--seconds", &seconds.to_string()]);
    command.args(["--rate", &rate.to_string()]);
    if scenario.kind == Kind::New {
        command.arg("--new");
    }
    if scenario.tls {
        command.arg("--ca").arg(&load.ca);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("sluice-drive")?;
    let out: ChildStdout = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(out).lines();
    let begin = lines.next();
    let (before, at) = (accounts::cpu(pids), Instant::now());
    let end = lines.next();
    let (after, time) = (accounts::cpu(pids), at.elapsed());
    child.wait()?;
    let (Some(Ok(_)), Some(Ok(end))) = (begin, end) else { anyhow::bail!("the client failed; see above") };
    let report: Value = serde_json::from_str(&end).with_context(|| end.clone())?;
    let number = |name: &str| report[name].as_f64().unwrap_or_default();
    Ok(Measured {
        cpu: after - before,
        time,
        requests: number("requests"),
        errors: report["errors"].as_u64().unwrap_or_default(),
        p50_us: number("p50_us"),
        p99_us: number("p99_us"),
    })
}

/// The accounts are read whenever the client says how far it is, each second: the first second is the warm-up.
fn http2(
    load: &Load,
    target: SocketAddr,
    scenario: &Scenario,
    rate: f64,
    seconds: f64,
    pids: &[u32],
) -> anyhow::Result<Measured> {
    let mut command = load.tool("sluice-load");
    command.args(["--target", &target.to_string(), "--host", "bench.example", "--path", &scenario.path()]);
    command.args(["--h2", "16", "--h2-streams", "32", "--tls", "--ca"]).arg(&load.ca);
    command.args(["--rate", &rate.to_string(), "--duration", &format!("{}s", seconds.ceil() + 1.5)]);
    command.args(["--json", "--live"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("sluice-load")?;
    let err: ChildStderr = child.stderr.take().context("no output")?;
    let mut seen = vec![];
    for line in BufReader::new(err).lines() {
        let line = line?;
        let Ok(live) = serde_json::from_str::<Value>(&line) else { continue };
        seen.push((live["requests"].as_f64().unwrap_or_default(), accounts::cpu(pids), Instant::now()));
    }
    let output = child.wait_with_output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("the client failed")?;
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { anyhow::bail!("the client said nothing") };
    let millis = |name: &str| report["latency"][name].as_f64().unwrap_or_default();
    Ok(Measured {
        cpu: last.1 - first.1,
        time: last.2 - first.2,
        requests: last.0 - first.0,
        errors: report["failed"].as_u64().unwrap_or_default(),
        p50_us: millis("p50") * 1000.0,
        p99_us: millis("p99") * 1000.0,
    })
}
