//! The operator that leads is killed: another takes over with all that it knew, and the data plane does not notice.

use std::{
    collections::BTreeMap,
    sync::mpsc::TryRecvError,
    time::{Duration, Instant},
};

use e2e::{
    cluster::{FLEET, Fleet, Place, Resource, SYSTEM, Sluice, UPSTREAM, processes, sluice},
    harness::pause,
};
use serde_json::{Value, json};

use crate::{MIXED, assert_clean, assert_median, rounds, seconds};

const TAKEOVER: Duration = Duration::from_secs(15);
/// `scaleDown.stabilizationWindowSeconds`.
const WINDOW: u64 = 45;
/// What has a status.
const KINDS: [Resource; 3] = [Resource::GATEWAY_FLEETS, Resource::API_ROUTES, Resource::RATE_POLICIES];

#[test]
fn a_killed_leader_is_not_missed() {
    let sluice = sluice().unwrap();
    let fleet = Fleet { replicas: (1, 3), rate: 250, ..Fleet::fixed(1) };
    let place = Place::new(&sluice, "takeover", &fleet).unwrap();
    let window = json!({"scaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": WINDOW}}}});
    place.patch_fleet(&window).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.apply(&place.route_yaml("broken", "/broken", "").replace("name: echo", "name: missing")).unwrap();
    place.apply(&policy_yaml(&place, "fits", "all")).unwrap();
    place.apply(&policy_yaml(&place, "misses", "missing")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    // The host is taken: the later route, of another namespace, lost it and must not get it now.
    let rival = Place::bare(&sluice, "rival").unwrap();
    rival.apply(&rival.upstream_yaml("rival")).unwrap();
    let of_rival = format!("parentRefs: [{{name: {FLEET}, namespace: {}}}]", rival.namespace);
    let of_place = format!("parentRefs: [{{name: {FLEET}, namespace: {}}}]", place.namespace);
    let late = rival.route_yaml("late", "/late", "").replace(&of_rival, &of_place);
    rival.apply(&late.replace("name: echo", "name: rival")).unwrap();

    // Three proxies by load, which then goes: for the time of the window its memory keeps them.
    let load = place.load(&format!("{MIXED} --rate 700")).unwrap();
    place.wait_for_proxies(3, seconds(90)).unwrap();
    place.until_condition(Resource::API_ROUTES, "all", ("Programmed", "True"), seconds(30)).unwrap();
    place.until_condition(Resource::API_ROUTES, "broken", ("ResolvedRefs", "False"), seconds(30)).unwrap();
    place.until_condition(Resource::RATE_POLICIES, "fits", ("Programmed", "True"), seconds(30)).unwrap();
    place.until_condition(Resource::RATE_POLICIES, "misses", ("Accepted", "False"), seconds(30)).unwrap();
    place.until_condition(Resource::GATEWAY_FLEETS, FLEET, ("Programmed", "True"), seconds(30)).unwrap();
    let lost = rival.until_condition(Resource::API_ROUTES, "late", ("Programmed", "False"), seconds(30)).unwrap();
    assert_eq!(lost.reason, "Conflicted", "{lost:?}");
    load.set_rate(100.0).unwrap();
    let calm = Instant::now();
    pause(seconds(8));

    let spaces = [place.namespace.as_str(), &rival.namespace];
    let before = conditions(&place, &spaces);
    assert!(before.len() >= 15, "{before:#?}");
    let watches = spaces.map(|space| KINDS.map(|kind| (kind, place.api().watch(kind, space).unwrap())));
    let mut acts = vec![take_over(&sluice, &place, 0)];

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
    for (kind, watch) in watches.iter().flatten() {
        loop {
            let object = match watch.try_recv() {
                Ok((_, object)) => object,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => panic!("the watch of {} ended early", kind.plural()),
            };
            writes += 1;
            for (key, value) in conditions_of(*kind, &object) {
                let earlier = before.get(&key);
                assert!(earlier.is_none_or(|earlier| *earlier == value), "{key}: {earlier:?}, then {value:?}");
            }
        }
    }
    assert!(writes > 0, "the fleet shrank, and the watches saw nothing");
    let after = conditions(&place, &spaces);
    for (key, value) in &before {
        assert_eq!(after.get(key), Some(value), "{key}");
    }
    println!("shrinks {shrinks:.1?} after the load went (window {WINDOW} s); {writes} writes\n{report}");
    assert_clean(&report);
    let answer = place.get("/late").unwrap();
    assert!(answer.header("x-upstream").starts_with(UPSTREAM), "{answer:?}");

    for number in 1..rounds() {
        acts.push(take_over(&sluice, &place, number));
    }
    assert_median(TAKEOVER, &acts);
}

/// Kills the leader; the time until another does what a leader does.
fn take_over(sluice: &Sluice, place: &Place<'_>, number: usize) -> Duration {
    let leader = sluice.leader().unwrap();
    kill_the_leader(sluice, &leader);
    let killed = Instant::now();
    let (next, epoch) = place
        .api()
        .eventually("another leader", TAKEOVER * 10, |_| {
            let holder = sluice.leader()?;
            let lease = sluice.api.get(Resource::LEASES, SYSTEM, e2e::cluster::OPERATOR)?.unwrap_or_default();
            Ok((holder != leader).then(|| (holder, lease["spec"]["leaseTransitions"].clone())))
        })
        .unwrap();
    let held = killed.elapsed();
    // What was served before answers too, but not so.
    let (path, to) = (format!("/after-{number}"), format!("/acts-{number}."));
    place.apply(&place.rewrite_yaml(&path[1..], &path, &to)).unwrap();
    place.until(&path, 200, &to, TAKEOVER * 10).unwrap();
    let acts = killed.elapsed();
    println!("{leader} killed: {next} holds the lease (epoch {epoch}) after {held:.1?}, acts after {acts:.1?}");
    acts
}

/// SIGKILL to its process where that is on this machine; else its pod is deleted without grace.
fn kill_the_leader(sluice: &Sluice, leader: &str) {
    let pod = leader.split('_').next().unwrap();
    let found = sluice.api.get(Resource::PODS, SYSTEM, pod).unwrap().unwrap();
    let uid = found["metadata"]["uid"].as_str().unwrap();
    match processes(uid, "sluice-operator")[..] {
        [pid, ..] => e2e::harness::kill(pid),
        [] => sluice.api.delete(Resource::PODS, SYSTEM, pod, Some(0)).unwrap(),
    }
}

/// The manifest of a policy that limits nobody.
fn policy_yaml(place: &Place<'_>, name: &str, target: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\n\
         kind: RatePolicy\n\
         metadata: {{name: {name}, namespace: {}}}\n\
         spec:\n  \
           targetRefs: [{{group: sluice.dev, kind: ApiRoute, name: {target}}}]\n  \
           limits: [{{name: all, tokenBucket: {{rate: 100000, per: 1s, burst: 100000}}}}]\n",
        place.namespace
    )
}

/// Each condition of each object of these namespaces: what it says, and since when.
fn conditions(place: &Place<'_>, namespaces: &[&str]) -> BTreeMap<String, Value> {
    let all = namespaces.iter().flat_map(|namespace| KINDS.map(|kind| (kind, *namespace)));
    let objects = all.flat_map(|(kind, namespace)| {
        let objects = place.api().list(kind, namespace, "").unwrap();
        objects.into_iter().map(move |object| (kind, object))
    });
    objects.flat_map(|(kind, object)| conditions_of(kind, &object)).collect()
}

fn conditions_of(kind: Resource, object: &Value) -> Vec<(String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let told = |c: &Value| json!([c["status"], c["reason"], c["lastTransitionTime"]]);
    conditions.map(|c| (format!("{} {namespace}/{name} {}", kind.plural(), text(&c["type"])), told(c))).collect()
}
