//! Shapes that several resources share: references and header forms, with Gateway API's names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Refers to the `GatewayFleet` a route attaches to (Gateway API `ParentReference`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// The fleet's name.
    pub name: String,
    /// The fleet's namespace; default: the namespace of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A listener's name; default: every listener that allows the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Names the object a policy applies to, in the policy's own namespace (GEP-713 `LocalPolicyTargetReference`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTargetRef {
    /// Always `sluice.dev`.
    pub group: String,
    /// The target's kind.
    pub kind: TargetKind,
    /// The target's name.
    pub name: String,
    /// A rule's name within an `ApiRoute`; default: all of its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// What a policy can apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// One route, or one rule of it.
    ApiRoute,
    /// Every route of a fleet.
    GatewayFleet,
}

/// One header as name and value (Gateway API `HTTPHeader`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Field name, RFC 9110 token; matched without regard to case.
    pub name: String,
    /// Field value.
    pub value: String,
}
