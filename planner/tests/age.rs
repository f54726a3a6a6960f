//! Of two that want the same, the older wins: by its manifest, or by when the source first had it.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use planner::{Kind, Millis, ObjectRef, World, plan};
use snapshot::{Key, proto::resource};

const MANIFESTS: &str = r#"
{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: ns},
 spec: {listeners: [{name: http, protocol: HTTP, port: 80}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: a, namespace: ns},
 spec: {rules: [{backendRefs: [{address: "127.0.0.1:9000"}]}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute,
 metadata: {name: b, namespace: ns, creationTimestamp: "1970-01-01T00:00:01Z"},
 spec: {rules: [{backendRefs: [{address: "127.0.0.1:9000"}]}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: c, namespace: ns},
 spec: {rules: [{backendRefs: [{address: "127.0.0.1:9000"}]}]}}
"#;

/// Routes that come too late, and the age of each as proxies see it.
#[track_caller]
fn check(world: &World, late: &[&str], ages: [i64; 3]) {
    let plan = plan(world);
    let conflicted: Vec<_> = plan.problems.iter().filter(|p| p.reason == "Conflicted").collect();
    let conflicted: Vec<_> = conflicted.iter().map(|p| p.object.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(conflicted, late);
    let snapshot = &plan.fleets.values().next().unwrap().snapshot;
    let got = ["a", "b", "c"].map(|name| {
        let entry = snapshot.entry(&Key::new(snapshot::Kind::Route, "ns", name)).unwrap();
        let Some(resource::Kind::Route(route)) = entry.kind() else { panic!() };
        route.created_ms
    });
    assert_eq!(got, ages);
}

#[test]
fn the_older_wins() {
    let mut world = support::world(MANIFESTS);
    check(&world, &["b", "c"], [0, 1000, 0]);
    let mut seen = |name: &str, at| {
        let object = ObjectRef { kind: Kind::ApiRoute, namespace: "ns".into(), name: name.into() };
        world.objects.get_mut(&object).unwrap().created = Some(Millis(at));
        world.clone()
    };
    seen("a", 3000);
    check(&seen("c", 2000), &["a", "c"], [3000, 1000, 2000]);
    // What the manifest says counts, whenever it was seen.
    check(&seen("b", 5000), &["a", "c"], [3000, 1000, 2000]);
    seen("a", 900);
    check(&seen("c", 900), &["b", "c"], [900, 1000, 900]);
}
