//! The Service in front of a fleet.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{k8s, text};

/// The Service that clients reach the fleet by; standalone has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'")
        .message("externalTrafficPolicy is only for the types NodePort and LoadBalancer")
        .field_path(".externalTrafficPolicy")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.loadBalancerClass) || self.type == 'LoadBalancer'")
        .message("loadBalancerClass is only for type LoadBalancer")
        .field_path(".loadBalancerClass")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.loadBalancerSourceRanges) || self.type == 'LoadBalancer'")
        .message("loadBalancerSourceRanges is only for type LoadBalancer")
        .field_path(".loadBalancerSourceRanges")
        .reason(Reason::FieldValueForbidden)
)]
pub struct Service {
    /// How it is reached from outside the cluster.
    #[serde(rename = "type", default)]
    pub service_type: ServiceType,
    /// `Local` keeps the clients' addresses and sends to proxies of the node only; default: `Local`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Added to the Service, for what makes load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::own_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Added to the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "k8s::own_labels")]
    pub labels: BTreeMap<String, String>,
    /// Which implementation makes the load balancer; default: the cluster's. Kubernetes never changes it afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::qualified_name")]
    pub load_balancer_class: Option<String>,
    /// Where clients may come from, as CIDRs; default: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "k8s::cidrs")]
    pub load_balancer_source_ranges: Vec<String>,
}

impl Service {
    /// The policy that counts; `None`: the type has none.
    pub fn traffic_policy(&self) -> Option<TrafficPolicy> {
        match self.service_type {
            ServiceType::ClusterIp => None,
            ServiceType::NodePort | ServiceType::LoadBalancer => {
                Some(self.external_traffic_policy.unwrap_or(TrafficPolicy::Local))
            }
        }
    }
}

/// How a Service is reached from outside the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Not at all.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// On a port of every node.
    NodePort,
    /// By a load balancer.
    #[default]
    LoadBalancer,
}

/// Which proxies a node sends what comes from outside to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrafficPolicy {
    /// Those of every node; the client's address is lost.
    Cluster,
    /// Its own; the client's address stays.
    Local,
}

/// What becomes of requests when no endpoint of their Service is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Readiness {
    /// Those that were ready last, and were not told to leave, are tried on: pods that turn unready all together seldom fail
    /// all together. What vanished from the Service is tried for 10 s.
    #[default]
    Preferred,
    /// They answer 503.
    Strict,
}

/// What routes of the fleet may reach, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backends {
    /// In a cluster: the CIDRs that a backend's `address` may be of; default: none. Loopback, link-local, multicast
    /// and metadata addresses never may. (An address goes past every ReferenceGrant and NetworkPolicy of Services.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "k8s::cidrs")]
    pub allowed_addresses: Vec<String>,
    /// What becomes of requests when no endpoint of their Service is ready: `Preferred` tries those that were ready last,
    /// `Strict` answers 503. Either way the route's condition `Programmed` says NoReadyEndpoints.
    #[serde(default)]
    pub readiness: Readiness,
    /// In a cluster: the CIDRs that endpoints of Services may be of, such as that of the pods. Default: whatever Services
    /// select, but for addresses of nodes and of the API server. An endpoint that stands in an EndpointSlice by hand, or is
    /// one of those, is a backend only if this or `allowedAddresses` names it; with this set, no other endpoint is one.
    /// Whoever may write EndpointSlices reaches all that is named. Loopback, link-local, multicast and metadata addresses
    /// never are backends.
    #[serde(default, rename = "endpointCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "k8s::cidrs")]
    pub endpoint_cidrs: Vec<String>,
}
