//! What holds of every world: no panic, only executable resources, and no broken object that changes another.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::collections::BTreeMap;

use crds::Violation;
use planner::{FleetView, Planner, ProxyView, Severity, World, plan, statuses};
use proptest::{prelude::*, sample::select, strategy::ValueTree};
use serde_json::{Value, json};
use snapshot::check;

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["default", "a", "b", "c"])
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["x", "y"])
}

fn maybe<S: Strategy<Value = Value>>(strategy: S) -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), strategy]
}

fn text(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(words).prop_map(Value::from)
}

/// Nearly always one that is valid: an object with one bad field is rejected as a whole.
fn mostly(good: &'static [&'static str], bad: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![30 => text(good), 1 => text(bad)]
}

fn hostname() -> impl Strategy<Value = Value> {
    mostly(&["a.example", "*.example", "b.a.example", "*.a.example", "other.test"], &["A.example", "bad..name"])
}

fn list<S: Strategy<Value = Value>>(item: S, most: usize) -> impl Strategy<Value = Value> {
    proptest::collection::vec(item, 0..=most).prop_map(Value::from)
}

/// Nearly always one at least.
fn some<S: Strategy<Value = Value>>(item: S, most: usize) -> impl Strategy<Value = Value> {
    (proptest::collection::vec(item, 1..=most), 0..30u8)
        .prop_map(|(items, none)| if none == 0 { json!([]) } else { Value::from(items) })
}

fn fleet() -> impl Strategy<Value = Value> {
    let secret = (name(), maybe(namespace().prop_map(Value::from)));
    let secret = secret.prop_map(|(name, namespace)| json!({"name": name, "namespace": namespace}));
    let listener = (
        name(),
        prop_oneof![1 => Just(0), 30 => 1..5u16],
        any::<bool>(),
        maybe(hostname()),
        list(secret, 2),
        text(&["All", "Same"]),
    );
    let listener = listener.prop_map(|(name, port, https, hostname, secrets, from)| {
        json!({
            "name": format!("{name}{port}"), "port": port, "protocol": if https { "HTTPS" } else { "HTTP" }, "hostname": hostname,
            "tls": if https { json!({"certificateRefs": secrets}) } else { Value::Null },
            "allowedRoutes": {"namespaces": {"from": from}},
        })
    });
    let target = prop_oneof![
        Just(json!({"type": "CPU", "averageUtilization": 50})),
        Just(json!({"type": "Memory", "averageUtilization": 50})),
        mostly(&["4k", "1.5"], &["0", "x"]).prop_map(|value| json!({"type": "RequestRate", "averageValue": value})),
    ];
    (some(listener, 3), some(target, 1), maybe(mostly(&["256Mi"], &["0", "é"]))).prop_map(|(listeners, targets, memory)| {
        json!({"listeners": listeners, "scaling": {"targets": targets}, "template": {"resources": {"limits": {"memory": memory}}}})
    })
}

fn backend() -> impl Strategy<Value = Value> {
    let service = (name(), maybe(namespace().prop_map(Value::from)), 80..83u16);
    prop_oneof![
        service.prop_map(|(name, namespace, port)| json!({"name": name, "namespace": namespace, "port": port})),
        (
            mostly(&["127.0.0.1:9000", "[::1]:9000"], &["x:1", "1.2.3.4:99999"]),
            maybe(mostly(&["kubernetes.io/h2c"], &["x"])),
        )
            .prop_map(|(address, protocol)| json!({"address": address, "appProtocol": protocol})),
    ]
}

fn route() -> impl Strategy<Value = Value> {
    let parent = (name(), maybe(namespace().prop_map(Value::from)), maybe(text(&["a1", "b2", "c3"])));
    let parent = parent
        .prop_map(|(name, namespace, section)| json!({"name": name, "namespace": namespace, "sectionName": section}));
    let path =
        (text(&["Exact", "PathPrefix", "RegularExpression"]), mostly(&["/", "/a", "/a/", "/[a-z]+"], &["/(", "x"]));
    let path = path.prop_map(|(kind, value)| json!({"type": kind, "value": value}));
    let header =
        (text(&["Exact", "RegularExpression"]), mostly(&["x", "X-A"], &["bad name"]), mostly(&["1", "a|b"], &["("]));
    let header = header.prop_map(|(kind, name, value)| json!({"type": kind, "name": name, "value": value}));
    let matching = (maybe(path), maybe(text(&["GET", "POST"])), list(header, 1));
    let matching =
        matching.prop_map(|(path, method, headers)| json!({"path": path, "method": method, "headers": headers}));
    let redirect = || json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "new.example"}});
    let filter = prop_oneof![
        10 => mostly(&["x-a"], &["host", "é"]).prop_map(|name| json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": name, "value": "1"}]},
        })),
        1 => Just(json!({"type": "URLRewrite"})),
    ];
    let rule = (maybe(text(&["r", "s", "0"])), list(matching, 2), list(filter, 1), list(backend(), 3), 0..20u8);
    let rule = rule.prop_map(move |(name, matches, mut filters, backends, wrong)| {
        // A rule redirects, or has backends.
        if (backends == json!([])) == (wrong > 0) {
            filters = json!([redirect()]);
        }
        json!({"name": name, "matches": matches, "filters": filters, "backendRefs": backends})
    });
    (list(parent, 2), list(hostname(), 2), some(rule, 2))
        .prop_map(|(parents, hostnames, rules)| json!({"parentRefs": parents, "hostnames": hostnames, "rules": rules}))
}

fn policy() -> impl Strategy<Value = Value> {
    let target = (mostly(&["ApiRoute", "GatewayFleet"], &["Pod"]), name(), maybe(text(&["0", "r"])));
    let target = target.prop_map(
        |(kind, name, section)| json!({"group": "sluice.dev", "kind": kind, "name": name, "sectionName": section}),
    );
    let key = prop_oneof![
        maybe((1..129u8).prop_map(Value::from)).prop_map(|bits| json!({"type": "ClientIP", "prefixLength": bits})),
        mostly(&["x", "X-B"], &["bad name"]).prop_map(|name| json!({"type": "Header", "name": name})),
    ];
    let limit = (name(), list(key, 2), prop_oneof![1 => Just(0), 30 => 1..3u32], mostly(&["1s", "1m"], &["0s"]));
    let limit = limit.prop_map(
        |(name, key, rate, per)| json!({"name": name, "key": key, "tokenBucket": {"rate": rate, "per": per}}),
    );
    (some(target, 2), some(limit, 1)).prop_map(|(targets, limits)| json!({"targetRefs": targets, "limits": limits}))
}

fn document() -> impl Strategy<Value = Value> {
    let ours = |kind: &'static str, spec: Value| json!({"apiVersion": crds::API_VERSION, "kind": kind, "spec": spec});
    let service = list((80..83u16).prop_map(|port| json!({"name": format!("p{port}"), "port": port})), 2);
    let slice = (name(), list(mostly(&["10.0.0.1", "10.0.0.2"], &["fd00::1", "backend.example"]), 2));
    let (certificate, key) = (include_str!("../testdata/tls/a.crt"), include_str!("../testdata/tls/a.key"));
    let content = prop_oneof![
        2 => fleet().prop_map(move |spec| ours("GatewayFleet", spec)),
        4 => route().prop_map(move |spec| ours("ApiRoute", spec)),
        2 => policy().prop_map(move |spec| ours("RatePolicy", spec)),
        1 => service.prop_map(|ports| json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": ports}})),
        1 => slice.prop_map(|(service, addresses)| {
            let endpoints: Vec<_> = addresses.as_array().unwrap().iter().map(|a| json!({"addresses": [a]})).collect();
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"labels": {"kubernetes.io/service-name": service}},
                "ports": [{"name": "p80", "port": 8080}], "endpoints": endpoints,
            })
        }),
        1 => any::<bool>().prop_map(move |good| json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": if good { certificate } else { "?" }, "tls.key": key},
        })),
    ];
    (content, name(), namespace()).prop_map(|(mut document, name, namespace)| {
        document["metadata"]["name"] = name.into();
        document["metadata"]["namespace"] = namespace.into();
        strip(document)
    })
}

/// Drops what is null: a field that is not there.
fn strip(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, strip(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(strip).collect()),
        value => value,
    }
}

/// A world of documents as admission leaves them, and, so that nothing relies on it, of documents that only decode.
fn world() -> impl Strategy<Value = World> {
    let documents = proptest::collection::vec((document(), any::<bool>()), 0..14);
    documents.prop_map(|documents| {
        // A sound fleet, unless a document takes its place: most routes have somewhere to attach.
        let mut world = support::world(
            r#"{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: x}, spec:
                {listeners: [{name: a1, protocol: HTTP, port: 1, allowedRoutes: {namespaces: {from: All}}}]}}"#,
        );
        for (document, admitted) in documents {
            support::add(&mut world, document, admitted);
        }
        world
    })
}

fn revisions(world: &World) -> Vec<snapshot::Hash> {
    plan(world).fleets.values().map(|fleet| fleet.snapshot.revision()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn everything_that_is_planned_can_be_executed(world in world()) {
        let plan = plan(&world);
        for fleet in plan.fleets.values() {
            for (key, entry) in fleet.snapshot.iter() {
                let fit = check::resource(key, &entry.decode().unwrap());
                prop_assert!(fit.is_ok(), "{key}: {fit:?}");
                prop_assert!(fleet.sources.contains_key(key));
                prop_assert_eq!(&key.to_string().parse::<snapshot::Key>().unwrap(), key);
            }
            prop_assert_eq!(fleet.sources.len(), fleet.snapshot.len());
        }
        for problem in &plan.problems {
            prop_assert!(!problem.message.is_empty() && !problem.reason.is_empty());
            prop_assert!(world.objects.contains_key(problem.object.as_ref().unwrap()));
        }
        for object in &plan.accepted {
            prop_assert!(world.objects[object].current.is_ok());
        }
        let rejected: Vec<_> =
            plan.problems.iter().filter(|p| p.severity == Severity::Rejected).filter_map(|p| p.object.as_ref()).collect();
        for object in world.objects.keys() {
            prop_assert_eq!(plan.accepted.contains(object), !rejected.contains(&object), "{}", object);
        }
    }

    #[test]
    fn a_broken_object_changes_nothing(world in world(), which in any::<prop::sample::Index>()) {
        let plan = plan(&world);
        prop_assume!(!plan.accepted.is_empty());
        let object = plan.accepted.iter().nth(which.index(plan.accepted.len())).unwrap();
        let mut broken = world.clone();
        let entry = broken.objects.get_mut(object).unwrap();
        entry.accepted = entry.current.clone().ok();
        entry.current = Err(vec![Violation { path: "spec".into(), message: "is broken".into() }]);
        prop_assert_eq!(revisions(&world), revisions(&broken));
    }

    #[test]
    fn what_was_planned_before_makes_no_difference(worlds in proptest::collection::vec(world(), 1..4)) {
        let (mut planner, mut world) = (Planner::default(), World::default());
        for changes in worlds {
            // Some objects are new, some changed, the others stay.
            world.objects.extend(changes.objects);
            let (anew, after) = (plan(&world), planner.plan(&world));
            prop_assert_eq!(anew.problems, after.problems);
            prop_assert_eq!(anew.accepted, after.accepted);
            let content = |plan: &BTreeMap<_, planner::plan::PlannedFleet>| -> Vec<_> {
                plan.values().map(|fleet| (fleet.settings.clone(), fleet.snapshot.clone(), fleet.sources.clone())).collect()
            };
            prop_assert_eq!(content(&anew.fleets), content(&after.fleets));
        }
    }

    #[test]
    fn every_status_is_one_that_the_api_server_takes(world in world(), ready in 0..3usize) {
        let plan = plan(&world);
        let views = plan.fleets.iter().map(|(fleet, planned)| {
            let revision = Some(planned.snapshot.revision());
            let proxy = ProxyView { name: "p".into(), ready: true, revision, ..ProxyView::default() };
            (fleet.clone(), FleetView { proxies: vec![proxy; ready], published: revision, ..FleetView::default() })
        });
        let views = views.collect();
        let first = statuses(&world, &plan, &views, &BTreeMap::new(), support::NOW);
        for (object, status) in &first {
            let conditions = status.conditions();
            prop_assert!((3..=8).contains(&conditions.len()));
            for condition in conditions {
                prop_assert_eq!(condition.observed_generation, Some(world.objects[object].generation));
                prop_assert!(condition.message.len() <= 32_768 && !condition.message.is_empty());
                let reason: Vec<char> = condition.reason.chars().collect();
                prop_assert!(reason[0].is_ascii_uppercase() && reason.iter().all(char::is_ascii_alphanumeric));
            }
        }
        // Nothing happened: nothing is written, whatever the time.
        let later = statuses(&world, &plan, &views, &first, planner::Millis(support::NOW.0 + 1_000_000));
        prop_assert_eq!(first, later);
    }
}

#[test]
fn what_only_decodes_is_planned_too() {
    // Guards the properties themselves: the documents above are not all refused.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut resources, mut problems) = (0, 0);
    for _ in 0..200 {
        let world = world().new_tree(&mut runner).unwrap().current();
        let plan = plan(&world);
        resources += plan.fleets.values().map(|f| f.snapshot.len()).sum::<usize>();
        problems += plan.problems.len();
    }
    assert!(resources > 500 && problems > 500, "{resources} resources, {problems} problems");
}
