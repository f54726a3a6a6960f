//! The ports of a fleet, and who may use them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema::{k8s, text};

/// One port of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.protocol != 'HTTPS' || has(self.tls)")
        .message("protocol HTTPS needs tls.certificateRefs; without certificate use protocol HTTP")
        .field_path(".tls")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("self.protocol != 'HTTP' || !has(self.tls)")
        .message("protocol HTTP serves no certificates: leave tls out, or use protocol HTTPS")
        .field_path(".tls")
        .reason(Reason::FieldValueForbidden)
)]
pub struct Listener {
    /// Unique within the fleet; routes refer to it by `sectionName`.
    #[schemars(schema_with = "text::subdomain")]
    pub name: String,
    /// HTTP, or HTTPS with the certificates of `tls`.
    pub protocol: Protocol,
    /// The Service's port; standalone: the port opened on this machine.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Only requests for this host (`*.` wildcard allowed); default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::hostname")]
    pub hostname: Option<String>,
    /// Certificates, for HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// A listener's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in clear text.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP/1.1 and HTTP/2 by ALPN, over TLS.
    #[serde(rename = "HTTPS")]
    Https,
}

/// A listener's certificates; the one whose names fit the SNI serves, else the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// `kubernetes.io/tls` Secrets.
    #[schemars(length(min = 1, max = 16))]
    pub certificate_refs: Vec<SecretRef>,
}

/// Refers to a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(schema_with = "text::subdomain")]
    pub name: String,
    /// Its namespace; default: the fleet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::label")]
    pub namespace: Option<String>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: RouteNamespaces,
    /// Which hostnames belong to which of them. A hostname that is named here is for these namespaces alone, whoever else
    /// claims it and whoever came first, on every listener of the fleet; the most specific entry decides. What no entry
    /// covers is for whoever claims it first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub hostnames: Vec<AssignedHostnames>,
}

/// Hostnames, and the namespaces that may have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssignedHostnames {
    /// The names of the namespaces.
    #[schemars(schema_with = "k8s::namespaces")]
    pub namespaces: Vec<String>,
    /// Hosts; `*.shop.example` is that wildcard and every host below; `*` is all that no other entry covers.
    #[schemars(schema_with = "hostnames")]
    pub hostnames: Vec<String>,
}

fn hostnames(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::hostname_or_all(generator),
    })
}

/// The namespaces routes may come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.selector) == (self.from == 'Selector')")
    .message(Message::Expression(
        "has(self.selector) ? 'selector is only for from: Selector' : 'from: Selector needs a selector of namespaces'"
            .into(),
    ))
    .field_path(".selector"))]
pub struct RouteNamespaces {
    /// `Same` as the fleet's, `All`, or those that `selector` fits.
    #[serde(default)]
    pub from: FromNamespaces,
    /// With `from: Selector`: the labels of the namespaces; `kubernetes.io/metadata.name` is there by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "k8s::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Where routes may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FromNamespaces {
    /// Every namespace.
    All,
    /// The fleet's own namespace.
    #[default]
    Same,
    /// The namespaces whose labels fit.
    Selector,
}
