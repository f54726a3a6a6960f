//! `GatewayFleet`: the fleet of proxies itself. Its listeners, how it scales, how it drains.

use k8s_openapi::{
    api::autoscaling::v2::HorizontalPodAutoscalerBehavior, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A fleet of proxies that serves a set of listeners and scales with load.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "GatewayFleet",
    namespaced,
    status = "GatewayFleetStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayFleetSpec {
    /// The ports the fleet serves.
    pub listeners: Vec<Listener>,
    /// How many replicas, and why.
    #[serde(default)]
    pub scaling: Scaling,
    /// How a proxy leaves.
    #[serde(default)]
    pub drain: Drain,
    /// Limits on the life of client connections.
    #[serde(default)]
    pub connection: Connection,
    /// Which requests are logged.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Bounded overlay on the proxies themselves.
    #[serde(default)]
    pub template: Template,
}

/// One port of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Unique within the fleet; routes refer to it by `sectionName`.
    pub name: String,
    /// HTTP, or HTTPS with the certificates of `tls`.
    pub protocol: Protocol,
    /// The Service's port; standalone: the port opened on this machine.
    pub port: u16,
    /// Only requests for this host (`*.` wildcard allowed); default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Certificates, for HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// A listener's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in clear text.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/1.1 and HTTP/2 by ALPN, over TLS.
    #[serde(rename = "HTTPS")]
    Https,
}

/// A listener's certificates; the one whose names fit the SNI serves, else the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// `kubernetes.io/tls` Secrets.
    pub certificate_refs: Vec<SecretRef>,
}

/// Refers to a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
    /// Its namespace; default: the fleet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: RouteNamespaces,
}

/// The namespaces routes may come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteNamespaces {
    /// `Same` as the fleet's, or `All`.
    #[serde(default)]
    pub from: FromNamespaces,
}

/// Where routes may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    /// Every namespace.
    All,
    /// The fleet's own namespace.
    #[default]
    Same,
}

/// How many replicas the fleet has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scaling {
    /// Who decides the number.
    pub mode: ScalingMode,
    /// Never fewer.
    pub min_replicas: u32,
    /// Never more.
    pub max_replicas: u32,
    /// Each signal wants a number; the most demanding wins.
    pub targets: Vec<Target>,
    /// Stabilization, as in `autoscaling/v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// Only with mode `External`: the number, written through `/scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Managed,
            min_replicas: 1,
            max_replicas: 4,
            targets: vec![Target::Cpu { average_utilization: 65 }],
            behavior: None,
            replicas: None,
        }
    }
}

/// Who decides the number of replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The operator, from the targets.
    #[default]
    Managed,
    /// `scaling.replicas`, written by another scaler.
    External,
    /// The operator decides and shows, but changes nothing.
    DryRun,
    /// The number stays as it is.
    Paused,
}

/// One signal and the value it should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// Percent of the CPU request (standalone: of the worker threads).
    #[serde(rename = "CPU")]
    Cpu {
        /// Percent, averaged over the replicas.
        average_utilization: u32,
    },
    /// Percent of the memory request (standalone: of `template.memory`).
    Memory {
        /// Percent, averaged over the replicas.
        average_utilization: u32,
    },
    /// Requests per second and replica: admitted and shed for capacity, not those a policy rejects.
    RequestRate {
        /// A quantity, such as `"4000"` or `"4k"`.
        average_value: String,
    },
    /// The time the proxy itself added, upstream time subtracted.
    ProxyLatency {
        /// The percentile; 99 is the one supported.
        percentile: u32,
        /// At most this long.
        value: Duration,
    },
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

/// Which requests are logged, as JSON lines on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLog {
    /// Which answers are logged at all.
    pub level: AccessLogLevel,
    /// Percent of the 1xx–3xx answers that are logged when the level is `All`; errors always are.
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
    /// None.
    Off,
    /// Answers with a status of 400 or more, and broken ones.
    #[default]
    Errors,
    /// Every answer, sampled.
    All,
}

/// Overlay on the proxies; a change restarts them one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    /// Worker threads of each proxy; default: one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Memory of each proxy as a quantity (`256Mi`), the base of the `Memory` target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// What the operator says of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayFleetStatus {
    /// `Accepted`, `Programmed`, `Ready`.
    pub conditions: Vec<Condition>,
    /// Proxies that exist.
    pub replicas: u32,
    /// Proxies that are Ready.
    pub ready_replicas: u32,
    /// Proxies wanted.
    pub desired_replicas: u32,
    /// `6/6`, for the READY column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The signal that decides, such as `RequestRate=131%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driven_by: Option<String>,
    /// Revision of the configuration, 7 digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Proxies that run it.
    pub programmed_replicas: u32,
    /// Where clients reach the fleet.
    pub addresses: Vec<String>,
    /// Label selector of the proxies, for `/scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}
