//! What a rule does to its requests and responses.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    cross_origin::{Cors, Csrf},
    external_auth::ExternalAuth,
};
use crate::{
    common::{HttpHeader, header_names},
    schema::text,
};

/// What a rule does to a request or its response (Gateway API `HTTPRouteFilter`).
///
/// The union is by `type`, with one member set, as in Gateway API; CEL holds the two together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.requestHeaderModifier) == (self.type == 'RequestHeaderModifier')")
        .message(Message::Expression(
            "has(self.requestHeaderModifier) ? 'requestHeaderModifier is only for type RequestHeaderModifier' : 'type RequestHeaderModifier needs requestHeaderModifier'".into(),
        ))
        .field_path(".requestHeaderModifier"),
    validation = Rule::new("has(self.responseHeaderModifier) == (self.type == 'ResponseHeaderModifier')")
        .message(Message::Expression(
            "has(self.responseHeaderModifier) ? 'responseHeaderModifier is only for type ResponseHeaderModifier' : 'type ResponseHeaderModifier needs responseHeaderModifier'".into(),
        ))
        .field_path(".responseHeaderModifier"),
    validation = Rule::new("has(self.requestRedirect) == (self.type == 'RequestRedirect')")
        .message(Message::Expression(
            "has(self.requestRedirect) ? 'requestRedirect is only for type RequestRedirect' : 'type RequestRedirect needs requestRedirect'".into(),
        ))
        .field_path(".requestRedirect"),
    validation = Rule::new("has(self.urlRewrite) == (self.type == 'URLRewrite')")
        .message(Message::Expression(
            "has(self.urlRewrite) ? 'urlRewrite is only for type URLRewrite' : 'type URLRewrite needs urlRewrite'".into(),
        ))
        .field_path(".urlRewrite"),
    validation = Rule::new("has(self.compression) == (self.type == 'Compression')")
        .message(Message::Expression(
            "has(self.compression) ? 'compression is only for type Compression' : 'type Compression needs compression'".into(),
        ))
        .field_path(".compression"),
    validation = Rule::new("has(self.externalAuth) == (self.type == 'ExternalAuth')")
        .message(Message::Expression(
            "has(self.externalAuth) ? 'externalAuth is only for type ExternalAuth' : 'type ExternalAuth needs externalAuth'".into(),
        ))
        .field_path(".externalAuth"),
    validation = Rule::new("has(self.cors) == (self.type == 'CORS')")
        .message(Message::Expression("has(self.cors) ? 'cors is only for type CORS' : 'type CORS needs cors'".into()))
        .field_path(".cors"),
    validation = Rule::new("has(self.csrf) == (self.type == 'CSRF')")
        .message(Message::Expression("has(self.csrf) ? 'csrf is only for type CSRF' : 'type CSRF needs csrf'".into()))
        .field_path(".csrf")
)]
pub struct RouteFilter {
    /// Which member below is set.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// For `RequestHeaderModifier`: what the backend gets. Example:
    /// `{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Env, value: prod}], remove: [X-Debug]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// For `ResponseHeaderModifier`: what the client gets. Example:
    /// `{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: Cache-Control, value: no-store}]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// For `RequestRedirect`: the client is sent elsewhere. Example:
    /// `{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RequestRedirect>,
    /// For `URLRewrite`: what the backend is asked for. Example:
    /// `{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
    /// For `Compression`: responses are coded for clients that accept it. Example:
    /// `{type: Compression, compression: {types: [text/*, application/json], minBytes: 512}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// For `ExternalAuth`: a service says whether the request may go on. Example:
    /// `{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<ExternalAuth>,
    /// For `CORS`: pages of other origins may make requests and read the answers. Example:
    /// `{type: CORS, cors: {allowOrigins: ["https://shop.example"], allowMethods: [GET, PUT], maxAge: 600}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// For `CSRF`: requests that change something must come from the route's own pages. Example:
    /// `{type: CSRF, csrf: {additionalOrigins: ["https://www.shop.example"]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<Csrf>,
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
    Compression,
    ExternalAuth,
    #[serde(rename = "CORS")]
    Cors,
    #[serde(rename = "CSRF")]
    Csrf,
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
    #[schemars(schema_with = "header_names")]
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

/// Codes responses for clients whose `Accept-Encoding` says so. What is coded already, a range, or not to be transformed
/// (`Cache-Control: no-transform`) stays as it is, and so does what comes with a digest of its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compression {
    /// Codings to choose from, by what the client likes best, then by this order.
    #[serde(default = "algorithms")]
    #[schemars(schema_with = "algorithms_schema")]
    pub algorithms: Vec<CompressionAlgorithm>,
    /// Media types that are coded, such as `text/html` or `text/*`; default: `text/*`, JSON, XML, JavaScript, WebAssembly,
    /// SVG, YAML, and fonts that are not compressed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "media_types")]
    pub types: Vec<String>,
    /// Bodies that are known to be shorter stay as they are; default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576), extend("default" = 1024))]
    pub min_bytes: Option<u32>,
}

/// The content codings there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // each is its own word
pub enum CompressionAlgorithm {
    Gzip,
}

fn algorithms() -> Vec<CompressionAlgorithm> {
    vec![CompressionAlgorithm::Gzip]
}

/// How a path is changed (Gateway API `HTTPPathModifier`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.replaceFullPath) == (self.type == 'ReplaceFullPath')")
        .message(Message::Expression(
            "has(self.replaceFullPath) ? 'replaceFullPath is only for type ReplaceFullPath' : 'type ReplaceFullPath needs replaceFullPath'".into(),
        ))
        .field_path(".replaceFullPath"),
    validation = Rule::new("has(self.replacePrefixMatch) == (self.type == 'ReplacePrefixMatch')")
        .message(Message::Expression(
            "has(self.replacePrefixMatch) ? 'replacePrefixMatch is only for type ReplacePrefixMatch' : 'type ReplacePrefixMatch needs replacePrefixMatch'".into(),
        ))
        .field_path(".replacePrefixMatch")
)]
pub struct PathModifier {
    /// Which member below is set.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// For `ReplaceFullPath`: instead of the whole path, such as `/index.html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::new_path")]
    pub replace_full_path: Option<String>,
    /// For `ReplacePrefixMatch`: instead of the matched prefix, such as `/v2`.
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

fn algorithms_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "x-kubernetes-list-type": "set",
        "items": CompressionAlgorithm::json_schema(generator),
    })
}

fn media_types(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::media_range(generator),
    })
}
