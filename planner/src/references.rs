//! Secrets that objects refer to. A cluster has thousands, with the keys of everybody: only those that something refers to
//! are read, and held for as long as one does. What may be referred to is decided where it is used.

use crds::Object;

use crate::world::{Kind, ObjectRef};

/// The Secrets that an object of this content refers to.
pub fn secrets(id: &ObjectRef, content: &Object) -> Vec<ObjectRef> {
    let secret = |namespace: Option<&String>, name: &str| ObjectRef {
        kind: Kind::Secret,
        namespace: namespace.unwrap_or(&id.namespace).clone(),
        name: name.to_owned(),
    };
    match content {
        Object::GatewayFleet(fleet) => {
            let listeners = fleet.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref());
            let certificates = listeners.flat_map(|tls| &tls.certificate_refs);
            certificates.map(|certificate| secret(certificate.namespace.as_ref(), &certificate.name)).collect()
        }
        Object::Consumer(consumer) => {
            consumer.spec.credentials.iter().map(|credential| secret(None, &credential.secret_ref.name)).collect()
        }
        _ => vec![],
    }
}
