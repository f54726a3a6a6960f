//! `RatePolicy`: who may send how many requests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    Duration,
    common::{PolicyMode, PolicyTargetRef},
    schema::{k8s, text},
};

/// Limits the requests of routes, rules or a whole fleet.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "RatePolicy",
    plural = "ratepolicies",
    doc = "Limits the requests of routes, rules or a whole fleet.",
    namespaced,
    status = "RatePolicyStatus",
    derive = "PartialEq",
    shortname = "rp",
    category = "sluice",
    printcolumn(name = "Targets", type_ = "integer", json_path = ".status.targets"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(name = "Limited", type_ = "string", json_path = ".status.limited"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].reason"#
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
pub struct RatePolicySpec {
    /// What is limited, in this namespace. Example: `[{group: sluice.dev, kind: ApiRoute, name: orders}]`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && \
         (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
    )
    .message("the same target is named twice")
    .reason(Reason::FieldValueDuplicate))]
    pub target_refs: Vec<PolicyTargetRef>,
    /// Whether the limits bite.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Every limit applies; the strictest wins. Example:
    /// `[{name: each-client, key: [{type: ClientIP}], tokenBucket: {rate: 10, per: 1s, burst: 20}}]`.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Unique within the policy.
    #[schemars(schema_with = "text::label")]
    pub name: String,
    /// One bucket for each value of these together; empty: one bucket for all. Example:
    /// `[{type: Header, name: X-Tenant}, {type: ClientIP}]`.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("the same part of the key is named twice")
        .reason(Reason::FieldValueDuplicate))]
    pub key: Vec<KeyPart>,
    /// What one bucket spans.
    #[serde(default)]
    pub scope: LimitScope,
    /// The rate and the burst.
    pub token_bucket: TokenBucket,
    /// Where the count is kept.
    #[serde(default)]
    pub consistency: Consistency,
    /// Overrides the policy's mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PolicyMode>,
}

/// Where a count is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Consistency {
    /// The one type there is so far.
    #[serde(rename = "type", default)]
    pub kind: ConsistencyType,
}

/// Where a count is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConsistencyType {
    /// Each replica counts for itself: N replicas admit up to N times the rate.
    #[default]
    Replica,
}

/// What one bucket spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitScope {
    /// All targets of the policy share it.
    #[default]
    Policy,
    /// One for each target.
    PerTarget,
    /// One for each rule.
    PerRule,
}

/// One part of a limit's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum KeyPart {
    /// The client's address.
    #[serde(rename = "ClientIP")]
    ClientIp {
        /// Leading bits that count; default 32 for IPv4, 64 for IPv6. A value above 32 leaves IPv4 whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix_length: Option<u8>,
    },
    /// A header field's first value; requests without it share one bucket.
    Header {
        /// Field name.
        name: String,
    },
    /// A query parameter's first value.
    Query {
        /// Parameter name.
        name: String,
    },
    /// A cookie's value.
    Cookie {
        /// Cookie name.
        name: String,
    },
    /// The Consumer that an AccessPolicy knows the caller for; requests of nobody share one bucket.
    Consumer {},
}

/// By hand: a structural schema has the members of every variant side by side, and CEL says which belong to which `type`.
impl JsonSchema for KeyPart {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KeyPart".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut name = text::parameter_name(generator);
        name.insert("description".into(), "For Header, Query and Cookie: the field, parameter or cookie.".into());
        json_schema!({
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What of the request; a request without it shares one bucket with its like.",
                    "enum": ["ClientIP", "Header", "Query", "Cookie", "Consumer"],
                },
                "prefixLength": {
                    "type": "integer",
                    "description": "For ClientIP: leading bits that count; default 32 for IPv4, 64 for IPv6. A value \
                        above 32 leaves IPv4 whole.",
                    "minimum": 1,
                    "maximum": 128,
                },
                "name": name,
            },
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.name) == (self.type in ['Header', 'Query', 'Cookie'])",
                    "messageExpression": "has(self.name) ? 'the types ClientIP and Consumer have no name' : 'the types Header, Query and Cookie need a name'",
                    "fieldPath": ".name",
                },
                {
                    "rule": "!has(self.prefixLength) || self.type == 'ClientIP'",
                    "message": "prefixLength is only for type ClientIP",
                    "fieldPath": ".prefixLength",
                    "reason": "FieldValueForbidden",
                },
                {
                    "rule": r"!has(self.name) || self.type == 'Query' || self.name.matches('^[A-Za-z0-9!#$%&\'*+.^_`|~-]+$')",
                    "message": "a header or cookie name has only letters, digits and the signs !#$%&'*+-.^_`|~",
                    "fieldPath": ".name",
                },
            ],
        })
    }
}

/// A token bucket: `rate` tokens each `per`, at most `burst` saved up; each request takes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBucket {
    /// Tokens per `per`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub rate: u32,
    /// The unit of time.
    #[serde(default = "one_second")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1ms') && duration(self) <= duration('24h')")
        .message("must be between 1ms and 24h"))]
    pub per: Duration,
    /// Tokens that can be saved up; default: `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<u32>,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

/// What the operator says of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RatePolicyStatus {
    /// `Accepted`, `Programmed`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
    /// How many targets were found.
    pub targets: u32,
    /// Share of the requests that were over a limit, such as `0.4%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub limited: Option<String>,
}
