//! `AccessPolicy`: how callers are known, and what they may do.

mod jwt;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use self::jwt::{ClaimToHeader, Jwks, JwtProvider, RequiredClaim};
use crate::{
    common::{PolicyMode, PolicyTargetRef},
    schema::{k8s, text},
};

/// Says how callers are known, and what they may do.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    doc = "Says how callers are known, and what they may do.",
    namespaced,
    status = "AccessPolicyStatus",
    derive = "PartialEq",
    shortname = "ap",
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
    printcolumn(name = "Refused", type_ = "string", json_path = ".status.refused"),
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
#[x_kube(
    validation = Rule::new("has(self.authentication) || has(self.authorization)")
        .message("a policy guards by something: give authentication, authorization or both"),
    validation = Rule::new("!self.override || self.targetRefs.exists(t, t.kind == 'GatewayFleet')")
        .message("override is only for a policy on a GatewayFleet, which then holds besides those on its routes")
        .field_path(".override")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "has(self.authentication) || !has(self.authorization) || self.authorization.rules.all(r, \
         !has(r.when) || !(has(r.when.consumers) || has(r.when.labels)))",
    )
    .message("consumers and labels are of callers that are known: give authentication too")
    .field_path(".authorization.rules")
)]
pub struct AccessPolicySpec {
    /// What is guarded, in this namespace. Of several policies the one on a rule stands before one on its route, and that
    /// before one on the fleet. Example: `[{group: sluice.dev, kind: ApiRoute, name: orders}]`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && \
         (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
    )
    .message("the same target is named twice")
    .reason(Reason::FieldValueDuplicate))]
    pub target_refs: Vec<PolicyTargetRef>,
    /// `Enforce` refuses; `Audit` decides and counts, and lets pass.
    #[serde(default)]
    pub mode: PolicyMode,
    /// On a GatewayFleet: this policy holds besides those on routes and rules, and a request has to pass both. Default: a
    /// policy on a route or rule stands in its place.
    #[serde(rename = "override", default)]
    pub overrides: bool,
    /// How callers are known. Default: nobody is asked. Example:
    /// `{providers: [{name: keys, type: APIKey, apiKey: {from: [{header: X-API-Key}]}}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What they may do. Default: everything. Example:
    /// `{rules: [{name: gold, action: Allow, when: {labels: {tier: gold}}}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// How callers are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authentication {
    /// The first whose credential a request has decides: if it refuses that, no other one is asked.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub providers: Vec<Provider>,
    /// Whether requests without any credential pass, of nobody. Default: they are answered 401.
    #[serde(default)]
    pub anonymous: bool,
    /// Wrong credentials that one client address (of IPv6: one /64) may present in a minute to each proxy. Beyond that its
    /// credentials are answered 429 unseen. 0: any number.
    #[serde(default = "failures")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_failures_per_minute: u32,
}

fn failures() -> u32 {
    60
}

/// A way in which callers are known. The union is by `type`, with one member set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.apiKey) == (self.type == 'APIKey')")
        .message("type APIKey needs apiKey, and no other type has it")
        .field_path(".apiKey"),
    validation = Rule::new("has(self.jwt) == (self.type == 'JWT')")
        .message("type JWT needs jwt, and no other type has it")
        .field_path(".jwt")
)]
pub struct Provider {
    /// Unique within the policy; metrics and those who are refused are told it.
    #[schemars(schema_with = "text::label")]
    pub name: String,
    /// Which member below is set.
    #[serde(rename = "type")]
    pub kind: ProviderType,
    /// For `APIKey`: a key of a Consumer of this namespace. Example: `{from: [{header: X-API-Key}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyProvider>,
    /// For `JWT`: a token that an issuer signed. Example:
    /// `{issuer: "https://id.example", audiences: [orders], jwks: {inline: ...}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtProvider>,
}

/// The ways there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // each names the member of Provider that it sets
pub enum ProviderType {
    #[serde(rename = "APIKey")]
    ApiKey,
    #[serde(rename = "JWT")]
    Jwt,
}

/// API keys of the Consumers of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKeyProvider {
    /// Where a request may have its key; the first that is there counts.
    #[schemars(length(min = 1, max = 8))]
    pub from: Vec<CredentialSource>,
    /// Whether backends get the key. Default: it is taken out of every place named here.
    #[serde(default)]
    pub forward: bool,
}

/// A place of a request that may hold a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "(has(self.header) ? 1 : 0) + (has(self.query) ? 1 : 0) + (has(self.cookie) ? 1 : 0) == 1",
    )
    .message("a credential is in one place: give exactly one of header, query and cookie"),
    validation = Rule::new(
        "!has(self.header) || !(self.header.lowerAscii() in ['connection', 'content-length', 'cookie', 'host', \
         'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'])",
    )
    .message("this header field frames the message or has a meaning of its own: choose another, or use cookie")
    .field_path(".header")
    .reason(Reason::FieldValueForbidden)
)]
pub struct CredentialSource {
    /// A header field, whose whole value is the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::header_name")]
    pub header: Option<String>,
    /// A query parameter. (Addresses end up in logs, also in those of others: prefer a header field.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::parameter_name")]
    pub query: Option<String>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::token")]
    pub cookie: Option<String>,
}

/// What callers may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorization {
    /// The first that a request fits decides; one that fits none is answered 403.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<AccessRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// Unique within the policy.
    #[schemars(schema_with = "text::label")]
    pub name: String,
    /// What becomes of the requests that fit.
    pub action: AccessAction,
    /// Which requests fit: all that is given must hold. Default: every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<AccessCondition>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessAction {
    /// It goes on.
    Allow,
    /// It is answered 403.
    Deny,
}

/// What a request must be; of each list it must be one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessCondition {
    /// Networks of the client's address; of all rules together 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "cidrs")]
    pub cidrs: Vec<String>,
    /// Names of Consumers of this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "consumers")]
    pub consumers: Vec<String>,
    /// Labels that the Consumer has, each with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Request methods, in upper case as HTTP has them. To a rule that allows, `get` is another method than `GET`; one that
    /// denies `GET` denies `get` too, since backends may take them for the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "methods")]
    pub methods: Vec<String>,
    /// Paths, compared as those of routes are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub paths: Vec<AccessPath>,
}

/// A path and how it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!(self.value.contains('//') || self.value.contains('/./') || self.value.contains('/../') || \
     self.value.endsWith('/.') || self.value.endsWith('/..'))",
)
.message("a path has no '//', '/./' or '/../': requests are normalised before they are compared")
.field_path(".value"))]
pub struct AccessPath {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: AccessPathType,
    /// Begins with `/`.
    #[schemars(schema_with = "text::new_path")]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessPathType {
    /// The whole path.
    Exact,
    /// Whole path elements from the start.
    #[default]
    PathPrefix,
}

// A condition that is given names something: an empty list would be one that nothing fits, or that everything does.

/// Which text is a network is for the operator to say: CEL would cost too much for as many.
fn cidrs(generator: &mut SchemaGenerator) -> Schema {
    list(&text::cidr(generator), 10_000)
}

fn consumers(generator: &mut SchemaGenerator) -> Schema {
    list(&text::subdomain(generator), 1_000)
}

fn methods(generator: &mut SchemaGenerator) -> Schema {
    list(&text::token(generator), 16)
}

fn list(items: &Schema, most: u32) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "maxItems": most, "x-kubernetes-list-type": "atomic", "items": items})
}

fn labels(generator: &mut SchemaGenerator) -> Schema {
    let mut labels = k8s::labels(generator);
    labels.insert("minProperties".into(), 1.into());
    labels
}

/// What the operator says of the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPolicyStatus {
    /// `Accepted`, `ResolvedRefs`, `Programmed`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
    /// How many targets were found.
    pub targets: u32,
    /// Share of the requests that were refused, or would be in mode `Audit`, such as `0.4%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub refused: Option<String>,
}
