//! Which rate policies apply to which rule.

use std::collections::{BTreeMap, HashMap};

use snapshot::{
    Hash, Key, Kind, Snapshot,
    proto::{PolicyTarget, RatePolicy, resource},
};

/// Rate policies by what they target.
#[derive(Default)]
pub(crate) struct Policies {
    /// In the order of their keys.
    all: BTreeMap<Key, (Hash, RatePolicy)>,
    /// Route's key → policies that name it.
    by_route: HashMap<String, Vec<Key>>,
    /// Policies that target every route.
    fleet: Vec<Key>,
    /// Fingerprint of routes that no policy names.
    fleet_fingerprint: Hash,
}

impl Policies {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut policies = Self::default();
        for (key, entry) in snapshot.of_kind(Kind::RatePolicy) {
            if let Some(resource::Kind::RatePolicy(policy)) = entry.kind() {
                for target in &policy.targets {
                    let list = match target.route.as_str() {
                        "" => &mut policies.fleet,
                        route => policies.by_route.entry(route.to_owned()).or_default(),
                    };
                    if list.last() != Some(key) {
                        list.push(key.clone());
                    }
                }
                policies.all.insert(key.clone(), (entry.hash(), policy));
            }
        }
        let fleet = policies.fleet.iter().filter_map(|key| policies.all.get(key).map(|(hash, _)| (key, *hash)));
        policies.fleet_fingerprint = snapshot::set::revision(fleet);
        policies
    }

    /// The policies that apply to a rule, each once, in the order of their keys, with their most specific target for
    /// it: the rule, the route, the fleet.
    pub(crate) fn of(&self, route: &Key, rule: &str) -> impl Iterator<Item = (&Key, &RatePolicy, &PolicyTarget)> {
        let rule = rule.to_owned();
        self.of_route(route).filter_map(move |(key, _, policy)| {
            let fits = |t: &&PolicyTarget| {
                let route_fits = t.route.is_empty() || t.route == route.as_str();
                route_fits && (t.rule.is_empty() || t.rule == rule)
            };
            let specific = |t: &&PolicyTarget| (!t.route.is_empty(), !t.rule.is_empty());
            Some((key, policy, policy.targets.iter().filter(fits).max_by_key(specific)?))
        })
    }

    /// Changes when a policy that can apply to the route does.
    pub(crate) fn fingerprint(&self, route: &Key) -> Hash {
        if !self.by_route.contains_key(route.as_str()) {
            return self.fleet_fingerprint;
        }
        snapshot::set::revision(self.of_route(route).map(|(key, hash, _)| (key, hash)))
    }

    fn of_route(&self, route: &Key) -> impl Iterator<Item = (&Key, Hash, &RatePolicy)> {
        let named = self.by_route.get(route.as_str()).map_or(&[][..], Vec::as_slice);
        let mut keys: Vec<&Key> = self.fleet.iter().chain(named).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.all.get(key).map(|(hash, policy)| (key, *hash, policy)))
    }
}

#[cfg(test)]
mod tests {
    use snapshot::{Entry, proto::Resource};

    use super::*;

    fn target(route: &str, rule: &str) -> PolicyTarget {
        PolicyTarget { route: route.into(), rule: rule.into() }
    }

    #[test]
    fn the_most_specific_target_of_each_policy() {
        let entry = |targets| {
            let kind = resource::Kind::RatePolicy(RatePolicy { targets, ..RatePolicy::default() });
            Entry::new(&Resource { requires: vec![], kind: Some(kind) })
        };
        let policy = |name: &str| Key::new(Kind::RatePolicy, "ns", name);
        let snapshot = Snapshot::from_iter([
            (policy("a"), entry(vec![target("", "")])),
            (policy("b"), entry(vec![target("Route/ns/r", ""), target("", ""), target("Route/ns/r", "x")])),
            (policy("c"), entry(vec![target("Route/ns/r", "x")])),
            (policy("d"), entry(vec![target("Route/ns/other", "")])),
        ]);
        let policies = Policies::new(&snapshot);
        let of = |route: &str, rule: &str| -> Vec<_> {
            let route = Key::new(Kind::Route, "ns", route);
            let found = policies.of(&route, rule).map(|(k, _, t)| (k.name().to_owned(), t.clone()));
            found.collect()
        };
        assert_eq!(
            of("r", "x"),
            [
                ("a".into(), target("", "")),
                ("b".into(), target("Route/ns/r", "x")),
                ("c".into(), target("Route/ns/r", "x"))
            ]
        );
        assert_eq!(of("r", "y"), [("a".into(), target("", "")), ("b".into(), target("Route/ns/r", ""))]);
        assert_eq!(of("z", "x"), [("a".into(), target("", "")), ("b".into(), target("", ""))]);
        let fingerprint = |route: &str| policies.fingerprint(&Key::new(Kind::Route, "ns", route));
        assert_eq!(fingerprint("z"), fingerprint("y"));
        assert_ne!(fingerprint("z"), fingerprint("r"));
        assert_ne!(fingerprint("z"), fingerprint("other"));
    }
}
