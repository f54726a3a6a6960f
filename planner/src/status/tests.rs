//! The status of a route, its policy and its fleet, as proxies and content change.

use std::sync::Arc;

use snapshot::{Hash, Key, Kind as ResourceKind, proto::Nack};

use super::*;
use crate::{ProxyView, WorldObject, fleet::FleetView, plan};

const MANIFESTS: &str = r#"
{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: ns},
 spec: {listeners: [{name: http, protocol: HTTP, port: 80}], scaling: {minReplicas: 2}}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: route, namespace: ns},
 spec: {rules: [{backendRefs: [{address: "127.0.0.1:9000"}]}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: RatePolicy, metadata: {name: policy, namespace: ns},
 spec: {targetRefs: [{group: sluice.dev, kind: ApiRoute, name: route}], limits: [{name: a, tokenBucket: {rate: 1}}]}}
"#;

/// A world that changes, and what was last said of it.
struct Scene {
    world: World,
    view: FleetView,
    statuses: BTreeMap<ObjectRef, Status>,
    second: u64,
}

fn object(kind: Kind) -> ObjectRef {
    let name = match kind {
        Kind::GatewayFleet => "default",
        Kind::ApiRoute => "route",
        _ => "policy",
    };
    ObjectRef { kind, namespace: "ns".into(), name: name.into() }
}

fn key(kind: ResourceKind) -> Key {
    Key::new(kind, "ns", if kind == ResourceKind::Route { "route" } else { "policy" })
}

impl Scene {
    /// Two Ready proxies that run nothing yet.
    fn new() -> Self {
        let documents: Vec<serde_json::Value> = serde_yaml::from_multiple(MANIFESTS).unwrap();
        let mut world = World::default();
        for (document, kind) in documents.into_iter().zip([Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy]) {
            let current = Ok(Arc::new(crds::admit(document).unwrap()));
            let entry = WorldObject {
                current,
                raw: None,
                accepted: None,
                accepted_at: None,
                generation: 1,
                created: None,
                origin: None,
            };
            world.objects.insert(object(kind), entry);
        }
        let proxy = |n| ProxyView { name: format!("p{n}"), ready: true, ..ProxyView::default() };
        let view = FleetView { proxies: vec![proxy(1), proxy(2)], ..FleetView::default() };
        Self { world, view, statuses: BTreeMap::new(), second: 0 }
    }

    /// Publishes what is planned now; the first `n` proxies acknowledge it.
    fn publish(&mut self, n: usize) -> &mut Self {
        let plan = plan(&self.world);
        let content = &plan.fleets.values().next().unwrap().snapshot;
        self.view.published = Some(content.revision());
        for proxy in self.view.proxies.iter_mut().take(n) {
            (proxy.revision, proxy.content) = (Some(content.revision()), Some(content.clone()));
        }
        self
    }

    /// A neighbour's route of this fleet changes.
    fn edit_neighbour(&mut self) -> &mut Self {
        let mut entry = self.world.objects[&object(Kind::ApiRoute)].clone();
        let crds::Object::ApiRoute(mut route) = entry.current.clone().unwrap().as_ref().clone() else { panic!() };
        route.spec.hostnames = vec![format!("neighbour{}.example", self.second)];
        entry.current = Ok(Arc::new(crds::Object::ApiRoute(route)));
        self.world.objects.insert(ObjectRef { name: "neighbour".into(), ..object(Kind::ApiRoute) }, entry);
        self
    }

    /// A change of the route's content.
    fn edit(&mut self) -> &mut Self {
        let entry = self.world.objects.get_mut(&object(Kind::ApiRoute)).unwrap();
        entry.generation += 1;
        let crds::Object::ApiRoute(mut route) = entry.current.clone().unwrap().as_ref().clone() else { panic!() };
        route.spec.hostnames.push(format!("h{}.example", entry.generation));
        entry.current = Ok(Arc::new(crds::Object::ApiRoute(route)));
        self
    }

    /// Derives all statuses a second later.
    fn derive(&mut self) -> &mut Self {
        self.second += 1;
        let fleets = BTreeMap::from([(FleetRef { namespace: "ns".into(), name: "default".into() }, self.view.clone())]);
        let now = Millis(self.second * 1000);
        self.statuses = statuses(&self.world, &plan(&self.world), &fleets, &self.statuses, now);
        self
    }

    /// Status, reason, message and second of the last transition of a condition.
    #[track_caller]
    fn check(&self, kind: Kind, type_: &str, expect: (&str, &str, &str, i64)) {
        let status = &self.statuses[&object(kind)];
        let found = conditions::find(status.conditions(), type_).unwrap();
        let since = found.last_transition_time.0.as_second();
        assert_eq!((found.status.as_str(), found.reason.as_str(), found.message.as_str(), since), expect);
        let generation = self.world.objects[&object(kind)].generation;
        assert!(status.conditions().iter().all(|c| c.observed_generation == Some(generation)));
    }

    #[track_caller]
    fn fleet(&self) -> &crds::GatewayFleetStatus {
        let Status::Fleet(status) = &self.statuses[&object(Kind::GatewayFleet)] else { panic!() };
        status
    }
}

const EVERYWHERE: &str = "runs on every Ready proxy";

#[test]
fn programmed_once_every_ready_proxy_runs_it() {
    let mut scene = Scene::new();
    for (acks, message) in [(0, "0 of 2 proxies"), (1, "1 of 2 proxies")] {
        scene.publish(acks).derive();
        for kind in [Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy] {
            scene.check(kind, "Accepted", ("True", "Accepted", &accepted(kind), 1));
            scene.check(kind, "Programmed", ("False", "Pending", message, 1));
        }
    }
    scene.publish(2).derive().derive();
    for kind in [Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy] {
        scene.check(kind, "Programmed", ("True", "Programmed", EVERYWHERE, 3));
    }
    assert_eq!(scene.fleet().programmed_replicas, 2);
}

fn accepted(kind: Kind) -> String {
    match kind {
        Kind::GatewayFleet => "the settings are valid",
        Kind::ApiRoute => "attached",
        _ => "every limit is valid; each replica counts for itself, so N replicas admit up to N times the rate",
    }
    .into()
}

#[test]
fn a_new_generation_is_not_programmed_before_it_runs() {
    let mut scene = Scene::new();
    scene.publish(2).derive().edit().publish(0).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("False", "Pending", "0 of 2 proxies", 2));
    scene.check(Kind::RatePolicy, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    scene.check(Kind::GatewayFleet, "Programmed", ("False", "Pending", "0 of 2 proxies", 2));
    scene.publish(1).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("False", "Pending", "1 of 2 proxies", 2));
    scene.publish(2).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 4));
}

#[test]
fn scaling_writes_no_routes_status() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    let before = scene.statuses.clone();
    let newcomer = ProxyView { name: "p3".into(), ..ProxyView::default() };
    scene.view.proxies.push(newcomer);
    scene.derive();
    assert_eq!(scene.fleet().ready.as_deref(), Some("2/3"));
    scene.view.proxies[2].ready = true;
    scene.derive();
    scene.check(Kind::GatewayFleet, "Programmed", ("False", "Pending", "2 of 3 proxies", 3));
    scene.publish(3).derive();
    scene.view.proxies[0].draining = true;
    scene.derive();
    assert_eq!(scene.fleet().ready.as_deref(), Some("2/2"));
    for kind in [Kind::ApiRoute, Kind::RatePolicy] {
        assert_eq!(scene.statuses[&object(kind)], before[&object(kind)]);
    }
}

#[test]
fn without_a_ready_proxy_nothing_is_programmed() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    scene.view.proxies.iter_mut().for_each(|proxy| proxy.ready = false);
    scene.derive();
    for kind in [Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy] {
        scene.check(kind, "Programmed", ("False", "Pending", "no proxy is Ready yet", 2));
    }
    scene.check(Kind::GatewayFleet, "Ready", ("False", "NoReadyProxy", "no proxy is Ready", 2));
    scene.view.proxies[0].ready = true;
    scene.derive();
    scene.check(Kind::GatewayFleet, "Ready", ("False", "BelowMinimum", "1 proxies are Ready; minReplicas is 2", 2));
}

#[test]
fn a_refused_resource_is_named() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    let nack = |field: &str| Nack {
        field: field.into(),
        reason: "Fault".into(),
        message: "does not compile".into(),
        ..Nack::default()
    };
    let cluster = Key::cluster("ns", "127.0.0.1:9000", "http1");
    let tail = "proxies refuse it, and what was acknowledged last runs instead (nothing before: ";
    for (key, field, kind, at) in [
        (key(ResourceKind::Route), "rules[0]", Kind::ApiRoute, "ApiRoute ns/route: spec.rules[0]".to_owned()),
        (
            key(ResourceKind::RatePolicy),
            "limits[0].key",
            Kind::RatePolicy,
            "RatePolicy ns/policy: spec.limits[0].key".into(),
        ),
        (cluster.clone(), "endpoints[0]", Kind::ApiRoute, format!("ApiRoute ns/route: {cluster} endpoints[0]")),
        (
            Key::listener("ns", "default", "http"),
            "port",
            Kind::GatewayFleet,
            "GatewayFleet ns/default: Listener/ns/default/http port".into(),
        ),
    ] {
        scene.view.rolled_back = BTreeMap::from([(key, nack(field))]);
        scene.derive();
        let before = if kind == Kind::GatewayFleet { "it is left out" } else { "requests answer 500" };
        let message = format!("{at}: does not compile [Fault]; {tail}{before})");
        let second = scene.second as i64;
        scene.check(kind, "Programmed", ("False", "ProxyRejected", &message, second));
        scene.check(kind, "Accepted", ("True", "Accepted", &accepted(kind), 1));
        scene.view.rolled_back.clear();
        scene.derive();
        scene.check(kind, "Programmed", ("True", "Programmed", EVERYWHERE, second + 1));
    }
}

#[test]
fn what_one_proxy_refuses_the_others_run() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    let nack = Nack { field: "rules[0]".into(), reason: "Fault".into(), message: "no".into(), ..Nack::default() };
    let by = BTreeMap::from([("p2".to_owned(), nack)]);
    scene.view.disagreeing = BTreeMap::from([(key(ResourceKind::Route), by)]);
    scene.derive();
    let message =
        "1 of 2 proxies: p2 refuses Route/ns/route: rules[0]: no [Fault]; it does without, and is asked again";
    for kind in [Kind::ApiRoute, Kind::GatewayFleet] {
        scene.check(kind, "Programmed", ("False", "ProxyDisagrees", message, 2));
    }
    scene.check(Kind::RatePolicy, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    scene.view.disagreeing.clear();
    scene.derive();
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 3));
}

#[test]
fn what_is_not_rolled_out_says_why() {
    let mut scene = Scene::new();
    scene.publish(2).derive().edit().publish(0);
    scene.view.halted = Some("2 proxies ended when they got it".into());
    scene.derive();
    let message = "0 of 2 proxies: 2 proxies ended when they got it; they keep what they ran before. Change it, or see the \
                   proxies' logs";
    scene.check(Kind::ApiRoute, "Programmed", ("False", "RolloutHalted", message, 2));
    scene.check(Kind::GatewayFleet, "Programmed", ("False", "RolloutHalted", message, 2));
    scene.check(Kind::RatePolicy, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
}

#[test]
fn a_broken_object_says_what_stays_in_force() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    let entry = scene.world.objects.get_mut(&object(Kind::ApiRoute)).unwrap();
    entry.accepted = entry.current.clone().ok();
    entry.generation = 2;
    entry.current = Err(vec![crds::Violation { path: "spec.rules[0].name".into(), message: "is wrong".into() }]);
    scene.derive();
    let message = "spec.rules[0].name: is wrong; until this is fixed, the content accepted last stays in force";
    scene.check(Kind::ApiRoute, "Accepted", ("False", "Invalid", message, 2));
    let message = "this generation is not accepted, so it runs nowhere; the content accepted last does";
    scene.check(Kind::ApiRoute, "Programmed", ("False", "Invalid", message, 2));
    scene.check(Kind::RatePolicy, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
}

#[test]
fn columns_of_the_fleet() {
    let mut scene = Scene::new();
    scene.view.decision = Some(crate::scale::Decision {
        desired: 8,
        current: 2,
        driven_by: Some("RequestRate=131%".into()),
        reason: String::new(),
        signals: vec![],
    });
    scene.view.addresses = vec!["127.0.0.1:80".into()];
    scene.publish(1).derive();
    let status = scene.fleet();
    let config = scene.view.published.map(|hash: Hash| hash.short());
    assert_eq!((status.ready.as_deref(), status.desired_replicas, &status.config), (Some("2/2"), 8, &config));
    assert_eq!(status.driven_by.as_deref(), Some("RequestRate=131%"));
    assert_eq!((status.programmed_replicas, status.addresses.as_slice()), (1, &["127.0.0.1:80".to_owned()][..]));
}

#[test]
fn what_moves_the_number_of_replicas() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    scene.check(Kind::GatewayFleet, "ScalingActive", ("Unknown", "Pending", "nothing is decided yet", 1));
    for (mode, status) in [("Managed", "True"), ("External", "False"), ("DryRun", "False"), ("Paused", "False")] {
        let entry = scene.world.objects.get_mut(&object(Kind::GatewayFleet)).unwrap();
        let crds::Object::GatewayFleet(mut fleet) = entry.current.clone().unwrap().as_ref().clone() else { panic!() };
        fleet.spec.scaling.mode = serde_json::from_value(mode.into()).unwrap();
        let spec = fleet.spec.clone();
        entry.current = Ok(Arc::new(crds::Object::GatewayFleet(fleet)));
        let settings = crate::fleet::FleetSettings {
            spec,
            memory_bytes: None,
            cpu_cores: None,
            rates: BTreeMap::new(),
            generation: 1,
            uid: String::new(),
            container_ports: BTreeMap::new(),
        };
        let observed = crate::scale::Observed { current: 2, ready: 2 };
        let decision = crate::scale::Scaler::default().decide(&settings, observed, Millis(0));
        scene.view.decision = Some(decision.clone());
        scene.derive();
        let found = conditions::find(scene.fleet().conditions.as_slice(), "ScalingActive").unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str(), &found.message), (status, mode, &decision.reason));
        assert!(mode != "DryRun" || found.message.starts_with("dry run: stays at 2; Managed would be 2"), "{found:?}");
    }
}

#[test]
fn a_route_whose_every_listener_is_closed_is_not_programmed() {
    let mut scene = Scene::new();
    let entry = scene.world.objects.get_mut(&object(Kind::GatewayFleet)).unwrap();
    let crds::Object::GatewayFleet(mut fleet) = entry.current.clone().unwrap().as_ref().clone() else { panic!() };
    let mut second = fleet.spec.listeners[0].clone();
    (second.name, second.port) = ("more".into(), 81);
    fleet.spec.listeners.push(second);
    entry.current = Ok(Arc::new(crds::Object::GatewayFleet(fleet)));
    scene.publish(2).derive();
    let all = [Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy];
    for kind in all {
        scene.check(kind, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    }

    let close = |scene: &mut Scene, listener: &str| {
        scene.view.withheld.insert(Key::listener("ns", "default", listener), "port 80 is in use".into());
    };
    close(&mut scene, "http");
    scene.derive();
    let message = "Listener/ns/default/http is not served: port 80 is in use";
    scene.check(Kind::GatewayFleet, "Programmed", ("False", "ListenerNotProgrammed", message, 2));
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    close(&mut scene, "more");
    scene.derive();
    scene.check(Kind::ApiRoute, "Programmed", ("False", "ListenerNotProgrammed", message, 3));
    scene.check(Kind::ApiRoute, "Accepted", ("True", "Accepted", "attached", 1));
    scene.view.withheld.clear();
    scene.derive();
    for (kind, since) in all.into_iter().zip([4, 4, 1]) {
        scene.check(kind, "Programmed", ("True", "Programmed", EVERYWHERE, since));
    }
}

#[test]
fn how_often_a_policy_bites() {
    let check = |checked, limited, expect: Option<&str>| {
        let mut scene = Scene::new();
        scene.view.policies = BTreeMap::from([(key(ResourceKind::RatePolicy), (checked, limited))]);
        scene.derive();
        let Status::Policy(status) = &scene.statuses[&object(Kind::RatePolicy)] else { panic!() };
        assert_eq!(status.limited.as_deref(), expect);
        assert_eq!(status.targets, 1);
    };
    check(0, 0, None);
    check(1000, 0, Some("0%"));
    check(1000, 4, Some("0.4%"));
    check(100_000, 1, Some("<0.1%"));
    check(10, 9, Some("90%"));
    check(10, 11, Some("100%"));
}

#[test]
fn a_fleet_that_does_not_serve_a_policy_does_not_count_for_it() {
    let mut scene = Scene::new();
    let key = key(ResourceKind::RatePolicy);
    scene.view.policies = BTreeMap::from([(key.clone(), (1000, 100))]);
    let plan = plan(&scene.world);
    let other = FleetView { policies: BTreeMap::from([(key, (1000, 1000))]), ..FleetView::default() };
    let own = FleetRef::from(&object(Kind::GatewayFleet));
    let fleets =
        BTreeMap::from([(own.clone(), scene.view.clone()), (FleetRef { name: "former".into(), ..own }, other)]);
    let statuses = statuses(&scene.world, &plan, &fleets, &BTreeMap::new(), Millis(0));
    let Status::Policy(status) = &statuses[&object(Kind::RatePolicy)] else { panic!() };
    assert_eq!(status.limited.as_deref(), Some("10%"));
}

#[test]
fn long_messages_are_cut() {
    let verdict = conditions::Verdict::bad("Invalid", "é".repeat(5_000));
    let condition = verdict.condition("Accepted", 1, &[], Millis(0));
    assert!(condition.message.len() < 4_100 && condition.message.ends_with("é ..."));
}

/// Proxies that are always one push behind, since a neighbour changes something all the time, run what is older.
#[test]
fn what_a_neighbour_changes_keeps_nobody_waiting() {
    let mut scene = Scene::new();
    scene.publish(2).derive().edit().publish(1).edit_neighbour().publish(0).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("False", "Pending", "1 of 2 proxies", 2));
    scene.check(Kind::RatePolicy, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    scene.publish(2).derive();
    scene.edit().publish(2).edit_neighbour().publish(0).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 3));
    scene.check(Kind::GatewayFleet, "Programmed", ("False", "Pending", "0 of 2 proxies", 4));
    // Nor does a change of the neighbour's that is not rolled out.
    scene.view.halted = Some("harm".into());
    scene.edit().publish(2).edit_neighbour().publish(0).derive();
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 3));
}

/// Another operator begins to lead: it knows every plan at once, and hears proxies one by one.
#[test]
fn silence_of_proxies_that_had_no_time_to_speak_says_nothing() {
    let mut scene = Scene::new();
    scene.publish(2).derive();
    scene.view.settling = true;
    scene.view.proxies.iter_mut().for_each(|proxy| (proxy.ready, proxy.revision) = (false, None));
    scene.edit().publish(0).derive();
    let route = &scene.statuses[&object(Kind::ApiRoute)];
    let of = |type_| conditions::find(route.conditions(), type_).unwrap();
    assert_eq!(of("Accepted").observed_generation, Some(2), "what is planned is said at once");
    assert_eq!((of("Programmed").status.as_str(), of("Programmed").observed_generation), ("True", Some(1)));
    scene.check(Kind::GatewayFleet, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    assert_eq!((scene.fleet().ready.as_deref(), scene.fleet().programmed_replicas), (Some("2/2"), 2));
    // Of a route that came meanwhile, what plans say is said, and nothing of the proxies.
    scene.statuses.remove(&object(Kind::ApiRoute));
    scene.derive();
    let route = &scene.statuses[&object(Kind::ApiRoute)];
    let types: Vec<&str> = route.conditions().iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["Accepted", "ResolvedRefs"]);
    scene.view.settling = false;
    scene.derive();
    scene.check(Kind::ApiRoute, "Programmed", ("False", "Pending", "no proxy is Ready yet", 4));
    assert_eq!(scene.fleet().ready.as_deref(), Some("0/2"));
}

impl Scene {
    /// A consumer with one credential.
    fn with_consumer() -> (Self, ObjectRef) {
        let mut scene = Self::new();
        let consumer = serde_json::json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "Consumer", "metadata": {"name": "a", "namespace": "ns"},
            "spec": {"credentials": [{"type": "APIKey", "secretRef": {"name": "a"}}]},
        });
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": {"api-key": "k3y"},
            "metadata": {"name": "a", "namespace": "ns", "labels": {"sluice.dev/credential": "api-key"}},
        });
        let any = scene.world.objects[&object(Kind::RatePolicy)].clone();
        let id = |kind| ObjectRef { kind, namespace: "ns".into(), name: "a".into() };
        for (kind, value) in [(Kind::Consumer, consumer), (Kind::Secret, secret)] {
            let current = Ok(Arc::new(crds::admit(value).unwrap()));
            scene.world.objects.insert(id(kind), WorldObject { current, ..any.clone() });
        }
        (scene, id(Kind::Consumer))
    }

    /// Reason and message of `Programmed`, and the number of credentials.
    fn consumer(&self, id: &ObjectRef) -> (String, String, u32) {
        let Status::Consumer(status) = &self.statuses[id] else { panic!() };
        let found = conditions::find(&status.conditions, "Programmed").unwrap();
        (found.reason.clone(), found.message.clone(), status.credentials)
    }
}

/// A proxy that does not know a kind has none of its resources: it is not counted as if it had, and nothing else is held
/// against it.
#[test]
fn a_proxy_that_is_older_than_a_kind_does_not_run_it() {
    let (mut scene, id) = Scene::with_consumer();
    scene.view.proxies[1].unknown = vec![ResourceKind::Consumer];
    scene.publish(2).derive();
    let message = "1 of 2 proxies: p2 is older than the operator, does not know the kind Consumer, and is sent none: finish the \
                   upgrade";
    assert_eq!(scene.consumer(&id), ("ProxyOutdated".into(), message.into(), 1));
    scene.check(Kind::ApiRoute, "Programmed", ("True", "Programmed", EVERYWHERE, 1));
    // It leaves, which is the end of it.
    scene.view.proxies[1].draining = true;
    scene.derive();
    assert_eq!(scene.consumer(&id).0, "Programmed");
}

/// Credentials are counted that are in force: of what proxies refuse, those of what they run instead.
#[test]
fn credentials_of_a_consumer_that_proxies_refuse() {
    let (mut scene, id) = Scene::with_consumer();
    scene.publish(2).derive();
    assert_eq!(scene.consumer(&id), ("Programmed".into(), EVERYWHERE.into(), 1));
    let key = Key::new(ResourceKind::Consumer, "ns", "a");
    let nack = Nack { field: "credentials[0]".into(), reason: "Fault".into(), message: "no".into(), ..Nack::default() };
    scene.view.rolled_back = BTreeMap::from([(key.clone(), nack)]);
    let message = "Consumer ns/a: credentials[0]: no [Fault]; proxies refuse it, and what was acknowledged last runs instead \
                   (nothing before: nobody is known by its credentials)";
    assert_eq!(scene.derive().consumer(&id), ("ProxyRejected".into(), message.into(), 1));
    for proxy in &mut scene.view.proxies {
        proxy.content.as_mut().unwrap().remove(&key);
    }
    assert_eq!(scene.derive().consumer(&id).2, 0);
    // Nobody serves its namespace.
    scene.view.rolled_back.clear();
    scene.world.objects.remove(&object(Kind::ApiRoute));
    scene.world.objects.remove(&object(Kind::GatewayFleet));
    assert_eq!(scene.derive().consumer(&id).2, 0);
}
