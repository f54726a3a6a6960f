//! Consumers → one resource in each fleet that serves their namespace. Of a credential only its digest goes into it.
//!
//! A key is one consumer's within a namespace: of two that hold it, it is the older one's. Consumers of other namespaces
//! are nothing to them, or whoever may make one could find out the keys of others, and take them.
//!
//! What did not change since the plan before is taken over as it was encoded then.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use crds::consumer::{API_KEY_CREDENTIAL, CREDENTIAL_LABEL};
use snapshot::{
    credential::Digest,
    proto::{self, Credential, resource},
    wire::{MAX_CONSUMERS, MAX_SNAPSHOT},
};

use super::{Draft, bounds::Sourced, created_ms, sourced};
use crate::{
    model::{Consumer, CredentialRef, Model, Secret},
    plan::Known,
    problem::{Problems, reason},
    share::{self, Amounts, Unit},
    world::{Kind, ObjectRef},
};

/// Most that the consumers of a fleet may have together, in bytes.
const MAX_CONSUMER_BYTES: usize = MAX_SNAPSHOT / 8;

/// The consumers as they were encoded last.
pub(crate) type EncodedConsumers = BTreeMap<ObjectRef, Arc<Encoded>>;

/// A consumer as it stands in snapshots.
#[derive(Debug)]
pub(crate) struct Encoded {
    of: Arc<Consumer>,
    credentials: Vec<Credential>,
    resource: Sourced,
}

impl Encoded {
    /// Encodes a consumer, unless the former encoding is of the same.
    fn new(
        object: &ObjectRef,
        consumer: &Arc<Consumer>,
        credentials: Vec<Credential>,
        former: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let is_same = |former: &&Arc<Self>| Arc::ptr_eq(&former.of, consumer) && former.credentials == credentials;
        if let Some(same) = former.filter(is_same) {
            return Arc::clone(same);
        }
        let resource = proto::Consumer { labels: consumer.labels.clone(), credentials: credentials.clone() };
        let resource = sourced(object.key(snapshot::Kind::Consumer), resource::Kind::Consumer(resource), object);
        Arc::new(Self { of: Arc::clone(consumer), credentials, resource })
    }
}

/// The reason why a credential can't be used. Of a Secret that does not say that it is a credential nothing is told, not even whether it is
/// there: who may write consumers need not be one who may read Secrets.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(
        "no Secret {0} serves as API key: there must be one with the label {CREDENTIAL_LABEL}: {API_KEY_CREDENTIAL}, of another \
         type than kubernetes.io/tls and kubernetes.io/service-account-token; create it, label it, or correct the name"
    )]
    NoCredential(String),
    #[error("Secret {secret} can't be read: {why}")]
    Unreadable { secret: String, why: String },
    #[error("Secret {secret} has no key {key:?}: add it, or correct secretRef.key")]
    NoKey { secret: String, key: String },
    #[error("key {key:?} of Secret {secret} is no API key: it {why}")]
    NoApiKey { secret: String, key: String, why: String },
    #[error("it is the key of {0} too, which is older: give each consumer its own")]
    Held(String),
    #[error("it is the same key as an earlier one of this consumer: take it out")]
    Twice,
}

impl Unusable {
    /// The reason, and the member that is at fault.
    fn place(&self) -> (&'static str, &'static str) {
        match self {
            Self::Unreadable { .. } => (reason::REF_NOT_PERMITTED, ".name"),
            Self::NoCredential(_) => (reason::INVALID_CREDENTIAL_REF, ".name"),
            Self::NoKey { .. } | Self::NoApiKey { .. } => (reason::INVALID_CREDENTIAL_REF, ".key"),
            Self::Held(_) | Self::Twice => (reason::CONFLICTED, ""),
        }
    }
}

/// Adds the consumers to the fleets that serve their namespaces; answers by what each is known, and how it was encoded.
pub(super) fn add(
    model: &Model,
    drafts: &mut BTreeMap<&ObjectRef, Draft<'_>>,
    former: &EncodedConsumers,
    problems: &mut Problems<'_>,
) -> (BTreeMap<ObjectRef, Known>, EncodedConsumers) {
    let mut consumers: Vec<_> = model.consumers.iter().collect();
    consumers.sort_by_cached_key(|(object, _)| (created_ms(model, object), object.path()));
    let (mut holders, mut known) = (BTreeMap::new(), BTreeMap::new());
    let mut encoded: Vec<(&ObjectRef, Arc<Encoded>)> = vec![];
    for (object, consumer) in consumers {
        let (credentials, secrets) = credentials(model, object, consumer, &mut holders, problems);
        encoded.push((object, Encoded::new(object, consumer, credentials, former.get(object))));
        known.insert(object.clone(), secrets);
    }
    for (fleet, draft) in drafts {
        let mut served: BTreeSet<&str> = draft.routes.iter().map(|route| route.source.namespace.as_str()).collect();
        served.insert(&fleet.namespace);
        let of_fleet = encoded.iter().filter(|(object, _)| served.contains(object.namespace.as_str()));
        let of_fleet: Vec<&Sourced> = of_fleet.map(|(_, encoded)| &encoded.resource).collect();
        draft.consumers = fitting(fleet, &of_fleet, problems);
    }
    (known, encoded.into_iter().map(|(object, encoded)| (object.clone(), encoded)).collect())
}

/// The credentials of a consumer that are any, and the Secret of each.
fn credentials<'m>(
    model: &'m Model,
    object: &'m ObjectRef,
    consumer: &Consumer,
    holders: &mut BTreeMap<(&'m str, Digest), &'m ObjectRef>,
    problems: &mut Problems<'_>,
) -> (Vec<Credential>, Known) {
    let (mut found, mut secrets) = (vec![], vec![]);
    for (i, reference) in consumer.credentials.iter().enumerate() {
        let secret =
            ObjectRef { kind: Kind::Secret, namespace: object.namespace.clone(), name: reference.secret.clone() };
        let digest = digest(model, &secret, reference).and_then(|digest| {
            match holders.entry((object.namespace.as_str(), digest)) {
                Entry::Vacant(free) => {
                    free.insert(object);
                    Ok(digest)
                }
                Entry::Occupied(held) if *held.get() == object => Err(Unusable::Twice),
                Entry::Occupied(held) => Err(Unusable::Held(held.get().to_string())),
            }
        });
        let field = |member: &str| format!("spec.credentials[{i}].secretRef{member}");
        match digest {
            Ok(digest) => {
                if let Some((reason, message)) = lasting(model, &secret) {
                    problems.degraded(object, field(".name"), reason, message);
                }
                found.push(Credential { kind: reference.kind.into(), digest: digest.to_bytes() });
                secrets.push(secret);
            }
            Err(why) => {
                let (reason, member) = why.place();
                problems.degraded(object, field(member), reason, why.to_string());
            }
        }
    }
    (found, secrets)
}

fn digest(model: &Model, secret: &ObjectRef, reference: &CredentialRef) -> Result<Digest, Unusable> {
    let (path, key) = (secret.path(), reference.key.clone());
    match (model.secrets.get(secret).map(AsRef::as_ref), unreadable(model, &secret.namespace)) {
        (Some(Secret::Credentials { keys, .. }), _) => match keys.get(&key) {
            Some(Ok(digest)) => Ok(*digest),
            Some(Err(why)) => Err(Unusable::NoApiKey { secret: path, key, why: why.clone() }),
            None => Err(Unusable::NoKey { secret: path, key }),
        },
        (None, Some(why)) => Err(Unusable::Unreadable { secret: path, why }),
        _ => Err(Unusable::NoCredential(path)),
    }
}

/// The fault of a Secret whose content accepted last goes on.
fn lasting(model: &Model, secret: &ObjectRef) -> Option<(&'static str, String)> {
    let path = secret.path();
    if let Some(why) = unreadable(model, &secret.namespace) {
        let message = format!("Secret {path} goes on as it was read last, and can't be read any more: {why}");
        return Some((reason::REF_NOT_PERMITTED, message));
    }
    let stale = model.stale.get(secret)?;
    let wrong = match &stale.fault {
        // What it is now may be no credential, of which nothing is told.
        Some(_) => format!("Secret {path} is not valid any more"),
        None => format!("Secret {path} is gone: create it again, or take the credential out"),
    };
    let until = stale.until.map(|at| format!(", until {at}")).unwrap_or_default();
    Some((reason::INVALID_CREDENTIAL_REF, format!("{wrong}; the key accepted last goes on{until}")))
}

fn unreadable(model: &Model, namespace: &str) -> Option<String> {
    model.cluster.as_ref()?.unreadable(namespace)
}

/// The consumers that fit into a fleet; they are shared fairly between namespaces, and come in the order of age.
fn fitting(fleet: &ObjectRef, consumers: &[&Sourced], problems: &mut Problems<'_>) -> Vec<Sourced> {
    let costs: Vec<Amounts<2>> = consumers.iter().map(|consumer| [1, consumer.size() as u64]).collect();
    let unit = |(i, consumer): (usize, &&Sourced)| (consumer.source.namespace.clone(), i);
    let owners: Vec<(String, usize)> = consumers.iter().enumerate().map(unit).collect();
    let units: Vec<Unit<'_>> = owners.iter().map(|(owner, i)| Unit { owner, parts: vec![*i] }).collect();
    let capacity = [MAX_CONSUMERS as u64, MAX_CONSUMER_BYTES as u64];
    let allotment = share::allot(capacity, &costs, &units);
    let mut fitting = vec![];
    for (consumer, taken) in consumers.iter().zip(&allotment.taken) {
        match taken {
            Ok(()) => fitting.push((*consumer).clone()),
            Err(resource) => {
                let (namespace, sharers) = (&consumer.source.namespace, allotment.used.len());
                let word = ["consumers", "bytes of consumers"][*resource];
                let used = allotment.used.get(namespace.as_str()).map_or(0, |used| used[*resource]);
                let message = format!(
                    "{fleet} has no room for it: of {} {word}, which {sharers} namespaces share, {namespace:?} has {used}; \
                     remove consumers that are older, or use a second fleet",
                    capacity[*resource]
                );
                problems.degraded(&consumer.source, "", reason::TOO_LARGE, message);
            }
        }
    }
    fitting
}

#[cfg(test)]
mod tests;
