//! What a route sends requests to turns unready all together, vanishes, or is deleted and made again, under load, and every
//! operator ends in the midst: nothing is lost while any of it answers, and the status says so within a second.
//!
//! The kind: Kubernetes takes away the way to pods that are well. Certificates: see `breaks`. What never was ready, or was told
//! to leave, is not tried: `planner/tests/readiness.rs`.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Fleet, Place, Resource, names, sluice},
    harness::pause,
};
use http::Method;
use serde_json::json;

use super::breaks::restart;
use crate::{MIXED, assert_clean, bound, seconds};

/// The status says so after this long.
const TOLD: Duration = Duration::from_secs(1);
const GATE: &str = "sluice.dev/e2e";

#[test]
fn backends_that_turn_unready_or_vanish_all_together_are_tried_on() {
    let sluice = sluice().unwrap();
    let place = Place::bare(&sluice, "unready").unwrap();
    // Ready when the test says so: as when a node is cut off, and its pods are not.
    let gate_of_pods =
        format!("      readinessGates: [{{conditionType: {GATE}}}]\n      terminationGracePeriodSeconds");
    let gated = place.upstream_yaml("echo").replace("      terminationGracePeriodSeconds", &gate_of_pods);
    place.apply(&gated.replace("spec:\n  selector", "spec:\n  replicas: 2\n  selector")).unwrap();
    place.apply(&Fleet::fixed(2).yaml(&place.namespace)).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    let pods = place
        .api()
        .eventually("two pods", seconds(60), |api| {
            let pods = names(&api.list(Resource::PODS, &place.namespace, "app=echo")?);
            Ok((pods.len() == 2).then_some(pods))
        })
        .unwrap();
    let all_ready = |ready: bool| pods.iter().for_each(|pod| gate(&place, pod, ready));
    all_ready(true);
    place.wait_for_proxies(2, seconds(90)).unwrap();
    place.until("/", 200, "", seconds(30)).unwrap();
    told(&place, "True", "Programmed", bound(seconds(5)));
    let load = place.load(&format!("{MIXED} --rate 200")).unwrap();
    pause(seconds(3));

    all_ready(false);
    let after = told(&place, "False", "NoReadyEndpoints", bound(TOLD));
    println!("all unready: told after {after:.1?}, the goal is {TOLD:?}");
    let events = || {
        let events = place.api().list(Resource::EVENTS, &place.namespace, "")?;
        Ok(events.into_iter().any(|event| event["reason"] == "NoReadyEndpoints").then_some(()))
    };
    place.api().eventually("an Event says so", bound(seconds(90)), |_| events()).unwrap();
    restart(&sluice);
    pause(seconds(5));
    told(&place, "False", "NoReadyEndpoints", bound(TOLD));
    all_ready(true);
    told(&place, "True", "Programmed", bound(TOLD));

    // Slices that vanish are made again by their controller.
    let slices = place.api().list(Resource::ENDPOINT_SLICES, &place.namespace, "kubernetes.io/service-name=echo");
    for slice in names(&slices.unwrap()) {
        place.api().delete(Resource::ENDPOINT_SLICES, &place.namespace, &slice, None).unwrap();
    }
    pause(seconds(5));
    told(&place, "True", "Programmed", bound(seconds(5)));

    place.api().delete(Resource::SERVICES, &place.namespace, "echo", None).unwrap();
    let after = told(&place, "False", "BackendNotFound", bound(TOLD));
    println!("Service deleted: told after {after:.1?}, the goal is {TOLD:?}");
    pause(seconds(3));
    place.apply(place.upstream_yaml("echo").split("---\n").nth(1).unwrap()).unwrap();
    told(&place, "True", "Programmed", bound(seconds(5)));
    let report = load.stop().unwrap();
    println!("{} requests, {} failed: the goal is 0\n{report}", report.requests, report.failures());
    assert_clean(&report);
}

fn gate(place: &Place<'_>, pod: &str, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let condition = json!({"type": GATE, "status": status});
    let path = format!("{}/status?fieldManager=e2e-gate&force=true", Resource::PODS.named(&place.namespace, pod));
    let body = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": place.namespace},
        "status": {"conditions": [condition]},
    });
    place.api().send(Method::PATCH, &path, Some(&body)).unwrap().unwrap();
}

/// Waits until the route's `Programmed` says this; how long it took.
fn told(place: &Place<'_>, status: &str, reason: &str, within: Duration) -> Duration {
    let (since, mut last) = (Instant::now(), None);
    let found = place.api().eventually(&format!("Programmed is {status}: {reason}"), within, |_| {
        last = place.condition(Resource::API_ROUTES, "all", "Programmed")?;
        Ok(last.as_ref().filter(|c| c.status == status && c.reason == reason).map(|_| ()))
    });
    found.unwrap_or_else(|error| panic!("{error}; last seen: {last:?}"));
    since.elapsed()
}
