//! Who has a hostname from world to world: routes that are edited, deleted and made anew, operators that begin anew, and
//! namespaces that try to come by what is another's. (`testdata/attach/hostnames.yaml`: within one world.)
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use planner::{
    Cluster, Holds, Kind, Millis, ObjectRef, Plan, World,
    holds::{GRACE, MAX_LEFT},
    plan,
};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};
use snapshot::proto::{self, resource};

const HTTP: &str = "{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}";
const MORE: &str = "{name: more, protocol: HTTP, port: 81, allowedRoutes: {namespaces: {from: All}}}";

/// Worlds one after the other, as an operator has them.
struct Story {
    world: World,
    plan: Plan,
}

fn object(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.into(), name: name.into() }
}

impl Story {
    fn new() -> Self {
        let fleet = format!(
            "{{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {{name: default, namespace: infra}},
               spec: {{listeners: [{HTTP}, {MORE}]}}}}"
        );
        let mut story = Self { world: support::world(&fleet), plan: Plan::default() };
        story.turn(0);
        story
    }

    /// A route of `namespace/name`, made in that second if there is none.
    fn route(&mut self, path: &str, second: u64, spec: &Value) {
        let (namespace, name) = path.split_once('/').unwrap();
        let id = object(Kind::ApiRoute, namespace, name);
        let created = self.world.objects.get(&id).map_or(Some(Millis(second * 1000)), |entry| entry.created);
        let mut whole = json!({"rules": [{"backendRefs": [{"address": "127.0.0.1:9000"}]}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let document = json!({
            "apiVersion": crds::API_VERSION, "kind": "ApiRoute",
            "metadata": {"namespace": namespace, "name": name}, "spec": whole,
        });
        support::add(&mut self.world, document, true);
        let entry = self.world.objects.get_mut(&id).unwrap();
        assert!(entry.current.is_ok(), "{:?}", entry.current);
        (entry.created, entry.accepted) = (created, None);
        self.turn(second);
    }

    fn hosts(&mut self, path: &str, second: u64, hostnames: &[&str]) {
        self.route(path, second, &json!({"hostnames": hostnames}));
    }

    fn delete(&mut self, path: &str, second: u64) {
        let (namespace, name) = path.split_once('/').unwrap();
        self.world.objects.remove(&object(Kind::ApiRoute, namespace, name)).unwrap();
        self.turn(second);
    }

    fn turn(&mut self, second: u64) {
        self.world.now = Millis(second * 1000);
        self.plan = plan(&self.world);
        self.world.holds = Arc::clone(&self.plan.holds);
    }

    /// Every operator ended, and a new one has what they kept.
    fn restart(&mut self, second: u64) {
        let text = serde_json::to_string(&self.plan.holds.kept()).unwrap();
        self.world.holds = Arc::new(Holds::recalled(serde_json::from_str::<Vec<_>>(&text).unwrap()));
        self.turn(second);
    }

    fn resources(&self) -> impl Iterator<Item = (String, resource::Kind)> {
        let snapshot = &self.plan.fleets.values().next().unwrap().snapshot;
        snapshot.iter().filter_map(|(key, entry)| Some((key.namespace().to_owned(), entry.kind()?)))
    }

    /// Whose routes serve each hostname, on whichever listener.
    fn served(&self) -> BTreeMap<String, String> {
        let mut served: BTreeMap<String, String> = BTreeMap::new();
        for (namespace, kind) in self.resources() {
            let resource::Kind::Route(route) = kind else { continue };
            for host in route.attachments.into_iter().flat_map(|attachment| attachment.hostnames) {
                let known = served.entry(host.clone()).or_insert_with(|| namespace.clone());
                assert_eq!(*known, namespace, "{host} is served by two");
            }
        }
        served
    }

    #[track_caller]
    fn serves(&self, host: &str, expect: Option<&str>) {
        assert_eq!(self.served().get(host).map(String::as_str), expect, "{host}: {:#?}", self.plan.problems);
    }

    /// What proxies are told besides.
    fn held(&self) -> Vec<proto::HeldHostnames> {
        let held = |kind| if let resource::Kind::Fleet(fleet) = kind { Some(fleet.held) } else { None };
        self.resources().find_map(|(_, kind)| held(kind)).unwrap()
    }

    #[track_caller]
    fn says(&self, path: &str, reason: &str, part: &str) {
        let (namespace, name) = path.split_once('/').unwrap();
        let object = Some(object(Kind::ApiRoute, namespace, name));
        let found =
            self.plan.problems.iter().any(|p| p.object == object && p.reason == reason && p.message.contains(part));
        assert!(found, "{path} {reason} {part}: {:#?}", self.plan.problems);
    }
}

/// Below wildcards, with delegates, and where the fleet assigns: who serves what, and what is said to whom.
#[test]
fn within_one_world() {
    let mut story =
        Story { world: support::world(include_str!("../testdata/attach/hostnames.yaml")), plan: Plan::default() };
    story.turn(0);
    let said: Vec<String> = story.plan.problems.iter().map(ToString::to_string).collect();
    let expect: Vec<&str> = include_str!("../testdata/attach/hostnames.problems").lines().collect();
    assert_eq!(said, expect);
    let served = [
        ("*.example", "evil"),
        ("*.shop.example", "shop"),
        ("a.team.shop.example", "team"),
        ("books.shop.example", "pay"),
        ("free.example", "evil"),
        ("x.pay.example", "pay"),
        ("young.example", "young"),
    ];
    assert_eq!(story.served(), served.map(|(host, namespace)| (host.to_owned(), namespace.to_owned())).into());
    let held = |namespace: &str, host: &str| proto::HeldHostnames {
        namespace: namespace.into(),
        hostnames: vec![host.into()],
    };
    assert_eq!(story.held(), [held("", "*.pay.example"), held("bank", "bank.example")]);
}

#[test]
fn an_old_route_that_is_edited_takes_nothing_from_a_younger_one() {
    let mut story = Story::new();
    story.hosts("evil/old", 1, &["junk.example"]);
    story.hosts("shop/api", 100, &["api.shop.example"]);
    story.hosts("evil/old", 200, &["junk.example", "api.shop.example", "*.shop.example"]);
    story.serves("api.shop.example", Some("shop"));
    story.says("evil/old", "Conflicted", "host api.shop.example");
    story.says("shop/api", "HostnamesClaimed", "ApiRoute evil/old claims host api.shop.example");
    // Nor after all operators began anew, though by its age it would.
    for second in [300, 400] {
        story.restart(second);
        story.serves("api.shop.example", Some("shop"));
        story.serves("*.shop.example", Some("evil"));
    }
    // Its late wildcard decides on nothing that came before, and on what comes after.
    story.hosts("pay/w", 500, &["www.shop.example"]);
    story.serves("www.shop.example", None);
    story.says("pay/w", "Conflicted", "lies below *.shop.example");
}

#[test]
fn an_edit_keeps_what_else_a_route_has() {
    let mut story = Story::new();
    story.hosts("shop/api", 1, &["a.shop.example"]);
    story.hosts("evil/claim", 2, &["a.shop.example", "b.shop.example"]);
    story.hosts("shop/api", 3, &["a.shop.example", "b.shop.example", "c.shop.example"]);
    for (host, namespace) in [("a", "shop"), ("b", "evil"), ("c", "shop")] {
        story.serves(&format!("{host}.shop.example"), Some(namespace));
    }
}

#[test]
fn a_route_that_is_deleted_and_made_anew_finds_its_hostnames() {
    let mut story = Story::new();
    story.hosts("evil/any", 1, &["*.example"]);
    story.hosts("shop/api", 2, &["api.shop.example"]);
    story.hosts("evil/waits", 3, &["api.shop.example"]);
    story.delete("shop/api", 10);
    story.serves("api.shop.example", None);
    story.says("evil/waits", "Conflicted", "stays with it until 1970-01-01T00:05:10Z");
    // Proxies know it, so that the wildcard does not answer for it.
    let expect = proto::HeldHostnames { namespace: "shop".into(), hostnames: vec!["api.shop.example".into()] };
    assert_eq!(story.held(), std::slice::from_ref(&expect));
    story.restart(100);
    assert_eq!(story.held(), [expect]);
    story.hosts("shop/another", 200, &["api.shop.example"]);
    story.serves("api.shop.example", Some("shop"));
    assert_eq!(story.held(), []);
    // Left again, and for good.
    story.delete("shop/another", 300);
    let grace = GRACE.as_secs();
    assert_eq!(story.plan.holds.next_end(), Some(Millis((300 + grace) * 1000)));
    story.turn(299 + grace);
    story.serves("api.shop.example", None);
    story.turn(300 + grace);
    story.serves("api.shop.example", Some("evil"));
    assert_eq!(story.plan.holds.next_end(), None);
}

#[test]
fn a_namespace_that_is_gone_keeps_nothing() {
    let mut story = Story::new();
    story.world.cluster = Some(Cluster { operator_namespace: "infra".into(), ..Cluster::default() });
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    support::add(&mut story.world, namespace("hostile"), true);
    story.hosts("hostile/many", 1, &["*.shop.example", "a.example", "b.example"]);
    story.hosts("shop/api", 2, &["a.example", "api.shop.example"]);
    story.delete("hostile/many", 3);
    story.serves("a.example", None);
    story.world.objects.remove(&object(Kind::Namespace, "", "hostile")).unwrap();
    story.turn(4);
    story.serves("a.example", Some("shop"));
    story.serves("api.shop.example", Some("shop"));
    let kept = serde_json::to_string(&story.plan.holds.kept()).unwrap();
    assert!(story.held().is_empty() && !kept.contains("hostile"), "{kept}");
}

#[test]
fn what_is_left_is_bounded_for_each_namespace() {
    let mut story = Story::new();
    let names = |round: usize, n: usize| (0..n).map(|i| format!("h{i}.r{round}.example")).collect::<Vec<_>>();
    story.hosts("shop/api", 1, &["api.shop.example"]);
    for round in 0..40 {
        for part in 0..10 {
            let names: Vec<String> = names(round, 640).split_off(part * 64)[..64].to_vec();
            story.route(&format!("hostile/r{part}"), 2, &json!({"hostnames": names}));
        }
    }
    (0..10).for_each(|part| story.delete(&format!("hostile/r{part}"), 3));
    story.delete("shop/api", 3);
    let held = story.held();
    let count =
        |namespace: &str| held.iter().filter(|h| h.namespace == namespace).map(|h| h.hostnames.len()).sum::<usize>();
    assert_eq!((count("shop"), count("hostile")), (1, MAX_LEFT));
}

#[test]
fn a_hostname_is_handed_over_without_a_wait() {
    let mut story = Story::new();
    story.hosts("old/api", 1, &["api.shop.example"]);
    story.route(
        "old/api",
        2,
        &json!({
            "hostnames": ["api.shop.example"],
            "delegates": [{"namespaces": ["new"], "hostnames": ["api.shop.example"]}],
        }),
    );
    story.hosts("evil/waits", 3, &["api.shop.example"]);
    story.hosts("new/api", 4, &["api.shop.example"]);
    story.serves("api.shop.example", Some("old"));
    story.delete("old/api", 5);
    story.serves("api.shop.example", Some("new"));
    assert_eq!(story.held(), []);
    story.restart(6);
    story.serves("api.shop.example", Some("new"));
}

#[test]
fn whoever_has_a_host_below_a_wildcard_keeps_it_when_that_is_made_anew() {
    let mut story = Story::new();
    let wildcard = json!({
        "hostnames": ["*.shop.example"],
        "delegates": [{"namespaces": ["team"], "hostnames": ["a.shop.example"]}],
    });
    story.route("shop/all", 1, &wildcard.clone());
    story.hosts("team/a", 2, &["a.shop.example"]);
    story.serves("a.shop.example", Some("team"));
    story.delete("shop/all", 3);
    story.serves("a.shop.example", Some("team"));
    story.restart(4);
    story.serves("a.shop.example", Some("team"));
    story.hosts("evil/b", 5, &["b.shop.example"]);
    story.serves("b.shop.example", None);
    // And loses it when the holder takes it back.
    story.route("shop/all", 6, &json!({"hostnames": ["*.shop.example"]}));
    story.serves("a.shop.example", None);
    story.says("team/a", "Conflicted", "spec.delegates");
    story.route("shop/all", 7, &wildcard);
    story.serves("a.shop.example", Some("team"));
}

#[test]
fn a_listener_that_serves_nothing_gives_its_hostnames_to_nobody() {
    let mut story = Story::new();
    let fleet = format!(
        "{{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {{name: default, namespace: infra}}, spec: {{listeners:
           [{HTTP}, {{name: https, protocol: HTTPS, port: 443, tls: {{certificateRefs: [{{name: none}}]}},
             allowedRoutes: {{namespaces: {{from: All}}}}}}]}}}}"
    );
    story.world.objects.extend(support::world(&fleet).objects);
    let only = |section: &str| json!([{"name": "default", "namespace": "infra", "sectionName": section}]);
    story.route("shop/api", 1, &json!({"parentRefs": only("https"), "hostnames": ["api.shop.example"]}));
    story.route("evil/any", 2, &json!({"parentRefs": only("http")}));
    story.route("evil/same", 3, &json!({"parentRefs": only("http"), "hostnames": ["api.shop.example"]}));
    story.serves("api.shop.example", None);
    assert_eq!(
        story.held(),
        [proto::HeldHostnames { namespace: "shop".into(), hostnames: vec!["api.shop.example".into()] }]
    );
}

const HOSTS: [&str; 6] =
    ["a.shop.example", "*.shop.example", "*.a.shop.example", "x.a.shop.example", "*.example", "a.example"];

#[derive(Clone, Debug)]
enum Step {
    Route(usize, BTreeSet<&'static str>),
    Delete(usize),
    Restart,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6usize, proptest::collection::btree_set(select(HOSTS.to_vec()), 1..4)).prop_map(|(n, h)| Step::Route(n, h)),
        3 => (0..6usize).prop_map(Step::Delete),
        1 => Just(Step::Restart),
        1 => (1..400u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever serves a hostname goes on serving it as long as it claims it, whatever others do and whoever restarts.
    #[test]
    fn nobody_loses_a_hostname_to_another(steps in proptest::collection::vec(step(), 1..25)) {
        const ROUTES: [&str; 6] = ["a/x", "a/y", "b/x", "b/y", "a-b/x", "c/x"];
        let (mut story, mut second) = (Story::new(), 1);
        let mut claims: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for step in steps {
            second += 1;
            let before = story.served();
            match step {
                Step::Route(n, hosts) => {
                    story.route(ROUTES[n], second, &json!({"hostnames": hosts}));
                    claims.insert(n, hosts);
                }
                Step::Delete(n) if claims.remove(&n).is_some() => story.delete(ROUTES[n], second),
                Step::Delete(_) => {}
                Step::Restart => story.restart(second),
                Step::Wait(more) => {
                    second += more;
                    story.turn(second);
                }
            }
            let after = story.served();
            for (host, namespace) in before {
                let of = |n: &usize| ROUTES[*n].split('/').next() == Some(namespace.as_str());
                if claims.iter().any(|(n, hosts)| of(n) && hosts.contains(host.as_str())) {
                    prop_assert_eq!(after.get(&host), Some(&namespace), "{} after {:?}", host, claims);
                } else {
                    // Left: to nobody else at once.
                    prop_assert!(after.get(&host).is_none_or(|other| *other == namespace), "{host}");
                }
            }
        }
    }
}
