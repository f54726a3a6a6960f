//! World → Model: each object checked on its own and turned into what the compiler needs, so that only validated types
//! travel on. What needs other objects is the compiler's.
//!
//! An object whose content can't be used is rejected with every finding, and its last accepted content is taken instead.

pub(crate) mod access;
mod consumer;
mod cross_origin;
mod endpoints;
mod expressions;
mod external_auth;
mod fleet;
pub(crate) mod grant;
pub(crate) mod hostname;
mod node;
mod policy;
pub mod quantity;
mod route;
pub(crate) mod secret;
pub(crate) mod selector;
mod service;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crds::Object;
use snapshot::check::Unfit;

pub(crate) use access::AccessPolicy;
pub(crate) use consumer::{Consumer, CredentialRef};
pub(crate) use endpoints::{Slice, SlicePort, State};
pub(crate) use fleet::{Fleet, Listener, RoutesFrom};
pub(crate) use grant::Grant;
pub(crate) use hostname::Hostname;
pub(crate) use policy::Policy;
pub(crate) use route::{Backend, CalledService, Destination, Route};
pub(crate) use secret::Secret;
pub(crate) use selector::{Labels, Selector};
pub(crate) use service::{Service, ServicePort};
pub(crate) use target::Target;

use self::expressions::Looked;
use crate::{
    Millis,
    problem::{Problems, Severity, reason},
    world::{Cluster, Kind, ObjectRef, World, WorldObject},
};

/// Every object that may take part, validated.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) fleets: BTreeMap<ObjectRef, Arc<Fleet>>,
    pub(crate) routes: BTreeMap<ObjectRef, Arc<Route>>,
    pub(crate) consumers: BTreeMap<ObjectRef, Arc<Consumer>>,
    /// The creation of each route, consumer and access policy, in milliseconds since 1970: its content alone does not say in
    /// standalone.
    pub(crate) created_ms: BTreeMap<ObjectRef, i64>,
    pub(crate) policies: BTreeMap<ObjectRef, Arc<Policy>>,
    pub(crate) access: BTreeMap<ObjectRef, Arc<AccessPolicy>>,
    pub(crate) services: BTreeMap<ObjectRef, Arc<Service>>,
    /// The slices by namespace and name of the Service.
    pub(crate) slices: BTreeMap<(String, String), Vec<Arc<Slice>>>,
    pub(crate) secrets: BTreeMap<ObjectRef, Arc<Secret>>,
    /// Labels of namespaces, by name.
    pub(crate) namespaces: BTreeMap<String, Arc<Labels>>,
    /// Names of nodes, by their addresses.
    pub(crate) nodes: BTreeMap<IpAddr, String>,
    /// The grants by namespace.
    pub(crate) grants: BTreeMap<String, Vec<Arc<Grant>>>,
    /// The objects are a cluster's.
    pub(crate) cluster: Option<Cluster>,
    /// Objects that exist but were never valid, and why: a reference to one says so.
    pub(crate) invalid: BTreeMap<ObjectRef, String>,
    /// Objects of which earlier content is in force: a reference to one says so.
    pub(crate) stale: BTreeMap<ObjectRef, Stale>,
}

/// The reason why earlier content of an object is in force. It displays what is wrong.
#[derive(Debug)]
pub(crate) struct Stale {
    /// The fault of its current content; `None`: it is gone.
    pub(crate) fault: Option<String>,
    /// The time at which what is in force was accepted.
    pub(crate) accepted_at: Option<Millis>,
    /// The time until which it is in force.
    pub(crate) until: Option<Millis>,
}

/// The faults of one object's content; never empty.
type Findings = Vec<Unfit>;

/// A validated object.
#[derive(Clone, Debug)]
enum Valid {
    Fleet(Arc<Fleet>),
    Route(Arc<Route>),
    Policy(Arc<Policy>),
    Access(Arc<AccessPolicy>),
    Consumer(Arc<Consumer>),
    Service(Arc<Service>),
    Slice(Option<Arc<Slice>>),
    Secret(Arc<Secret>),
    Namespace(Arc<Labels>),
    Node(Arc<Vec<IpAddr>>),
    Grant(Arc<Grant>),
}

/// Contents of objects, and what validating them gave: worlds differ in a few objects only, and expressions are costly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo {
    known: BTreeMap<ObjectRef, Vec<Known>>,
    /// The usable parts of routes that were never valid.
    rests: BTreeMap<ObjectRef, (Arc<Object>, Option<Arc<Route>>)>,
    looked: Looked,
}

type Known = (Arc<Object>, Result<Valid, Findings>);

impl Memo {
    /// Validates a content, unless it is known; what is asked for goes on into `next`.
    fn valid(
        &self,
        next: &mut Memo,
        object: &ObjectRef,
        content: &Arc<Object>,
        generation: i64,
        cluster: bool,
    ) -> Result<Valid, Findings> {
        if object.kind == Kind::GatewayFleet {
            // Its generation is a part of it, and there are few.
            return valid(object, content, generation, cluster);
        }
        let result = match self.find(object, content) {
            Some((_, result)) => result.clone(),
            None if is_waiting(content) => return Err(vec![waits()]),
            None => valid(object, content, generation, cluster),
        };
        next.known.entry(object.clone()).or_default().push((content.clone(), result.clone()));
        result
    }

    /// The part in force of an object that is not valid and never was.
    fn in_place_of_none(
        &self,
        next: &mut Memo,
        object: &ObjectRef,
        entry: &WorldObject,
        findings: &Findings,
    ) -> Option<Valid> {
        let current = entry.current.as_ref().ok().filter(|_| !is_pending(findings));
        if let Some((content, Object::ApiRoute(route))) = current.map(|current| (current, current.as_ref())) {
            let known = self.rests.get(object).filter(|(known, _)| Arc::ptr_eq(known, content) || known == content);
            let rest = match known {
                Some((_, rest)) => rest.clone(),
                None => route::rest(object, route).map(Arc::new),
            };
            next.rests.insert(object.clone(), (Arc::clone(content), rest.clone()));
            return rest.map(Valid::Route);
        }
        closed(object, entry, findings)
    }

    fn find(&self, object: &ObjectRef, content: &Arc<Object>) -> Option<&Known> {
        let known = self.known.get(object)?;
        let same = known.iter().find(|(known, _)| Arc::ptr_eq(known, content));
        same.or_else(|| known.iter().find(|(known, _)| known == content))
    }
}

/// Whether a content has expressions that no plan has looked at yet.
fn is_waiting(content: &Object) -> bool {
    matches!(content, Object::ApiRoute(route) if !expressions::are_looked_at(route))
}

fn waits() -> Unfit {
    let message = "its regular expressions wait for others that changed before: it takes a moment";
    Unfit::new("spec.rules", reason::PENDING, message)
}

/// A validated world.
#[derive(Debug, Default)]
pub(crate) struct Validated {
    pub(crate) model: Model,
    /// Objects whose current content is accepted.
    pub(crate) accepted: BTreeSet<ObjectRef>,
    /// Objects with content, current or accepted before, whose expressions no plan has looked at yet.
    pub(crate) waiting: BTreeSet<ObjectRef>,
}

/// Validates a world.
pub(crate) fn validate(world: &World, memo: &mut Memo, problems: &mut Problems<'_>) -> Validated {
    let mut looked = std::mem::take(&mut memo.looked);
    looked.look(world, |object, content| memo.find(object, content).is_some());
    let (mut accepted, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    let mut next = Memo { looked, ..Memo::default() };
    let in_cluster = world.cluster.is_some();
    let mut model = Model { cluster: world.cluster.clone(), ..Model::default() };
    for (object, entry) in &world.objects {
        let refused = |current: &Object| misplaced(object, world).or_else(|| secret::reserved(current));
        let current = match (&entry.current, entry.current.as_ref().ok().and_then(|current| refused(current))) {
            (Ok(_), Some(refused)) => Err(vec![refused]),
            (Ok(current), None) => memo.valid(&mut next, object, current, entry.generation, in_cluster),
            (Err(violations), _) => {
                let reason = if world.left_out.contains(object) { reason::TOO_LARGE } else { reason::INVALID };
                Err(violations.iter().map(|v| Unfit::new(v.path.clone(), reason, v.message.clone())).collect())
            }
        };
        let used = match current {
            Ok(valid) => {
                accepted.insert(object.clone());
                Some(valid)
            }
            Err(findings) => {
                let valid = |content| memo.valid(&mut next, object, content, entry.generation, in_cluster);
                let accepted = entry.accepted.as_ref().map(valid);
                if is_pending(&findings) || accepted.as_ref().is_some_and(|a| a.as_ref().is_err_and(is_pending)) {
                    waiting.insert(object.clone());
                }
                let accepted = accepted.and_then(Result::ok);
                let fallback = accepted.is_some();
                let used = accepted.or_else(|| memo.in_place_of_none(&mut next, object, entry, &findings));
                let fault = findings.first().map(ToString::to_string).unwrap_or_default();
                for finding in findings {
                    problems.push(object, Severity::Rejected, finding);
                }
                if fallback {
                    problems.falls_back(object);
                    let stale = Stale { fault: Some(fault), accepted_at: entry.accepted_at, until: None };
                    model.stale.insert(object.clone(), stale);
                } else if used.is_none() {
                    model.invalid.insert(object.clone(), fault);
                }
                used
            }
        };
        if let Some(valid) = used {
            if matches!(object.kind, Kind::ApiRoute | Kind::AccessPolicy | Kind::Consumer) {
                model.created_ms.insert(object.clone(), created_ms(entry));
            }
            model.insert(object, valid);
        }
    }
    for (object, gone) in &world.absent {
        let Ok(valid) = memo.valid(&mut next, object, &gone.accepted, 1, in_cluster) else { continue };
        model.insert(object, valid);
        let stale = Stale { fault: None, accepted_at: gone.accepted_at, until: Some(gone.until) };
        model.stale.insert(object.clone(), stale);
    }
    *memo = next;
    Validated { model, accepted, waiting }
}

/// Whether nothing is known of a content yet.
fn is_pending(findings: &Findings) -> bool {
    findings.iter().any(|finding| finding.reason == reason::PENDING)
}

/// The fault of a fleet where the operator has no rights.
fn misplaced(object: &ObjectRef, world: &World) -> Option<Unfit> {
    let cluster = world.cluster.as_ref().filter(|_| object.kind == Kind::GatewayFleet)?;
    let namespace = &object.namespace;
    let message = || {
        let all = cluster.fleet_namespaces.iter().flat_map(|all| all.iter());
        let others: Vec<&str> = all.map(String::as_str).filter(|other| *other != cluster.operator_namespace).collect();
        // As it is to be typed, unless that would be a page.
        let others = if others.len() > 16 { vec!["..."] } else { others };
        let value = others.into_iter().chain([namespace.as_str()]).collect::<Vec<_>>().join(",");
        format!(
            "the operator may not run fleets in namespace {namespace}: add it to the chart's value `fleetNamespaces` (helm upgrade \
             --reset-then-reuse-values --set 'fleetNamespaces={{{value}}}'), or make the fleet in one that is in it"
        )
    };
    let finding = || Unfit::new("metadata.namespace", reason::NAMESPACE_NOT_ALLOWED, message());
    (!cluster.runs_fleets_in(namespace)).then(finding)
}

/// The stand-in of a policy that was never valid: its targets answer 500 rather than stand open.
fn closed(object: &ObjectRef, entry: &WorldObject, findings: &Findings) -> Option<Valid> {
    if !matches!(object.kind, Kind::RatePolicy | Kind::AccessPolicy) {
        return None;
    }
    let (targets, overrides) = match (&entry.current, &entry.raw) {
        (Ok(current), _) => match current.as_ref() {
            Object::RatePolicy(policy) => (target::of(&policy.spec.target_refs), false),
            Object::AccessPolicy(policy) => (target::of(&policy.spec.target_refs), policy.spec.overrides),
            _ => (vec![], false),
        },
        (Err(_), Some(raw)) => (target::of_document(raw), access::overrides(raw)),
        (Err(_), None) => (vec![], false),
    };
    let why = format!("{object}: {}", findings.first().map(ToString::to_string).unwrap_or_default());
    Some(match object.kind {
        Kind::AccessPolicy => {
            Valid::Access(Arc::new(AccessPolicy { targets, overrides, content: Err(why), unusable_keys: vec![] }))
        }
        _ => Valid::Policy(Arc::new(Policy { targets, content: Err(why) })),
    })
}

fn valid(object: &ObjectRef, content: &Arc<Object>, generation: i64, cluster: bool) -> Result<Valid, Findings> {
    match (object.kind, content.as_ref()) {
        (Kind::GatewayFleet, Object::GatewayFleet(o)) => {
            fleet::validate(o, generation, cluster).map(|o| Valid::Fleet(Arc::new(o)))
        }
        (Kind::ApiRoute, Object::ApiRoute(o)) => route::validate(object, o).map(|o| Valid::Route(Arc::new(o))),
        (Kind::RatePolicy, Object::RatePolicy(o)) => policy::validate(object, o).map(|o| Valid::Policy(Arc::new(o))),
        (Kind::AccessPolicy, Object::AccessPolicy(o)) => {
            access::validate(object, o).map(|o| Valid::Access(Arc::new(o)))
        }
        (Kind::Consumer, Object::Consumer(o)) => consumer::validate(o).map(|o| Valid::Consumer(Arc::new(o))),
        (Kind::Service, Object::Service(o)) => service::validate(o).map(|o| Valid::Service(Arc::new(o))),
        (Kind::EndpointSlice, Object::EndpointSlice(o)) => {
            endpoints::validate(o).map(|o| Valid::Slice(o.map(Arc::new)))
        }
        (Kind::Secret, Object::Secret(o)) => secret::validate(o).map(|o| Valid::Secret(Arc::new(o))),
        (Kind::Namespace, Object::Namespace(o)) => Ok(Valid::Namespace(Arc::new(selector::labels(o)))),
        (Kind::Node, Object::Node(o)) => Ok(Valid::Node(Arc::new(node::addresses(o)))),
        (Kind::ReferenceGrant, Object::ReferenceGrant(o)) => Ok(Valid::Grant(Arc::new(grant::validate(o)))),
        (kind, other) => {
            let message = format!("a {:?} stored as {kind:?}: the source mixed up two objects", other.kind());
            Err(vec![Unfit::new("kind", reason::INVALID, message)])
        }
    }
}

impl Model {
    /// Whether an object of one namespace may refer to an object of another.
    pub(crate) fn permits(&self, from: &ObjectRef, to: &ObjectRef) -> bool {
        let mut grants = self.grants.get(&to.namespace).into_iter().flatten();
        from.namespace == to.namespace || grants.any(|grant| grant.permits(from, to))
    }

    fn insert(&mut self, object: &ObjectRef, valid: Valid) {
        let key = object.clone();
        match valid {
            Valid::Fleet(fleet) => drop(self.fleets.insert(key, fleet)),
            Valid::Route(route) => drop(self.routes.insert(key, route)),
            Valid::Policy(policy) => drop(self.policies.insert(key, policy)),
            Valid::Access(policy) => drop(self.access.insert(key, policy)),
            Valid::Consumer(consumer) => drop(self.consumers.insert(key, consumer)),
            Valid::Service(service) => drop(self.services.insert(key, service)),
            Valid::Slice(Some(slice)) => {
                self.slices.entry((object.namespace.clone(), slice.service.clone())).or_default().push(slice);
            }
            // A slice that belongs to no Service is nobody's backend.
            Valid::Slice(None) => {}
            Valid::Secret(secret) => drop(self.secrets.insert(key, secret)),
            Valid::Namespace(labels) => drop(self.namespaces.insert(key.name, labels)),
            Valid::Node(addresses) => {
                self.nodes.extend(addresses.iter().map(|address| (*address, key.name.clone())));
            }
            Valid::Grant(grant) => self.grants.entry(key.namespace).or_default().push(grant),
        }
    }
}

/// `metadata.creationTimestamp`, or since when the source has it, in milliseconds since 1970; 0 when unknown.
fn created_ms(entry: &WorldObject) -> i64 {
    let content = entry.current.as_ref().ok().or(entry.accepted.as_ref());
    let written = content.and_then(|content| content.metadata().creation_timestamp.as_ref());
    let seen = || entry.created.map_or(0, |Millis(millis)| i64::try_from(millis).unwrap_or(i64::MAX));
    written.map_or_else(seen, |time| time.0.as_millisecond().max(0))
}

/// The findings, or the value when there are none.
fn unless<T>(findings: Findings, value: T) -> Result<T, Findings> {
    if findings.is_empty() { Ok(value) } else { Err(findings) }
}
