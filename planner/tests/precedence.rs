//! Who has a hostname: by Gateway API's precedence, and the same after any restart and in whatever order objects came.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::collections::{BTreeMap, BTreeSet};

use planner::{Kind, Millis, ObjectRef, Plan, Planner, World, plan};
use proptest::{prelude::*, sample::select};
use serde_json::json;
use snapshot::proto::resource;

/// A route: namespace, name, age in seconds, hostnames.
type Route = (&'static str, &'static str, u64, BTreeSet<&'static str>);

const HOSTS: [&str; 3] = ["a.example", "b.example", "*.example"];

fn route() -> impl Strategy<Value = Route> {
    // `a-b/x` is less than `a/x` as text, and greater by its parts.
    let hosts = proptest::collection::btree_set(select(HOSTS.to_vec()), 1..3);
    (select(vec!["a", "a-b", "b"]), select(vec!["x", "y"]), 0..3u64, hosts)
}

fn object(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::ApiRoute, namespace: namespace.into(), name: name.into() }
}

fn fleet() -> World {
    support::world(
        r#"{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: x}, spec:
            {listeners: [{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}]}}"#,
    )
}

fn add(world: &mut World, (namespace, name, age, hosts): &Route) {
    let document = json!({
        "apiVersion": crds::API_VERSION, "kind": "ApiRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"hostnames": hosts, "rules": [{"backendRefs": [{"address": "127.0.0.1:9000"}]}]},
    });
    support::add(world, document, true);
    let entry = world.objects.get_mut(&object(namespace, name)).unwrap();
    (entry.created, entry.accepted, entry.generation) = (Some(Millis(age * 1000)), None, 1);
}

/// Namespace of those that serve each hostname.
fn served(plan: &Plan) -> BTreeMap<String, BTreeSet<String>> {
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, entry) in plan.fleets.values().next().unwrap().snapshot.iter() {
        let Some(resource::Kind::Route(route)) = entry.kind() else { continue };
        let namespace = key.to_string().split('/').nth(1).unwrap().to_owned();
        for host in route.attachments.into_iter().flat_map(|attachment| attachment.hostnames) {
            served.entry(host).or_default().insert(namespace.clone());
        }
    }
    served
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_oldest_then_the_first_by_name_has_a_hostname(
        routes in proptest::collection::vec(route(), 1..8),
        gone in proptest::collection::vec(route(), 0..4),
    ) {
        // Of two of one name the last stands.
        let routes: BTreeMap<_, _> = routes.into_iter().map(|r| (object(r.0, r.1), r)).collect();
        let (mut world, mut planner) = (fleet(), Planner::default());
        // An operator that has seen other routes come and go, and these come one by one, the last first.
        for route in gone {
            add(&mut world, &route);
            planner.plan(&world);
        }
        world = fleet();
        for route in routes.values().rev() {
            add(&mut world, route);
            planner.plan(&world);
        }
        let (after, anew) = (planner.plan(&world), plan(&world));
        prop_assert_eq!(&after.problems, &anew.problems);
        prop_assert_eq!(served(&after), served(&anew));

        for host in HOSTS {
            let with_host = || routes.values().filter(|route| route.3.contains(host));
            let holder = with_host().min_by_key(|(namespace, name, age, _)| (*age, format!("{namespace}/{name}")));
            let Some((holder, ..)) = holder else { continue };
            prop_assert_eq!(&served(&anew)[host], &BTreeSet::from([(*holder).to_owned()]), "{}", host);
            for (namespace, name, ..) in with_host().filter(|route| route.0 != *holder) {
                let says = |p: &planner::Problem| {
                    p.reason == "Conflicted" && p.object == Some(object(namespace, name)) && p.message.contains(host)
                };
                prop_assert!(anew.problems.iter().any(says), "{namespace}/{name} on {host}: {:#?}", anew.problems);
            }
        }
    }
}
