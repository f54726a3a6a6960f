//! Filters on requests that pages of other origins make: which may read the answers, and which may change anything.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::text;

/// Pages of these origins may make such requests and read the answers (Gateway API `HTTPCORSFilter`).
///
/// The proxy answers preflights itself, before anybody is authenticated: with 204, or 403 for another origin. They find the
/// rule by the method that they ask about; a rule that matches header fields gets none, since they have not got them. In
/// responses the proxy's `Access-Control-*` fields stand in place of the backend's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.allowCredentials) || !self.allowCredentials || !has(self.exposeHeaders) || !('*' in self.exposeHeaders)",
)
.message("with allowCredentials browsers take '*' for the name of a field: name the fields")
.field_path(".exposeHeaders"))]
pub struct Cors {
    /// Origins: `https://shop.example`, with a port unless it is the scheme's own; `https://*.shop.example` is all below that
    /// host, `https://*` all of the scheme, and `*` alone every origin.
    #[schemars(schema_with = "origins_or_all")]
    pub allow_origins: Vec<String>,
    /// Methods that preflights allow; `*` is any. Browsers never ask about GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "methods")]
    pub allow_methods: Vec<CorsMethod>,
    /// Header fields that preflights allow in requests; `*` is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "field_names")]
    pub allow_headers: Vec<String>,
    /// Header fields of responses that pages may read, besides those that they always may; `*` is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "field_names")]
    pub expose_headers: Vec<String>,
    /// Whether requests may come with cookies, client certificates or `Authorization`. With `*` among `allowOrigins` any page
    /// may then act as whoever looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Seconds for which a browser may keep the answer to a preflight.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age: u32,
}

/// A method that preflights allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // each is its own word
pub enum CorsMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    #[serde(rename = "*")]
    Any,
}

/// Requests that change something must come from the route's own pages (Envoy's `csrf` filter).
///
/// GET, HEAD, OPTIONS and TRACE pass, but for the handshake of a WebSocket. Of the others, one that the browser says to be of
/// the same origin passes (`Sec-Fetch-Site`); where it says nothing, `Origin`, or else `Referer`, must name the request's own
/// host. Everything else is answered 403, what names no origin at all included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Csrf {
    /// Other origins whose pages may: `https://shop.example`, or `https://*.shop.example` for all below that host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "origins")]
    pub additional_origins: Vec<String>,
}

fn five_seconds() -> u32 {
    5
}

fn origins(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::origin(generator),
    })
}

fn origins_or_all(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::origin_or_all(generator),
        "x-kubernetes-validations": alone(),
    })
}

fn methods(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 10,
        "x-kubernetes-list-type": "set",
        "items": CorsMethod::json_schema(generator),
        "x-kubernetes-validations": alone(),
    })
}

fn field_names(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::header_name(generator),
        "x-kubernetes-validations": alone(),
    })
}

fn alone() -> serde_json::Value {
    json!([{
        "rule": "!('*' in self) || size(self) == 1",
        "message": "'*' is everything: leave the others out, or '*'",
    }])
}
