//! `ApiRoute`: which requests go where (a sibling of Gateway API's HTTPRoute).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Duration,
    common::{FRAMING_MESSAGE, HttpHeader, NOT_FRAMING, ParentRef},
    schema::{k8s, text},
};

/// Routes requests of some hostnames to backends.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ApiRoute",
    doc = "Routes requests of some hostnames to backends.",
    namespaced,
    status = "ApiRouteStatus",
    derive = "PartialEq",
    shortname = "ar",
    category = "sluice",
    printcolumn(name = "Hostnames", type_ = "string", json_path = ".spec.hostnames"),
    printcolumn(name = "Fleet", type_ = "string", json_path = ".status.fleet"),
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
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiRouteSpec {
    /// The fleets that serve this route; default: the fleet named `default`.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, a.name == b.name && \
         (has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '') && \
         (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
    )
    .message("the same fleet and listener is named twice")
    .reason(Reason::FieldValueDuplicate))]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts, `*.` wildcards allowed; default: any host of the listener.
    #[serde(default)]
    #[schemars(schema_with = "hostnames")]
    pub hostnames: Vec<String>,
    /// The most specific match wins, in Gateway API's precedence.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new(
        "self.all(a, !has(a.name) || self.exists_one(b, has(b.name) && a.name == b.name))",
    )
    .message("two rules have the same name: policies refer to a rule by its name")
    .reason(Reason::FieldValueDuplicate))]
    pub rules: Vec<self::Rule>, // `self`: KubeSchema brings kube's own Rule, of CEL, into scope
}

/// What to do with the requests that match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new(
        "(has(self.backendRefs) && size(self.backendRefs) > 0) || \
         (has(self.filters) && self.filters.exists(f, f.type == 'RequestRedirect'))",
    )
    .message("a rule needs at least one backendRef, or a RequestRedirect filter")
    .field_path(".backendRefs")
    .reason(Reason::FieldValueRequired),
    validation = Rule::new(
        "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || \
         !self.filters.exists(f, f.type == 'RequestRedirect')",
    )
    .message("a rule with a RequestRedirect filter answers by itself: leave backendRefs out, or remove the filter")
    .field_path(".backendRefs")
    .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "!has(self.filters) || !(self.filters.exists(f, f.type == 'RequestRedirect') && \
         self.filters.exists(f, f.type == 'URLRewrite'))",
    )
    .message("RequestRedirect and URLRewrite exclude one another: a redirected request reaches no backend")
    .field_path(".filters")
    .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "!has(self.filters) || !self.filters.exists(f, \
         (has(f.requestRedirect) && has(f.requestRedirect.path) && f.requestRedirect.path.type == 'ReplacePrefixMatch') || \
         (has(f.urlRewrite) && has(f.urlRewrite.path) && f.urlRewrite.path.type == 'ReplacePrefixMatch')) || \
         !has(self.matches) || self.matches.all(m, !has(m.path) || m.path.type == 'PathPrefix')",
    )
    .message("a path of type ReplacePrefixMatch needs every match of the rule to be of path type PathPrefix")
    .field_path(".matches")
)]
pub struct Rule {
    /// Unique within the route; policies refer to it by `sectionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
    pub name: Option<String>,
    /// Any of these; default: every path.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub matches: Vec<RouteMatch>,
    /// Applied in the order that the proxy fixes.
    #[serde(default)]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a.type == b.type))")
        .message("at most one filter of each type: put all changes into one")
        .reason(Reason::FieldValueDuplicate))]
    pub filters: Vec<RouteFilter>,
    /// Bounds in time.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Where requests go, by weight; may be empty when a filter redirects.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<BackendRef>,
}

/// Every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path; default: every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The method; default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Header fields, all of them.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters, all of them.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub query_params: Vec<QueryParamMatch>,
}

/// A path and how it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type == 'RegularExpression' || self.value.startsWith('/')")
        .message("a path begins with '/'")
        .field_path(".value"),
    validation = Rule::new(
        r#"self.type == 'RegularExpression' || self.value.matches(r"^([-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*$")"#,
    )
    .message("a path has no '?', '#' or spaces, and other characters percent-encoded; queryParams match the query")
    .field_path(".value"),
    validation = Rule::new(
        "self.type == 'RegularExpression' || !(self.value.contains('//') || self.value.contains('/./') || \
         self.value.contains('/../') || self.value.endsWith('/.') || self.value.endsWith('/..'))",
    )
    .message("a path has no '//', '/./' or '/../': requests are normalised before they are matched")
    .field_path(".value")
)]
pub struct PathMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// Begins with `/`.
    #[schemars(schema_with = "text::path")]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole path elements from the start.
    #[default]
    PathPrefix,
    /// A regular expression over the whole path (RE2 syntax).
    RegularExpression,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// The same bytes.
    #[default]
    Exact,
    /// A regular expression over the whole value (RE2 syntax).
    RegularExpression,
}

/// One header field that must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Field name, without regard to case.
    #[schemars(schema_with = "text::header_name")]
    pub name: String,
    /// Value or expression.
    #[schemars(schema_with = "text::match_value")]
    pub value: String,
}

/// One query parameter that must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryParamMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Parameter name, exact.
    #[schemars(schema_with = "text::parameter_name")]
    pub name: String,
    /// Value or expression.
    #[schemars(schema_with = "text::match_value")]
    pub value: String,
}

/// Request methods (RFC 9110 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // each is the method of that name
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

/// What a rule does to a request or its response (Gateway API `HTTPRouteFilter`).
///
/// The union is by `type`, with one member set, as in Gateway API; CEL holds the two together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.requestHeaderModifier) == (self.type == 'RequestHeaderModifier')")
        .message("type RequestHeaderModifier needs requestHeaderModifier, and only it has it")
        .field_path(".requestHeaderModifier"),
    validation = Rule::new("has(self.responseHeaderModifier) == (self.type == 'ResponseHeaderModifier')")
        .message("type ResponseHeaderModifier needs responseHeaderModifier, and only it has it")
        .field_path(".responseHeaderModifier"),
    validation = Rule::new("has(self.requestRedirect) == (self.type == 'RequestRedirect')")
        .message("type RequestRedirect needs requestRedirect, and only it has it")
        .field_path(".requestRedirect"),
    validation = Rule::new("has(self.urlRewrite) == (self.type == 'URLRewrite')")
        .message("type URLRewrite needs urlRewrite, and only it has it")
        .field_path(".urlRewrite")
)]
pub struct RouteFilter {
    /// Which member below is set.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// For `RequestHeaderModifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// For `ResponseHeaderModifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// For `RequestRedirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// For `URLRewrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
}

/// The filters there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // each names the member of RouteFilter that it sets
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
}

/// Header fields to set, add and remove, in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replace.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub set: Vec<HttpHeader>,
    /// Append.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub add: Vec<HttpHeader>,
    /// Remove.
    #[serde(default)]
    #[schemars(schema_with = "removed_headers")]
    pub remove: Vec<String>,
}

/// Answers with a redirect instead of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.scheme) || has(self.hostname) || has(self.port) || has(self.path)")
    .message("a redirect that changes nothing leads back to itself: give scheme, hostname, port or path"))]
pub struct RequestRedirect {
    /// `http` or `https`; default: the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["http", "https"]))]
    pub scheme: Option<String>,
    /// Default: the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
    pub hostname: Option<String>,
    /// Default: the scheme's own port when `scheme` is given, else the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Default: the request's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// 301, 302, 303, 307 or 308; default: 302.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308], "default" = 302))]
    pub status_code: Option<u16>,
}

/// Changes the URL that the backend sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.hostname) || has(self.path)")
    .message("a URLRewrite changes something: give hostname or path"))]
pub struct UrlRewrite {
    /// Replaces the Host header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::subdomain")]
    pub hostname: Option<String>,
    /// Replaces the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// How a path is changed (Gateway API `HTTPPathModifier`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.replaceFullPath) == (self.type == 'ReplaceFullPath')")
        .message("type ReplaceFullPath needs replaceFullPath, and only it has it")
        .field_path(".replaceFullPath"),
    validation = Rule::new("has(self.replacePrefixMatch) == (self.type == 'ReplacePrefixMatch')")
        .message("type ReplacePrefixMatch needs replacePrefixMatch, and only it has it")
        .field_path(".replacePrefixMatch")
)]
pub struct PathModifier {
    /// Which member below is set.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// For `ReplaceFullPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::new_path")]
    pub replace_full_path: Option<String>,
    /// For `ReplacePrefixMatch`: instead of the matched prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::new_prefix")]
    pub replace_prefix_match: Option<String>,
}

/// The ways to change a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // each names the member of PathModifier that it sets
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// Bounds in time; `0s` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || \
     duration(self.backendRequest) <= duration(self.request)",
)
.message("backendRequest must not be above request, which it is a part of")
.field_path(".backendRequest"))]
pub struct Timeouts {
    /// From the request's head to the response's end, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// For one try at a backend, to the response's head; at most `request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// One backend: a Service (`name`, `port`), or an `address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.address)")
        .message("a backend is either a Service (name and port) or an address: give exactly one of the two"),
    validation = Rule::new("has(self.port) == has(self.name)")
        .message("port belongs to a Service's name: give both or none (an address has its port in it)")
        .field_path(".port"),
    validation = Rule::new("!has(self.__namespace__) || has(self.name)")
        .message("namespace is only for a Service's name")
        .field_path(".namespace")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.appProtocol) || has(self.address)")
        .message("appProtocol is only for an address; a Service says it by its port's appProtocol")
        .field_path(".appProtocol")
        .reason(Reason::FieldValueForbidden)
)]
pub struct BackendRef {
    /// A Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label")]
    pub name: Option<String>,
    /// The Service's namespace; default: the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label")]
    pub namespace: Option<String>,
    /// The Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// `IP:port` (`127.0.0.1:9000`, `[::1]:9000`) instead of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::address")]
    #[x_kube(
        validation = Rule::new(
            "isIP(self.startsWith('[') ? self.substring(1, self.lastIndexOf(']')) : \
             self.substring(0, self.lastIndexOf(':')))",
        )
        .message("is no IP address and port, such as 127.0.0.1:9000 or [::1]:9000"),
        validation = Rule::new("int(self.substring(self.lastIndexOf(':') + 1)) <= 65535")
            .message("the port is above 65535")
    )]
    pub address: Option<String>,
    /// For an address: `kubernetes.io/h2c` speaks HTTP/2 to it; default HTTP/1.1. A Service says so by its port's `appProtocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["kubernetes.io/h2c"]))]
    pub app_protocol: Option<String>,
    /// Share of the requests, relative to the other backends.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

fn hostnames(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::hostname(generator),
    })
}

fn removed_headers(generator: &mut SchemaGenerator) -> Schema {
    let mut name = text::header_name(generator);
    name.insert(
        "x-kubernetes-validations".into(),
        json!([{"rule": NOT_FRAMING, "message": FRAMING_MESSAGE, "reason": "FieldValueForbidden"}]),
    );
    json_schema!({"type": "array", "maxItems": 16, "x-kubernetes-list-type": "set", "items": name})
}

/// What the operator says of the route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteStatus {
    /// One entry for each fleet.
    #[schemars(length(max = 32))]
    pub parents: Vec<RouteParentStatus>,
    /// The conditions over all fleets: `Accepted`, `ResolvedRefs`, `Programmed`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
    /// The fleets, for the FLEET column.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub fleet: Option<String>,
}

/// The route's state on one fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// Which fleet.
    pub parent_ref: ParentRef,
    /// `Accepted`, `ResolvedRefs`, `Programmed`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
}
