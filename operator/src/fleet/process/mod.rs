//! Proxies as processes of this machine. Each runs in a slot, which gives it its name and folder; a crash leaves the slot,
//! and the next process in it has the same name.

mod child;
mod exit_watcher;
mod log;
mod pidfile;
mod restart_backoff;
mod rollout;
mod slot;
mod sockets;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use planner::{FleetPlan, FleetRef};
use snapshot::handover;

pub use self::exit_watcher::Wake;
use self::{exit_watcher::Ends, pidfile::Record, slot::Slot, sockets::Sockets};
use super::{Fleet, Observation, Problem, Proxy, ProxyReport};

/// Settings to start proxies with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Where proxies attach.
    pub control_socket: PathBuf,
    /// Where they take listening sockets.
    pub sockets_socket: PathBuf,
    /// Holds each proxy's record and folder.
    pub folder: PathBuf,
}

/// The fleets of this machine.
pub struct ProcessFleet {
    settings: Arc<Settings>,
    slots: BTreeMap<String, Slot>,
    sockets: Sockets,
    problems: BTreeMap<FleetRef, Vec<Problem>>,
    /// Fleets that `ensure` was called for, or that have something left; and how many replicas were last planned.
    fleets: BTreeMap<FleetRef, Option<u32>>,
    ends: Ends,
    server: tokio::task::JoinHandle<()>,
}

impl ProcessFleet {
    /// Takes over what an earlier operator left running: processes, and from them the listening sockets.
    pub fn adopt(settings: Settings, wake: Wake) -> io::Result<Self> {
        crate::state::file::create_folder(&settings.folder)?;
        let ends = Ends::new(wake)?;
        let settings = Arc::new(settings);
        let mut slots = BTreeMap::new();
        let mut sockets = Sockets::default();
        let mut fleets = BTreeMap::new();
        for record in Record::load_all(&settings.folder) {
            let Some(slot) = Slot::adopt(&settings, &record, &ends) else {
                slot::clear(&settings, &record.name);
                continue;
            };
            tracing::info!(proxy = record.name, pid = slot.pid(), "proxy adopted");
            match handover::request(&slot::handover_socket(&settings.folder, &record.name), None) {
                Ok(ports) => sockets.adopt(&record.fleet, ports),
                // Another one of the fleet has them too; if not, its ports are busy until it ends.
                Err(error) => tracing::warn!(proxy = record.name, %error, "a proxy did not hand its sockets over"),
            }
            fleets.insert(record.fleet, None);
            slots.insert(record.name, slot);
        }
        let server = sockets.serve(&settings.sockets_socket)?;
        Ok(Self { settings, slots, sockets, problems: BTreeMap::new(), fleets, ends, server })
    }
}

/// Kills every recorded process at once.
pub fn kill_recorded(folder: &Path) {
    for record in Record::load_all(folder) {
        if let Some(child) = record.child(folder) {
            child.signal(rustix::process::Signal::KILL);
        }
    }
}

impl Drop for ProcessFleet {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fleet for ProcessFleet {
    fn ensure(&mut self, plan: &FleetPlan, reports: &BTreeMap<String, ProxyReport>) {
        let now = Instant::now();
        let workers = plan.workers.map_or_else(default_workers, |n| n as usize);
        let mut problems = self.sockets.ensure(&plan.fleet, &plan.ports, workers, now);
        for slot in self.slots.values_mut().filter(|slot| slot.fleet == plan.fleet) {
            slot.look(&self.settings, reports.get(&slot.name), now);
        }
        self.slots.retain(|_, slot| !slot.is_over());
        rollout::roll(&mut self.slots, plan, reports, &self.settings, now);
        for slot in self.slots.values_mut().filter(|slot| slot.fleet == plan.fleet) {
            slot.start_if_due(&self.settings, plan, workers, &self.ends, now);
            problems.extend(slot.problem(&self.settings));
        }
        self.fleets.insert(plan.fleet.clone(), Some(plan.replicas));
        if plan.replicas == 0 && !self.slots.values().any(|slot| slot.fleet == plan.fleet) {
            self.fleets.remove(&plan.fleet);
        }
        self.problems.insert(plan.fleet.clone(), problems);
    }

    fn observe(&self) -> BTreeMap<FleetRef, Observation> {
        let mut all: BTreeMap<FleetRef, Observation> = BTreeMap::new();
        for fleet in self.fleets.keys() {
            let addresses = self.sockets.of(fleet).iter().map(|port| format!("127.0.0.1:{port}")).collect();
            let problems = self.problems.get(fleet).cloned().unwrap_or_default();
            all.insert(fleet.clone(), Observation { addresses, problems, ..Observation::default() });
        }
        for slot in self.slots.values() {
            let observation = all.entry(slot.fleet.clone()).or_default();
            observation.replicas += u32::from(!slot.is_draining());
            if let Some(pid) = slot.pid() {
                observation
                    .proxies
                    .insert(slot.name.clone(), Proxy { pid: Some(pid), draining: slot.is_draining(), pod_ready: None });
            }
        }
        // The one more that there is while the template changes takes the place of another: it is no growth.
        for (fleet, observation) in &mut all {
            if let Some(planned) = self.fleets.get(fleet).copied().flatten() {
                observation.replicas = observation.replicas.min(planned);
            }
        }
        all
    }
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
