//! `GatewayFleet`: the fleet of proxies itself. Its listeners, how it scales, how it drains.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, schema::k8s};

mod client_address;
mod limits;
mod listener;
mod paths;
mod scaling;
mod service;
mod template;

pub use client_address::{ClientAddress, ClientAddressHeader};
pub use limits::{Http2Limits, Limits, WebSocketLimits};
pub use listener::{
    AllowedRoutes, AssignedHostnames, FromNamespaces, Listener, ListenerTls, Protocol, RouteNamespaces, SecretRef,
};
pub use paths::{EscapedSlashes, PathParameters, Paths};
pub use scaling::{Scaling, ScalingMode, Target};
pub use service::{Backends, Readiness, Service, ServiceType, TrafficPolicy};
pub use template::{Resources, Template};

/// A fleet of proxies that serves a set of listeners and scales with load.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "GatewayFleet",
    doc = "A fleet of proxies that serves a set of listeners and scales with load.",
    namespaced,
    status = "GatewayFleetStatus",
    derive = "PartialEq",
    shortname = "gwf",
    category = "sluice",
    scale(
        spec_replicas_path = ".spec.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses[0]"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Driven-By", type_ = "string", json_path = ".status.drivenBy"),
    printcolumn(name = "Config", type_ = "string", json_path = ".status.config"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Programmed")].message"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayFleetSpec {
    /// The ports the fleet serves.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = Rule::new(
            "self.all(a, self.exists_one(b, a.port == b.port && \
             (has(a.hostname) ? has(b.hostname) && a.hostname == b.hostname : !has(b.hostname))))",
        )
            .message("two listeners have the same port and hostname: change one of the two")
            .reason(Reason::FieldValueDuplicate),
        validation = Rule::new("self.all(a, self.all(b, a.port != b.port || a.protocol == b.protocol))")
            .message("listeners that share a port must have the same protocol")
    )]
    pub listeners: Vec<Listener>,
    /// How many replicas, and why.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self.minReplicas <= self.maxReplicas")
            .message("minReplicas must not be above maxReplicas")
            .field_path(".minReplicas"),
        validation = Rule::new("!has(self.replicas) || self.mode == 'External'")
            .message("replicas is only for mode External; use minReplicas and maxReplicas, or set mode: External")
            .field_path(".replicas")
            .reason(Reason::FieldValueForbidden)
    )]
    pub scaling: Scaling,
    /// How a proxy leaves.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.minDrain) <= duration(self.timeout)")
        .message("minDrain must not be above timeout, after which what still runs is cut")
        .field_path(".minDrain"))]
    pub drain: Drain,
    /// Limits on the life of client connections.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.maxAge) >= duration('1s')")
        .message("maxAge must be at least 1s")
        .field_path(".maxAge"))]
    pub connection: Connection,
    /// What clients and backends may ask for, and how long they may take. A change is for connections made after it.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self.targetBytes <= self.headerBytes")
            .message("targetBytes must not be above headerBytes, which the request target is part of")
            .field_path(".targetBytes"),
        validation = Rule::new("duration(self.headerTimeout) >= duration('1s')")
            .message("headerTimeout must be at least 1s")
            .field_path(".headerTimeout"),
        validation = Rule::new("duration(self.idleTimeout) >= duration('1s')")
            .message("idleTimeout must be at least 1s")
            .field_path(".idleTimeout"),
        validation = Rule::new("duration(self.clientStallTimeout) >= duration('1s')")
            .message("clientStallTimeout must be at least 1s")
            .field_path(".clientStallTimeout"),
        validation = Rule::new("duration(self.backendStallTimeout) >= duration('1s')")
            .message("backendStallTimeout must be at least 1s")
            .field_path(".backendStallTimeout"),
        validation = Rule::new("duration(self.webSocket.idleTimeout) >= duration('1s')")
            .message("idleTimeout must be at least 1s")
            .field_path(".webSocket.idleTimeout"),
        validation = Rule::new("duration(self.webSocket.maxAge) >= duration('1s')")
            .message("maxAge must be at least 1s")
            .field_path(".webSocket.maxAge")
    )]
    pub limits: Limits,
    /// Where a client's address is read from, behind load balancers and other proxies; default: it is whoever connects. A change
    /// is for requests that come after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<ClientAddress>,
    /// How the paths of requests are read where servers read them differently. A change is for connections made after it.
    #[serde(default)]
    pub paths: Paths,
    /// How a change of the configuration reaches the proxies: some first, then all.
    #[serde(default)]
    #[x_kube(validation = Rule::new("duration(self.canary.observe) <= duration('1h')")
        .message("observe must be at most 1h: later changes wait for so long")
        .field_path(".canary.observe"))]
    pub rollout: Rollout,
    /// Which requests are logged.
    #[serde(default)]
    pub access_log: AccessLog,
    /// The Service in front of the proxies, in a cluster.
    #[serde(default)]
    pub service: Service,
    /// What routes may reach besides Services.
    #[serde(default)]
    pub backends: Backends,
    /// Bounded overlay on the proxies themselves.
    #[serde(default)]
    pub template: Template,
}

/// How a proxy leaves the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drain {
    /// Goes on accepting for at least this long, for others to learn that it leaves.
    pub min_drain: Duration,
    /// What still runs after this long is cut.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { min_drain: Duration::from_secs(5), timeout: Duration::from_secs(60) }
    }
}

/// Limits on the life of client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Connection {
    /// A connection is gracefully retired at this age, ± 10 %, so that connections follow the fleet.
    pub max_age: Duration,
}

impl Default for Connection {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600) }
    }
}

/// How a change of the configuration reaches the proxies. What ends a proxy, or is refused by it, never reaches all of them:
/// they keep what they ran before, and the fleet's condition `Programmed` says `RolloutHalted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollout {
    /// Who gets it first.
    pub canary: Canary,
}

/// Proxies that get a change before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Canary {
    /// Percent of the Ready proxies; one at least.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// How long these are watched before all others get it: when they answer 5 percent points more of their requests with
    /// 5xx than the others do, they go back. 0s: no longer than it takes them to take it up, which is milliseconds. Endpoints
    /// that come and go are not waited for.
    pub observe: Duration,
}

impl Default for Canary {
    fn default() -> Self {
        Self { percent: 1, observe: Duration::from_secs(0) }
    }
}

/// Which requests are logged, as JSON lines on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLog {
    /// Which answers are logged at all.
    pub level: AccessLogLevel,
    /// Percent of the 1xx–3xx answers that are logged when the level is `All`; errors always are.
    #[schemars(range(min = 0, max = 100))]
    pub sampling: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { level: AccessLogLevel::Errors, sampling: 100 }
    }
}

/// Which answers are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessLogLevel {
    /// None. (`Off` would be a boolean to YAML 1.1.)
    #[serde(rename = "None")]
    Off,
    /// Answers with a status of 400 or more, and broken ones.
    #[default]
    Errors,
    /// Every answer, sampled.
    All,
}

/// What the operator says of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayFleetStatus {
    /// `Accepted`, `Programmed`, `Ready`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
    /// Proxies that exist.
    pub replicas: u32,
    /// Proxies that are Ready.
    pub ready_replicas: u32,
    /// Proxies wanted.
    pub desired_replicas: u32,
    /// `6/6`, for the READY column.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub ready: Option<String>,
    /// The signal that decides, such as `RequestRate=131%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub driven_by: Option<String>,
    /// Revision of the configuration, 7 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub config: Option<String>,
    /// Proxies that run it.
    pub programmed_replicas: u32,
    /// Where clients reach the fleet.
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub addresses: Vec<String>,
    /// Label selector of the proxies, for `/scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
}
