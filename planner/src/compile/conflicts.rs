//! Matches that an older route already has: the younger one's is never reached.
//!
//! Four kilobytes of a manifest may come to 65,536 of them, so what is compared is bounded, namespaces share that, and it is
//! small: all names are numbers.

use std::collections::{BTreeMap, HashMap, hash_map};

use snapshot::{Hash, wire::MAX_ENTRIES};

use super::{attach::Attached, hosts::Placed};
use crate::{
    model::Route,
    problem::{Problems, reason},
    share,
    world::ObjectRef,
};

/// Most matches that are compared, each once for each host. No fleet takes more: whoever has more is told that, and which
/// of them another shadows is the least of it.
const MAX_COMPARED: usize = MAX_ENTRIES;

/// Says which matches an older route holds. Routes come in the order of their age.
pub(super) fn tell(placed: &[Placed<'_>], problems: &mut Problems<'_>) {
    let mut conflicts = Conflicts::new(placed, MAX_COMPARED);
    for Placed { object, route, attached, .. } in placed {
        conflicts.claim(object, route, attached, problems);
    }
}

/// The holders of matches.
struct Conflicts<'p> {
    /// By place and match.
    holders: HashMap<(u32, u32), Holder>,
    /// One listener's host of a fleet.
    places: HashMap<Place<'p>, u32>,
    matches: HashMap<Hash, u32>,
    routes: Vec<&'p ObjectRef>,
    /// How many more are compared of each namespace.
    room: BTreeMap<&'p str, usize>,
}

/// A fleet, a listener of it, and a host.
type Place<'p> = (&'p ObjectRef, &'p str, &'p str);

/// Numbers of a route, of a rule of it, and of a match of that.
#[derive(Clone, Copy)]
struct Holder {
    route: u32,
    rule: u32,
    matching: u32,
}

impl<'p> Conflicts<'p> {
    /// Compares no more than `most` of these, of each namespace no more than a fair share.
    fn new(placed: &'p [Placed<'_>], most: usize) -> Self {
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for Placed { object, route, attached, .. } in placed {
            let matches: usize = route.rules.iter().map(|rule| rule.matches.len()).sum();
            *wanted.entry(&object.namespace).or_default() += matches.saturating_mul(places(attached).count());
        }
        let mut demands: Vec<u64> = wanted.values().map(|wanted| *wanted as u64).collect();
        let level = share::level(most as u64, &mut demands) as usize;
        let room = wanted.into_iter().map(|(namespace, wanted)| (namespace, wanted.min(level))).collect();
        let (holders, places, matches) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { holders, places, matches, routes: vec![], room }
    }

    /// Claims every match of a route wherever it is attached; says which of them another one holds.
    fn claim(
        &mut self,
        object: &'p ObjectRef,
        route: &Route,
        attached: &'p BTreeMap<&ObjectRef, Attached>,
        problems: &mut Problems<'_>,
    ) {
        let mut room = self.room.get(object.namespace.as_str()).copied().unwrap_or_default();
        let places: Vec<(u32, &str)> = match room {
            0 => vec![],
            _ => places(attached).map(|place| (number(&mut self.places, place), place.2)).collect(),
        };
        self.routes.push(object);
        if places.is_empty() || room < places.len() {
            return;
        }
        'all: for (i, identities) in route.identities().iter().enumerate() {
            for (j, identity) in identities.iter().enumerate() {
                let Some(less) = room.checked_sub(places.len()) else { break 'all };
                room = less;
                let matching = number(&mut self.matches, *identity);
                let holder = Holder { route: self.routes.len() as u32 - 1, rule: i as u32, matching: j as u32 };
                if let Some((first, host)) = self.hold(holder, matching, &places) {
                    problems.degraded_by(object, reason::CONFLICTED, || {
                        let host = if host.is_empty() { "any host".to_owned() } else { format!("host {host}") };
                        let first = self.name(object, first);
                        let message = format!("the same match on {host} stands in {first}, which comes first");
                        (format!("spec.rules[{i}].matches[{j}]"), message)
                    });
                }
            }
        }
        self.room.insert(&object.namespace, room);
    }

    /// Claims one match on every host; the first other holder and the host that is contended.
    fn hold<'a>(&mut self, claimant: Holder, matching: u32, places: &[(u32, &'a str)]) -> Option<(Holder, &'a str)> {
        let mut lost = None;
        for (place, host) in places {
            match self.holders.entry((*place, matching)) {
                hash_map::Entry::Vacant(free) => _ = free.insert(claimant),
                hash_map::Entry::Occupied(held) => _ = lost.get_or_insert((*held.get(), *host)),
            }
        }
        lost
    }

    /// A holder, as its route or another one is told of it.
    fn name(&self, object: &ObjectRef, Holder { route, rule, matching }: Holder) -> String {
        match self.routes.get(route as usize) {
            Some(holder) if *holder != object => holder.to_string(),
            _ => format!("spec.rules[{rule}].matches[{matching}]"),
        }
    }
}

/// The places where a route is attached; for any host, the host is empty.
fn places<'a>(attached: &'a BTreeMap<&ObjectRef, Attached>) -> impl Iterator<Item = Place<'a>> {
    attached.iter().flat_map(|(fleet, listeners)| {
        listeners.iter().flat_map(move |(listener, hosts)| {
            let any = hosts.is_empty().then_some("");
            hosts.iter().map(|host| host.as_str()).chain(any).map(move |host| (*fleet, listener.as_str(), host))
        })
    })
}

/// The number of a name.
fn number<K: Eq + std::hash::Hash>(numbers: &mut HashMap<K, u32>, name: K) -> u32 {
    let next = numbers.len() as u32;
    *numbers.entry(name).or_insert(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapshot::proto::{self, Match, PathKind, Rule};

    use super::*;
    use crate::{
        model::Hostname,
        world::{Kind, World},
    };

    fn object(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: namespace.into(), name: name.into() }
    }

    /// Forty namespaces with more than all together may have are compared no more than that, and a small one wholly.
    #[test]
    fn what_is_compared_is_shared() {
        let fleet = object(Kind::GatewayFleet, "sys", "default");
        let path = |m: usize| proto::PathMatch { kind: PathKind::Exact.into(), value: format!("/{m}") };
        let matching = |m| Match { path: Some(path(m)), ..Match::default() };
        let route = |count| {
            let rules = vec![Rule { matches: (0..count).map(matching).collect(), ..Rule::default() }];
            Arc::new(Route::of(rules))
        };
        let (wide, small) = (route(200), route(2));
        let crowd: Vec<ObjectRef> =
            (0..200).map(|i| object(Kind::ApiRoute, &format!("crowd-{}", i % 40), &format!("r{i}"))).collect();
        let shop = ["a", "b"].map(|name| object(Kind::ApiRoute, "shop", name));
        let place = |object, route, hosts: Vec<String>| {
            let hosts = hosts.iter().map(|host| Hostname::new(host)).collect();
            let attached = BTreeMap::from([(&fleet, Attached::from([("http".to_owned(), hosts)]))]);
            Placed { object, route, attached, parents: vec![] }
        };
        let hosts = |name: &str| (0..16).map(|h| format!("h{h}.{name}.example")).collect();
        let wide = crowd.iter().map(|object| place(object, &wide, hosts(&object.name)));
        let small = shop.iter().map(|object| place(object, &small, vec!["shop.example".into()]));
        let placed: Vec<Placed<'_>> = wide.chain(small).collect();
        let (world, most) = (World::default(), 100_000);
        let (mut problems, mut conflicts) = (Problems::new(&world), Conflicts::new(&placed, most));
        for Placed { object, route, attached, .. } in &placed {
            conflicts.claim(object, route, attached, &mut problems);
        }
        assert!((most * 9 / 10..=most).contains(&conflicts.holders.len()), "{}", conflicts.holders.len());
        let told = problems.into_sorted();
        assert_eq!(told.iter().map(|problem| problem.object.as_ref()).collect::<Vec<_>>(), [Some(&shop[1]); 2]);
    }
}
