//! Proxies come and go under load, and nobody notices.

use std::time::Instant;

use e2e::{
    cluster::{Fleet, OPERATOR, Place, SYSTEM, Sluice, names, sluice},
    harness::pause,
};
use serde_json::json;

use crate::{MIXED, assert_clean, long, seconds};

/// Requests a second for which one replica is enough, of the fleets here.
const PER_REPLICA: u32 = 250;

/// A place whose fleet serves every path, and answers.
fn place<'a>(sluice: &'a Sluice, name: &str, fleet: &Fleet) -> Place<'a> {
    let place = Place::new(sluice, name, fleet).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    place.until_programmed("all", seconds(20)).unwrap();
    place
}

#[test]
fn the_fleet_follows_the_load() {
    let sluice = sluice().unwrap();
    let most = if long() { 6 } else { 3 };
    let fleet = Fleet { replicas: (1, most), rate: PER_REPLICA, ..Fleet::fixed(1) };
    let place = place(&sluice, "cycle", &fleet);
    let load = place.load(&format!("{MIXED} --rate 100")).unwrap();
    pause(seconds(5));
    assert_eq!(place.proxies().unwrap().len(), 1, "the calm load asks for one proxy");

    let burst = Instant::now();
    load.set_rate(f64::from(PER_REPLICA * most)).unwrap();
    place.wait_for_proxies(most as usize, seconds(90)).unwrap();
    let grown = burst.elapsed();
    // WebSockets opened now are spread over all; those on a proxy that leaves are told so.
    let sockets = place.load("--ws 16 --duration 60m").unwrap();
    // What drives is a number that drifts: it is written every half a minute.
    let driven_by = place
        .api()
        .eventually("the status says what drives", seconds(60), |_| {
            Ok(place.fleet()?["status"]["drivenBy"].as_str().map(str::to_owned))
        })
        .unwrap();
    assert!(driven_by.starts_with("RequestRate="), "{driven_by}");

    let calm = Instant::now();
    load.set_rate(100.0).unwrap();
    place.wait_for_proxies(1, seconds(60 * u64::from(most))).unwrap();
    let shrunk = calm.elapsed();
    let (report, sockets) = (load.stop().unwrap(), sockets.stop().unwrap());
    println!("1 to {most} in {grown:.1?} by {driven_by}, back in {shrunk:.1?}\n{report}\n{sockets}");
    assert_clean(&report);
    assert_eq!(sockets.failures(), 0, "\n{sockets}");
    assert!(sockets.ws.closed_1001 > 0, "the WebSockets of those that left were told so\n{sockets}");
}

#[test]
fn a_rolling_update_loses_nothing() {
    let sluice = sluice().unwrap();
    let place = place(&sluice, "rolling", &Fleet::fixed(2));
    let load = place.load(&format!("{MIXED} --rate 300")).unwrap();
    let templates =
        [json!({"template": {"annotations": {"example.com/rolled": "1"}}}), json!({"template": {"workers": 2}})];
    for template in &templates[..if long() { 2 } else { 1 }] {
        let before = names(&place.proxies().unwrap());
        let started = Instant::now();
        place.patch_fleet(template).unwrap();
        place
            .api()
            .eventually("two other proxies", seconds(120), |_| {
                let now = names(&place.all_proxies()?);
                Ok((now.len() == 2 && before.iter().all(|name| !now.contains(name))).then_some(()))
            })
            .unwrap();
        place.wait_for_proxies(2, seconds(60)).unwrap();
        println!("{template} rolled in {:.1?}", started.elapsed());
    }
    let report = load.stop().unwrap();
    println!("{report}");
    assert_clean(&report);
}

#[test]
fn evictions_one_by_one_lose_nothing() {
    let sluice = sluice().unwrap();
    let replicas = if long() { 4 } else { 2 };
    let place = place(&sluice, "evicted", &Fleet::fixed(replicas));
    let load = place.load(&format!("{MIXED} --rate 300")).unwrap();
    let mut refused = 0;
    for pod in names(&place.proxies().unwrap()) {
        // As `kubectl drain` does: again until the budget allows it.
        place
            .api()
            .eventually(&format!("{pod} is evicted"), seconds(90), |api| {
                let evicted = api.evict(&place.namespace, &pod)?;
                if !evicted {
                    refused += 1;
                    pause(seconds(1));
                }
                Ok(evicted.then_some(()))
            })
            .unwrap();
    }
    place.wait_for_proxies(replicas as usize, seconds(120)).unwrap();
    let report = load.stop().unwrap();
    println!("{replicas} evicted, {refused} times told to wait by the disruption budget\n{report}");
    assert!(refused > 0, "nothing held the second eviction back while the first pod was being replaced");
    assert_clean(&report);
}

#[test]
fn a_restart_of_the_operator_loses_nothing() {
    let sluice = sluice().unwrap();
    let place = place(&sluice, "restart", &Fleet::fixed(2));
    let before = names(&place.proxies().unwrap());
    let load = place.load(&format!("{MIXED} --rate 300")).unwrap();
    let started = Instant::now();
    let restart = format!("kubectl rollout restart deployment/{OPERATOR} --namespace {SYSTEM}");
    sluice.shell.run(&restart).unwrap();
    sluice
        .shell
        .run(&format!("kubectl rollout status deployment/{OPERATOR} --namespace {SYSTEM} --timeout 2m"))
        .unwrap();
    println!("restarted in {:.1?}", started.elapsed());
    // It acts, and found everything as it was.
    place.apply(&place.rewrite_yaml("more", "/more", "/acts.")).unwrap();
    place.until("/more", 200, "/acts.", seconds(30)).unwrap();
    pause(seconds(5));
    assert_eq!(names(&place.proxies().unwrap()), before, "no proxy was replaced");
    let report = load.stop().unwrap();
    println!("{report}");
    assert_clean(&report);
}
