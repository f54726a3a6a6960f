//! The operator that leads is killed: another takes over with all that it knew, and the data plane does not notice.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Fleet, Place, Resource, SYSTEM, Sluice, sluice},
    harness::pause,
};
use serde_json::{Value, json};

use crate::{MIXED, assert_clean, bound, seconds};

const TAKEOVER: Duration = Duration::from_secs(15);
/// `scaleDown.stabilizationWindowSeconds`.
const WINDOW: u64 = 45;

#[test]
fn a_killed_leader_is_not_missed() {
    let sluice = sluice().unwrap();
    let fleet = Fleet { replicas: (1, 3), rate: 250, ..Fleet::fixed(1) };
    let place = Place::new(&sluice, "takeover", &fleet).unwrap();
    let window = json!({"scaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": WINDOW}}}});
    place.patch_fleet(&window).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.apply(&place.route_yaml("broken", "/broken", "").replace("name: echo", "name: missing")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();

    // Three proxies by load, which then goes: for the time of the window its memory keeps them.
    let load = place.load(&format!("{MIXED} --rate 700")).unwrap();
    place.wait_for_proxies(3, seconds(90)).unwrap();
    place.until_condition(Resource::API_ROUTES, "all", ("Programmed", "True"), seconds(30)).unwrap();
    place.until_condition(Resource::API_ROUTES, "broken", ("ResolvedRefs", "False"), seconds(30)).unwrap();
    load.set_rate(100.0).unwrap();
    let calm = Instant::now();
    pause(seconds(8));

    let before = conditions(&place);
    assert!(before.len() >= 2, "{before:#?}");
    let watch = place.api().watch(Resource::API_ROUTES, &place.namespace).unwrap();
    let leader = sluice.leader().unwrap();
    kill_the_leader(&sluice, &leader);
    let killed = Instant::now();
    let (next, epoch) = place
        .api()
        .eventually("another leader", bound(TAKEOVER), |_| {
            let holder = sluice.leader()?;
            let lease = sluice.api.get(Resource::LEASES, SYSTEM, e2e::cluster::OPERATOR)?.unwrap_or_default();
            Ok((holder != leader).then(|| (holder, lease["spec"]["leaseTransitions"].clone())))
        })
        .unwrap();
    let held = killed.elapsed();
    // It leads when it does what a leader does.
    place.apply(&place.route_yaml("after", "/after", "")).unwrap();
    place.until("/after", 200, "", bound(TAKEOVER)).unwrap();
    let acts = killed.elapsed();
    assert!(acts <= bound(TAKEOVER), "{acts:?}");

    // What scaled the fleet is not forgotten: nothing leaves before the window is over, and then it does.
    let keeps = seconds(WINDOW).saturating_sub(calm.elapsed());
    let until = Instant::now() + keeps.saturating_sub(seconds(3));
    while Instant::now() < until {
        assert_eq!(place.proxies().unwrap().len(), 3, "{:.1?} after the load went", calm.elapsed());
        pause(Duration::from_millis(500));
    }
    place
        .api()
        .eventually("the fleet shrinks", seconds(60), |_| Ok((place.proxies()?.len() < 3).then_some(())))
        .unwrap();
    let shrinks = calm.elapsed();
    let report = load.stop().unwrap();

    // No status turned meanwhile, and none was written as if it had.
    let mut writes = 0;
    while let Ok((_, object)) = watch.try_recv() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        writes += 1;
        for (key, value) in conditions_of(&name, &object) {
            let earlier = before.iter().find(|(other, _)| *other == key);
            assert!(earlier.is_none_or(|(_, earlier)| *earlier == value), "{key}: {earlier:?}, then {value:?}");
        }
    }
    let after = conditions(&place);
    for (key, value) in &before {
        assert_eq!(after.iter().find(|(other, _)| other == key).map(|(_, value)| value), Some(value), "{key}");
    }
    println!(
        "{leader} killed: {next} holds the lease (epoch {epoch}) after {held:.1?}, acts after {acts:.1?}; \
         shrinks {shrinks:.1?} after the load went (window {WINDOW} s); {writes} writes of routes\n{report}"
    );
    assert_clean(&report);
}

/// SIGKILL to its process where that is on this machine; else its pod is deleted without grace.
fn kill_the_leader(sluice: &Sluice, leader: &str) {
    let pod = leader.split('_').next().unwrap();
    let found = sluice.api.get(Resource::PODS, SYSTEM, pod).unwrap().unwrap();
    let uid = found["metadata"]["uid"].as_str().unwrap();
    match process(uid) {
        Some(pid) => e2e::harness::kill(pid),
        None => sluice.api.delete(Resource::PODS, SYSTEM, pod, Some(0)).unwrap(),
    }
}

/// The operator's process in the pod with this uid.
fn process(uid: &str) -> Option<u32> {
    let (with, without) = (format!("pod{uid}"), format!("pod{}", uid.replace('-', "_")));
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let cgroup = read("cgroup");
        (cgroup.contains(&with) || cgroup.contains(&without)) && read("comm").starts_with("sluice-operator")
    })
}

/// Each condition of each route: what it says, and since when.
fn conditions(place: &Place<'_>) -> Vec<(String, Value)> {
    let routes = place.api().list(Resource::API_ROUTES, &place.namespace, "").unwrap();
    let name = |route: &Value| route["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    routes.iter().flat_map(|route| conditions_of(&name(route), route)).collect()
}

fn conditions_of(name: &str, object: &Value) -> Vec<(String, Value)> {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let told = |c: &Value| json!([c["status"], c["reason"], c["lastTransitionTime"]]);
    conditions.map(|c| (format!("{name} {}", c["type"].as_str().unwrap_or_default()), told(c))).collect()
}
