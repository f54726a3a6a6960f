//! Matches that an older route already has: the younger one's is never reached.
//!
//! Four kilobytes of a manifest may come to 65,536 of them, so what is compared is bounded for each namespace, and small:
//! all names are numbers.

use std::collections::{BTreeMap, HashMap, hash_map};

use snapshot::{
    Entry, Hash,
    proto::{self, Match, PathKind, Resource, Rule, ValueMatch, resource},
    wire::MAX_ENTRIES,
};

use super::attach::Attached;
use crate::{
    model::Route,
    problem::{Problems, reason},
    world::ObjectRef,
};

/// Most matches of a namespace that are compared, each once for each host. No fleet takes more of all namespaces together:
/// whoever has more is told that, and which of them another shadows is the least of it.
const MOST: usize = MAX_ENTRIES;

/// Who holds which match. Routes claim in the order of their age.
#[derive(Default)]
pub(super) struct Conflicts<'m> {
    /// By place and match.
    holders: HashMap<(u32, u32), Holder>,
    /// One listener's host of a fleet.
    places: HashMap<(&'m ObjectRef, String, String), u32>,
    matches: HashMap<Hash, u32>,
    routes: Vec<ObjectRef>,
    /// What was compared of each namespace.
    compared: BTreeMap<String, usize>,
}

/// Numbers of a route, of a rule of it, and of a match of that.
#[derive(Clone, Copy)]
struct Holder {
    route: u32,
    rule: u32,
    matching: u32,
}

impl<'m> Conflicts<'m> {
    /// Claims every match of a route wherever it is attached; says which of them another one holds.
    pub(super) fn claim(
        &mut self,
        object: &ObjectRef,
        route: &Route,
        attached: &BTreeMap<&'m ObjectRef, Attached>,
        problems: &mut Problems<'_>,
    ) {
        let mut compared = self.compared.get(&object.namespace).copied().unwrap_or_default();
        let places = if compared < MOST { self.places(attached) } else { vec![] };
        self.routes.push(object.clone());
        for (i, rule) in route.rules.iter().enumerate() {
            for (j, matching) in rule.matches.iter().enumerate() {
                compared += places.len();
                if places.is_empty() || compared > MOST {
                    break;
                }
                let matching = number(&mut self.matches, canonical(matching));
                let holder = Holder { route: self.routes.len() as u32 - 1, rule: i as u32, matching: j as u32 };
                if let Some((holder, host)) = self.hold(object, holder, matching, &places) {
                    let host = if host.is_empty() { "any host".to_owned() } else { format!("host {host}") };
                    let message = format!("the same match on {host} stands in {holder}, which comes first");
                    problems.degraded(object, format!("spec.rules[{i}].matches[{j}]"), reason::CONFLICTED, message);
                }
            }
        }
        self.compared.insert(object.namespace.clone(), compared);
    }

    /// Where a route is attached, with the host.
    fn places<'a>(&mut self, attached: &'a BTreeMap<&'m ObjectRef, Attached>) -> Vec<(u32, &'a str)> {
        let mut places = vec![];
        for (fleet, listeners) in attached {
            for (listener, hosts) in listeners {
                let any = hosts.is_empty().then_some("");
                for host in hosts.iter().map(|host| host.as_str()).chain(any) {
                    places.push((number(&mut self.places, (*fleet, listener.clone(), host.to_owned())), host));
                }
            }
        }
        places
    }

    /// Claims one match on every host; the first other holder and the host that is contended.
    fn hold<'a>(
        &mut self,
        object: &ObjectRef,
        claimant: Holder,
        matching: u32,
        places: &[(u32, &'a str)],
    ) -> Option<(String, &'a str)> {
        let mut lost = None;
        for (place, host) in places {
            match self.holders.entry((*place, matching)) {
                hash_map::Entry::Vacant(free) => _ = free.insert(claimant),
                hash_map::Entry::Occupied(held) => _ = lost.get_or_insert((*held.get(), *host)),
            }
        }
        let (Holder { route, rule, matching }, host) = lost?;
        let holder = match self.routes.get(route as usize) {
            Some(holder) if holder != object => holder.to_string(),
            _ => format!("spec.rules[{rule}].matches[{matching}]"),
        };
        Some((holder, host))
    }
}

/// The number of a name.
fn number<K: Eq + std::hash::Hash>(numbers: &mut HashMap<K, u32>, name: K) -> u32 {
    let next = numbers.len() as u32;
    *numbers.entry(name).or_insert(next)
}

/// A hash of a match, such that two that mean the same are equal.
fn canonical(matching: &Match) -> Hash {
    let mut matching = matching.clone();
    let by_name = |a: &ValueMatch, b: &ValueMatch| (&a.name, &a.value).cmp(&(&b.name, &b.value));
    matching.headers.sort_by(by_name);
    matching.query_params.sort_by(by_name);
    if let Some(path) = matching.path.as_mut().filter(|path| path.kind == i32::from(PathKind::Prefix)) {
        // `/a/` and `/a` are one prefix.
        path.value.truncate(path.value.trim_end_matches('/').len());
    }
    let rule = Rule { matches: vec![matching], ..Rule::default() };
    let route = proto::Route { rules: vec![rule], ..proto::Route::default() };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Route(route)) }).hash()
}
