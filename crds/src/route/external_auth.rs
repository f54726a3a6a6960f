//! External authorization: a service says whether a request may go on (Gateway API GEP-1494).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, common::header_names, schema::text};

/// Asks a service whether a request may go on (Gateway API `HTTPExternalAuthFilter`).
///
/// The service gets the request's method, `Host`, path and query, `Authorization`, the fields of `http.allowedHeaders`, and
/// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Request-Id` as the proxy has them; never its body. With
/// 200 the request goes on. A redirection or an error 4xx is what the client gets, with its body. Anything else, and no
/// answer in time, is a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAuth {
    /// `HTTP`: by plain HTTP requests.
    pub protocol: ExternalAuthProtocol,
    /// The service that is asked. While it can't be found, the rule answers 500.
    pub backend_ref: ExternalAuthBackendRef,
    /// What it is asked, and what of its answers counts.
    #[serde(default)]
    pub http: HttpAuthConfig,
    /// The time that it has for an answer. It is part of the rule's `timeouts.request`, and no part of the latency that the
    /// fleet is scaled by.
    #[serde(default = "one_second")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1ms') && duration(self) <= duration('60s')")
        .message("the service has 1ms to 60s to answer"))]
    pub timeout: Duration,
    /// Whether a request goes on that the service can't be asked about, without the fields of `http.allowedResponseHeaders`.
    /// Default: it is answered 503.
    #[serde(default)]
    pub fail_open: bool,
}

/// The protocols by which services can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // explained where it is used
pub enum ExternalAuthProtocol {
    #[serde(rename = "HTTP")]
    Http,
}

/// A service that is asked by HTTP (Gateway API `HTTPAuthConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpAuthConfig {
    /// Stands before the request's path in that of the question, such as `/check`.
    #[serde(default)]
    #[schemars(schema_with = "text::new_prefix")]
    pub path: String,
    /// Header fields of the request that the service is told, besides `Host` and `Authorization`.
    #[serde(default)]
    #[schemars(schema_with = "header_names")]
    pub allowed_headers: Vec<String>,
    /// Header fields of the service's answer that the backend gets in place of the client's own, or else the client that is
    /// refused. (It gets `Content-Type`, `Location`, `WWW-Authenticate`, `Set-Cookie`, `Retry-After` and `Cache-Control`
    /// anyway.)
    #[serde(default)]
    #[schemars(schema_with = "header_names")]
    pub allowed_response_headers: Vec<String>,
}

/// The service that is asked: a Service (`name`, `port`), or an `address`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.address)")
        .message("the service is either a Service (name and port) or an address: give exactly one of the two"),
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
pub struct ExternalAuthBackendRef {
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
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}
