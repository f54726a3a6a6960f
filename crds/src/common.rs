//! Shapes that several resources share: references and header forms, with Gateway API's names.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::text;

/// Refers to the `GatewayFleet` a route attaches to (Gateway API `ParentReference`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// The fleet's name.
    #[schemars(schema_with = "text::subdomain")]
    pub name: String,
    /// The fleet's namespace; default: the namespace of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label")]
    pub namespace: Option<String>,
    /// A listener's name; default: every listener that allows the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
    pub section_name: Option<String>,
}

/// Names the object a policy applies to, in the policy's own namespace (GEP-713 `LocalPolicyTargetReference`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.sectionName) || self.kind == 'ApiRoute'")
    .message("sectionName names a rule of an ApiRoute: leave it out, or set kind: ApiRoute")
    .field_path(".sectionName")
    .reason(Reason::FieldValueForbidden))]
pub struct PolicyTargetRef {
    /// Always `sluice.dev`.
    #[schemars(extend("enum" = ["sluice.dev"]))]
    pub group: String,
    /// The target's kind.
    pub kind: TargetKind,
    /// The target's name.
    #[schemars(schema_with = "text::subdomain")]
    pub name: String,
    /// A rule's name within an `ApiRoute`; default: all of its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
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

/// Whether a policy bites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// What it rejects is rejected.
    #[default]
    Enforce,
    /// It is only counted.
    Audit,
}

/// CEL: the header named `self.name` may be changed by a filter. The fields that frame a message belong to the proxy: a
/// filter that sets them could smuggle a second request to the backend.
pub(crate) const NOT_FRAMING_NAME: &str = "!(self.name.lowerAscii() in ['connection', 'content-length', 'host', \
    'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])";
/// CEL: the header named `self` may be changed by a filter.
pub(crate) const NOT_FRAMING: &str = "!(self.lowerAscii() in ['connection', 'content-length', 'host', 'keep-alive', \
    'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])";
pub(crate) const FRAMING_MESSAGE: &str = "the proxy itself writes Connection, Content-Length, Host, Keep-Alive, \
    Proxy-Connection, TE, Trailer, Transfer-Encoding and Upgrade; for Host use a URLRewrite filter's hostname";

/// Names of fields that do not frame a message.
pub(crate) fn header_names(generator: &mut SchemaGenerator) -> Schema {
    let mut name = text::header_name(generator);
    name.insert(
        "x-kubernetes-validations".into(),
        json!([{"rule": NOT_FRAMING, "message": FRAMING_MESSAGE, "reason": "FieldValueForbidden"}]),
    );
    json_schema!({"type": "array", "maxItems": 16, "x-kubernetes-list-type": "set", "items": name})
}

/// One header as name and value (Gateway API `HTTPHeader`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(NOT_FRAMING_NAME).message(FRAMING_MESSAGE)
    .field_path(".name")
    .reason(Reason::FieldValueForbidden))]
pub struct HttpHeader {
    /// Field name, RFC 9110 token; matched without regard to case.
    #[schemars(schema_with = "text::header_name")]
    pub name: String,
    /// Field value.
    #[schemars(schema_with = "text::header_value")]
    pub value: String,
}
