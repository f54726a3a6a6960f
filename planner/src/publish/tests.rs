//! Operator and proxies talk until nothing changes: what runs then, whatever one of them says.

use proptest::prelude::*;
use snapshot::proto::{Certificate, Cluster, Listener, Match, RatePolicy, WeightedCluster};

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
    (Key::cluster("ns", name, "80"), cluster_of(0))
}

fn cluster_of(protocol: i32) -> Entry {
    let kind = resource::Kind::Cluster(Cluster { protocol, ..Cluster::default() });
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

fn policy() -> Entry {
    let kind = resource::Kind::RatePolicy(RatePolicy::default());
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

fn nack(key: &Key, entry: &Entry) -> Nack {
    let hash = entry.hash().as_bytes().to_vec().into();
    Nack { key: key.to_string(), hash, reason: "Fault".into(), ..Nack::default() }
}

fn id(name: &str) -> ProxyId {
    ProxyId { name: name.into(), pid: None }
}

/// A proxy: what it refuses to run, and what it said last.
#[derive(Clone, Default)]
struct Proxy {
    refuses: BTreeSet<Hash>,
    /// Refuses whatever it is sent.
    hostile: bool,
    acknowledged: Option<Snapshot>,
    claims: Claims,
    /// What it runs.
    runs: BTreeMap<Key, Entry>,
}

impl Proxy {
    fn peer(&self) -> Peer<'_> {
        Peer { ready: true, claims: &self.claims, acknowledged: self.acknowledged.as_ref() }
    }

    fn take(&mut self, published: &Snapshot) {
        let refused = |entry: &Entry| self.hostile || self.refuses.contains(&entry.hash());
        let nacks = published.iter().filter(|(_, entry)| refused(entry)).map(|(key, entry)| nack(key, entry));
        self.claims = claims(nacks.collect(), &[published]);
        let mut runs = BTreeMap::new();
        for (key, entry) in published.iter() {
            let kept = if refused(entry) { self.runs.get(key) } else { Some(entry) };
            runs.extend(kept.map(|entry| (key.clone(), entry.clone())));
        }
        (self.runs, self.acknowledged) = (runs, Some(published.clone()));
    }
}

/// A fleet, and the operator's ledger of it.
struct Fleet {
    ledger: Ledger,
    proxies: BTreeMap<ProxyId, Proxy>,
    now: Millis,
}

impl Fleet {
    fn new(proxies: &[(&str, Proxy)]) -> Self {
        let proxies = proxies.iter().map(|(name, proxy)| (id(name), proxy.clone())).collect();
        Self { ledger: Ledger::default(), proxies, now: Millis(1_000) }
    }

    /// So many that refuse these contents.
    fn of(count: usize, refuses: &[Entry]) -> Self {
        let refuses: BTreeSet<Hash> = refuses.iter().map(Entry::hash).collect();
        let mut fleet = Self::new(&[]);
        for i in 0..count {
            fleet.proxies.insert(id(&format!("p{i}")), Proxy { refuses: refuses.clone(), ..Proxy::default() });
        }
        fleet
    }

    fn settle(&mut self, desired: &Snapshot) -> bool {
        let peers: BTreeMap<_, _> = self.proxies.iter().map(|(id, proxy)| (id.clone(), proxy.peer())).collect();
        self.ledger.settle(desired, &peers, self.now)
    }

    /// What is published once they have talked until nothing changes, and what is rolled back in it.
    fn talk(&mut self, desired: &Snapshot) -> (Snapshot, BTreeMap<Key, Nack>) {
        for _ in 0..8 {
            self.settle(desired);
            let (published, rolled_back) = publish(desired, &self.ledger);
            for proxy in self.proxies.values_mut() {
                proxy.take(&published);
                self.ledger.acknowledge(&published, &proxy.claims);
            }
            if !self.settle(desired) {
                return (published, rolled_back);
            }
        }
        panic!("operator and proxies never agree");
    }

    /// Another operator takes over, who knows what was kept: what is refused, and what runs instead.
    fn restart(&mut self, desired: &Snapshot) {
        let (published, _) = publish(desired, &self.ledger);
        let mut ledger = Ledger { refused: self.ledger.refused.clone(), ..Ledger::default() };
        for (key, entry) in published.iter().filter(|(key, entry)| desired.entry(key) != Some(entry)) {
            ledger.acked.insert(key.clone(), entry.clone());
        }
        self.ledger = ledger;
    }
}

fn snapshot(entries: &[(Key, Entry)]) -> Snapshot {
    entries.iter().cloned().collect()
}

#[test]
fn a_refused_route_is_rolled_back_alone_with_what_it_refers_to() {
    let bad = route("two");
    let mut fleet = Fleet::of(2, std::slice::from_ref(&bad));
    let good = snapshot(&[(key("a"), route("one")), (key("b"), route("one")), cluster("one")]);
    assert_eq!(fleet.talk(&good), (good.clone(), BTreeMap::new()));

    let desired = snapshot(&[(key("a"), bad.clone()), (key("b"), route("three")), cluster("two")]);
    let (published, rolled_back) = fleet.talk(&desired);
    let expect = [(key("a"), route("one")), (key("b"), route("three")), cluster("one"), cluster("two")];
    assert_eq!(published, snapshot(&expect));
    assert_eq!(rolled_back, BTreeMap::from([(key("a"), nack(&key("a"), &bad))]));

    assert_eq!(fleet.talk(&desired).0, published, "stays as it is");
    let fixed = snapshot(&[(key("a"), route("three"))]);
    assert_eq!(fleet.talk(&fixed), (fixed.clone(), BTreeMap::new()));
    assert!(fleet.ledger.refused.is_empty());
}

/// Of whatever kind: what `snapshot::refs` says that it needs is there again.
#[test]
fn a_refused_listener_is_rolled_back_with_its_certificate() {
    let listener = |certificate: &str| {
        let certificates = vec![format!("Certificate/ns/{certificate}")];
        let listener = Listener { name: "l".into(), port: 443, tls: true, certificates, ..Listener::default() };
        Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) })
    };
    let certificate = |name: &str| {
        let content = Certificate { chain_pem: name.to_owned().into(), private_key_pem: "k".into() };
        let content = Resource { requires: vec![], kind: Some(resource::Kind::Certificate(content)) };
        (Key::new(Kind::Certificate, "ns", name), Entry::new(&content))
    };
    let key = Key::listener("ns", "f", "l");
    let mut fleet = Fleet::of(2, &[listener("two")]);
    fleet.talk(&snapshot(&[(key.clone(), listener("one")), certificate("one")]));
    let (published, _) = fleet.talk(&snapshot(&[(key.clone(), listener("two")), certificate("two")]));
    assert_eq!(published, snapshot(&[(key, listener("one")), certificate("one"), certificate("two")]));
}

#[test]
fn what_was_never_good_answers_500_and_is_left_out_last() {
    let (p, r) = (Key::new(Kind::RatePolicy, "ns", "p"), key("a"));
    let desired = snapshot(&[(r.clone(), route("x")), (p.clone(), policy()), cluster("x")]);
    let mut fleet = Fleet::of(2, &[route("x"), policy(), cluster("x").1]);
    let (published, rolled_back) = fleet.talk(&desired);
    assert_eq!(rolled_back.len(), 3);
    assert_eq!(published.len(), 2);
    let Some(resource::Kind::Route(stand_in)) = published.entry(&r).unwrap().kind() else { panic!() };
    assert!(stand_in.rules.iter().all(|r| !r.unavailable.is_empty() && !r.matches.is_empty() && r.backends.is_empty()));
    let Some(resource::Kind::RatePolicy(policy)) = published.entry(&p).unwrap().kind() else { panic!() };
    assert!(!policy.unavailable.is_empty());

    let refused = published.entry(&r).unwrap().hash();
    fleet.proxies.values_mut().for_each(|proxy| proxy.refuses.extend([refused]));
    fleet.proxies.values_mut().for_each(|proxy| proxy.take(&published));
    assert!(fleet.talk(&desired).0.entry(&r).is_none());
}

/// Five nacks of one connected peer removed listeners and clusters for the whole fleet.
#[test]
fn what_one_proxy_refuses_the_others_run() {
    let hostile = Proxy { hostile: true, ..Proxy::default() };
    let all = [("a", hostile), ("b", Proxy::default()), ("c", Proxy::default())];
    let mut fleet = Fleet::new(&all);
    let listener = resource::Kind::Listener(snapshot::proto::Listener { port: 80, ..Default::default() });
    let listener = Entry::new(&Resource { requires: vec![], kind: Some(listener) });
    let desired = snapshot(&[(Key::listener("ns", "f", "http"), listener), (key("a"), route("x")), cluster("x")]);
    assert_eq!(fleet.talk(&desired), (desired.clone(), BTreeMap::new()));
    fleet.restart(&desired);
    assert_eq!(fleet.talk(&desired), (desired.clone(), BTreeMap::new()));
    for name in ["b", "c"] {
        assert_eq!(fleet.proxies[&id(name)].runs.len(), desired.len());
    }
}

#[test]
fn the_only_proxy_decides_until_there_are_more() {
    let mut fleet = Fleet::new(&[("a", Proxy { refuses: [route("2").hash()].into(), ..Proxy::default() })]);
    let (one, two) = (snapshot(&[(key("a"), route("1"))]), snapshot(&[(key("a"), route("2"))]));
    fleet.talk(&one);
    assert_eq!(fleet.talk(&two).0, one);
    fleet.proxies.insert(id("b"), Proxy::default());
    assert_eq!(fleet.talk(&two).0, two, "the second does not refuse it");
    fleet.proxies.get_mut(&id("b")).unwrap().refuses.insert(route("2").hash());
    let mut other = Fleet { proxies: fleet.proxies.clone(), ..Fleet::of(0, &[]) };
    other.talk(&one);
    assert_eq!(other.talk(&two).0, one, "the second refuses it too");
}

#[test]
fn a_refusal_counts_while_its_senders_live() {
    let mut fleet = Fleet::of(3, &[route("2")]);
    let (one, two) = (snapshot(&[(key("a"), route("1"))]), snapshot(&[(key("a"), route("2"))]));
    fleet.talk(&one);
    assert_eq!(fleet.talk(&two).0, one);
    // All are replaced by a newer version.
    for i in 0..3 {
        fleet.proxies.remove(&id(&format!("p{i}")));
        fleet.proxies.insert(id(&format!("n{i}")), Proxy::default());
    }
    assert_eq!(fleet.talk(&two), (two.clone(), BTreeMap::new()));
}

#[test]
fn what_others_run_is_not_taken_from_them() {
    let bad = cluster_of(1);
    let mut fleet = Fleet::of(2, std::slice::from_ref(&bad));
    for name in ["x", "y"] {
        fleet.proxies.insert(id(name), Proxy::default());
    }
    let (key, good) = cluster("c");
    fleet.talk(&snapshot(&[(key.clone(), good.clone())]));
    let desired = snapshot(&[(key.clone(), bad.clone())]);
    assert_eq!(fleet.talk(&desired).0, desired, "two refuse it, and two run it");
    assert_eq!(fleet.proxies[&id("p0")].runs[&key], good, "they keep what they had");
    assert_eq!(fleet.proxies[&id("x")].runs[&key], bad);
}

#[test]
fn it_is_tried_again_after_a_while_and_each_time_later() {
    let mut fleet = Fleet::of(2, &[route("2")]);
    let (one, two) = (snapshot(&[(key("a"), route("1"))]), snapshot(&[(key("a"), route("2"))]));
    fleet.talk(&one);
    let mut refused_at = vec![];
    for minute in 0..20 {
        fleet.now = Millis(1_000 + minute * 60_000);
        assert_eq!(fleet.talk(&two).0, one);
        refused_at.push(fleet.ledger.refused.values().next().unwrap().since.0 / 60_000);
    }
    refused_at.dedup();
    assert_eq!(refused_at, [0, 1, 3, 7, 15]);
    // What ailed them is gone.
    fleet.proxies.values_mut().for_each(|proxy| proxy.refuses.clear());
    assert_eq!(fleet.talk(&two).0, one, "not before its time");
    fleet.now = Millis(1_000 + 31 * 60_000);
    assert_eq!(fleet.talk(&two).0, two);
    assert!(fleet.ledger.refused.is_empty());
}

#[test]
fn what_is_forgotten_is_tried_at_once() {
    let mut fleet = Fleet::of(2, &[route("2")]);
    let (one, two) = (snapshot(&[(key("a"), route("1"))]), snapshot(&[(key("a"), route("2"))]));
    fleet.talk(&one);
    fleet.talk(&two);
    fleet.proxies.values_mut().for_each(|proxy| proxy.refuses.clear());
    assert!(!fleet.ledger.forget(&key("b")));
    assert!(fleet.ledger.forget(&key("a")));
    assert_eq!(fleet.talk(&two).0, two);
}

#[test]
fn a_refusal_of_what_was_not_pushed_is_none() {
    let pushed = snapshot(&[(key("a"), route("1"))]);
    let garbage = Nack { key: "?".into(), ..Nack::default() };
    let nacks = vec![nack(&key("a"), &route("2")), nack(&key("b"), &route("1")), garbage];
    assert!(claims(nacks, &[&pushed]).is_empty());
    // What one that is not Ready says counts only when there is no other.
    let claims = claims(vec![nack(&key("a"), &route("1"))], &[&pushed]);
    let peer = |ready| Peer { ready, claims: &claims, acknowledged: None };
    let mut ledger = Ledger::default();
    assert!(!ledger.settle(&pushed, &[(id("a"), peer(true)), (id("b"), peer(false))].into(), Millis(0)));
    assert!(ledger.settle(&pushed, &[(id("a"), peer(false))].into(), Millis(0)));
}

proptest! {
    /// Proxies that are all alike: what they refuse runs nowhere, and everything else everywhere.
    #[test]
    fn operator_and_proxies_agree(
        steps in proptest::collection::vec(proptest::collection::btree_map(0..5u8, 0..6u8, 0..5), 1..8),
        bad in proptest::collection::btree_set(0..6u8, 0..4),
        count in 1..4usize,
    ) {
        let content = |c: &u8| route(&c.to_string());
        let mut refuses: Vec<Entry> = bad.iter().map(content).collect();
        // Of half of them the stand-in is refused as well.
        refuses.extend(bad.iter().filter(|c| **c % 2 == 0).filter_map(|c| stand_in(&content(c))));
        let mut fleet = Fleet::of(count, &refuses);
        for step in steps {
            let desired: Snapshot = step.iter().map(|(k, c)| (key(&k.to_string()), content(c))).collect();
            let (published, _) = fleet.talk(&desired);
            for (name, entry) in published.iter() {
                prop_assert!(!refuses.contains(entry), "{name} is refused");
            }
            for (name, entry) in desired.iter().filter(|(_, entry)| !refuses.contains(entry)) {
                prop_assert_eq!(published.entry(name), Some(entry), "a good resource is touched");
            }
            prop_assert!(published.iter().all(|(name, _)| desired.entry(name).is_some()));
            let ledger = &fleet.ledger;
            prop_assert!(ledger.refused.len() <= 2 * desired.len() && ledger.tried.len() <= 2 * desired.len());
            prop_assert!(ledger.acked.len() <= desired.len() && ledger.previous.len() <= desired.len());
        }
    }

    /// One that lies, refusing whatever it likes, changes nothing for all others: at any time, across restarts, with any
    /// proxies that come and go beside it.
    #[test]
    fn one_hostile_proxy_changes_nothing_for_the_others(
        steps in proptest::collection::vec((proptest::collection::btree_map(0..5u8, 0..6u8, 1..5), 2..5usize, any::<bool>(), 0..200u64), 1..10),
        bad in proptest::collection::btree_set(0..6u8, 0..3),
    ) {
        let content = |c: &u8| if *c == 5 { cluster_of(1) } else { route(&c.to_string()) };
        let name = |k: &u8, c: &u8| if *c == 5 { Key::cluster("ns", &k.to_string(), "80") } else { key(&k.to_string()) };
        let refuses: Vec<Entry> = bad.iter().filter(|c| **c != 5).map(content).collect();
        let with = |honest: usize, hostile: bool, fleet: &mut Fleet| {
            let alike = Fleet::of(honest, &refuses).proxies;
            fleet.proxies.retain(|id, _| alike.contains_key(id) || (hostile && id.name == "z"));
            for (id, proxy) in alike {
                fleet.proxies.entry(id).or_insert(proxy);
            }
            if hostile {
                fleet.proxies.entry(id("z")).or_insert(Proxy { hostile: true, ..Proxy::default() });
            }
        };
        let (mut attacked, mut quiet) = (Fleet::of(0, &[]), Fleet::of(0, &[]));
        for (step, honest, restarts, seconds) in steps {
            let desired: Snapshot = step.iter().map(|(k, c)| (name(k, c), content(c))).collect();
            with(honest, true, &mut attacked);
            with(honest, false, &mut quiet);
            for fleet in [&mut attacked, &mut quiet] {
                fleet.now.0 += seconds * 1000;
                fleet.talk(&desired);
                if restarts {
                    fleet.restart(&desired);
                    fleet.talk(&desired);
                }
            }
            for (name, entry) in desired.iter().filter(|(_, entry)| !refuses.contains(entry)) {
                for (id, proxy) in attacked.proxies.iter().filter(|(_, proxy)| !proxy.hostile) {
                    prop_assert_eq!(proxy.runs.get(name), Some(entry), "{} lacks {}", id, name);
                }
            }
            for (id, proxy) in &quiet.proxies {
                prop_assert_eq!(&proxy.runs, &attacked.proxies[id].runs, "{}", id);
            }
        }
    }
}
