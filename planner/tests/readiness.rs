//! Endpoints turn unready, leave, vanish and come back: where requests go, from one world to the next.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::sync::Arc;

use planner::{LastReady, Millis, Planner};
use snapshot::proto::resource;

const MANIFESTS: &str = r#"
{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: shop},
 spec: {listeners: [{name: http, protocol: HTTP, port: 80}], backends: {readiness: Preferred}}}
---
{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: strict, namespace: shop},
 spec: {listeners: [{name: http, protocol: HTTP, port: 80}], backends: {readiness: Strict}}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop}, spec: {ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: r, namespace: shop},
 spec: {parentRefs: [{name: default}, {name: strict}], rules: [{backendRefs: [{name: s, port: 80}]}]}}
"#;

const READY: &str = "{ready: true}";
const UNREADY: &str = "{ready: false}";
const LEAVING: &str = "{ready: false, serving: true, terminating: true}";
const LEFT: &str = "{ready: false, serving: false, terminating: true}";

/// What is known from plan to plan.
#[derive(Default)]
struct Scene {
    planner: Planner,
    last: Option<Arc<LastReady>>,
    now: u64,
    changes_at: Option<Millis>,
}

/// The last parts of the addresses that requests go to, and what is said.
struct Goes {
    preferred: String,
    strict: String,
    problem: String,
}

impl Scene {
    /// A world in which the Service has been seen before, without endpoints.
    fn seen() -> Self {
        let mut scene = Self::default();
        scene.plan(&[]);
        scene
    }

    /// Plans with these endpoints: the last part of an address, and conditions.
    fn plan(&mut self, endpoints: &[(u8, &str)]) -> Goes {
        self.plan_with(endpoints, "")
    }

    fn plan_with(&mut self, endpoints: &[(u8, &str)], more: &str) -> Goes {
        let listed =
            endpoints.iter().map(|(n, conditions)| format!("{{addresses: [10.0.0.{n}], conditions: {conditions}}}"));
        let slice = match endpoints {
            [] => String::new(),
            _ => format!(
                "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 8080}}],\n \
                 metadata: {{name: a, namespace: shop, labels: {{kubernetes.io/service-name: s}}}},\n endpoints: [{}]}}\n",
                listed.collect::<Vec<_>>().join(", ")
            ),
        };
        let mut world = support::world(&format!("{MANIFESTS}{slice}{more}"));
        (world.now, world.last_ready) = (Millis(self.now), self.last.take());
        let plan = self.planner.plan(&world);
        (self.last, self.changes_at) = (Some(Arc::clone(&plan.last_ready)), plan.changes_at);
        let goes = |fleet: &str| {
            let planned = plan.fleets.iter().find(|(name, _)| name.name == fleet).unwrap().1;
            let cluster = planned.snapshot.iter().find_map(|(_, entry)| match entry.kind() {
                Some(resource::Kind::Cluster(cluster)) => Some(cluster),
                _ => None,
            });
            let one = |e: &snapshot::proto::Endpoint| {
                let last = e.address.trim_end_matches(":8080").rsplit('.').next().unwrap().to_owned();
                if e.terminating { format!("({last})") } else { last }
            };
            cluster.unwrap().endpoints.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let problem =
            plan.problems.iter().map(|p| format!("{} {}", p.reason, p.message)).collect::<Vec<_>>().join("; ");
        Goes { preferred: goes("default"), strict: goes("strict"), problem }
    }
}

#[track_caller]
fn check(goes: &Goes, preferred: &str, strict: &str, problem: &str) {
    assert_eq!((goes.preferred.as_str(), goes.strict.as_str()), (preferred, strict), "{}", goes.problem);
    assert!(goes.problem.starts_with(problem) && goes.problem.is_empty() == problem.is_empty(), "{}", goes.problem);
}

#[test]
fn what_turns_unready_all_together_is_tried_on() {
    let mut scene = Scene::seen();
    check(&scene.plan(&[(1, READY), (2, READY), (3, UNREADY)]), "1 2", "1 2", "");
    let all = [(1, UNREADY), (2, UNREADY), (3, UNREADY)];
    let tried = scene.plan(&all);
    check(&tried, "1 2", "", "NoReadyEndpoints no endpoint of Service shop/s is ready (3 are there)");
    assert!(tried.problem.contains("meanwhile 2 that were are tried"), "{}", tried.problem);
    // For as long as it takes.
    scene.now += 3_600_000;
    check(&scene.plan(&all), "1 2", "", "NoReadyEndpoints");
    assert_eq!(scene.changes_at, None);
    check(&scene.plan(&[(1, UNREADY), (2, UNREADY), (3, READY)]), "3", "3", "");
}

#[test]
fn what_turns_unready_one_by_one_is_tried_on_as_a_whole() {
    let mut scene = Scene::seen();
    scene.plan(&[(1, READY), (2, READY), (3, READY)]);
    check(&scene.plan(&[(1, UNREADY), (2, READY), (3, READY)]), "2 3", "2 3", "");
    check(&scene.plan(&[(1, UNREADY), (2, UNREADY), (3, READY)]), "3", "3", "");
    check(&scene.plan(&[(1, UNREADY), (2, UNREADY), (3, UNREADY)]), "1 2 3", "", "NoReadyEndpoints");
}

#[test]
fn what_never_was_ready_is_not_tried() {
    let mut scene = Scene::seen();
    let goes = scene.plan(&[(1, UNREADY), (2, UNREADY)]);
    check(&goes, "", "", "NoReadyEndpoints none of the 2 endpoints of Service shop/s is ready, and none of them was");
    check(&Scene::seen().plan(&[]), "", "", "NoReadyEndpoints Service shop/s has no endpoints");
    // Whoever begins to look does not know.
    check(&Scene::default().plan(&[(1, UNREADY), (2, LEFT)]), "1", "", "NoReadyEndpoints");
}

#[test]
fn who_was_told_to_leave_is_not_tried() {
    let mut scene = Scene::seen();
    scene.plan(&[(1, READY), (2, READY)]);
    check(&scene.plan(&[(1, LEAVING), (2, LEAVING)]), "(1) (2)", "(1) (2)", "NoReadyEndpoints");
    check(&scene.plan(&[(1, LEFT), (2, LEAVING)]), "(2)", "(2)", "NoReadyEndpoints");
    check(&scene.plan(&[(1, LEFT), (2, LEFT)]), "", "", "NoReadyEndpoints");
    check(&scene.plan(&[]), "", "", "NoReadyEndpoints Service shop/s has no endpoints");
    check(&scene.plan(&[(1, UNREADY)]), "", "", "NoReadyEndpoints none of the 1");
}

#[test]
fn what_vanishes_all_together_is_tried_for_a_while() {
    let mut scene = Scene::seen();
    scene.now = 1_000_000;
    scene.plan(&[(1, READY), (2, READY)]);
    check(&scene.plan(&[(2, READY)]), "2", "2", "");
    scene.now += 4_000;
    check(&scene.plan(&[]), "1 2", "", "NoReadyEndpoints");
    assert_eq!(scene.changes_at, Some(Millis(1_010_000)));
    scene.now += 6_000;
    check(&scene.plan(&[]), "2", "", "NoReadyEndpoints");
    assert_eq!(scene.changes_at, Some(Millis(1_014_000)));
    scene.now += 4_000;
    check(&scene.plan(&[]), "", "", "NoReadyEndpoints Service shop/s has no endpoints");
    assert_eq!(scene.changes_at, None);
    check(&scene.plan(&[(1, READY)]), "1", "1", "");
}

#[test]
fn what_vanished_and_is_someone_elses_is_not_tried() {
    let of = |namespace: &str| {
        format!(
            "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 1}}],\n \
             metadata: {{name: b, namespace: {namespace}, labels: {{kubernetes.io/service-name: other}}}},\n \
             endpoints: [{{addresses: [10.0.0.1]}}]}}\n"
        )
    };
    for (namespace, goes) in [("shop", "1 2"), ("stranger", "2")] {
        let mut scene = Scene::seen();
        scene.plan(&[(1, READY), (2, READY)]);
        check(&scene.plan_with(&[], &of(namespace)), goes, "", "NoReadyEndpoints");
    }
}

#[test]
fn what_was_replaced_is_not_tried() {
    let mut scene = Scene::seen();
    scene.plan(&[(1, READY), (2, READY)]);
    check(&scene.plan(&[(3, UNREADY)]), "", "", "NoReadyEndpoints none of the 1");
    // Some are there still: those that vanished beside them are tried as they are.
    let mut scene = Scene::seen();
    scene.plan(&[(1, READY), (2, READY)]);
    check(&scene.plan(&[(1, UNREADY)]), "1 2", "", "NoReadyEndpoints");
}
