//! The results of [`admit`](super::admit): the decoded object, or the violations.

use std::fmt;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Namespace, Node, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;

use super::violations::Violation;
use crate::{AccessPolicy, ApiRoute, Consumer, GatewayFleet, Kind, RatePolicy, ReferenceGrant};

/// The object of each kind, and what all of them have.
macro_rules! objects {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// An admitted object. Its `metadata.name` and (but for a Namespace) `metadata.namespace` are set, its defaults
        /// applied, its status dropped.
        #[derive(Clone, PartialEq)]
        #[allow(clippy::large_enum_variant)] // built once for each change of a manifest, then matched on: a Box would only be in the way
        pub enum Object {
            $($(#[$doc])* $kind($kind),)*
        }

        impl Object {
            /// The object's kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Name, namespace, labels.
            pub fn metadata(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(o) => &o.metadata,)*
                }
            }

            /// The object as its type prints it: of a Secret with its content.
            fn debug(&self) -> &dyn fmt::Debug {
                match self {
                    $(Self::$kind(o) => o,)*
                }
            }
        }

        /// The manifest of an object, of a Secret with its content: for what may hold one.
        impl Serialize for Manifest<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    $(Object::$kind(o) => o.serialize(serializer),)*
                }
            }
        }

        /// Decodes what was admitted. That it fails at all means that schema and type disagree: a fault of ours, still
        /// answered in words.
        pub(super) fn decode(kind: Kind, value: Value) -> Result<Object, Vec<Violation>> {
            let object = match kind {
                $(Kind::$kind => typed(kind, value).map(Object::$kind),)*
            };
            object.map(plain_text_as_data)
        }
    };
}

objects! {
    /// A fleet of proxies.
    GatewayFleet,
    /// A route.
    ApiRoute,
    /// Rate limits.
    RatePolicy,
    /// How callers are known, and what they may do.
    AccessPolicy,
    /// Who calls.
    Consumer,
    /// A Service that routes name as backend.
    Service,
    /// The endpoints of a Service.
    EndpointSlice,
    /// A certificate of a listener, or credentials.
    Secret,
    /// A namespace, for its labels.
    Namespace,
    /// A node, for its addresses.
    Node,
    /// Permits references from other namespaces.
    ReferenceGrant,
}

/// An object as its manifest would have it.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a>(pub &'a Object);

/// The object for people; of a Secret not even its metadata, whose annotations may hold what was applied.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Secret(Secret { metadata, type_, data, string_data, .. }) = self else {
            return self.debug().fmt(f);
        };
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

/// A Secret's `stringData` becomes `data`, as the API server has it.
fn plain_text_as_data(mut object: Object) -> Object {
    if let Object::Secret(secret) = &mut object {
        let plain = secret.string_data.take().unwrap_or_default();
        if !plain.is_empty() {
            let plain = plain.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
            secret.data.get_or_insert_default().extend(plain);
        }
    }
    object
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
