//! A fleet as the planner sees it: what it should be, and what was observed of it.

use std::{collections::BTreeMap, sync::Arc};

use snapshot::{Hash, Key, proto::Nack};

use crate::{scale::Decision, world::FleetRef};

/// The settings of a GatewayFleet, validated, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// The spec.
    pub spec: crds::GatewayFleetSpec,
    /// What `Memory` targets are a share of: `template.resources.limits.memory`, else `requests.memory`, in bytes.
    pub memory_bytes: Option<u64>,
    /// What `CPU` targets are a share of: `template.resources.requests.cpu`, else `limits.cpu` (as Kubernetes reads it),
    /// in cores. `None`: of the worker threads; standalone always.
    pub cpu_cores: Option<f64>,
    /// `RequestRate.averageValue` in requests per second, by index in `spec.scaling.targets`.
    pub rates: BTreeMap<usize, f64>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.uid`; empty: there is none.
    pub uid: String,
    /// In a cluster: the port that a proxy opens, by the listener's; only those that differ.
    pub container_ports: BTreeMap<u16, u16>,
}

/// What a `Fleet` implementation is asked to ensure.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    /// Which fleet.
    pub fleet: FleetRef,
    /// How many proxies.
    pub replicas: u32,
    /// Ports that stand open.
    pub ports: Vec<u16>,
    /// Worker threads of each proxy; `None`: one per core.
    pub workers: Option<u32>,
    /// How a proxy leaves.
    pub drain: crds::fleet::Drain,
    /// Hash of what a proxy can only take up by a restart (workers, memory).
    pub template_hash: u64,
    /// The whole spec: what pods and their Service are made of. `None`: the fleet is to be no more.
    pub spec: Option<Arc<crds::GatewayFleetSpec>>,
    /// `metadata.uid` of the GatewayFleet: the owner of what is made for it in a cluster. Empty: there is none.
    pub uid: String,
    /// The port that a proxy opens, by the listener's; only those that differ.
    pub container_ports: BTreeMap<u16, u16>,
}

/// What was observed of a fleet.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Its proxies.
    pub proxies: Vec<ProxyView>,
    /// What the scaler last decided.
    pub decision: Option<Decision>,
    /// Revision of what is published, made of the plan that the status is derived from (after roll-backs); `None` until
    /// the first.
    pub published: Option<Hash>,
    /// Resources rolled back because a proxy refused them.
    pub rolled_back: BTreeMap<Key, Nack>,
    /// Planned listeners that are not in what is published, by key, and why: the port is in use, the certificate is
    /// refused. A route with no other listener runs nowhere.
    pub withheld: BTreeMap<Key, String>,
    /// Where clients reach the fleet, `IP:port`.
    pub addresses: Vec<String>,
    /// Requests checked against and found over each policy's limits, in the last minute.
    pub policies: BTreeMap<Key, (u64, u64)>,
}

/// One proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyView {
    /// Its name.
    pub name: String,
    /// Holds a full acknowledged snapshot, and its stream is open.
    pub ready: bool,
    /// Leaving.
    pub draining: bool,
    /// Revision of what it acknowledged last.
    pub revision: Option<Hash>,
}
