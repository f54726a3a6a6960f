//! A proxy crashes: its clients do not wait for the kubelet, and no new connection is refused.
//!
//! The kind: the process that serves dies, not by its fault alone. Of a container the first process is a keeper, and the proxy
//! its child: when the child dies the keeper starts it again with its ports open all the while; when the keeper dies, as when the
//! kernel ends all of a container, the kubelet starts the container again, and where that waits the operator makes another pod.
//! A crash loop is not hidden: `proxy/tests/keeper.rs`, and `operator/src/fleet/kube/replacement_budget.rs` for pods.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Fleet, Place, processes, sluice},
    harness::{alive, eventually, kill, pause},
};
use serde_json::Value;

use crate::{bound, seconds};

/// The only proxy that was killed serves again after this long.
const BACK: Duration = Duration::from_secs(5);
/// What a proxy has accepted dies with it: at 500 new connections a second, so many at most for each that is killed.
const ACCEPTED: u64 = 25;

#[test]
fn the_only_proxy_killed_four_times_is_back_each_time() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "crashes", &Fleet::fixed(1)).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(30)).unwrap();
    let mut times = vec![];
    for round in 1..=4 {
        let (name, first) = place
            .api()
            .eventually("one proxy, and its first process", seconds(60), |_| {
                let proxies = place.proxies()?;
                let [pod] = &proxies[..] else { return Ok(None) };
                Ok(of(pod).first().map(|pid| (pod["metadata"]["name"].clone(), *pid)))
            })
            .unwrap();
        let killed = Instant::now();
        end(first);
        place.until("/", 200, "", bound(BACK) + seconds(60)).unwrap();
        let answers = killed.elapsed();
        place.wait_for_proxies(1, seconds(90)).unwrap();
        println!(
            "kill {round} of {name}: answers after {answers:.1?}, the goal is {BACK:?}; Ready after {:.1?}",
            killed.elapsed()
        );
        times.push(answers);
        pause(seconds(2));
    }
    assert!(times.iter().all(|time| *time <= bound(BACK)), "{times:?}, the goal is {BACK:?}");
}

#[test]
fn a_crash_refuses_no_new_connection() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "crash", &Fleet::fixed(2)).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(30)).unwrap();
    place.until_programmed("all", seconds(30)).unwrap();
    let load = place.load("--new-per-second 500 --duration 60m").unwrap();
    pause(seconds(3));
    let pods = place.proxies().unwrap();
    for pod in &pods {
        let [_, proxy] = of(pod)[..] else { panic!("no keeper with its proxy: {:?}", of(pod)) };
        let killed = Instant::now();
        end(proxy);
        eventually("another process is there", seconds(30), || of(pod).get(1).filter(|pid| **pid != proxy).map(drop))
            .unwrap();
        println!("{}: another process after {:.0?}", pod["metadata"]["name"], killed.elapsed());
        pause(seconds(5));
    }
    let report = load.stop().unwrap();
    let refused: u64 = report
        .reasons
        .iter()
        .filter(|(why, _)| why.contains("refused") || why.contains("reset"))
        .map(|(_, count)| count)
        .sum();
    println!(
        "{} requests on connections of their own, {refused} refused: the goal is 0; {} were under way; slowest {:.0} ms\n{report}",
        report.requests,
        report.failed - refused,
        report.latency.max
    );
    assert_eq!(refused, 0, "\n{report}");
    assert!(report.failed <= ACCEPTED * pods.len() as u64, "\n{report}");
    // The container was not started again, and the pod stayed.
    for pod in &pods {
        let now = place.object(e2e::cluster::Resource::PODS, pod["metadata"]["name"].as_str().unwrap()).unwrap();
        assert_eq!(now["metadata"]["uid"], pod["metadata"]["uid"]);
        assert_eq!(now["status"]["containerStatuses"][0]["restartCount"], 0, "{:#}", now["status"]);
    }
}

/// The keeper in a pod, and its proxy.
fn of(pod: &Value) -> Vec<u32> {
    processes(pod["metadata"]["uid"].as_str().unwrap_or_default(), "sluice-proxy")
}

fn end(pid: u32) {
    kill(pid);
    eventually("it is dead", seconds(10), || (!alive(pid)).then_some(())).unwrap();
}
