//! Fleets of proxies: what should run, made to run. [`process`] runs them as processes of this machine, [`kube`] as pods
//! of a cluster; both are held to one contract test.

#[cfg(test)]
mod contract;
pub mod kube;
pub mod process;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::fleet::{Drain, Template};
use planner::{FleetPlan, FleetRef, fleet::FleetSettings};
use snapshot::Hash;

/// Runs proxies. Called in every reconciliation, so neither function may wait for anything; what takes time is begun,
/// and seen in a later call.
pub trait Fleet {
    /// Moves one fleet towards its plan. `reports` is what is known of its proxies by name.
    fn ensure(&mut self, plan: &FleetPlan, reports: &BTreeMap<String, ProxyReport>);
    /// The fleets that there are now. A fleet is in it as long as anything of it is left.
    fn observe(&self) -> BTreeMap<FleetRef, Observation>;
    /// Proxies go on running when the operator ends: what runs them then is not the operator.
    fn outlives_operator(&self) -> bool {
        false
    }
}

/// The report of a proxy on itself, as far as it matters to its fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyReport {
    /// Serves what is published.
    pub ready: bool,
    /// Requests per second: the least loaded leaves first.
    pub rate: f64,
    /// Client connections: each is a client that has to connect anew when it leaves.
    pub connections: u32,
    /// Where its admin port listens.
    pub admin: String,
}

/// The observed state of a fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// Replicas that are not leaving: also those that are to be restarted in a moment, but not the one more that there
    /// is while the template changes.
    pub replicas: u32,
    /// Living proxies by name, leaving ones included.
    pub proxies: BTreeMap<String, Proxy>,
    /// Where clients reach the fleet, `IP:port`.
    pub addresses: Vec<String>,
    /// The problems that keep the fleet from being as planned.
    pub problems: Vec<Problem>,
    /// Whether the fleet can't be seen: nothing is concluded from proxies that are missing here.
    pub unknown: bool,
}

impl Observation {
    /// Ports that are planned and could not be opened.
    pub fn closed_ports(&self) -> BTreeSet<u16> {
        self.problems.iter().filter_map(|problem| problem.port).collect()
    }
}

/// A living proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Its process; `None`: not on this machine.
    pub pid: Option<u32>,
    /// Whether the proxy was told to leave.
    pub draining: bool,
    /// Its pod is Ready: Kubernetes sends it requests. `None`: it is no pod.
    pub pod_ready: Option<bool>,
}

/// A problem that keeps a fleet from being as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The port it is about, if any.
    pub port: Option<u16>,
    /// A fixed CamelCase word.
    pub reason: &'static str,
    /// The fault and the fix, in a sentence.
    pub message: String,
}

/// The plan of a fleet.
pub fn plan(fleet: &FleetRef, settings: &FleetSettings, replicas: u32) -> FleetPlan {
    let spec = &settings.spec;
    let mut ports: Vec<u16> = spec.listeners.iter().map(|listener| listener.port).collect();
    ports.sort_unstable();
    ports.dedup();
    FleetPlan {
        fleet: fleet.clone(),
        replicas,
        ports,
        workers: spec.template.workers,
        drain: spec.drain,
        template_hash: template_hash(&spec.template),
        spec: Some(Arc::new(spec.clone())),
        uid: settings.uid.clone(),
        container_ports: settings.container_ports.clone(),
    }
}

/// Hash of what a proxy can only take up by a restart.
fn template_hash(template: &Template) -> u64 {
    let text = serde_json::to_vec(template).unwrap_or_default();
    let mut first = [0; 8];
    first.copy_from_slice(&Hash::of(&text).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The plan of a fleet that is to be no more.
pub fn nothing(fleet: &FleetRef, drain: Drain) -> FleetPlan {
    FleetPlan {
        fleet: fleet.clone(),
        replicas: 0,
        ports: vec![],
        workers: None,
        drain,
        template_hash: 0,
        spec: None,
        uid: String::new(),
        container_ports: BTreeMap::new(),
    }
}
