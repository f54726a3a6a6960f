//! What [`admit`](super::admit) answers: the decoded object, or the violations.

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{kind::Kind, violations::Violation};
use crate::{ApiRoute, GatewayFleet, RatePolicy};

/// An admitted object. Its `metadata.name` and `metadata.namespace` are set, its defaults applied, its status dropped.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // built once for each change of a manifest, then matched on: a Box would only be in the way
pub enum Object {
    /// A fleet of proxies.
    GatewayFleet(GatewayFleet),
    /// A route.
    ApiRoute(ApiRoute),
    /// Rate limits.
    RatePolicy(RatePolicy),
    /// A Service that routes name as backend.
    Service(Service),
    /// The endpoints of a Service.
    EndpointSlice(EndpointSlice),
    /// A certificate of a listener.
    Secret(Secret),
}

impl Object {
    /// The kind, as it stands in the manifest.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GatewayFleet(_) => "GatewayFleet",
            Self::ApiRoute(_) => "ApiRoute",
            Self::RatePolicy(_) => "RatePolicy",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::Secret(_) => "Secret",
        }
    }

    /// Name, namespace, labels.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::GatewayFleet(o) => &o.metadata,
            Self::ApiRoute(o) => &o.metadata,
            Self::RatePolicy(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
        }
    }
}

/// Decodes what was admitted. That it fails at all means that schema and type disagree: a fault of ours, still answered
/// in words.
pub(super) fn decode(kind: Kind, value: Value) -> Result<Object, Vec<Violation>> {
    match kind {
        Kind::GatewayFleet => typed(kind, value).map(Object::GatewayFleet),
        Kind::ApiRoute => typed(kind, value).map(Object::ApiRoute),
        Kind::RatePolicy => typed(kind, value).map(Object::RatePolicy),
        Kind::Service => typed(kind, value).map(Object::Service),
        Kind::EndpointSlice => typed(kind, value).map(Object::EndpointSlice),
        Kind::Secret => typed(kind, value).map(|mut secret: Secret| {
            let plain = secret.string_data.take().unwrap_or_default();
            if !plain.is_empty() {
                let plain = plain.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
                secret.data.get_or_insert_default().extend(plain);
            }
            Object::Secret(secret)
        }),
    }
}

fn typed<T: DeserializeOwned>(kind: Kind, value: Value) -> Result<T, Vec<Violation>> {
    serde_json::from_value(value).map_err(|error| {
        // serde quotes what it stumbled over, which of a Secret must not be seen.
        let reason = if kind == Kind::Secret { "a field has the wrong type".into() } else { error.to_string() };
        vec![Violation { path: String::new(), message: format!("cannot be read as {}: {reason}", kind.name()) }]
    })
}
