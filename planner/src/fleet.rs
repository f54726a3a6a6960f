//! A fleet as the planner sees it: what it should be, and what was observed of it.

use std::{collections::BTreeMap, sync::Arc};

use snapshot::{Hash, Key, Kind, Snapshot, proto::Nack};

use crate::{scale::Decision, world::FleetRef};

/// The request for CPU of a pod whose template names neither request nor limit: it is rendered, and `CPU` targets
/// are a share of. No limit: a throttled proxy adds latency while the node is idle.
pub const DEFAULT_CPU_REQUEST: &str = "500m";
/// The request for memory of such a pod. The largest configuration is 64 MiB, held as bytes, compiled, and twice while it
/// changes.
pub const DEFAULT_MEMORY_REQUEST: &str = "256Mi";
/// The memory limit of such a pod, which `Memory` targets are a share of.
pub const DEFAULT_MEMORY_LIMIT: &str = "1Gi";

/// Longest value of a label, and the hexadecimal digits that tell shortened ones apart.
const MAX_LABEL_LEN: usize = 63;
const LABEL_DIGITS: usize = 10;

/// The settings of a GatewayFleet, validated, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSettings {
    /// The spec.
    pub spec: crds::GatewayFleetSpec,
    /// The memory that `Memory` targets are a share of: `template.resources.limits.memory`, else `requests.memory`, else in
    /// a cluster [`DEFAULT_MEMORY_LIMIT`], in bytes.
    pub memory_bytes: Option<u64>,
    /// The CPU that `CPU` targets are a share of: `template.resources.requests.cpu`, else `limits.cpu` (as Kubernetes reads it),
    /// else [`DEFAULT_CPU_REQUEST`], in cores. `None`: of the worker threads; standalone always, in a cluster never.
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

/// The state that a `Fleet` implementation is to ensure.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    /// The fleet's identity.
    pub fleet: FleetRef,
    /// The number of proxies.
    pub replicas: u32,
    /// Ports that stand open.
    pub ports: Vec<u16>,
    /// Worker threads of each proxy; `None`: one per core.
    pub workers: Option<u32>,
    /// The way in which a proxy leaves.
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

/// A fleet's name as a label's value, which has at most 63 characters: longer ones are cut, and end in a hash.
pub fn label_value(fleet: &str) -> String {
    if fleet.len() <= MAX_LABEL_LEN {
        return fleet.to_owned();
    }
    let hash = Hash::of(fleet.as_bytes()).to_string();
    let cut: String = fleet.chars().take(MAX_LABEL_LEN - LABEL_DIGITS - 1).collect();
    format!("{}-{}", cut.trim_end_matches(['-', '.']), hash.chars().take(LABEL_DIGITS).collect::<String>())
}

/// The label selector of a fleet's pods, as `/scale` has it for other scalers.
pub fn selector(fleet: &str) -> String {
    format!("app.kubernetes.io/name=sluice-proxy,sluice.dev/fleet={}", label_value(fleet))
}

/// The state of a fleet, as it was observed.
#[derive(Clone, Debug, Default)]
pub struct FleetView {
    /// Whether not all proxies that ran before have reported yet: their silence says nothing, and what was said of them before
    /// is nearer to the truth.
    pub settling: bool,
    /// The proxies that report.
    pub proxies: Vec<ProxyView>,
    /// Proxies that exist and do not leave, as observed, also those that say nothing yet; `None`: those of `proxies`.
    pub replicas: Option<u32>,
    /// The last decision of the scaler.
    pub decision: Option<Decision>,
    /// Revision of what is published, made of the plan that the status is derived from (after roll-backs); `None` until
    /// the first.
    pub published: Option<Hash>,
    /// Resources rolled back because the fleet refuses them.
    pub rolled_back: BTreeMap<Key, Nack>,
    /// The refusals of single proxies of what the others run, by resource and proxy.
    pub disagreeing: BTreeMap<Key, BTreeMap<String, Nack>>,
    /// The reason why what is published is not rolled out.
    pub halted: Option<String>,
    /// Planned listeners that are not in what is published, by key, and why: the port is in use, the certificate is
    /// refused. A route with no other listener runs nowhere.
    pub withheld: BTreeMap<Key, String>,
    /// The addresses where clients reach the fleet, `IP:port`.
    pub addresses: Vec<String>,
    /// Requests checked against and found over each policy's limits, in the last minute.
    pub policies: BTreeMap<Key, (u64, u64)>,
}

/// The state of one proxy, as it was observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyView {
    /// The proxy's name.
    pub name: String,
    /// Serves: in a cluster its pod is Ready, also without a stream; standalone it says so, on an open stream.
    pub ready: bool,
    /// Leaving.
    pub draining: bool,
    /// Revision of what it acknowledged last; `None` also while no stream is open.
    pub revision: Option<Hash>,
    /// The content of that revision.
    pub content: Option<Snapshot>,
    /// The kinds of resources that it does not know, since it is older than the operator: it is sent none of them.
    pub unknown: Vec<Kind>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_of_labels_that_the_api_server_takes() {
        assert_eq!(selector("default"), "app.kubernetes.io/name=sluice-proxy,sluice.dev/fleet=default");
        assert_eq!(label_value(&"a".repeat(63)), "a".repeat(63));
        let (one, other) = (label_value(&format!("{}b", "a".repeat(70))), label_value(&format!("{}c", "a".repeat(70))));
        assert!(one.len() == 63 && other.len() == 63 && one != other, "{one} {other}");
        // A cut at a dot would leave `.-`.
        assert!(!label_value(&format!("{}.{}", "a".repeat(51), "b".repeat(30))).contains(".-"));
    }
}
