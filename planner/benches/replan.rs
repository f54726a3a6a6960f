//! The cost of one tenant's change beside a hostile tenant: the next plan of a world in which one route of four thousand
//! objects differs. Prints the median: `cargo bench -p planner --bench replan --profile e2e`.

#![allow(missing_docs, clippy::unwrap_used)] // a bench

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{Kind, ObjectRef, Planner, World, WorldObject};
use serde_json::{Value, json};

// As the operator has it.
#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// Objects of each way to be hostile.
const EACH: usize = 400;
/// Plans that are timed.
const ROUNDS: usize = 15;

fn main() {
    // `cargo test --benches` runs this too; there it only has to compile.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mut world = World::default();
    let listeners =
        json!([{"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}}]);
    add(&mut world, "GatewayFleet", "shop", "default", &json!({"listeners": listeners}));
    for n in 0..EACH {
        hostile(&mut world, n);
    }
    let mut planner = Planner::default();
    let mut took: Vec<Duration> = vec![];
    let mut objects = 0;
    for round in 0.. {
        add(&mut world, "ApiRoute", "shop", "changes", &simple(&json!(["shop.example"]), &format!("/c{round}")));
        let at = Instant::now();
        let plan = planner.plan(&world);
        let elapsed = at.elapsed();
        objects = plan.fleets.values().map(|fleet| fleet.snapshot.len()).sum();
        if plan.is_unfinished() {
            continue;
        }
        took.push(elapsed);
        if took.len() > ROUNDS {
            break;
        }
    }
    let first = took.remove(0);
    took.sort();
    println!(
        "{} objects, {objects} resources: the first plan {first:.0?}, after a change {:.0?} (median), {:.0?} (slowest)",
        world.objects.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
}

/// The objects of the hostile tenant of `e2e/tests/cluster/isolation/tenants.rs`.
fn hostile(world: &mut World, n: usize) {
    let mut route = |kind: usize, spec: &Value| add(world, "ApiRoute", "hostile", &format!("n{kind}-{n}"), spec);
    let backend = json!([{"name": "nothing", "port": 80}]);
    route(0, &simple(&json!(["shop.example", "*.shop.example", "*.example"]), "/"));
    route(1, &json!({"parentRefs": parent(), "rules": [{"backendRefs": backend}]}));
    let rule = |r: usize| {
        let header = |name: &str| json!({"headers": [{"name": format!("{name}-{r}-{n}"), "value": "v".repeat(4000)}]});
        json!({"matches": [header("x"), header("y")], "backendRefs": backend})
    };
    route(2, &json!({"parentRefs": parent(), "rules": (0..64).map(rule).collect::<Vec<_>>()}));
    let rule = |r: usize| {
        let path = format!("/{n}-{r}/(a|b|c)*.*(a|b)");
        json!({"matches": [{"path": {"type": "RegularExpression", "value": path}}], "backendRefs": backend})
    };
    route(3, &json!({"parentRefs": parent(), "rules": (0..60).map(rule).collect::<Vec<_>>()}));
    let hostnames: Vec<_> = (0..16).map(|h| format!("h{h}-{n}.example")).collect();
    let rule = |r: usize| json!({"matches": vec![json!({}); 8], "name": format!("r{r}"), "backendRefs": backend});
    route(4, &json!({"parentRefs": parent(), "hostnames": hostnames, "rules": (0..32).map(rule).collect::<Vec<_>>()}));
    route(8, &simple(&json!(["shop.example"]), "/%zz"));
    route(9, &simple(&json!([format!("d{n}.example"), "its-own.example"]), "/"));
    let target = json!([{"group": "sluice.dev", "kind": "ApiRoute", "name": format!("n0-{n}")}]);
    let limits = json!([{"name": "l", "tokenBucket": {"rate": 1, "per": "1m", "burst": 1}}]);
    add(world, "RatePolicy", "hostile", &format!("n5-{n}"), &json!({"targetRefs": target, "limits": limits}));
    add(
        world,
        "Service",
        "hostile",
        &format!("n6-{n}"),
        &json!({"selector": {"app": "load"}, "ports": [{"port": 80}]}),
    );
}

fn parent() -> Value {
    json!([{"name": "default", "namespace": "shop"}])
}

fn simple(hostnames: &Value, path: &str) -> Value {
    let rule = json!({"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "nothing", "port": 80}]});
    json!({"parentRefs": parent(), "hostnames": hostnames, "rules": [rule]})
}

fn add(world: &mut World, kind: &str, namespace: &str, name: &str, spec: &Value) {
    let version = if kind == "Service" { "v1" } else { "sluice.dev/v1alpha1" };
    let metadata = json!({"name": name, "namespace": namespace});
    let current = crds::admit(json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}));
    let kind: Kind = serde_json::from_value(kind.into()).unwrap();
    let object = ObjectRef { kind, namespace: namespace.into(), name: name.into() };
    let entry = WorldObject {
        current: current.map(Arc::new),
        raw: None,
        accepted: None,
        accepted_at: None,
        generation: 1,
        created: None,
        origin: None,
    };
    world.objects.insert(object, entry);
}
