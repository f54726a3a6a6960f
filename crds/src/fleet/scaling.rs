//! How many replicas a fleet has, and why.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    Duration,
    schema::{k8s, text},
};

/// How many replicas the fleet has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scaling {
    /// Who decides the number.
    pub mode: ScalingMode,
    /// Never fewer.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
    /// Never more.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// Each signal wants a number; the most demanding wins.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub targets: Vec<Target>,
    /// Stabilization, as in `autoscaling/v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "k8s::scaling_behavior")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// Only with mode `External`: the number, written through `/scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// Percent of the CPU request, by default 500m; standalone: of the worker threads.
    #[serde(rename = "CPU")]
    Cpu {
        /// Percent, averaged over the replicas.
        average_utilization: u32,
    },
    /// Percent of the memory that `template.resources` names: its limit, else its request; else, in a cluster, of 1Gi.
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

/// By hand: a structural schema has the members of every variant side by side, and CEL says which belong to which `type`.
impl JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let described = |mut schema: Schema, description: &str| {
            schema.insert("description".into(), description.into());
            schema
        };
        json_schema!({
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "The signal.",
                    "enum": ["CPU", "Memory", "RequestRate", "ProxyLatency"],
                },
                "averageUtilization": {
                    "type": "integer",
                    "description": "Percent, averaged over the replicas. For CPU: of resources.requests.cpu, else of \
                        resources.limits.cpu, else of 500m (standalone: of the worker threads). For Memory: of \
                        resources.limits.memory, else of resources.requests.memory, else, in a cluster, of 1Gi.",
                    "minimum": 1,
                    "maximum": 100,
                },
                "averageValue": described(
                    text::quantity(generator),
                    "For RequestRate: requests per second and replica, admitted and shed for capacity, not those a \
                     policy rejects; a quantity such as \"4000\" or \"4k\".",
                ),
                "percentile": {
                    "type": "integer",
                    "description": "For ProxyLatency: the percentile; 99 is the one supported.",
                    "enum": [99],
                },
                "value": described(
                    text::duration(generator),
                    "For ProxyLatency: the time the proxy itself may add, upstream time subtracted.",
                ),
            },
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.averageUtilization) == (self.type in ['CPU', 'Memory'])",
                    "messageExpression": "has(self.averageUtilization) ? 'averageUtilization is only for the types CPU and Memory' : 'the types CPU and Memory need averageUtilization'",
                    "fieldPath": ".averageUtilization",
                },
                {
                    "rule": "has(self.averageValue) == (self.type == 'RequestRate')",
                    "messageExpression": "has(self.averageValue) ? 'averageValue is only for type RequestRate' : 'type RequestRate needs averageValue'",
                    "fieldPath": ".averageValue",
                },
                {
                    "rule": "!has(self.averageValue) || quantity(self.averageValue).isGreaterThan(quantity('0'))",
                    "message": "averageValue must be above 0",
                    "fieldPath": ".averageValue",
                },
                {
                    "rule": "has(self.percentile) == (self.type == 'ProxyLatency')",
                    "messageExpression": "has(self.percentile) ? 'percentile is only for type ProxyLatency' : 'type ProxyLatency needs percentile'",
                    "fieldPath": ".percentile",
                },
                {
                    "rule": "has(self.value) == (self.type == 'ProxyLatency')",
                    "messageExpression": "has(self.value) ? 'value is only for type ProxyLatency' : 'type ProxyLatency needs value'",
                    "fieldPath": ".value",
                },
                {
                    "rule": "!has(self.value) || duration(self.value) > duration('0s')",
                    "message": "value must be above 0s",
                    "fieldPath": ".value",
                },
            ],
        })
    }
}
