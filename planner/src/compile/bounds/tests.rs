//! Who is within the bounds of a fleet, with worlds whose older and younger namespaces want too much of each.

use serde_json::{Value, json};
use snapshot::{
    Kind,
    proto::{AccessPolicy, AccessRule, Certificate, Cluster, RatePolicy, Resource},
};

use super::*;
use crate::{Plan, World, WorldObject, plan, world};

/// A world that grows; what comes later is younger.
struct Scene(World, u64);

impl Scene {
    /// A fleet that serves all namespaces.
    fn new() -> Self {
        let mut scene = Self(World::default(), 0);
        let listener =
            json!({"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}});
        scene.add("GatewayFleet", "sys", "default", &json!({"listeners": [listener]}));
        scene
    }

    fn add(&mut self, kind: &str, namespace: &str, name: &str, spec: &Value) -> &mut Self {
        let (api, metadata) = (crds::API_VERSION, json!({"namespace": namespace, "name": name}));
        self.document(json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}))
    }

    fn document(&mut self, document: Value) -> &mut Self {
        self.1 += 1;
        let text = |at: &str| document.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = serde_json::from_value(document["kind"].clone()).unwrap();
        let id = ObjectRef { kind, namespace: text("/metadata/namespace"), name: text("/metadata/name") };
        // Thousands of them: their schema is not what this is about.
        let decoded = match kind {
            world::Kind::ApiRoute => crds::Object::ApiRoute(serde_json::from_value(document).unwrap()),
            world::Kind::EndpointSlice => crds::Object::EndpointSlice(serde_json::from_value(document).unwrap()),
            _ => crds::admit(document).unwrap(),
        };
        let current = Ok(std::sync::Arc::new(decoded));
        let created = Some(crate::Millis(self.1));
        self.0.objects.insert(
            id,
            WorldObject { current, raw: None, accepted: None, accepted_at: None, generation: 1, created, origin: None },
        );
        self
    }

    /// Routes of one rule, to addresses of their own.
    fn routes(&mut self, namespace: &str, count: usize) -> &mut Self {
        for i in 0..count {
            let backend = json!({"address": format!("10.0.{}.{}:80", i / 250, i % 250 + 1)});
            let spec = json!({"hostnames": [format!("{namespace}.example")], "rules": [{"backendRefs": [backend],
                "matches": [{"path": {"type": "PathPrefix", "value": format!("/{i}")}}]}]});
            self.add("ApiRoute", namespace, &format!("r{i:05}"), &spec);
        }
        self
    }

    /// A Service of so many endpoints, and a route to it.
    fn service(&mut self, namespace: &str, name: &str, endpoints: usize) -> &mut Self {
        let metadata = json!({"namespace": namespace, "name": name});
        self.document(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}),
        );
        let numbers: Vec<usize> = (0..endpoints).collect();
        for (i, part) in numbers.chunks(1000).enumerate() {
            let endpoints: Vec<_> = part
                .iter()
                .map(|n| json!({"addresses": [format!("10.{}.{}.{}", n / 62500, n / 250 % 250, n % 250)]}))
                .collect();
            let labels = json!({"kubernetes.io/service-name": name});
            let metadata = json!({"namespace": namespace, "name": format!("{name}-{i}"), "labels": labels});
            self.document(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": metadata, "endpoints": endpoints, "ports": [{"port": 80}]}));
        }
        let backend = json!({"name": name, "port": 80});
        let hostname = format!("{name}.{namespace}.example");
        self.add("ApiRoute", namespace, name, &json!({"hostnames": [hostname], "rules": [{"backendRefs": [backend]}]}))
    }

    /// A policy of so many limits on some routes of its namespace; without any, on the fleet.
    fn policy(&mut self, namespace: &str, name: &str, routes: &[&str]) -> &mut Self {
        let target = |kind: &str, name: &str| json!({"group": "sluice.dev", "kind": kind, "name": name});
        let mut targets: Vec<_> = routes.iter().map(|route| target("ApiRoute", route)).collect();
        if targets.is_empty() {
            targets.push(target("GatewayFleet", "default"));
        }
        let limits = json!([{"name": "all", "tokenBucket": {"rate": 1}}]);
        self.add("RatePolicy", namespace, name, &json!({"targetRefs": targets, "limits": limits}))
    }

    fn plan(&self) -> Plan {
        plan(&self.0)
    }
}

/// How many resources of a kind a namespace has in the fleet.
fn count(plan: &Plan, kind: Kind, namespace: &str) -> usize {
    let snapshot = &plan.fleets.values().next().unwrap().snapshot;
    snapshot.of_kind(kind).filter(|(key, _)| key.namespace() == namespace).count()
}

/// Names and messages of what is said to be left out, and that each is: no more, no less.
#[track_caller]
fn left_out(plan: &Plan, kind: world::Kind) -> Vec<(String, String)> {
    let too_large = plan.problems.iter().filter(|problem| problem.reason == reason::TOO_LARGE);
    let of_kind = too_large.filter(|problem| problem.object.as_ref().unwrap().kind == kind);
    let said: Vec<_> =
        of_kind.map(|problem| (problem.object.as_ref().unwrap().path(), problem.message.clone())).collect();
    let served = |path: &str| {
        let (namespace, name) = path.split_once('/').unwrap();
        let kind = if kind == world::Kind::ApiRoute { Kind::Route } else { Kind::RatePolicy };
        plan.fleets.values().any(|fleet| fleet.snapshot.entry(&Key::new(kind, namespace, name)).is_some())
    };
    assert!(said.iter().all(|(path, _)| !served(path)), "{said:?}");
    said
}

#[test]
fn routes_of_one_namespace_take_none_of_the_others() {
    let mut scene = Scene::new();
    // The older one has more than its share, as long as nobody else wants it.
    scene.routes("old", 6_000).routes("crowd", 4_500);
    let plan = scene.plan();
    assert_eq!((count(&plan, Kind::Route, "old"), count(&plan, Kind::Route, "crowd")), (5_500, 4_500));
    // A small one comes last, and loses nothing, nor does its cluster.
    scene.routes("crowd", 7_000).service("late", "shop", 3).policy("late", "limits", &["shop"]);
    let plan = scene.plan();
    let routes = ["old", "crowd", "late"].map(|namespace| count(&plan, Kind::Route, namespace));
    assert_eq!(routes, [5_000, 4_999, 1]);
    assert_eq!((count(&plan, Kind::Cluster, "late"), count(&plan, Kind::RatePolicy, "late")), (1, 1));
    let said = left_out(&plan, world::Kind::ApiRoute);
    assert_eq!(said.len(), 6_000 - 5_000 + 7_000 - 4_999);
    // The youngest go, and are told the numbers.
    let (route, message) = said.iter().find(|(path, _)| path.starts_with("old/")).unwrap();
    assert_eq!(route, "old/r05000");
    assert_eq!(
        message,
        "GatewayFleet sys/default has no room for it: of 10000 routes, which 3 namespaces share, \"old\" has 5000 (an even share \
         is 3333); remove routes that are older or larger, or use a second fleet"
    );
    // Each that is served has its cluster; what is left out brings none.
    let clusters = ["old", "crowd", "late"].map(|namespace| count(&plan, Kind::Cluster, namespace));
    assert_eq!(clusters, routes);
}

#[test]
fn clusters_of_the_old_are_not_the_first_to_go() {
    let mut scene = Scene::new();
    scene.service("old", "a", 900);
    for i in 0..4 {
        scene.service("crowd", &format!("s{i}"), 30_000);
    }
    let plan = scene.plan();
    assert_eq!((count(&plan, Kind::Route, "old"), count(&plan, Kind::Cluster, "old")), (1, 1));
    assert_eq!((count(&plan, Kind::Route, "crowd"), count(&plan, Kind::Cluster, "crowd")), (3, 3));
    let said = left_out(&plan, world::Kind::ApiRoute);
    assert_eq!(said.len(), 1);
    assert!(said[0].0 == "crowd/s3" && said[0].1.contains("of 100000 endpoints"), "{said:?}");
}

#[test]
fn what_guards_falls_with_what_it_guards_and_never_alone() {
    let mut scene = Scene::new();
    scene.routes("ns", MAX_ROUTES + 2);
    let last = [format!("r{MAX_ROUTES:05}"), format!("r{:05}", MAX_ROUTES + 1)];
    scene.policy("ns", "both", &[&last[0], "r00000"]).policy("ns", "last", &[&last[0], &last[1]]);
    let plan = scene.plan();
    assert_eq!(left_out(&plan, world::Kind::ApiRoute).len(), 2);
    let said = left_out(&plan, world::Kind::RatePolicy);
    let message = "guards 2 routes that GatewayFleet sys/default has no room for, and no other: see their conditions";
    assert_eq!(said, [("ns/last".to_owned(), message.to_owned())]);
    assert_eq!(count(&plan, Kind::RatePolicy, "ns"), 1);
}

#[test]
fn few_bytes_that_are_many_entries() {
    let mut scene = Scene::new();
    scene.routes("modest", 100);
    let hosts: Vec<String> = (0..64).map(|i| format!("h{i}.crowd.example")).collect();
    let rule = |r: usize| {
        let path = |m: usize| json!({"path": {"type": "Exact", "value": format!("/{r}/{m}")}});
        json!({"matches": (0..16).map(path).collect::<Vec<_>>(), "backendRefs": [{"address": "10.0.0.1:80"}]})
    };
    let spec = json!({"hostnames": hosts, "rules": (0..64).map(rule).collect::<Vec<_>>()});
    for i in 0..10 {
        scene.add("ApiRoute", "crowd", &format!("r{i}"), &spec);
    }
    let plan = scene.plan();
    // 65,536 entries each.
    assert_eq!((count(&plan, Kind::Route, "modest"), count(&plan, Kind::Route, "crowd")), (100, 7));
    let said = left_out(&plan, world::Kind::ApiRoute);
    assert!(said.iter().all(|(_, message)| message.contains("of 500000 entries of the routing table")), "{said:?}");
}

fn sourced(namespace: &str, name: &str, kind: resource::Kind) -> Sourced {
    let of = match kind {
        resource::Kind::Route(_) => Kind::Route,
        resource::Kind::Cluster(_) => Kind::Cluster,
        resource::Kind::RatePolicy(_) => Kind::RatePolicy,
        _ => Kind::Certificate,
    };
    let source = ObjectRef { kind: world::Kind::ApiRoute, namespace: namespace.into(), name: name.into() };
    Sourced {
        key: Key::new(of, namespace, name),
        entry: Entry::new(&Resource { requires: vec![], kind: Some(kind) }),
        source,
    }
}

fn certificate(namespace: &str, name: &str, size: usize) -> Sourced {
    let chain_pem = vec![b'a'; size].into();
    sourced(namespace, name, resource::Kind::Certificate(Certificate { chain_pem, ..Certificate::default() }))
}

#[test]
fn certificates_of_one_namespace_take_none_of_the_others() {
    let mut all: Vec<_> = (0..40).map(|i| certificate("crowd", &format!("c{i}"), MAX_RESOURCE - 100)).collect();
    all.push(certificate("late", "own", 5_000));
    all.push(certificate("late", "large", MAX_RESOURCE));
    let fits = certificates(&all);
    assert_eq!(fits.iter().filter(|fit| fit.is_ok()).count(), 16);
    assert!(fits[40].is_ok());
    assert!(
        fits[15].as_ref().unwrap_err().contains("may have 16384 KiB together, and those of namespace \"crowd\" have")
    );
    assert_eq!(
        fits[41].as_ref().unwrap_err(),
        "ApiRoute late/large: compiles to 1048584 bytes, and 1048576 is the most: split it"
    );
}

/// Whether a policy stands, stands closed, or not at all.
#[track_caller]
fn guarded(policies: Vec<Sourced>, expect: &[Option<bool>]) {
    let (world, mut filled) = (World::default(), Filled::default());
    let mut problems = Problems::new(&world);
    let fleet = ObjectRef { kind: world::Kind::GatewayFleet, namespace: "sys".into(), name: "f".into() };
    let keys: Vec<Key> = policies.iter().map(|policy| policy.key.clone()).collect();
    let guard = |resource| Guard { resource, routes: BTreeSet::new(), fleet: true, entries: 0 };
    guard_fleet(&fleet, policies.into_iter().map(guard).collect(), &mut filled, &mut problems);
    let closed = |key: &Key| match filled.snapshot.entry(key)?.kind()? {
        resource::Kind::RatePolicy(policy) => Some(!policy.unavailable.is_empty()),
        _ => None,
    };
    assert_eq!(keys.iter().map(closed).collect::<Vec<_>>(), expect);
    let said = problems.into_sorted().len();
    assert_eq!(said, expect.iter().filter(|policy| **policy != Some(false)).count());
}

#[test]
fn a_policy_on_the_fleet_that_does_not_fit_closes_it() {
    let policy = |name: &str, size: usize| {
        let limit = snapshot::proto::Limit { name: "n".repeat(size), ..snapshot::proto::Limit::default() };
        sourced("sys", name, resource::Kind::RatePolicy(RatePolicy { limits: vec![limit], ..RatePolicy::default() }))
    };
    guarded(vec![policy("a", 10), policy("b", MAX_RESOURCE), policy("c", 10)], &[Some(false), Some(true), Some(false)]);
    let mut many: Vec<_> = (0..8).map(|i| policy(&format!("p{i}"), MAX_RESOURCE - 100)).collect();
    many.extend([policy("x", 1000), policy("y", 1000)]);
    let mut expect = vec![Some(false); 8];
    expect.extend([Some(true), None]);
    guarded(many, &expect);
}

#[test]
fn a_policy_that_is_too_large_closes_what_it_guards() {
    let (world, mut parts) = (World::default(), Parts::default());
    let mut problems = Problems::new(&world);
    let limit = snapshot::proto::Limit { name: "n".repeat(MAX_RESOURCE), ..snapshot::proto::Limit::default() };
    let policy = RatePolicy { limits: vec![limit], ..RatePolicy::default() };
    let resource = sourced("ns", "p", resource::Kind::RatePolicy(policy));
    let guard = Guard { resource, routes: BTreeSet::from([3]), fleet: false, entries: 7 };
    let (guards, of_route) = parts.guards(vec![guard], &mut problems);
    assert_eq!((guards.len(), of_route), (1, BTreeMap::from([(3, vec![0])])));
    let Some(resource::Kind::RatePolicy(closed)) = parts.resources[0].as_ref().unwrap().entry.kind() else { panic!() };
    assert!(closed.unavailable.contains("compiles to"), "{}", closed.unavailable);
    assert!(problems.into_sorted()[0].message.contains("is answered 500"));

    // One that says who may do what still holds besides others.
    let rules = vec![AccessRule { consumers: vec!["n".repeat(MAX_RESOURCE)], ..AccessRule::default() }];
    let policy = AccessPolicy { overrides: true, rules, ..AccessPolicy::default() };
    let mut resource = sourced("ns", "p", resource::Kind::AccessPolicy(policy));
    close(&mut resource, "why");
    let Some(resource::Kind::AccessPolicy(closed)) = resource.entry.kind() else { panic!() };
    assert!(closed.overrides && closed.rules.is_empty() && closed.unavailable.ends_with(" why"), "{closed:?}");
}

#[test]
fn what_is_sent_is_within_what_proxies_take() {
    // Tiny clusters, of which the keys are the greater part.
    let clusters: BTreeMap<Key, (Entry, ObjectRef)> = (0..1000)
        .map(|i| {
            let Sourced { entry, source, .. } = sourced("ns", "c", resource::Kind::Cluster(Cluster::default()));
            (Key::cluster("ns", &format!("{}{i}", "c".repeat(200)), "80"), (entry, source))
        })
        .collect();
    let (world, mut parts) = (World::default(), Parts::default());
    let numbers = parts.clusters(clusters, &mut Problems::new(&world));
    assert!(numbers.values().all(Result::is_ok));
    assert!(parts.costs.iter().all(|[_, endpoints, _, bytes, _]| *endpoints == 1 && *bytes > 200));
}

#[test]
fn expressions() {
    let mut scene = Scene::new();
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let expression = |value: String| json!({"path": {"type": "RegularExpression", "value": value}});
    let mut route = |namespace: &str, name: &str, matches: &[Value]| {
        let rule = json!({"matches": matches, "backendRefs": [{"address": "10.0.0.1:80"}]});
        let spec = json!({"hostnames": [format!("{name}.{namespace}.example")], "rules": [rule]});
        scene.add("ApiRoute", namespace, name, &spec);
    };
    // Each has an automaton of 100 KiB.
    let large = |i: usize, n: usize| {
        let text: String = letters.iter().cycle().skip(i * 13 + n).take(400).collect();
        expression(format!("/{i}/{n}/{text}"))
    };
    for i in 0..24 {
        route("hostile", &format!("r{i:02}"), &(0..19).map(|n| large(i, n)).collect::<Vec<_>>());
    }
    route("late", "r", &[expression("/orders/[0-9]+".into())]);
    // What others have already costs nothing more.
    route("hostile", "same", &[large(0, 0)]);
    let plan = scene.plan();
    let said: Vec<_> = plan.problems.iter().filter(|problem| problem.reason == check::reason::TOO_COMPLEX).collect();
    let names: Vec<&str> = said.iter().map(|problem| problem.object.as_ref().unwrap().name.as_str()).collect();
    assert!(
        (1..20).contains(&said.len()) && !names.contains(&"r00") && !names.contains(&"same"),
        "{names:?}: {}",
        said[0].message
    );
    assert!(said[0].message.contains("of 65536 KiB of compiled regular expressions"), "{}", said[0].message);
    assert_eq!(count(&plan, Kind::Route, "late"), 1);
    assert_eq!(count(&plan, Kind::Route, "hostile"), 25 - said.len());
}
