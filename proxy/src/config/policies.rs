//! Which policies apply to which rule.

use std::collections::{BTreeMap, HashMap};

use snapshot::{
    Hash, Key, Kind, Snapshot,
    proto::{AccessPolicy, PolicyTarget, RatePolicy, resource},
    set::revision,
};

/// The policies of a snapshot.
#[derive(Default)]
pub(crate) struct Policies {
    pub(crate) rate: Targeted<RatePolicy>,
    pub(crate) access: Targeted<AccessPolicy>,
    /// Fingerprint of routes that no policy names.
    fleet_fingerprint: Hash,
}

/// Policies of one kind by what they target.
pub(crate) struct Targeted<P> {
    /// In the order of their keys.
    all: BTreeMap<Key, (Hash, P)>,
    /// Route's key → policies that name it.
    by_route: HashMap<String, Vec<Key>>,
    /// Policies that target every route.
    fleet: Vec<Key>,
}

/// A policy that applies to a rule: its key, its hash, and its most specific target for it.
pub(crate) type Applying<'a, P> = (&'a Key, Hash, &'a P, &'a PolicyTarget);

/// A kind of policies.
pub(crate) trait Policy: Sized {
    const KIND: Kind;

    fn of(content: resource::Kind) -> Option<Self>;

    fn targets(&self) -> &[PolicyTarget];

    /// Why what it targets answers 500; empty: it can be honoured.
    fn unavailable(&self) -> &str;
}

impl Policy for RatePolicy {
    const KIND: Kind = Kind::RatePolicy;

    fn of(content: resource::Kind) -> Option<Self> {
        if let resource::Kind::RatePolicy(policy) = content { Some(policy) } else { None }
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }

    fn unavailable(&self) -> &str {
        &self.unavailable
    }
}

impl Policy for AccessPolicy {
    const KIND: Kind = Kind::AccessPolicy;

    fn of(content: resource::Kind) -> Option<Self> {
        if let resource::Kind::AccessPolicy(policy) = content { Some(policy) } else { None }
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }

    fn unavailable(&self) -> &str {
        &self.unavailable
    }
}

impl Policies {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let (rate, access) = (Targeted::new(snapshot), Targeted::new(snapshot));
        let fleet_fingerprint = revision(rate.of_fleet().chain(access.of_fleet()));
        Self { rate, access, fleet_fingerprint }
    }

    /// Why a rule answers 500, if a policy of it can't be honoured.
    pub(crate) fn refusal(&self, route: &Key, rule: &str) -> Option<String> {
        let rate = self.rate.of(route, rule).map(|(key, _, policy, _)| (key, policy.unavailable()));
        let access = self.access.holding(route, rule);
        let access = access.iter().map(|(key, _, policy, _)| (*key, policy.unavailable()));
        let refusal = rate.chain(access).find(|(_, why)| !why.is_empty());
        refusal.map(|(key, why)| format!("{key}: {why}"))
    }

    /// Changes when a policy that can apply to the route does.
    pub(crate) fn fingerprint(&self, route: &Key) -> Hash {
        if !self.rate.names(route) && !self.access.names(route) {
            return self.fleet_fingerprint;
        }
        revision(self.rate.hashes(route).chain(self.access.hashes(route)))
    }
}

impl<P> Default for Targeted<P> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), by_route: HashMap::new(), fleet: vec![] }
    }
}

impl<P: Policy> Targeted<P> {
    fn new(snapshot: &Snapshot) -> Self {
        let mut policies = Self::default();
        for (key, entry) in snapshot.of_kind(P::KIND) {
            if let Some(policy) = entry.kind().and_then(P::of) {
                for target in policy.targets() {
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
        policies
    }

    /// The policies that apply to a rule, each once, in the order of their keys, with their most specific target for
    /// it: the rule, the route, the fleet.
    pub(crate) fn of(&self, route: &Key, rule: &str) -> impl Iterator<Item = Applying<'_, P>> {
        let rule = rule.to_owned();
        self.of_route(route).filter_map(move |(key, hash, policy)| {
            let fits = |t: &&PolicyTarget| {
                let route_fits = t.route.is_empty() || t.route == route.as_str();
                route_fits && (t.rule.is_empty() || t.rule == rule)
            };
            Some((key, hash, policy, policy.targets().iter().filter(fits).max_by_key(|target| specific(target))?))
        })
    }

    /// Whether a policy names the route.
    fn names(&self, route: &Key) -> bool {
        self.by_route.contains_key(route.as_str())
    }

    fn of_fleet(&self) -> impl Iterator<Item = (&Key, Hash)> {
        self.fleet.iter().filter_map(|key| self.all.get(key).map(|(hash, _)| (key, *hash)))
    }

    fn hashes(&self, route: &Key) -> impl Iterator<Item = (&Key, Hash)> {
        self.of_route(route).map(|(key, hash, _)| (key, hash))
    }

    fn of_route(&self, route: &Key) -> impl Iterator<Item = (&Key, Hash, &P)> {
        let named = self.by_route.get(route.as_str()).map_or(&[][..], Vec::as_slice);
        let mut keys: Vec<&Key> = self.fleet.iter().chain(named).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.all.get(key).map(|(hash, policy)| (key, *hash, policy)))
    }
}

impl Targeted<AccessPolicy> {
    /// The policies that hold for a rule, and those that only count there, which hold in nobody's place.
    pub(crate) fn holding(&self, route: &Key, rule: &str) -> Vec<Applying<'_, AccessPolicy>> {
        let counts = |(.., policy, _): &Applying<'_, AccessPolicy>| policy.audit && policy.unavailable.is_empty();
        let (audited, enforced) = self.of(route, rule).partition(counts);
        [Self::of_one_mode(enforced), Self::of_one_mode(audited)].concat()
    }

    /// Of policies of one mode the fleet's that override, then the one with the most specific target. (Of two equals, which
    /// operators let none such pass, the first.)
    fn of_one_mode(all: Vec<Applying<'_, AccessPolicy>>) -> Vec<Applying<'_, AccessPolicy>> {
        let Some(most) = all.iter().map(|(.., target)| specific(target)).max() else { return all };
        let one = all.iter().find(|(.., target)| specific(target) == most).copied();
        let overrides = |(.., policy, target): &Applying<'_, AccessPolicy>| policy.overrides && target.route.is_empty();
        let besides = all.iter().filter(|applying| overrides(applying) && one.is_some_and(|one| one.0 != applying.0));
        besides.copied().chain(one).collect()
    }
}

/// How specific a target is.
fn specific(target: &PolicyTarget) -> (bool, bool) {
    (!target.route.is_empty(), !target.rule.is_empty())
}

#[cfg(test)]
mod tests;
