//! Pushes against a store: what is refused whole, what is nacked alone, what runs afterwards.

use std::net::SocketAddr;

use http::Method;
use proptest::prelude::*;
use snapshot::{
    proto::{Attachment, Cluster, Endpoint, Fleet, Listener, Match, PathMatch, Resource, Route, Rule, WeightedCluster},
    wire,
};

use super::*;
use crate::{config::Config, fields::Fields, router::Query, rule::Action, telemetry::Telemetry};

fn entry(kind: resource::Kind) -> Entry {
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

fn fleet() -> (Key, Entry) {
    (Key::new(Kind::Fleet, "ns", "f"), entry(resource::Kind::Fleet(Fleet { min_drain_ms: 7, ..Fleet::default() })))
}

fn listener_of(name: &str, port: u32, tls: bool) -> (Key, Entry) {
    let certificates = if tls { vec!["Certificate/ns/c".to_owned()] } else { vec![] };
    let listener = Listener { name: name.into(), port, tls, certificates, ..Listener::default() };
    (Key::listener("ns", "f", name), entry(resource::Kind::Listener(listener)))
}

fn route(name: &str, path: &str, unavailable: &str) -> (Key, Entry) {
    let rule = Rule {
        name: "rule".into(),
        matches: vec![Match { path: Some(PathMatch { kind: 0, value: path.into() }), ..Match::default() }],
        backends: vec![WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
        unavailable: unavailable.into(),
        ..Rule::default()
    };
    let attachments = vec![Attachment { listener: "http".into(), hostnames: vec![] }];
    let route = Route { created_ms: 0, attachments, rules: vec![rule] };
    (Key::new(Kind::Route, "ns", name), entry(resource::Kind::Route(route)))
}

fn cluster(address: &str) -> (Key, Entry) {
    let endpoints = vec![Endpoint { address: address.into(), ..Endpoint::default() }];
    let cluster = Cluster { protocol: 0, endpoints };
    (Key::cluster("ns", "c", "80"), entry(resource::Kind::Cluster(cluster)))
}

fn policy(name: &str, target: &str, unavailable: &str) -> (Key, Entry) {
    let targets = vec![proto::PolicyTarget { route: target.into(), rule: String::new() }];
    let policy = proto::RatePolicy { targets, limits: vec![], unavailable: unavailable.into() };
    (Key::new(Kind::RatePolicy, "ns", name), entry(resource::Kind::RatePolicy(policy)))
}

/// A store as its operator sees it.
struct Proxy {
    shared: Arc<Shared>,
    store: SnapshotStore,
    status: Status,
    /// Ports that do not open.
    taken: Vec<u16>,
}

impl Proxy {
    fn new() -> Self {
        let shared = Shared::new(Telemetry::default());
        Self { store: SnapshotStore::new(Arc::clone(&shared)), shared, status: Status::default(), taken: vec![] }
    }

    /// Pushes a whole snapshot, as a delta against `base`'s content.
    fn push_against(
        &mut self,
        base: Option<&BTreeMap<Key, Hash>>,
        epoch: u64,
        target: &Snapshot,
    ) -> Result<(), Refused> {
        let delta = target.diff(base.unwrap_or(&BTreeMap::new()));
        let base = base.map(|held| revision(held.iter().map(|(k, h)| (k, *h))));
        // Over the wire, as in life.
        let mut assembly = wire::Assembly::default();
        let messages = wire::push(epoch, base, target.revision(), &delta);
        let mut pushes = messages.into_iter().filter_map(|m| assembly.accept(m.message.unwrap()).unwrap());
        let staged = self.store.stage(pushes.next().unwrap())?;
        let taken = staged.ports.iter().filter(|p| self.taken.contains(p));
        let failed = taken.map(|p| (*p, io::Error::from(io::ErrorKind::AddrInUse))).collect();
        self.status = self.store.finish(staged, &failed);
        assert_eq!(self.status.running, self.store.held().revision());
        assert_eq!(self.status.running, self.config().revision);
        Ok(())
    }

    /// Pushes against what runs.
    fn push(&mut self, target: &[(Key, Entry)]) -> Vec<(String, String, String)> {
        let target = Snapshot::from_iter(target.iter().cloned());
        self.push_against(Some(&self.store.held().held()), 1, &target).unwrap();
        self.nacks()
    }

    fn nacks(&self) -> Vec<(String, String, String)> {
        self.status.nacks.iter().map(|n| (n.key.clone(), n.field.clone(), n.reason.clone())).collect()
    }

    fn config(&self) -> Arc<Config> {
        self.shared.config.load_full()
    }

    /// What serves a path on port 80: the rule's address and where it goes, or why not.
    fn ask(&self, path: &str) -> Option<(usize, Result<SocketAddr, String>)> {
        let config = self.config();
        let fields = Fields::default();
        let q = Query { tls: false, host: "h", path, query: None, method: &Method::GET, fields: &fields };
        let found = config.ports.get(&80)?.router.find(&q).ok()?;
        let target = match &found.rule.action {
            Action::Unavailable(why) => Err(why.to_string()),
            Action::Forward(backends) => match backends.pick(0).unwrap().cluster.load().as_ref() {
                Some(cluster) => Ok(cluster.endpoints[0].address),
                None => Err("no cluster".to_owned()),
            },
        };
        Some((Arc::as_ptr(found.rule) as usize, target))
    }

    fn goes_to(&self, path: &str) -> Option<String> {
        self.ask(path).map(|(_, target)| target.map_or_else(|e| e, |a| a.to_string()))
    }
}

fn nacked(key: &str, field: &str, reason: &str) -> (String, String, String) {
    (key.into(), field.into(), reason.into())
}

#[test]
fn a_push_runs_and_what_did_not_change_is_taken_over() {
    let mut proxy = Proxy::new();
    let first = [fleet(), listener_of("http", 80, false), route("r", "/r", ""), cluster("10.0.0.1:1")];
    assert_eq!(proxy.push(&first), []);
    assert_eq!(proxy.config().settings.min_drain.as_millis(), 7);
    assert_eq!(proxy.goes_to("/r/x").unwrap(), "10.0.0.1:1");
    let (rule, port) = (proxy.ask("/r").unwrap().0, Arc::as_ptr(&proxy.config().ports[&80]));

    // Endpoints change: no rule does, not even the router.
    let second = [fleet(), listener_of("http", 80, false), route("r", "/r", ""), cluster("10.0.0.2:1")];
    assert_eq!(proxy.push(&second), []);
    assert_eq!(proxy.goes_to("/r").unwrap(), "10.0.0.2:1");
    assert_eq!(Arc::as_ptr(&proxy.config().ports[&80]), port);

    // Another route comes: the rule of the first stays the same.
    let third = [listener_of("http", 80, false), route("r", "/r", ""), route("s", "/s", "")];
    assert_eq!(proxy.push(&third), []);
    assert_eq!(proxy.ask("/r").unwrap(), (rule, Err("no cluster".to_owned())));
    assert_eq!(proxy.goes_to("/s").unwrap(), "no cluster");
    assert_eq!(proxy.config().settings, crate::config::Settings::default());

    // A policy comes for one: only that one is compiled anew.
    let fourth = [
        listener_of("http", 80, false),
        route("r", "/r", ""),
        route("s", "/s", ""),
        policy("p", "Route/ns/s", "broken"),
    ];
    let s = proxy.ask("/s").unwrap().0;
    assert_eq!(proxy.push(&fourth), []);
    assert_eq!(proxy.ask("/r").unwrap().0, rule);
    assert_ne!(proxy.ask("/s").unwrap().0, s);
    assert_eq!(proxy.goes_to("/s").unwrap(), "RatePolicy/ns/p: broken");

    assert_eq!(proxy.push(&[]), []);
    assert!(proxy.config().ports.is_empty());
}

/// A hostname's table is made anew when one of its own routes changes, comes or goes, and by nothing else: a neighbour's
/// thousands cost one's own change nothing.
#[test]
fn what_a_hostname_serves_is_taken_over() {
    let on = |host: &str, name: &str, path: &str| {
        let (key, route) = route(name, path, "");
        let Some(resource::Kind::Route(mut route)) = route.kind() else { panic!("no route") };
        route.attachments[0].hostnames = vec![host.into()];
        (key, entry(resource::Kind::Route(route)))
    };
    let mut proxy = Proxy::new();
    let push = |proxy: &mut Proxy, routes: &[(Key, Entry)]| {
        let all = [&[fleet(), listener_of("http", 80, false)], routes].concat();
        assert_eq!(proxy.push(&all), []);
        let config = proxy.config();
        ["a", "b"].map(|host| config.ports[&80].router.hosted(false, "", host).map(Arc::clone))
    };
    let [a, b] = push(&mut proxy, &[on("a", "r", "/r"), on("a", "s", "/s"), on("b", "t", "/t")]).map(Option::unwrap);
    // Another path of `b`, then one route less of `a`.
    let after = push(&mut proxy, &[on("a", "r", "/r"), on("a", "s", "/s"), on("b", "t", "/u")]).map(Option::unwrap);
    assert!(Arc::ptr_eq(&a, &after[0]) && !Arc::ptr_eq(&b, &after[1]));
    let last = push(&mut proxy, &[on("a", "r", "/r"), on("b", "t", "/u")]).map(Option::unwrap);
    assert!(!Arc::ptr_eq(&a, &last[0]) && Arc::ptr_eq(&after[1], &last[1]));
    // A policy comes for `a`'s route, and goes: what it guards is another rule each time.
    let limited = [on("a", "r", "/r"), on("b", "t", "/u"), policy("p", "Route/ns/r", "broken")];
    let guarded = push(&mut proxy, &limited).map(Option::unwrap);
    assert!(!Arc::ptr_eq(&last[0], &guarded[0]) && Arc::ptr_eq(&last[1], &guarded[1]));
    let free = push(&mut proxy, &limited[..2]).map(Option::unwrap);
    assert!(!Arc::ptr_eq(&guarded[0], &free[0]));
    assert!(push(&mut proxy, &[on("a", "r", "/r")])[1].is_none());
}

#[test]
fn a_broken_resource_keeps_its_former_version_alone() {
    let mut proxy = Proxy::new();
    let (http, c) = (listener_of("http", 80, false), cluster("10.0.0.1:1"));
    assert_eq!(proxy.push(&[http.clone(), c.clone(), route("r", "/old", "")]), []);
    // "x" does not begin with a slash.
    let broken =
        [http.clone(), cluster("10.0.0.2:1"), route("r", "x", ""), route("new", "y", ""), route("s", "/s", "")];
    let expect =
        ["new", "r"].map(|r| nacked(&format!("Route/ns/{r}"), "rules[0].matches[0].path.value", "InvalidPath"));
    assert_eq!(proxy.push(&broken), expect);
    assert_eq!(proxy.goes_to("/old").unwrap(), "10.0.0.2:1");
    assert_eq!(proxy.goes_to("/s").unwrap(), "10.0.0.2:1");
    assert_eq!(proxy.goes_to("/y"), None);
    assert_ne!(proxy.status.running, proxy.status.pushed);
    assert_eq!(proxy.status.pushed, Snapshot::from_iter(broken.clone()).revision());

    // The operator goes on from what it pushed: what it does not mention stays refused.
    let base = Snapshot::from_iter(broken.clone()).held();
    let mut next = broken.to_vec();
    next.pop();
    proxy.push_against(Some(&base), 1, &next.iter().cloned().collect()).unwrap();
    assert_eq!(proxy.nacks(), expect);
    assert_eq!(proxy.goes_to("/s"), None);

    // It rolls one back and drops the other.
    let base = Snapshot::from_iter(next).held();
    let rolled_back = [http, c, route("r", "/old", "")];
    proxy.push_against(Some(&base), 1, &rolled_back.into_iter().collect()).unwrap();
    assert_eq!(proxy.nacks(), []);
    assert_eq!(proxy.status.running, proxy.status.pushed);
}

proptest! {
    /// Whatever is pushed, against whatever base: what is good runs, and what is broken keeps what it had.
    #[test]
    fn any_pushes_lead_where_they_say(
        pushes in proptest::collection::vec((proptest::collection::btree_map(0..5u8, 0..4u8, 0..5), 0..3usize), 1..10)
    ) {
        let mut proxy = Proxy::new();
        let (mut pushed, mut runs) = (Snapshot::default(), BTreeMap::<u8, u8>::new());
        for (content, base) in pushes {
            // Version 0 is broken.
            let path = |version: u8| if version == 0 { "broken".to_owned() } else { format!("/v{version}") };
            let routes = content.iter().map(|(n, version)| route(&format!("r{n}"), &path(*version), ""));
            let target: Snapshot = routes.collect();
            let bases = [None, Some(proxy.store.held().held()), Some(pushed.held())];
            proxy.push_against(bases[base].as_ref(), 1, &target).unwrap();
            runs.retain(|n, _| content.contains_key(n));
            runs.extend(content.iter().filter(|(_, version)| **version > 0));
            let expect: Snapshot =
                runs.iter().map(|(n, version)| route(&format!("r{n}"), &path(*version), "")).collect();
            prop_assert_eq!(proxy.store.held(), &expect);
            let broken = content.iter().filter(|(_, version)| **version == 0).map(|(n, _)| format!("Route/ns/r{n}"));
            prop_assert_eq!(proxy.nacks().into_iter().map(|n| n.0).collect::<Vec<_>>(), broken.collect::<Vec<_>>());
            prop_assert_eq!(proxy.status.pushed, target.revision());
            pushed = target;
        }
    }
}

#[test]
fn going_on_from_what_runs_ends_nacks() {
    let mut proxy = Proxy::new();
    let (http, good) = (listener_of("http", 80, false), route("r", "/old", ""));
    proxy.push(&[http.clone(), good.clone()]);
    assert_eq!(proxy.push(&[http.clone(), route("r", "x", "")]).len(), 1);
    assert_eq!(proxy.push(&[http, good]), []);
    assert_eq!(proxy.goes_to("/old").unwrap(), "no cluster");
}

#[test]
fn from_nothing_replaces_everything_but_what_is_refused() {
    let mut proxy = Proxy::new();
    proxy.push(&[listener_of("http", 80, false), route("r", "/old", ""), route("gone", "/gone", "")]);
    let whole = Snapshot::from_iter([listener_of("http", 80, false), route("r", "x", "")]);
    proxy.push_against(None, 2, &whole).unwrap();
    assert_eq!(proxy.nacks().len(), 1);
    assert_eq!(proxy.goes_to("/old").unwrap(), "no cluster");
    assert_eq!(proxy.goes_to("/gone"), None);
    assert_eq!(proxy.store.epoch(), 2);
}

#[test]
fn pushes_that_do_not_fit_are_refused_whole() {
    let mut proxy = Proxy::new();
    let held = Snapshot::from_iter([fleet()]);
    proxy.push_against(None, 5, &held).unwrap();
    let other = Snapshot::from_iter([listener_of("http", 80, false)]);
    assert_eq!(proxy.push_against(None, 4, &other), Err(Refused::OldEpoch { pushed: 4, seen: 5 }));
    let (base, here) = (other.revision(), held.revision());
    assert_eq!(proxy.push_against(Some(&other.held()), 5, &held), Err(Refused::WrongBase { base, held: here }));
    let delta = other.diff(&held.held());
    let push = Push { epoch: 6, base: Some(here), revision: here, delta };
    let refused = proxy.store.stage(push).err();
    assert_eq!(refused, Some(Refused::WrongRevision { named: here, found: other.revision() }));
    assert_eq!(proxy.store.held(), &held);
    assert_eq!(proxy.store.epoch(), 5);
}

#[test]
fn undecodable_resources_are_nacked_by_name() {
    let mut proxy = Proxy::new();
    proxy.push(&[fleet()]);
    let key = Key::new(Kind::Route, "ns", "r");
    let entry = Entry::encoded((&b"\xff"[..]).into());
    let hash = entry.hash();
    let mut content = proxy.store.held().held();
    content.insert(key.clone(), hash);
    let push = Push {
        epoch: 1,
        base: Some(proxy.store.held().revision()),
        revision: revision(content.iter().map(|(k, h)| (k, *h))),
        delta: Delta { puts: BTreeMap::from([(key, entry)]), deletes: vec![] },
    };
    let staged = proxy.store.stage(push).unwrap();
    proxy.status = proxy.store.finish(staged, &BTreeMap::new());
    assert_eq!(proxy.nacks(), [nacked("Route/ns/r", "", "Undecodable")]);
    assert_eq!(proxy.status.nacks[0].hash, hash.as_bytes()[..]);
}

#[test]
fn a_port_that_does_not_open_keeps_the_former_listener() {
    let mut proxy = Proxy::new();
    let route = route("r", "/", "");
    proxy.taken = vec![81, 82];
    assert_eq!(proxy.push(&[listener_of("http", 80, false), listener_of("new", 82, false), route.clone()]).len(), 1);
    let moved = [listener_of("http", 81, false), listener_of("new", 83, false), route];
    assert_eq!(proxy.push(&moved), [nacked("Listener/ns/f/http", "port", "PortUnavailable")]);
    assert_eq!(proxy.config().ports.keys().copied().collect::<Vec<_>>(), [80, 83]);
    assert_eq!(proxy.store.ports(), BTreeSet::from([80, 83]));
    assert_eq!(proxy.goes_to("/").unwrap(), "no cluster");
}

#[test]
fn a_port_is_with_tls_or_without() {
    let mut proxy = Proxy::new();
    proxy.push(&[listener_of("http", 80, false)]);
    let nacks = proxy.push(&[listener_of("http", 80, false), listener_of("https", 80, true)]);
    assert_eq!(nacks, [nacked("Listener/ns/f/https", "protocol", "ProtocolConflict")]);
    assert!(proxy.config().ports[&80].tls.is_none());
}

#[test]
fn a_port_can_be_opened_as_another() {
    let bound = |name: &str, port: u32, bind_port: u32| {
        let listener = Listener { name: name.into(), port, bind_port, ..Listener::default() };
        (Key::listener("ns", "f", name), entry(resource::Kind::Listener(listener)))
    };
    let mut proxy = Proxy::new();
    assert_eq!(proxy.push(&[bound("http", 80, 10_080), bound("same", 8080, 0)]), []);
    assert_eq!(proxy.store.ports(), BTreeSet::from([8080, 10_080]));
    let public: Vec<_> = proxy.config().ports.iter().map(|(opened, port)| (*opened, port.port)).collect();
    assert_eq!(public, [(8080, 8080), (10_080, 80)]);
    // One socket is one port to clients: else a redirect would not know where it leads.
    let nacks = proxy.push(&[bound("http", 80, 10_080), bound("same", 8080, 0), bound("two", 81, 10_080)]);
    assert_eq!(nacks, [nacked("Listener/ns/f/two", "protocol", "ProtocolConflict")]);
    assert_eq!(proxy.push(&[bound("http", 80, 10_081), bound("same", 8080, 0)]), []);
    assert_eq!(proxy.store.ports(), BTreeSet::from([8080, 10_081]));
}

#[test]
fn tls_is_built_anew_only_when_certificates_change() {
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let kind = resource::Kind::Certificate(proto::Certificate {
            chain_pem: made.cert.pem().into(),
            private_key_pem: made.signing_key.serialize_pem().into(),
        });
        (Key::new(Kind::Certificate, "ns", "c"), entry(kind))
    };
    let mut proxy = Proxy::new();
    let tls = |proxy: &Proxy| Arc::as_ptr(proxy.config().ports[&443].tls.as_ref().unwrap());
    let (listener, first) = (listener_of("http", 443, true), certificate());
    assert_eq!(proxy.push(&[listener.clone(), first.clone()]), []);
    let before = tls(&proxy);
    assert_eq!(proxy.push(&[listener.clone(), first.clone(), route("r", "/", "")]), []);
    assert_eq!(tls(&proxy), before);
    assert_eq!(proxy.push(&[listener.clone(), certificate()]), []);
    assert_ne!(tls(&proxy), before);
    // A broken one leaves the former in place.
    let now = tls(&proxy);
    let broken = proto::Certificate { chain_pem: "x".into(), private_key_pem: "x".into() };
    let broken = (first.0, entry(resource::Kind::Certificate(broken)));
    assert_eq!(proxy.push(&[listener, broken]), [nacked("Certificate/ns/c", "tls.crt", "InvalidCertificate")]);
    assert_eq!(tls(&proxy), now);
}

/// What a later version has: a kind, and a message of it that decodes to nothing here.
fn unheard_of(word: &str) -> (Key, Entry) {
    (format!("{word}/ns/x").parse().unwrap(), Entry::encoded(Bytes::from_static(&[0xfa, 0x3f, 1, 7])))
}

/// An operator that is newer, or a file of a newer proxy, never costs a proxy all that it knows.
#[test]
fn a_kind_that_is_not_known_is_nacked_alone() {
    let mut proxy = Proxy::new();
    let known = [fleet(), listener_of("http", 80, false), route("r", "/r", ""), cluster("10.0.0.1:1")];
    let (later, last) = (unheard_of("Aardvark"), unheard_of("Zebra"));
    let nacks = proxy.push(&[&known[..], &[last.clone(), later.clone()]].concat());
    let of = |key: &str| nacked(key, "", "UnknownKind");
    assert_eq!(nacks, [of("Aardvark/ns/x"), of("Zebra/ns/x")]);
    assert!(proxy.status.nacks[0].message.contains("Aardvark/ns/x"), "{:?}", proxy.status.nacks);
    assert_eq!(proxy.goes_to("/r").unwrap(), "10.0.0.1:1");
    // It stays refused while others change, and goes when it is deleted.
    let mut pushed = proxy.store.held().held();
    pushed.extend([&later, &last].map(|(key, entry)| (key.clone(), entry.hash())));
    let target = Snapshot::from_iter(known.into_iter().chain([route("s", "/s", ""), last]));
    proxy.push_against(Some(&pushed), 1, &target).unwrap();
    assert_eq!(proxy.nacks(), [of("Zebra/ns/x")]);
    assert_eq!(proxy.goes_to("/s").unwrap(), "10.0.0.1:1");
}
