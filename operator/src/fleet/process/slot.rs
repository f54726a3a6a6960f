//! A slot: one place for a proxy process in a fleet, from its first start until the process that drains has ended.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use planner::{FleetPlan, FleetRef};
use rustix::process::Signal;

use super::{
    Settings,
    child::Child,
    exit_watcher::Ends,
    log::Rotation,
    pidfile::{Process, Record},
    restart_backoff::RestartBackoff,
};
use crate::{
    fleet::{Problem, ProxyReport},
    reason,
    state::file,
};

/// A proxy cuts what still runs at `drain.timeout`; one that is there for this long after it is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// When an adopted proxy was told to leave is not known: it gets this long from now.
const ADOPTED_DRAIN: Duration = Duration::from_secs(60);
/// From this many crashes in a row on, the fleet has a problem.
const CRASH_LOOP_AFTER: u32 = 3;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) fleet: FleetRef,
    pub(super) template_hash: u64,
    child: Option<Child>,
    admin: String,
    backoff: RestartBackoff,
    /// Why the last start or run failed.
    failure: Option<String>,
    /// The time at which a proxy that was told to leave is killed.
    draining: Option<Instant>,
    rotation: Rotation,
}

impl Slot {
    pub(super) fn new(plan: &FleetPlan, number: u32) -> Self {
        Self {
            name: format!("{}-{number}", plan.fleet.name),
            number,
            fleet: plan.fleet.clone(),
            template_hash: plan.template_hash,
            child: None,
            admin: String::new(),
            backoff: RestartBackoff::default(),
            failure: None,
            draining: None,
            rotation: Rotation::default(),
        }
    }

    /// Takes over a living process; `None` when it is gone.
    pub(super) fn adopt(settings: &Settings, record: &Record, ends: &Ends) -> Option<Self> {
        let child = record.child(&settings.folder)?;
        ends.watch(&child.pidfd);
        let slot = Self {
            name: record.name.clone(),
            number: record.slot,
            fleet: record.fleet.clone(),
            template_hash: record.template_hash,
            child: Some(child),
            admin: record.admin.clone(),
            backoff: RestartBackoff::default(),
            failure: None,
            draining: record.draining.then(|| Instant::now() + ADOPTED_DRAIN + KILL_AFTER),
            rotation: Rotation::default(),
        };
        slot.save(settings);
        Some(slot)
    }

    /// Takes notice of an end, of a deadline that passed, and of what the proxy says of itself.
    pub(super) fn look(&mut self, settings: &Settings, report: Option<&ProxyReport>, now: Instant) {
        let Some(child) = &mut self.child else { return };
        self.rotation.look(&log(settings, &self.name), now);
        if let Some(end) = child.ended() {
            let (pid, ran) = (child.pid, now.duration_since(child.since));
            self.child = None;
            if self.draining.is_some() {
                tracing::info!(proxy = self.name, pid, "proxy left");
                clear(settings, &self.name);
            } else {
                Record::remove(&settings.folder, &self.name);
                tracing::warn!(proxy = self.name, pid, ran_ms = ran.as_millis() as u64, "proxy {end}");
                self.backoff.crashed(ran, now);
                self.failure = Some(end.to_string());
            }
        } else if self.draining.is_some_and(|deadline| now >= deadline) {
            tracing::warn!(proxy = self.name, pid = child.pid, "proxy did not leave in time: killed");
            child.signal(Signal::KILL);
        } else if let Some(report) = report
            && report.admin != self.admin
        {
            self.admin.clone_from(&report.admin);
            self.save(settings);
        }
    }

    /// Starts a process where there is none and none has to be waited for.
    pub(super) fn start_if_due(
        &mut self,
        settings: &Settings,
        plan: &FleetPlan,
        workers: usize,
        ends: &Ends,
        now: Instant,
    ) {
        if self.child.is_some() || self.draining.is_some() || !self.backoff.over(now) {
            return;
        }
        let folder = settings.folder.join(&self.name);
        let template = std::mem::replace(&mut self.template_hash, plan.template_hash);
        let start = file::create_folder(&folder).and_then(|()| {
            self.record().save(&settings.folder)?;
            let mut command = Command::new(&settings.program);
            command.arg("--control").arg(unix(&settings.control_socket));
            command.arg("--sockets").arg(&settings.sockets_socket);
            command.arg("--handover").arg(handover_socket(&settings.folder, &self.name));
            command.args(["--name", &self.name, "--fleet", &self.fleet.to_string()]);
            command.args(["--workers", &workers.to_string(), "--admin", "127.0.0.1:0"]);
            command.args(memory(plan).map(|bytes| format!("--memory={bytes}")));
            command.arg("--state").arg(&folder);
            Child::start(&mut command, &log(settings, &self.name))
        });
        match start {
            Ok(child) => {
                tracing::info!(proxy = self.name, pid = child.pid, "proxy started");
                ends.watch(&child.pidfd);
                self.child = Some(child);
                self.admin.clear();
                self.save(settings);
            }
            Err(error) => {
                self.template_hash = template;
                Record::remove(&settings.folder, &self.name);
                let failure = format!("can't be started: {}: {error}", settings.program.display());
                if self.failure.as_ref() != Some(&failure) {
                    tracing::error!(proxy = self.name, failure);
                }
                self.failure = Some(failure);
                // Nothing ran, so there is no hurry to try again.
                self.backoff.crashes = self.backoff.crashes.max(CRASH_LOOP_AFTER);
                self.backoff.crashed(Duration::ZERO, now);
            }
        }
    }

    /// Tells the process to leave; a slot without one is over at once.
    pub(super) fn drain(&mut self, settings: &Settings, timeout: Duration, now: Instant) {
        if self.draining.is_none() {
            self.draining = Some(now + timeout + KILL_AFTER);
            if let Some(child) = &self.child {
                tracing::info!(proxy = self.name, pid = child.pid, "proxy drains");
                child.signal(Signal::TERM);
                self.save(settings);
            } else {
                clear(settings, &self.name);
            }
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.pid)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Whether nothing is left of the slot.
    pub(super) fn is_over(&self) -> bool {
        self.draining.is_some() && self.child.is_none()
    }

    pub(super) fn problem(&self, settings: &Settings) -> Option<Problem> {
        let failure =
            self.failure.as_ref().filter(|_| self.backoff.crashes >= CRASH_LOOP_AFTER && self.pid().is_none())?;
        let log = log(settings, &self.name);
        let message =
            format!("proxy {} {failure} ({} times in a row; see {})", self.name, self.backoff.crashes, log.display());
        Some(Problem { port: None, reason: reason::PROXY_CRASHES, message })
    }

    fn save(&self, settings: &Settings) {
        if self.child.is_some()
            && let Err(error) = self.record().save(&settings.folder)
        {
            // What it was before is enough to find it by.
            tracing::error!(proxy = self.name, %error, "can't record a proxy");
        }
    }

    fn record(&self) -> Record {
        Record {
            name: self.name.clone(),
            fleet: self.fleet.clone(),
            slot: self.number,
            process: self.child.as_ref().map(|child| Process { pid: child.pid, start_time: child.start_time }),
            admin: self.admin.clone(),
            template_hash: self.template_hash,
            draining: self.draining.is_some(),
        }
    }
}

/// Removes what a slot kept for its next process: a later slot of this name would begin with that old configuration. The
/// log stays, for people.
pub(super) fn clear(settings: &Settings, name: &str) {
    Record::remove(&settings.folder, name);
    let folder = settings.folder.join(name);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(path = %folder.display(), %error, "can't remove the folder of a proxy that left");
        }
        _ => {}
    }
}

/// Where a proxy hands its sockets to a new operator.
pub(super) fn handover_socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).join("handover.sock")
}

/// The memory limit of a proxy, in bytes: on one machine no container holds it to that.
fn memory(plan: &FleetPlan) -> Option<u64> {
    let limit = plan.spec.as_ref()?.template.resources.limits.get("memory")?;
    planner::quantity::positive(limit).map(|bytes| bytes as u64)
}

/// Where a proxy's output goes.
fn log(settings: &Settings, name: &str) -> PathBuf {
    settings.folder.join(format!("{name}.log"))
}

fn unix(path: &Path) -> std::ffi::OsString {
    let mut address = std::ffi::OsString::from("unix:");
    address.push(path);
    address
}
