//! What is pushed: the desired snapshot, less what a proxy refused.
//!
//! ```text
//!  desired ──publish──► published ──push──► proxies ──ack, nacks──► Ledger
//!              ▲                                                      │
//!              └──────── last acknowledged content, refusals ◄────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{
    Entry, Hash, Key, Snapshot,
    proto::{Nack, RatePolicy, Resource, Route, Rule, resource},
};

/// What the proxies of one fleet said of resources. Holds at most two contents of each resource that is published or
/// that such a content refers to, and at most two refusals of each desired resource.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Last content that a proxy acknowledged and none refused, by key.
    pub acked: BTreeMap<Key, Entry>,
    /// The content acknowledged before that: what is left when another proxy refuses `acked` later.
    pub previous: BTreeMap<Key, Entry>,
    /// Content that a proxy refused.
    pub nacked: BTreeMap<(Key, Hash), Nack>,
    /// Revision that was taken up last: the other proxies' acknowledgements of it say nothing new.
    pub taken: Option<Hash>,
}

impl Ledger {
    /// Takes up an acknowledgement of `published`. True when a nack is new, so that [`publish`] gives another result.
    pub fn acknowledge(&mut self, published: &Snapshot, nacks: &[Nack]) -> bool {
        let mut new = false;
        for nack in nacks {
            let Some(refused) = refused(published, nack) else { continue };
            if self.nacked.insert(refused.clone(), nack.clone()).is_none() {
                self.demote(&refused);
                new = true;
            }
        }
        let revision = published.revision();
        if self.taken != Some(revision) {
            self.take(published);
            self.taken = Some(revision);
        }
        new
    }

    /// Forgets nacks of content that is no longer desired.
    pub fn retain(&mut self, desired: &Snapshot) {
        self.nacked.retain(|(key, hash), _| {
            desired.entry(key).is_some_and(|entry| {
                // A stand-in that was refused as well is kept in mind, or it would be tried again for ever.
                entry.hash() == *hash || stand_in(entry).is_some_and(|entry| entry.hash() == *hash)
            })
        });
    }

    /// Everything of `published` that nobody refused is good.
    fn take(&mut self, published: &Snapshot) {
        for (key, entry) in published.iter() {
            if self.acked.get(key) == Some(entry) || self.nacked.contains_key(&(key.clone(), entry.hash())) {
                continue;
            }
            if let Some(before) = self.acked.insert(key.clone(), entry.clone()) {
                self.previous.insert(key.clone(), before);
            }
        }
        // What is gone is forgotten, unless a content that may come back refers to it.
        let gone = |key: &Key| published.entry(key).is_none();
        let alive = self.acked.iter().chain(&self.previous).filter(|(key, _)| !gone(key));
        let needed: BTreeSet<Key> = alive.flat_map(|(_, entry)| references(entry)).filter(gone).collect();
        self.acked.retain(|key, _| !gone(key) || needed.contains(key));
        self.previous.retain(|key, _| !gone(key));
    }

    /// One proxy acknowledged what another refuses: the content before takes its place.
    fn demote(&mut self, (key, hash): &(Key, Hash)) {
        if self.acked.get(key).is_some_and(|entry| entry.hash() == *hash) {
            match self.previous.remove(key) {
                Some(before) => drop(self.acked.insert(key.clone(), before)),
                None => drop(self.acked.remove(key)),
            }
        }
    }

    /// What runs in place of a refused resource, if anything.
    fn instead(&self, key: &Key, desired: &Entry) -> Option<Entry> {
        let usable = |entry: &Entry| !self.nacked.contains_key(&(key.clone(), entry.hash()));
        let mut acked = [self.acked.get(key), self.previous.get(key)].into_iter().flatten();
        let acked = acked.find(|entry| usable(entry)).cloned();
        acked.or_else(|| stand_in(desired).filter(usable))
    }
}

/// Replaces each refused resource by its last acknowledged content, and brings back what that refers to. Without any, a
/// Route or RatePolicy becomes one that makes its requests answer 500 (never open), and anything else is left out. The
/// map names what was replaced.
pub fn publish(desired: &Snapshot, ledger: &Ledger) -> (Snapshot, BTreeMap<Key, Nack>) {
    let (mut published, mut rolled_back) = (desired.clone(), BTreeMap::new());
    for ((key, hash), nack) in &ledger.nacked {
        let Some(entry) = desired.entry(key).filter(|entry| entry.hash() == *hash) else { continue };
        rolled_back.insert(key.clone(), nack.clone());
        match ledger.instead(key, entry) {
            Some(entry) => {
                restore_references(&mut published, &entry, ledger);
                published.insert(key.clone(), entry);
            }
            None => drop(published.remove(key)),
        }
    }
    (published, rolled_back)
}

/// Brings back what a restored content needs and the desired snapshot no longer has.
fn restore_references(published: &mut Snapshot, restored: &Entry, ledger: &Ledger) {
    for key in references(restored) {
        if published.entry(&key).is_none()
            && let Some(entry) = ledger.acked.get(&key)
        {
            published.insert(key, entry.clone());
        }
    }
}

/// Key and hash of what a nack refuses, if it stands in `published`: a nack of anything else is out of date.
fn refused(published: &Snapshot, nack: &Nack) -> Option<(Key, Hash)> {
    let (key, hash) = (nack.key.parse().ok()?, Hash::from_slice(&nack.hash)?);
    published.entry(&key).filter(|entry| entry.hash() == hash)?;
    Some((key, hash))
}

/// Keys that a resource refers to and can't work without.
fn references(entry: &Entry) -> BTreeSet<Key> {
    let keys: Vec<String> = match entry.kind() {
        Some(resource::Kind::Route(route)) => {
            route.rules.into_iter().flat_map(|rule| rule.backends).map(|backend| backend.cluster).collect()
        }
        Some(resource::Kind::Listener(listener)) => listener.certificates,
        _ => vec![],
    };
    keys.iter().filter_map(|key| key.parse().ok()).collect()
}

/// What stands in for a resource that was never good: nothing of its content but what says which requests are meant.
fn stand_in(entry: &Entry) -> Option<Entry> {
    const WHY: &str = "refused by a proxy, and no earlier content to fall back to";
    let kind = match entry.kind() {
        Some(resource::Kind::Route(Route { created_ms, attachments, rules })) => {
            let rules = rules.into_iter().map(|rule| Rule {
                name: rule.name,
                matches: rule.matches,
                unavailable: WHY.into(),
                ..Rule::default()
            });
            resource::Kind::Route(Route { created_ms, attachments, rules: rules.collect() })
        }
        Some(resource::Kind::RatePolicy(policy)) => {
            resource::Kind::RatePolicy(RatePolicy { targets: policy.targets, limits: vec![], unavailable: WHY.into() })
        }
        _ => return None,
    };
    Some(Entry::new(&Resource { requires: vec![], kind: Some(kind) }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snapshot::{
        Kind,
        proto::{Cluster, Match, WeightedCluster},
    };

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(Kind::Route, "ns", name)
    }

    /// A route of one rule named `rule`, to the cluster of that name.
    fn route(rule: &str) -> Entry {
        let cluster = Key::cluster("ns", rule, "80").to_string();
        let backends = vec![WeightedCluster { cluster, weight: 1 }];
        let rule = Rule { name: rule.into(), matches: vec![Match::default()], backends, ..Rule::default() };
        let kind = resource::Kind::Route(Route { rules: vec![rule], ..Route::default() });
        Entry::new(&Resource { requires: vec![], kind: Some(kind) })
    }

    fn cluster(name: &str) -> (Key, Entry) {
        let kind = resource::Kind::Cluster(Cluster::default());
        (Key::cluster("ns", name, "80"), Entry::new(&Resource { requires: vec![], kind: Some(kind) }))
    }

    fn policy() -> Entry {
        let kind = resource::Kind::RatePolicy(RatePolicy::default());
        Entry::new(&Resource { requires: vec![], kind: Some(kind) })
    }

    fn nack(key: &Key, entry: &Entry) -> Nack {
        let hash = entry.hash().as_bytes().to_vec().into();
        Nack { key: key.to_string(), hash, reason: "Fault".into(), ..Nack::default() }
    }

    #[test]
    fn a_refused_route_is_rolled_back_alone_with_what_it_refers_to() {
        let good: Snapshot = [(key("a"), route("one")), (key("b"), route("one")), cluster("one")].into_iter().collect();
        let mut ledger = Ledger::default();
        assert!(!ledger.acknowledge(&good, &[]));

        let bad = route("two");
        let desired: Snapshot =
            [(key("a"), bad.clone()), (key("b"), route("three")), cluster("two")].into_iter().collect();
        assert_eq!(publish(&desired, &ledger), (desired.clone(), BTreeMap::new()));
        let nacks = [nack(&key("a"), &bad)];
        assert!(ledger.acknowledge(&desired, &nacks));
        assert!(!ledger.acknowledge(&desired, &nacks), "said twice");

        let (published, rolled_back) = publish(&desired, &ledger);
        let expect = [(key("a"), route("one")), (key("b"), route("three")), cluster("one"), cluster("two")];
        assert_eq!(published, expect.into_iter().collect());
        assert_eq!(rolled_back, BTreeMap::from([(key("a"), nacks[0].clone())]));

        assert!(!ledger.acknowledge(&published, &[]));
        assert_eq!(publish(&desired, &ledger).0, published, "stays as it is");
        let fixed: Snapshot = [(key("a"), route("three"))].into_iter().collect();
        ledger.retain(&fixed);
        assert_eq!(publish(&fixed, &ledger), (fixed.clone(), BTreeMap::new()));
        assert!(ledger.nacked.is_empty());
    }

    #[test]
    fn what_was_never_good_answers_500_and_is_left_out_last() {
        let (p, r) = (Key::new(Kind::RatePolicy, "ns", "p"), key("a"));
        let desired: Snapshot = [(r.clone(), route("x")), (p.clone(), policy()), cluster("x")].into_iter().collect();
        let mut ledger = Ledger::default();
        let c = cluster("x");
        ledger.acknowledge(&desired, &[nack(&r, &route("x")), nack(&p, &policy()), nack(&c.0, &c.1)]);
        let (published, rolled_back) = publish(&desired, &ledger);
        assert_eq!(rolled_back.len(), 3);
        assert_eq!(published.len(), 2);
        let Some(resource::Kind::Route(stand_in)) = published.entry(&r).unwrap().kind() else { panic!() };
        assert!(
            stand_in.rules.iter().all(|r| !r.unavailable.is_empty() && !r.matches.is_empty() && r.backends.is_empty())
        );
        let Some(resource::Kind::RatePolicy(policy)) = published.entry(&p).unwrap().kind() else { panic!() };
        assert!(!policy.unavailable.is_empty());

        let refused = nack(&r, published.entry(&r).unwrap());
        assert!(ledger.acknowledge(&published, &[refused]));
        ledger.retain(&desired);
        assert!(publish(&desired, &ledger).0.entry(&r).is_none());
    }

    #[test]
    fn one_proxy_acknowledges_what_another_refuses() {
        let (one, two): (Snapshot, Snapshot) =
            ([(key("a"), route("1"))].into_iter().collect(), [(key("a"), route("2"))].into_iter().collect());
        let mut ledger = Ledger::default();
        ledger.acknowledge(&one, &[]);
        ledger.acknowledge(&two, &[]);
        assert!(ledger.acknowledge(&two, &[nack(&key("a"), &route("2"))]));
        assert_eq!(publish(&two, &ledger).0, one);
    }

    #[test]
    fn a_nack_of_other_content_is_out_of_date() {
        let desired: Snapshot = [(key("a"), route("1"))].into_iter().collect();
        let mut ledger = Ledger::default();
        let garbage = Nack { key: "?".into(), ..Nack::default() };
        assert!(!ledger.acknowledge(&desired, &[nack(&key("a"), &route("2")), nack(&key("b"), &route("1")), garbage]));
        assert!(ledger.nacked.is_empty());
    }

    /// A proxy that refuses some contents: what it runs after the operator and it have talked until nothing changes.
    fn settle(desired: &Snapshot, ledger: &mut Ledger, refuses: &BTreeSet<Hash>) -> Snapshot {
        for _ in 0..6 {
            ledger.retain(desired);
            let (published, _) = publish(desired, ledger);
            let nacks: Vec<_> =
                published.iter().filter(|(_, e)| refuses.contains(&e.hash())).map(|(k, e)| nack(k, e)).collect();
            if !ledger.acknowledge(&published, &nacks) {
                return published;
            }
        }
        panic!("operator and proxy never agree");
    }

    proptest! {
        #[test]
        fn operator_and_proxy_agree(
            steps in proptest::collection::vec(proptest::collection::btree_map(0..5u8, 0..6u8, 0..5), 1..8),
            bad in proptest::collection::btree_set(0..6u8, 0..4),
        ) {
            let content = |c: &u8| route(&c.to_string());
            let mut refuses: BTreeSet<Hash> = bad.iter().map(|c| content(c).hash()).collect();
            // Of half of them the stand-in is refused as well.
            refuses.extend(bad.iter().filter(|c| **c % 2 == 0).filter_map(|c| stand_in(&content(c))).map(|e| e.hash()));
            let mut ledger = Ledger::default();
            for step in steps {
                let desired: Snapshot = step.iter().map(|(k, c)| (key(&k.to_string()), content(c))).collect();
                let published = settle(&desired, &mut ledger, &refuses);
                for (name, entry) in published.iter() {
                    prop_assert!(!refuses.contains(&entry.hash()), "{name} is refused");
                }
                for (name, entry) in desired.iter().filter(|(_, e)| !refuses.contains(&e.hash())) {
                    prop_assert_eq!(published.entry(name), Some(entry), "a good resource is touched");
                }
                prop_assert!(published.iter().all(|(name, _)| desired.entry(name).is_some()));
                prop_assert!(ledger.nacked.len() <= 2 * desired.len());
                prop_assert!(ledger.acked.len() <= desired.len() && ledger.previous.len() <= desired.len());
            }
        }
    }
}
