//! The bounded overlay on the proxies themselves.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{k8s, pods, text};

/// Overlay on the proxies; a change restarts them one by one. All but `workers` and `resources` are for pods, and mean
/// nothing standalone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// Worker threads of each proxy; default: one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))] // as many sockets of a port as one process hands to another
    pub workers: Option<u32>,
    /// CPU and memory of each proxy: the bases of the `CPU` and `Memory` targets. Within `limits.memory` a proxy keeps by
    /// itself: when clients hold nearly all of it, connections of those that hold most are ended.
    #[serde(default)]
    pub resources: Resources,
    /// Added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::own_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::own_labels")]
    pub labels: BTreeMap<String, String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pods::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Which nodes, and beside which pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pods::affinity")]
    pub affinity: Option<Affinity>,
    /// How the pods are spread; default: over zones and over nodes, as far as it goes. Without `labelSelector` the
    /// fleet's own pods are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pods::spread_constraints")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// The pods' PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
    pub priority_class_name: Option<String>,
}

/// What each proxy asks for, and may have at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) || \
         !quantity(self.requests.cpu).isGreaterThan(quantity(self.limits.cpu))",
    )
        .message("requests.cpu must not be above limits.cpu")
        .field_path(".requests"),
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || \
         !quantity(self.requests.memory).isGreaterThan(quantity(self.limits.memory))",
    )
        .message("requests.memory must not be above limits.memory")
        .field_path(".requests")
)]
pub struct Resources {
    /// Reserved for each proxy: `cpu` and `memory`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::resources")]
    pub requests: BTreeMap<String, String>,
    /// Never exceeded: `cpu` and `memory`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::resources")]
    pub limits: BTreeMap<String, String>,
}
