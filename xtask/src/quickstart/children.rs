//! The programs that the quickstart starts, and how it ends every one of them.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::shell::pause;

/// A program of our own.
pub(super) struct Child {
    name: &'static str,
    process: process::Child,
}

impl Child {
    /// Starts a program in a process group of its own (Ctrl-C must reach us first: we stop things in order), with its
    /// output in a file.
    pub(super) fn start(name: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Child> {
        let log = File::create(log)?;
        let process = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Child { name, process })
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Asks it to end, and kills it if it does not within `patience`.
    pub(super) fn stop(mut self, patience: Duration) {
        if self.ended().is_none() {
            signal(self.process.id(), Signal::TERM);
        }
        let until = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() > until {
                println!("{} did not end within {patience:?}: killed", self.name);
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            pause(Duration::from_millis(10));
        }
    }
}

/// The operator and the proxies that it started.
pub(super) struct Gateway {
    operator: Option<Child>,
    state: PathBuf,
    log: PathBuf,
}

impl Gateway {
    pub(super) fn start(bins: &Path, manifests: &Path, folder: &Path) -> anyhow::Result<Gateway> {
        let (state, log) = (folder.join("state"), folder.join("operator.log"));
        let mut command = Command::new(bins.join("sluice-operator"));
        command.args(["standalone", "--manifests"]).arg(manifests);
        command.arg("--state-dir").arg(&state).arg("--proxy-bin").arg(bins.join("sluice-proxy"));
        let operator = Child::start("operator", &mut command, &log)?;
        Ok(Gateway { operator: Some(operator), state, log })
    }

    /// An error when the operator is no longer there.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.operator.as_mut().and_then(Child::ended) {
            Some(status) => Err(anyhow::anyhow!("the operator ended ({status})\n{}", self.log_tail())),
            None => Ok(()),
        }
    }

    /// The last lines of the operator's log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The operator's admin address.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        address(&read(&self.state.join("operator.json"))?)
    }

    /// The status that the operator gave the fleet.
    pub(super) fn fleet_status(&self) -> Value {
        let path = self.state.join("status/gatewayfleets/sluice-system/default.json");
        read(&path).map_or(Value::Null, |fleet| fleet["status"].clone())
    }

    /// The proxy processes there are now.
    pub(super) fn proxies(&self) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir(self.state.join("proxies")) else { return Vec::new() };
        let running = |value: &Value| {
            let pid = u32::try_from(value["pid"].as_u64()?).ok()?;
            alive(pid).then_some(pid)
        };
        entries.flatten().filter_map(|entry| running(&read(&entry.path())?)).collect()
    }

    /// The operator first, because it would replace every proxy that leaves; then the proxies, which drain.
    pub(super) fn stop(&mut self) {
        if let Some(operator) = self.operator.take() {
            // It drains its proxies first, which may take as long as `drain.timeout`.
            operator.stop(Duration::from_secs(40));
        }
        for proxy in self.proxies() {
            signal(proxy, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until && !self.proxies().is_empty() {
            pause(Duration::from_millis(20));
        }
        for proxy in self.proxies() {
            println!("proxy {proxy} did not drain within 15 s: killed");
            signal(proxy, Signal::KILL);
        }
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn address(value: &Value) -> Option<SocketAddr> {
    value["admin"].as_str()?.parse().ok()
}

/// Whether a process runs. A zombie (ended, its parent has not looked yet) does not.
fn alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may contain anything.
    !matches!(stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()), None | Some('Z' | 'X'))
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Sends a signal; a process that has just ended is no error.
pub(super) fn signal(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process(pid, signal);
    }
}
