//! The bounds of a snapshot (`snapshot::wire`), and who is within them. What is beyond them is left out, and its object
//! says so.
//!
//! First comes what is the fleet's own, each kind within a bound of its own: settings, listeners, certificates, consumers
//! (`consumers.rs`), the policies that guard all of it. The rest is shared fairly between the namespaces whose routes it
//! serves (`share/`). A route, the clusters that it sends requests to, and the policies that guard it are one unit: what
//! guards is never left out while what it guards is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use snapshot::{
    Entry, Key, Snapshot, check, expression,
    proto::{Route, resource},
    wire::{MAX_ENDPOINTS, MAX_ENTRIES, MAX_EXPRESSIONS, MAX_RESOURCE, MAX_ROUTES, MAX_SNAPSHOT},
};

use super::{Draft, routes::Encoded};
use crate::{
    problem::{Problems, reason},
    share::{self, Amounts, Unit},
    world::{self, ObjectRef},
};

/// Most that the certificates of a fleet may have together, in bytes.
const MAX_CERTIFICATES: usize = MAX_SNAPSHOT / 4;
/// Most that the policies on a fleet as a whole may have together, in bytes.
const MAX_FLEET_POLICIES: usize = MAX_SNAPSHOT / 8;

/// A resource and the object that it comes from.
#[derive(Clone, Debug)]
pub(super) struct Sourced {
    pub(super) key: Key,
    pub(super) entry: Entry,
    pub(super) source: ObjectRef,
}

impl Sourced {
    /// The bytes of it on the way to a proxy.
    pub(super) fn size(&self) -> usize {
        self.key.as_str().len() + self.entry.bytes().len()
    }
}

/// A route, and what it costs and needs.
pub(super) struct Served {
    pub(super) key: Key,
    pub(super) encoded: Arc<Encoded>,
    pub(super) source: ObjectRef,
    pub(super) clusters: Vec<Key>,
}

/// A policy, and what it guards.
pub(super) struct Guard {
    pub(super) resource: Sourced,
    /// Numbers of routes.
    pub(super) routes: BTreeSet<usize>,
    /// It guards all that the fleet serves.
    pub(super) fleet: bool,
    /// A limit counts once for each rule that it is a part of.
    pub(super) entries: u64,
}

/// Names of the resources of a fleet that namespaces share.
const WORDS: [&str; 5] =
    ["routes", "endpoints", "entries of the routing table", "KiB", "KiB of compiled regular expressions"];
/// The index of expressions among them.
const EXPRESSIONS: usize = 4;

/// Entries of a route in the table that each proxy has: a match stands there once for each host of each listener.
pub(super) fn entries(route: &Route) -> u64 {
    let hosts: usize = route.attachments.iter().map(|attachment| attachment.hostnames.len().max(1)).sum();
    let matches: usize = route.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    (hosts as u64).saturating_mul(matches as u64)
}

/// The regular expressions of a route, and what each weighs. They were looked at before, so that this costs nothing.
pub(super) fn expressions(route: &Route) -> BTreeMap<String, u64> {
    let weight = |pattern: &str| (pattern.to_owned(), expression::verdict(pattern).unwrap_or_default() as u64);
    check::expressions(route).map(weight).collect()
}

/// The certificates that fit, in the order of precedence; they are shared fairly between the namespaces that they come from.
/// `Err`: why one is left out.
pub(super) fn certificates(certificates: &[Sourced]) -> Vec<Result<(), String>> {
    let costs: Vec<Amounts<1>> = certificates.iter().map(|certificate| [certificate.size() as u64]).collect();
    let owners: Vec<&str> = certificates.iter().map(|certificate| certificate.source.namespace.as_str()).collect();
    let fit = |i: &usize| certificates[*i].entry.bytes().len() <= MAX_RESOURCE;
    let numbers: Vec<usize> = (0..certificates.len()).filter(fit).collect();
    let units: Vec<Unit<'_>> = numbers.iter().map(|i| Unit { owner: owners[*i], parts: vec![*i] }).collect();
    let allotment = share::allot([MAX_CERTIFICATES as u64], &costs, &units);
    let mut answer: Vec<Result<(), String>> = certificates
        .iter()
        .map(|certificate| Err(format!("{}: {}", certificate.source, too_large(certificate))))
        .collect();
    for (i, taken) in numbers.into_iter().zip(allotment.taken) {
        answer[i] = taken.map_err(|_| {
            format!(
                "{} does not fit: the certificates of a fleet may have {} KiB together, and those of namespace {:?} have {} \
                 KiB; leave out certificates that the chains do not need, or use a second fleet",
                certificates[i].source,
                MAX_CERTIFICATES >> 10,
                owners[i],
                allotment.used.get(owners[i]).map_or(0, |[bytes]| bytes >> 10),
            )
        });
    }
    answer
}

/// Fills a snapshot.
pub(super) fn fill(
    fleet: &ObjectRef,
    draft: Draft<'_>,
    problems: &mut Problems<'_>,
) -> (Snapshot, BTreeMap<Key, ObjectRef>) {
    let Draft { base, routes, policies, consumers, clusters, .. } = draft;
    let mut filled = Filled::default();
    base.into_iter().chain(consumers).for_each(|resource| filled.add(resource));
    let (of_fleet, policies): (Vec<Guard>, Vec<Guard>) = policies.into_iter().partition(|policy| policy.fleet);
    guard_fleet(fleet, of_fleet, &mut filled, problems);

    let mut parts = Parts::default();
    let clusters = parts.clusters(clusters, problems);
    let (guards, of_route) = parts.guards(policies, problems);
    let mut units: Vec<(usize, ObjectRef, Vec<usize>)> = vec![];
    for (number, Served { key, encoded, source, clusters: needed }) in routes.into_iter().enumerate() {
        let resource = Sourced { key, entry: encoded.entry.clone(), source: source.clone() };
        if resource.entry.bytes().len() > MAX_RESOURCE {
            problems.degraded(&source, "", reason::TOO_LARGE, too_large(&resource));
            continue;
        }
        let mut needs = vec![parts.add(resource, [1, 0, encoded.entries])];
        for key in &needed {
            match clusters.get(key) {
                Some(Ok(part)) => needs.push(*part),
                Some(Err(why)) => problems.degraded(&source, "spec.rules", reason::TOO_LARGE, format!("{key} {why}")),
                None => {}
            }
        }
        needs.extend(of_route.get(&number).into_iter().flatten());
        needs.extend(encoded.expressions.iter().map(|(pattern, weight)| parts.expression(pattern, *weight)));
        units.push((number, source, needs));
    }

    let room = MAX_SNAPSHOT.saturating_sub(filled.size);
    let capacity = [MAX_ROUTES, MAX_ENDPOINTS, MAX_ENTRIES, room, MAX_EXPRESSIONS].map(|most| most as u64);
    let shared: Vec<Unit<'_>> =
        units.iter().map(|(_, source, parts)| Unit { owner: &source.namespace, parts: parts.clone() }).collect();
    let allotment = share::allot(capacity, &parts.costs, &shared);
    let (mut served, mut held) = (BTreeSet::new(), vec![false; parts.costs.len()]);
    for ((number, source, parts), fit) in units.iter().zip(&allotment.taken) {
        match fit {
            Ok(()) => {
                served.insert(*number);
                parts.iter().for_each(|part| held[*part] = true);
            }
            Err(resource) => {
                let used = allotment.used.get(source.namespace.as_str()).map_or(0, |used| used[*resource]);
                let message =
                    full(fleet, &source.namespace, (*resource, capacity[*resource], used), allotment.used.len());
                let reason = if *resource == EXPRESSIONS { check::reason::TOO_COMPLEX } else { reason::TOO_LARGE };
                problems.degraded(source, "", reason, message);
            }
        }
    }
    for (source, routes) in guards.iter().filter(|(_, routes)| routes.is_disjoint(&served)) {
        let count = routes.len();
        let message = format!("guards {count} routes that {fleet} has no room for, and no other: see their conditions");
        problems.degraded(source, "", reason::TOO_LARGE, message);
    }
    let kept = parts.resources.into_iter().zip(held).filter(|(_, held)| *held);
    kept.filter_map(|(resource, _)| resource).for_each(|resource| filled.add(resource));
    (filled.snapshot, filled.sources)
}

/// Adds the policies that guard all that a fleet serves. What is beyond their bound closes the fleet: one of them is
/// enough for that.
fn guard_fleet(fleet: &ObjectRef, policies: Vec<Guard>, filled: &mut Filled, problems: &mut Problems<'_>) {
    let (mut bytes, mut closed) = (0, false);
    for Guard { mut resource, .. } in policies {
        let over = if resource.entry.bytes().len() > MAX_RESOURCE {
            Some(too_large(&resource))
        } else if bytes + resource.size() > MAX_FLEET_POLICIES {
            let most = MAX_FLEET_POLICIES >> 10;
            Some(format!("is beyond the first {most} KiB of policies on {fleet}: make one of several"))
        } else {
            None
        };
        if let Some(why) = over {
            let message = format!("{why}; until then every request to {fleet} is answered 500");
            problems.degraded(&resource.source, "", reason::TOO_LARGE, message);
            if std::mem::replace(&mut closed, true) {
                continue;
            }
            close(&mut resource, &why);
        }
        bytes += resource.size();
        filled.add(resource);
    }
}

/// Has a policy close what it guards.
fn close(policy: &mut Sourced, why: &str) {
    let closed = snapshot::closed(&policy.entry, format!("{} {why}", policy.source));
    policy.entry = closed.unwrap_or_else(|| policy.entry.clone());
}

/// The snapshot so far.
#[derive(Default)]
struct Filled {
    snapshot: Snapshot,
    sources: BTreeMap<Key, ObjectRef>,
    size: usize,
}

impl Filled {
    fn add(&mut self, resource: Sourced) {
        self.size += resource.size();
        self.sources.insert(resource.key.clone(), resource.source);
        self.snapshot.insert(resource.key, resource.entry);
    }
}

/// The parts that units are made of.
#[derive(Default)]
struct Parts {
    /// `None`: an expression, which comes with the routes that have it.
    resources: Vec<Option<Sourced>>,
    costs: Vec<Amounts<5>>,
    expressions: BTreeMap<String, usize>,
}

/// Each policy's object, and the routes that it guards.
type Guards = Vec<(ObjectRef, BTreeSet<usize>)>;

impl Parts {
    /// Adds one; its number.
    fn add(&mut self, resource: Sourced, [routes, endpoints, entries]: Amounts<3>) -> usize {
        self.costs.push([routes, endpoints, entries, resource.size() as u64, 0]);
        self.resources.push(Some(resource));
        self.costs.len() - 1
    }

    /// The number of an expression: one for all that have it, as proxies compile it once.
    fn expression(&mut self, pattern: &str, weight: u64) -> usize {
        if let Some(known) = self.expressions.get(pattern) {
            return *known;
        }
        self.costs.push([0, 0, 0, 0, weight]);
        self.resources.push(None);
        self.expressions.insert(pattern.to_owned(), self.costs.len() - 1);
        self.costs.len() - 1
    }

    /// The number of each cluster, or why it can't be there: its share of the requests is answered 500.
    fn clusters(
        &mut self,
        clusters: BTreeMap<Key, (Entry, ObjectRef)>,
        problems: &mut Problems<'_>,
    ) -> BTreeMap<Key, Result<usize, String>> {
        let mut numbers = BTreeMap::new();
        for (key, (entry, source)) in clusters {
            // One without endpoints costs something too.
            let endpoints = endpoints_of(&entry).max(1) as u64;
            let resource = Sourced { key: key.clone(), entry, source };
            let number = if resource.entry.bytes().len() > MAX_RESOURCE {
                let why = too_large(&resource);
                if resource.source.kind == world::Kind::Service {
                    problems.degraded(&resource.source, "", reason::TOO_LARGE, why.clone());
                }
                Err(why)
            } else {
                Ok(self.add(resource, [0, endpoints, 0]))
            };
            numbers.insert(key, number);
        }
        numbers
    }

    /// The routes that each policy guards, and the numbers of the policies that guard each route. One that is too large itself
    /// closes what it guards.
    fn guards(&mut self, policies: Vec<Guard>, problems: &mut Problems<'_>) -> (Guards, BTreeMap<usize, Vec<usize>>) {
        let (mut guards, mut of_route): (Guards, BTreeMap<usize, Vec<usize>>) = (vec![], BTreeMap::new());
        for Guard { mut resource, routes, mut entries, .. } in policies {
            let source = resource.source.clone();
            if resource.entry.bytes().len() > MAX_RESOURCE {
                let why = too_large(&resource);
                let message = format!("{why}; until then what it guards is answered 500");
                problems.degraded(&source, "", reason::TOO_LARGE, message);
                close(&mut resource, &why);
                entries = 0;
            }
            let number = self.add(resource, [0, 0, entries]);
            routes.iter().for_each(|route| of_route.entry(*route).or_default().push(number));
            guards.push((source, routes));
        }
        (guards, of_route)
    }
}

fn too_large(resource: &Sourced) -> String {
    format!("compiles to {} bytes, and {MAX_RESOURCE} is the most: split it", resource.entry.bytes().len())
}

/// The message of a route that is left out of a fleet: the resource that is short, how much of it there is, and its
/// namespace's part.
fn full(fleet: &ObjectRef, namespace: &str, (resource, most, used): (usize, u64, u64), sharers: usize) -> String {
    let word = WORDS[resource];
    let shown = |amount: u64| if word.starts_with("KiB") { amount >> 10 } else { amount };
    let (most, used, even) = (shown(most), shown(used), shown(most / sharers.max(1) as u64));
    format!(
        "{fleet} has no room for it: of {most} {word}, which {sharers} namespaces share, {namespace:?} has {used} (an even \
         share is {even}); remove routes that are older or larger, or use a second fleet"
    )
}

fn endpoints_of(entry: &Entry) -> usize {
    match entry.kind() {
        Some(resource::Kind::Cluster(cluster)) => cluster.endpoints.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
