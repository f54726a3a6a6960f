//! World → Model: each object checked on its own and turned into what the compiler needs, so that only validated types
//! travel on. What needs other objects is the compiler's.
//!
//! An object whose content can't be used is rejected with every finding, and its last accepted content is taken instead.

mod endpoints;
mod fleet;
pub(crate) mod hostname;
mod policy;
pub(crate) mod quantity;
mod route;
mod secret;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Object;
use snapshot::check::Unfit;

pub(crate) use endpoints::{Slice, SlicePort};
pub(crate) use fleet::{Fleet, Listener};
pub(crate) use hostname::Hostname;
pub(crate) use policy::{Policy, Target};
pub(crate) use route::{Backend, Route};
pub(crate) use secret::TlsSecret;
pub(crate) use service::{Service, ServicePort};

use crate::{
    problem::{Problems, Severity, reason},
    world::{Kind, ObjectRef, World, WorldObject},
};

/// Every object that may take part, validated.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) fleets: BTreeMap<ObjectRef, Fleet>,
    pub(crate) routes: BTreeMap<ObjectRef, Route>,
    pub(crate) policies: BTreeMap<ObjectRef, Policy>,
    pub(crate) services: BTreeMap<ObjectRef, Service>,
    /// By namespace and name of the Service.
    pub(crate) slices: BTreeMap<(String, String), Vec<Slice>>,
    pub(crate) secrets: BTreeMap<ObjectRef, TlsSecret>,
    /// Objects that exist but were never valid: a reference to one says so.
    pub(crate) invalid: BTreeSet<ObjectRef>,
}

/// What can be wrong with one object's content; never empty.
type Findings = Vec<Unfit>;

/// One validated object.
enum Valid {
    Fleet(Box<Fleet>),
    Route(Route),
    Policy(Policy),
    Service(Service),
    Slice(Option<Slice>),
    Secret(TlsSecret),
}

/// Validates a world; the set names the objects whose current content is accepted.
pub(crate) fn validate(world: &World, problems: &mut Problems<'_>) -> (Model, BTreeSet<ObjectRef>) {
    let (mut model, mut accepted) = (Model::default(), BTreeSet::new());
    for (object, entry) in &world.objects {
        let current = match &entry.current {
            Ok(current) => valid(object, current, entry.generation),
            Err(violations) => {
                Err(violations.iter().map(|v| Unfit::new(v.path.clone(), reason::INVALID, v.message.clone())).collect())
            }
        };
        let used = match current {
            Ok(valid) => {
                accepted.insert(object.clone());
                Some(valid)
            }
            Err(findings) => {
                let fallback = last_accepted(object, entry, &findings);
                for finding in findings {
                    problems.push(object, Severity::Rejected, finding);
                }
                if fallback.is_some() {
                    problems.falls_back(object);
                }
                fallback
            }
        };
        match used {
            Some(valid) => model.insert(object, valid),
            None => drop(model.invalid.insert(object.clone())),
        }
    }
    (model, accepted)
}

/// What stays in force of an object whose current content is rejected.
fn last_accepted(object: &ObjectRef, entry: &WorldObject, findings: &Findings) -> Option<Valid> {
    let accepted = entry.accepted.as_ref().and_then(|accepted| valid(object, accepted, entry.generation).ok());
    if accepted.is_some() || object.kind != Kind::RatePolicy {
        return accepted;
    }
    // Never valid: its targets answer 500 rather than stand open.
    let why = findings.first().map(ToString::to_string).unwrap_or_default();
    let targets = match (&entry.current, &entry.raw) {
        (Ok(current), _) => match current.as_ref() {
            Object::RatePolicy(policy) => policy::targets(&policy.spec),
            _ => vec![],
        },
        (Err(_), Some(raw)) => policy::raw_targets(raw),
        (Err(_), None) => vec![],
    };
    Some(Valid::Policy(Policy {
        targets,
        content: Err(format!("RatePolicy {}/{}: {why}", object.namespace, object.name)),
    }))
}

fn valid(object: &ObjectRef, content: &Arc<Object>, generation: i64) -> Result<Valid, Findings> {
    match (object.kind, content.as_ref()) {
        (Kind::GatewayFleet, Object::GatewayFleet(o)) => {
            fleet::validate(o, generation).map(|fleet| Valid::Fleet(Box::new(fleet)))
        }
        (Kind::ApiRoute, Object::ApiRoute(o)) => route::validate(object, o).map(Valid::Route),
        (Kind::RatePolicy, Object::RatePolicy(o)) => policy::validate(object, o).map(Valid::Policy),
        (Kind::Service, Object::Service(o)) => service::validate(o).map(Valid::Service),
        (Kind::EndpointSlice, Object::EndpointSlice(o)) => endpoints::validate(o).map(Valid::Slice),
        (Kind::Secret, Object::Secret(o)) => secret::validate(o).map(Valid::Secret),
        (kind, other) => {
            let message = format!("a {} stored as {kind:?}: the source mixed up two objects", other.kind());
            Err(vec![Unfit::new("kind", reason::INVALID, message)])
        }
    }
}

impl Model {
    fn insert(&mut self, object: &ObjectRef, valid: Valid) {
        let key = object.clone();
        match valid {
            Valid::Fleet(fleet) => drop(self.fleets.insert(key, *fleet)),
            Valid::Route(route) => drop(self.routes.insert(key, route)),
            Valid::Policy(policy) => drop(self.policies.insert(key, policy)),
            Valid::Service(service) => drop(self.services.insert(key, service)),
            Valid::Slice(Some(slice)) => {
                self.slices.entry((object.namespace.clone(), slice.service.clone())).or_default().push(slice);
            }
            // A slice that belongs to no Service is nobody's backend.
            Valid::Slice(None) => {}
            Valid::Secret(secret) => drop(self.secrets.insert(key, secret)),
        }
    }
}

/// `metadata.creationTimestamp` in milliseconds since 1970; 0 when unknown.
fn created_ms(content: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> i64 {
    content.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond().max(0))
}

/// The findings, or the value when there are none.
fn unless<T>(findings: Findings, value: T) -> Result<T, Findings> {
    if findings.is_empty() { Ok(value) } else { Err(findings) }
}
