//! A fleet's own resources: listeners, certificates.

use std::collections::BTreeMap;

use crds::fleet::Target;
use snapshot::{
    Key,
    proto::{self, resource},
};

use super::{
    Draft,
    bounds::{self, Sourced},
    routes::EncodedRoutes,
    sourced,
};
use crate::{
    model::{Fleet, Listener, Model, Secret, Stale, grant, secret},
    problem::{Problems, reason},
    world::{Kind, ObjectRef},
};

/// The reason why a certificateRef serves nothing.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    NotPermitted(String),
    #[error("no Secret {0} of type kubernetes.io/tls exists: create it, or correct the name")]
    Missing(String),
    #[error("Secret {0} is not valid, and never was: {1}")]
    Invalid(String, String),
    #[error("Secret {secret} can't be read: {why}")]
    Unreadable { secret: String, why: String },
    #[error("Secret {secret} is of type {found}; a certificate is of type kubernetes.io/tls")]
    OtherType { secret: String, found: String },
}

impl Unusable {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) | Self::Unreadable { .. } => reason::REF_NOT_PERMITTED,
            Self::Missing(_) | Self::Invalid(..) | Self::OtherType { .. } => reason::INVALID_CERTIFICATE_REF,
        }
    }
}

/// Begins a fleet's draft.
pub(super) fn draft<'m>(
    model: &'m Model,
    object: &ObjectRef,
    fleet: &'m Fleet,
    problems: &mut Problems<'_>,
) -> Draft<'m> {
    let mut base = vec![];
    unmeasurable(object, fleet, problems);
    let mut candidates = vec![];
    for (i, listener) in fleet.listeners.iter().enumerate() {
        if let Some((member, message)) = conflict(listener, &fleet.listeners[..i]) {
            problems.degraded(object, format!("spec.listeners[{i}].{member}"), reason::CONFLICTED, message);
            continue;
        }
        if listener.tls && listener.certificates.is_empty() {
            let message = "a listener of protocol HTTPS needs a certificate, so it is not served";
            problems.degraded(object, format!("spec.listeners[{i}].tls"), reason::INVALID_CERTIFICATE_REF, message);
        }
        candidates.push((i, listener));
    }
    let (certificates, of_listener) = certificates(model, object, &candidates, problems);
    let (mut listeners, mut programmed) = (vec![], vec![]);
    for ((_, listener), keys) in candidates.into_iter().zip(of_listener) {
        if listener.tls && keys.is_empty() {
            continue;
        }
        programmed.push(listener.name.clone());
        let key = Key::listener(&object.namespace, &object.name, &listener.name);
        let resource = proto::Listener {
            name: listener.name.clone(),
            port: listener.port.into(),
            tls: listener.tls,
            hostname: listener.hostname.as_ref().map(|h| h.as_str().to_owned()).unwrap_or_default(),
            certificates: keys,
            bind_port: fleet.settings.container_ports.get(&listener.port).copied().map_or(0, u32::from),
        };
        listeners.push(sourced(key, resource::Kind::Listener(resource), object));
    }
    base.extend(listeners);
    base.extend(certificates);
    Draft {
        fleet,
        base,
        listeners: programmed,
        routes: vec![],
        served: BTreeMap::new(),
        encoded: EncodedRoutes::new(),
        held: BTreeMap::new(),
        policies: vec![],
        consumers: vec![],
        clusters: BTreeMap::new(),
        former: None,
        permitted: BTreeMap::new(),
    }
}

/// The certificates that a fleet's listeners refer to, as far as they are there and fit, and of each listener their keys.
fn certificates(
    model: &Model,
    object: &ObjectRef,
    listeners: &[(usize, &Listener)],
    problems: &mut Problems<'_>,
) -> (Vec<Sourced>, Vec<Vec<String>>) {
    // In the order in which they are referred to; and where.
    let (mut found, mut numbers): (Vec<Sourced>, BTreeMap<Key, usize>) = (vec![], BTreeMap::new());
    let mut references: Vec<Vec<(usize, String)>> = vec![];
    for (i, listener) in listeners {
        let mut wanted = vec![];
        for (j, (namespace, name)) in listener.certificates.iter().enumerate() {
            let field = format!("spec.listeners[{i}].tls.certificateRefs[{j}]");
            match certificate(model, object, namespace.as_deref(), name) {
                Ok((secret, content)) => {
                    if let Some(why) = unreadable(model, &secret.namespace) {
                        let message = format!(
                            "Secret {} is served as it was read last, and can't be read any more: {why}",
                            secret.path()
                        );
                        problems.degraded(object, field.clone(), reason::REF_NOT_PERMITTED, message);
                    } else if let Some(stale) = model.stale.get(&secret) {
                        let message = serves(&secret, stale, &content.chain_pem);
                        problems.degraded(object, field.clone(), reason::INVALID_CERTIFICATE_REF, message);
                    }
                    let key = secret.key(snapshot::Kind::Certificate);
                    let number = *numbers.entry(key.clone()).or_insert_with(|| {
                        found.push(sourced(key, resource::Kind::Certificate(content.clone()), &secret));
                        found.len() - 1
                    });
                    wanted.push((number, field));
                }
                Err(why) => problems.degraded(object, field, why.reason(), why.to_string()),
            }
        }
        references.push(wanted);
    }
    let fits = bounds::certificates(&found);
    let mut of_listener = vec![];
    for wanted in references {
        let mut keys = vec![];
        for (number, field) in wanted {
            match &fits[number] {
                Ok(()) => keys.push(found[number].key.to_string()),
                Err(why) => problems.degraded(object, field, reason::TOO_LARGE, why.as_str()),
            }
        }
        of_listener.push(keys);
    }
    let found = found.into_iter().zip(fits).filter(|(_, fits)| fits.is_ok());
    (found.map(|(certificate, _)| certificate).collect(), of_listener)
}

/// A target that has no data for ever: it holds, so that the fleet never shrinks.
fn unmeasurable(object: &ObjectRef, fleet: &Fleet, problems: &mut Problems<'_>) {
    for (i, target) in fleet.settings.spec.scaling.targets.iter().enumerate() {
        if matches!(target, Target::Memory { .. }) && fleet.settings.memory_bytes.is_none() {
            let message = "a Memory target needs spec.template.resources.limits.memory (or requests.memory), the whole that it is a share of; until then it \
                           has no data, and the fleet does not shrink";
            problems.degraded(object, format!("spec.scaling.targets[{i}]"), reason::INVALID, message);
        }
    }
}

/// The conflict of a listener with those before it: the member that clashes, and a message.
fn conflict(listener: &Listener, before: &[Listener]) -> Option<(&'static str, String)> {
    before.iter().filter(|other| other.port == listener.port).find_map(|other| {
        if other.tls != listener.tls {
            let message =
                format!("port {} can't speak both HTTP and HTTPS: listener {:?} has it", listener.port, other.name);
            return Some(("port", message));
        }
        let message = format!("listener {:?} has the same port and hostname", other.name);
        (other.hostname == listener.hostname).then_some(("hostname", message))
    })
}

fn certificate<'m>(
    model: &'m Model,
    fleet: &ObjectRef,
    namespace: Option<&str>,
    name: &str,
) -> Result<(ObjectRef, &'m proto::Certificate), Unusable> {
    let namespace = namespace.unwrap_or(&fleet.namespace);
    let secret = ObjectRef { kind: Kind::Secret, namespace: namespace.to_owned(), name: name.to_owned() };
    let path = secret.path();
    if !model.permits(fleet, &secret) {
        return Err(Unusable::NotPermitted(grant::missing(fleet, &secret)));
    }
    match model.secrets.get(&secret).map(AsRef::as_ref) {
        Some(Secret::Certificate(content)) => Ok((secret, content)),
        Some(Secret::Credentials { kind, .. } | Secret::Other { kind }) => {
            Err(Unusable::OtherType { secret: path, found: kind.clone() })
        }
        None => Err(match (model.invalid.get(&secret), unreadable(model, namespace)) {
            (Some(why), _) => Unusable::Invalid(path, why.clone()),
            // Whether there is one nobody knows.
            (None, Some(why)) => Unusable::Unreadable { secret: path, why },
            (None, None) => Unusable::Missing(path),
        }),
    }
}

/// The message of a certificate that is wrong, with the one that serves in its place.
fn serves(secret: &ObjectRef, stale: &Stale, chain_pem: &[u8]) -> String {
    let secret = secret.path();
    let wrong = match &stale.fault {
        Some(fault) => format!("Secret {secret} is not valid: {fault}"),
        None => format!("Secret {secret} is gone: create it again"),
    };
    let accepted = stale.accepted_at.map_or("last".to_owned(), |at| format!("at {at}"));
    let expires = secret::expires(chain_pem).map(|at| format!(", expires {at}")).unwrap_or_default();
    let until = stale.until.map(|at| format!(", until {at}")).unwrap_or_default();
    format!("{wrong}; what serves is the certificate accepted {accepted}{expires}{until}")
}

/// The reason why the Secrets of a namespace can't be read, if they can't.
fn unreadable(model: &Model, namespace: &str) -> Option<String> {
    model.cluster.as_ref()?.unreadable(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hostname, RoutesFrom};

    fn listener((name, port, tls, hostname): (&str, u16, bool, &str)) -> Listener {
        Listener {
            name: name.into(),
            port,
            tls,
            hostname: (!hostname.is_empty()).then(|| Hostname::new(hostname)),
            certificates: vec![],
            from: RoutesFrom::All,
            assigned: vec![],
        }
    }

    #[track_caller]
    fn check(before: (&str, u16, bool, &str), listener_: (&str, u16, bool, &str), expect: Option<(&str, &str)>) {
        let got = conflict(&listener(listener_), &[listener(("other", 1, true, "")), listener(before)]);
        assert_eq!(got.as_ref().map(|(member, message)| (*member, message.as_str())), expect);
    }

    #[test]
    fn conflicts() {
        check(("a", 80, false, ""), ("b", 81, false, ""), None);
        check(("a", 80, false, "x.test"), ("b", 80, false, "y.test"), None);
        check(("a", 80, false, ""), ("b", 80, false, "y.test"), None);
        let same = Some(("hostname", "listener \"a\" has the same port and hostname"));
        check(("a", 80, false, ""), ("b", 80, false, ""), same);
        check(("a", 80, true, "x.test"), ("b", 80, true, "X.test"), same);
        let both = Some(("port", "port 80 can't speak both HTTP and HTTPS: listener \"a\" has it"));
        check(("a", 80, false, "x.test"), ("b", 80, true, "y.test"), both);
    }
}
