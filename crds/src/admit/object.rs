//! What [`admit`](super::admit) answers: the decoded object, or the violations.

use std::fmt;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Namespace, Node, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{kind::Kind, violations::Violation};
use crate::{ApiRoute, GatewayFleet, RatePolicy, ReferenceGrant};

/// An admitted object. Its `metadata.name` and (but for a Namespace) `metadata.namespace` are set, its defaults applied, its status dropped.
#[derive(Clone, PartialEq)]
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
    /// A namespace, for its labels.
    Namespace(Namespace),
    /// A node, for its addresses.
    Node(Node),
    /// Permits references from other namespaces.
    ReferenceGrant(ReferenceGrant),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::GatewayFleet(_) => Kind::GatewayFleet,
            Self::ApiRoute(_) => Kind::ApiRoute,
            Self::RatePolicy(_) => Kind::RatePolicy,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
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
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::ReferenceGrant(o) => &o.metadata,
        }
    }
}

/// Of a Secret only what is none: not even its metadata, whose annotations may hold what was applied.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GatewayFleet(o) => o.fmt(f),
            Self::ApiRoute(o) => o.fmt(f),
            Self::RatePolicy(o) => o.fmt(f),
            Self::Service(o) => o.fmt(f),
            Self::EndpointSlice(o) => o.fmt(f),
            Self::Namespace(o) => o.fmt(f),
            Self::Node(o) => o.fmt(f),
            Self::ReferenceGrant(o) => o.fmt(f),
            Self::Secret(Secret { metadata, type_, data, string_data, .. }) => {
                let keys = data.iter().flat_map(|data| data.keys());
                let keys = keys.chain(string_data.iter().flat_map(|data| data.keys()));
                f.debug_struct("Secret")
                    .field("namespace", &metadata.namespace)
                    .field("name", &metadata.name)
                    .field("type", type_)
                    .field("keys", &keys.collect::<Vec<_>>())
                    .finish_non_exhaustive()
            }
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
        Kind::Namespace => typed(kind, value).map(Object::Namespace),
        Kind::Node => typed(kind, value).map(Object::Node),
        Kind::ReferenceGrant => typed(kind, value).map(Object::ReferenceGrant),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_prints_without_its_content() {
        let metadata = json!({"name": "n", "namespace": "ns", "annotations": {"applied": "k3y"}});
        let value =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"tls.key": "k3y"}});
        let object = crate::admit(value).unwrap();
        let text = format!("{object:?}");
        assert_eq!(
            text,
            "Secret { namespace: Some(\"ns\"), name: Some(\"n\"), type: Some(\"Opaque\"), keys: [\"tls.key\"], .. }"
        );
        // As it decodes in a cluster, where nothing is admitted here.
        let Object::Secret(mut secret) = object else { panic!() };
        secret.string_data = Some([("plain".to_owned(), "k3y".to_owned())].into());
        let text = format!("{:?}", Object::Secret(secret));
        assert!(text.contains("plain") && !text.contains("k3y") && !text.contains("107, 51, 121"), "{text}");
    }
}
