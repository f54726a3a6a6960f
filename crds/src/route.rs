//! `ApiRoute`: which requests go where (a sibling of Gateway API's HTTPRoute).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    Duration,
    common::ParentRef,
    schema::{k8s, text},
};

mod cross_origin;
mod external_auth;
mod filter;
mod matching;

pub use cross_origin::{Cors, CorsMethod, Csrf};
pub use external_auth::{ExternalAuth, ExternalAuthBackendRef, ExternalAuthProtocol, HttpAuthConfig};
pub use filter::{
    Compression, CompressionAlgorithm, FilterType, HeaderModifier, PathModifier, PathModifierType, RequestRedirect,
    RouteFilter, UrlRewrite,
};
pub use matching::{HeaderMatch, Method, PathMatch, PathMatchType, QueryParamMatch, RouteMatch, ValueMatchType};

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
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Programmed")].message"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.delegates) || !has(self.hostnames) || size(self.hostnames) == 0 || \
     self.delegates.all(d, d.hostnames.all(h, self.hostnames.exists(own, \
     own == h || (own.startsWith('*.') && h.endsWith(own.substring(1))))))",
)
.message("a delegate is of one of this route's hostnames, or of a host below a wildcard among them")
.field_path(".delegates"))]
pub struct ApiRouteSpec {
    /// The fleets that serve this route; default: the fleet named `default` of this namespace, else of the operator's.
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
    /// Who else may have which of these hostnames, or hosts below a wildcard among them. Without an entry no other
    /// namespace may, as long as this one has the wildcard; a hostname that is handed over goes to the namespace that is
    /// named here as soon as this one lets it go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub delegates: Vec<Delegate>,
    /// The most specific match wins, in Gateway API's precedence.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        validation = Rule::new(
            "[self.map(r, has(r.name) ? r.name : '')].all(names, names.all(a, a == '' || names.exists_one(b, a == b)))",
        )
        .message("two rules have the same name: policies refer to a rule by its name")
        .reason(Reason::FieldValueDuplicate),
        validation = Rule::new(
            "self.map(r, !has(r.matches) ? 0 : r.matches.map(m, \
             (has(m.path) && m.path.type == 'RegularExpression' ? 1 : 0) + \
             (has(m.headers) ? size(m.headers.filter(v, v.type == 'RegularExpression')) : 0) + \
             (has(m.queryParams) ? size(m.queryParams.filter(v, v.type == 'RegularExpression')) : 0)).sum()).sum() <= 64",
        )
        .message("more than 64 regular expressions: split the route, or match prefixes"),
        validation = Rule::new(
            "self.map(r, !has(r.matches) ? 0 : r.matches.map(m, \
             (has(m.path) && m.path.type == 'RegularExpression' ? size(m.path.value) : 0) + \
             (has(m.headers) ? m.headers.map(v, v.type == 'RegularExpression' ? size(v.value) : 0).sum() : 0) + \
             (has(m.queryParams) ? m.queryParams.map(v, v.type == 'RegularExpression' ? size(v.value) : 0).sum() : 0)\
             ).sum()).sum() <= 8192",
        )
        .message("regular expressions of more than 8192 characters together: split the route, or match prefixes")
    )]
    pub rules: Vec<self::Rule>, // `self`: KubeSchema brings kube's own Rule, of CEL, into scope
}

/// Hostnames that others may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegate {
    /// The names of their namespaces.
    #[schemars(schema_with = "k8s::namespaces")]
    pub namespaces: Vec<String>,
    /// Hosts; `*.a.shop.example` is that wildcard and every host below.
    #[schemars(schema_with = "delegated")]
    pub hostnames: Vec<String>,
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
    #[x_kube(validation = Rule::new("[self.map(f, f.type)].all(types, types.all(a, types.exists_one(b, a == b)))")
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
    /// From the request's head to the response's end, retries included. `0s` says that it may take as long as it likes: its
    /// bodies are streams, then, for which the fleet's `limits.minBodyBytesPerSecond` does not count.
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

fn delegated(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": text::hostname(generator),
    })
}

/// What the operator says of the route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteStatus {
    /// The state on each fleet, when there are several: that on a single one is in `conditions`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
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
