//! Model → what the proxies of each fleet run: references resolved, one resource for each key, within the bounds of a
//! snapshot.

mod access;
mod addresses;
mod attach;
mod backends;
mod bounds;
mod conflicts;
mod consumers;
mod endpoints;
mod held;
mod hosts;
mod listeners;
mod permitted;
mod planned;
mod policies;
mod routes;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use snapshot::{
    Entry, Key, Kind, path,
    proto::{self, Resource, resource},
    wire::MAX_SNAPSHOT,
};

pub use self::planned::{Known, Parent, PlannedFleet};
pub(crate) use self::routes::EncodedRoutes;
use self::{
    attach::Attached,
    backends::Clusters,
    bounds::{Guard, Served, Sourced},
    consumers::EncodedConsumers,
    hosts::{Held, Placed},
    permitted::Permitted,
    routes::Encoded,
};
use crate::{
    LastReady, Millis,
    holds::Holds,
    model::{Fleet, Model, Route},
    problem::{Problems, reason},
    world::{FleetRef, ObjectRef, World},
};

/// The resources of one fleet as they come together.
struct Draft<'m> {
    fleet: &'m Fleet,
    /// Fleet, Listeners, Certificates.
    base: Vec<Sourced>,
    /// Names of the listeners that are programmed.
    listeners: Vec<String>,
    /// The routes in the order of age.
    routes: Vec<Served>,
    /// The index among them of each route's key.
    served: BTreeMap<Key, usize>,
    /// The encodings of all routes.
    encoded: EncodedRoutes,
    /// The holders of hostnames.
    held: Held,
    policies: Vec<Guard>,
    /// The consumers that fit.
    consumers: Vec<Sourced>,
    clusters: BTreeMap<Key, (Entry, ObjectRef)>,
    /// The encodings of the plan before.
    former: Option<&'m EncodedRoutes>,
    /// The part of each cluster that the fleet permits.
    permitted: BTreeMap<Key, Permitted>,
}

/// The output of compiling a model; the fields are those of [`crate::Plan`].
pub(crate) struct Compiled {
    pub(crate) fleets: BTreeMap<FleetRef, PlannedFleet>,
    /// The encodings for the next plan.
    pub(crate) encoded: Former,
    pub(crate) parents: BTreeMap<ObjectRef, Vec<Parent>>,
    pub(crate) targets: BTreeMap<ObjectRef, u32>,
    pub(crate) consumers: BTreeMap<ObjectRef, Known>,
    pub(crate) last_ready: LastReady,
    pub(crate) changes_at: Option<Millis>,
    pub(crate) holds: Holds,
}

/// What was encoded for the plan before: what did not change is taken over, and held once, whoever has a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Former {
    /// By fleet.
    routes: BTreeMap<FleetRef, Arc<EncodedRoutes>>,
    consumers: EncodedConsumers,
}

/// Compiles the model of a world.
pub(crate) fn compile(model: &Model, world: &World, former: &Former, problems: &mut Problems<'_>) -> Compiled {
    let mut drafts: BTreeMap<&ObjectRef, Draft<'_>> =
        model.fleets.iter().map(|(object, fleet)| (object, listeners::draft(model, object, fleet, problems))).collect();
    let mut placed: Vec<Placed<'_>> = vec![];
    for (object, route) in by_age(model) {
        let (attached, parents) = attach::attach(model, object, route, problems);
        placed.push(Placed { object, route, attached, parents });
    }
    let (holds, held) = hosts::settle(model, &world.holds, world.now, &mut placed, problems);
    for (fleet, held) in held {
        drafts.entry(fleet).and_modify(|draft| draft.held = held);
    }
    for (object, draft) in &mut drafts {
        draft.former = former.routes.get(&FleetRef::from(*object)).map(Arc::as_ref);
    }
    let choice = endpoints::Choice::new(model, world.last_ready.as_deref(), world.now);
    conflicts::tell(&placed, problems);
    let (mut clusters, mut parents) = (Clusters::new(model, choice), BTreeMap::new());
    for Placed { object, route, attached, parents: became } in placed {
        parents.insert(object.clone(), became);
        let resolved = clusters.resolve(object, route, problems);
        for (fleet, listeners) in &attached {
            if let Some(draft) = drafts.get_mut(fleet) {
                for (field, why) in draft.unreachable(route) {
                    let message = format!("no request of {fleet} has this path: {why}");
                    problems.degraded(object, field, reason::PATH_NOT_REACHABLE, message);
                }
                let refused = draft.refused(fleet, &resolved, |field, why| {
                    problems.degraded(object, field, reason::REF_NOT_PERMITTED, why);
                });
                draft.add(object, route, created_ms(model, object), listeners, &resolved, &refused);
                let served = listeners.keys().any(|name| draft.listeners.contains(name));
                // Without any it has lost its hostnames, and says so.
                if !served && !listeners.is_empty() {
                    let names: Vec<&str> = listeners.keys().map(String::as_str).collect();
                    let message = format!("{fleet} does not serve listener {}: see its conditions", names.join(", "));
                    problems.degraded(object, "spec.parentRefs", reason::LISTENER_NOT_PROGRAMMED, message);
                }
            }
        }
    }
    let mut targets = policies::add(model, &mut drafts, problems);
    targets.extend(access::add(model, &mut drafts, problems));
    let (consumers, encoded) = consumers::add(model, &mut drafts, &former.consumers, problems);
    let (mut fleets, mut encoded) = (BTreeMap::new(), Former { routes: BTreeMap::new(), consumers: encoded });
    for (object, draft) in drafts {
        let planned = draft.finish(object, problems);
        encoded.routes.insert(FleetRef::from(object), Arc::clone(&planned.routes));
        fleets.insert(FleetRef::from(object), planned);
    }
    let (last_ready, changes_at) = clusters.finish();
    Compiled { fleets, encoded, parents, targets, consumers, last_ready, changes_at, holds }
}

/// The older of two routes wins, then the lesser name: what is beyond a bound, or shadowed, is the younger one.
fn by_age(model: &Model) -> Vec<(&ObjectRef, &Arc<Route>)> {
    let mut routes: Vec<_> = model.routes.iter().collect();
    // By `namespace/name` as text, as Gateway API has it and proxies do it: `a-b/x` is less than `a/x`.
    routes.sort_by_cached_key(|(object, _)| (created_ms(model, object), object.path()));
    routes
}

fn created_ms(model: &Model, object: &ObjectRef) -> i64 {
    model.created_ms.get(object).copied().unwrap_or_default()
}

impl Draft<'_> {
    /// Paths of a route that no request has as this fleet reads them, by their fields.
    fn unreachable(&self, route: &Route) -> Vec<(String, &'static str)> {
        let rules = path::Rules::from(self.fleet.resource.paths.unwrap_or_default());
        let mut found = vec![];
        for (i, rule) in route.rules.iter().enumerate() {
            for (j, m) in rule.matches.iter().enumerate() {
                let literal = m.path.as_ref().filter(|path| path.kind() != proto::PathKind::Regex);
                let why = literal.and_then(|path| rules.never(&path.value));
                found.extend(why.map(|why| (format!("spec.rules[{i}].matches[{j}].path.value"), why)));
            }
        }
        found
    }

    /// The clusters that this fleet does not allow: addresses, and Services of which it permits no endpoint. Their share of
    /// the requests answers 500.
    fn refused<'r>(
        &mut self,
        name: &ObjectRef,
        resolved: &'r backends::Resolved,
        mut say: impl FnMut(&'r str, String),
    ) -> BTreeSet<&'r Key> {
        let mut refused = BTreeSet::new();
        for (key, address, field) in &resolved.addresses {
            if let Err(why) = addresses::allowed(*address, &self.fleet.allowed_addresses, &name.to_string()) {
                say(field, why.to_string());
                refused.insert(key);
            }
        }
        for (key, backends::Cluster { cluster, source, field }) in &resolved.clusters {
            let permitted = self
                .permitted
                .entry(key.clone())
                .or_insert_with(|| cluster.permitted(&source.namespace, self.fleet, &name.to_string()));
            if let Some(left_out) = &permitted.left_out {
                say(field, left_out.clone());
            }
            if permitted.entry.is_none() {
                refused.insert(key);
            }
        }
        refused
    }

    /// Adds a route and what it sends requests to.
    fn add(
        &mut self,
        object: &ObjectRef,
        route: &Arc<Route>,
        created_ms: i64,
        listeners: &Attached,
        resolved: &backends::Resolved,
        refused: &BTreeSet<&Key>,
    ) {
        let key = route_key(object);
        let attachments = routes::attachments(listeners, &self.listeners);
        let former = self.former.and_then(|former| former.get(&key));
        let encoded = Encoded::new(route, created_ms, attachments, &resolved.rules, former);
        let clusters: Vec<_> = resolved.clusters.iter().filter(|(key, _)| !refused.contains(key)).collect();
        self.served.insert(key.clone(), self.routes.len());
        self.encoded.insert(key.clone(), Arc::clone(&encoded));
        self.routes.push(Served {
            key,
            encoded,
            source: object.clone(),
            clusters: clusters.iter().map(|(key, _)| (*key).clone()).collect(),
        });
        for (key, backends::Cluster { source, .. }) in clusters {
            if let Some(entry) = self.permitted.get(key).and_then(|permitted| permitted.entry.as_ref()) {
                // Of two routes that name one address, the older is its source.
                self.clusters.entry(key.clone()).or_insert_with(|| (entry.clone(), source.clone()));
            }
        }
    }

    /// The snapshot that the fleet is to run, with its settings.
    fn finish(mut self, object: &ObjectRef, problems: &mut Problems<'_>) -> PlannedFleet {
        let (fleet, held, mut encoded) =
            (self.fleet, std::mem::take(&mut self.held), std::mem::take(&mut self.encoded));
        let told = |shows: &dyn Fn(&Key) -> bool| {
            let shown = encoded.iter().filter(|(key, _)| shows(key)).flat_map(|(_, route)| route.hostnames());
            let (held, left_out) = held::beside(&held, &shown.collect::<HashSet<_>>());
            let key = object.key(Kind::Fleet);
            let resource = proto::Fleet { held, ..fleet.resource.clone() };
            (sourced(key, resource::Kind::Fleet(resource), object), left_out)
        };
        let (settings, mut left_out) = told(&|_| true);
        self.base.insert(0, settings);
        let (mut snapshot, sources) = bounds::fill(object, self, problems);
        // A route that there was no room for shows its hostnames no more, and they are its namespace's all the same.
        let unserved = encoded.iter().filter(|(key, _)| snapshot.entry(key).is_none());
        let unserved: usize = unserved.map(|(_, route)| route.hostnames().collect::<BTreeSet<_>>().len()).sum();
        if unserved > 0 {
            let (Sourced { key, entry, .. }, more) = told(&|key| snapshot.entry(key).is_some());
            let fits = snapshot.size() + entry.bytes().len() <= MAX_SNAPSHOT;
            left_out = if fits { more } else { left_out + unserved };
            if fits {
                snapshot.insert(key, entry);
            }
        }
        if left_out > 0 {
            let message = format!(
                "{left_out} hostnames that nobody serves now are more than proxies can be told of: any-host and wildcard \
                 routes of other namespaces answer for them"
            );
            problems.degraded(object, "", reason::TOO_LARGE, message);
        }
        // What there is no room for is nobody's to hold.
        encoded.retain(|key, _| snapshot.entry(key).is_some());
        PlannedFleet { settings: fleet.settings.clone(), snapshot, sources, routes: Arc::new(encoded) }
    }
}

fn route_key(object: &ObjectRef) -> Key {
    object.key(Kind::Route)
}

fn sourced(key: Key, kind: resource::Kind, source: &ObjectRef) -> Sourced {
    Sourced { key, entry: Entry::new(&Resource { requires: vec![], kind: Some(kind) }), source: source.clone() }
}
