//! `RatePolicy`: who may send how many requests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, common::PolicyTargetRef};

/// Limits the requests of routes, rules or a whole fleet.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "RatePolicy",
    plural = "ratepolicies",
    namespaced,
    status = "RatePolicyStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RatePolicySpec {
    /// What is limited, in this namespace.
    pub target_refs: Vec<PolicyTargetRef>,
    /// Whether the limits bite.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Every limit applies; the strictest wins.
    pub limits: Vec<Limit>,
}

/// Whether a limit bites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// Requests beyond the limit are rejected.
    #[default]
    Enforce,
    /// They are only counted.
    Audit,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Unique within the policy.
    pub name: String,
    /// One bucket for each value of these together; empty: one bucket for all.
    #[serde(default)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
}

/// A token bucket: `rate` tokens each `per`, at most `burst` saved up; each request takes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBucket {
    /// Tokens per `per`.
    pub rate: u32,
    /// The unit of time.
    #[serde(default = "one_second")]
    pub per: Duration,
    /// Tokens that can be saved up; default: `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub conditions: Vec<Condition>,
    /// How many targets were found.
    pub targets: u32,
    /// Share of the requests that were over a limit, such as `0.4%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited: Option<String>,
}
