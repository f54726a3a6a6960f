//! Secrets that objects refer to. A cluster has thousands, with the keys of everybody: only those that something refers to
//! are read, no more of them than what is referred to, and held for as long as something does. What may be referred to is
//! decided where it is used.

use std::fmt;

use crds::Object;

use crate::world::{Kind, ObjectRef};

/// A reference to a part of a Secret. References are in the order of Secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    /// The Secret.
    pub secret: ObjectRef,
    /// The kind of object that refers to it.
    pub by: Kind,
    /// The part of it that is needed.
    pub part: SecretPart,
}

/// A part of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretPart {
    /// A certificate and its key.
    Certificate,
    /// A credential, under this key.
    Credential(String),
}

impl SecretPart {
    /// Whether the content of a key belongs to it.
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::Certificate => matches!(key, "tls.crt" | "tls.key"),
            Self::Credential(name) => name == key,
        }
    }
}

/// The Secret, as it is shown to people.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

/// The references of an object of this content to Secrets.
pub fn secrets(id: &ObjectRef, content: &Object) -> Vec<SecretRef> {
    let reference = |namespace: Option<&String>, name: &str, part| {
        let namespace = namespace.unwrap_or(&id.namespace).clone();
        SecretRef { secret: ObjectRef { kind: Kind::Secret, namespace, name: name.to_owned() }, by: id.kind, part }
    };
    match content {
        Object::GatewayFleet(fleet) => {
            let listeners = fleet.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref());
            let certificates = listeners.flat_map(|tls| &tls.certificate_refs);
            certificates.map(|of| reference(of.namespace.as_ref(), &of.name, SecretPart::Certificate)).collect()
        }
        Object::Consumer(consumer) => {
            let secrets = consumer.spec.credentials.iter().map(|credential| &credential.secret_ref);
            secrets.map(|of| reference(None, &of.name, SecretPart::Credential(of.key.clone()))).collect()
        }
        _ => vec![],
    }
}
