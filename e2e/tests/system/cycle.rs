//! The fleet grows with the load and shrinks again, and nobody notices.

use std::time::{Duration, Instant};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, Proxy, admin_get, eventually, free_port,
        manifests::{Fleet, HOST, route, route_with},
        metric, pause,
    },
    load::{Load, Plan},
};

use serde_json::Value;

use crate::{assert_clean, assert_heavy, at, bound, serves};

const CALM: f64 = 300.0;
const BURST: f64 = 2400.0;
/// A proxy is asked to retire its excess share over 10 s.
const REBALANCED_AFTER: Duration = Duration::from_secs(14);

#[test]
fn one_to_four_and_back_without_a_failure() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let mut fleet = Fleet::single(port);
    fleet.replicas = (1, 4);
    fleet.targets = vec!["{type: RequestRate, averageValue: \"500\"}".to_owned()];
    let manifests = [("fleet.yaml", fleet.yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");

    // 64 HTTP/1.1 and 8 HTTP/2 connections, opened while there is one proxy.
    let plan = Plan::new(at(port), HOST).mixed().step(CALM, Duration::from_secs(300));
    let load = Load::start(plan).unwrap();
    pause(Duration::from_secs(5));
    assert_eq!(gateway.proxies().len(), 1, "the calm load asks for one proxy");

    let burst = Instant::now();
    load.set_rate(BURST);
    let grows = eventually("the fleet grows", bound(Duration::from_secs(5)), || {
        (gateway.ready_proxies().len() > 1).then(|| burst.elapsed())
    });
    let grows = grows.unwrap();
    gateway.wait_for_proxies(4, Duration::from_secs(60)).unwrap();
    let full = burst.elapsed();

    // WebSockets opened now are spread over the four; those on a proxy that leaves are told so.
    let mut plan = Plan::new(at(port), HOST).step(0.0, Duration::from_secs(300));
    plan.ws = 24;
    let sockets = Load::start(plan).unwrap();

    // Meanwhile the route that carries the load changes each second.
    let rebalanced = Instant::now() + REBALANCED_AFTER;
    let before = gateway.revision(&gateway.proxies()[0]).unwrap();
    let mut version = 0;
    while Instant::now() < rebalanced {
        version += 1;
        let rule = format!("timeouts: {{request: {}s}}", 10 + version);
        gateway.write("all.yaml", &route_with("all", &rule, echo.addr)).unwrap();
        pause(Duration::from_secs(1));
    }
    assert_ne!(gateway.revision(&gateway.proxies()[0]).unwrap(), before, "the changes went live");
    let shares = shares(&gateway.proxies(), Duration::from_secs(5));
    let (mean, most) = (shares.iter().sum::<f64>() / 4.0, shares.iter().copied().fold(0.0, f64::max));
    assert!(most <= 1.5 * mean, "the busiest of {shares:?} carries {:.2} times the mean", most / mean);
    // Long enough for the count that the promise asks for.
    while load.live().requests < 50_000 {
        pause(Duration::from_millis(100));
    }

    let before = gateway.proxies();
    let opened: Vec<u64> = before.iter().map(websockets).collect();
    assert_eq!(opened.iter().sum::<u64>(), 24, "{opened:?}");
    load.set_rate(CALM);
    let calm = Instant::now();
    gateway.wait_for_proxies(1, Duration::from_secs(150)).unwrap();
    let shrinks = calm.elapsed();
    let stayed = gateway.proxies();
    let on_leaving: u64 = before.iter().zip(&opened).filter(|(p, _)| !stayed.contains(p)).map(|(_, n)| n).sum();
    let (report, sockets) = (load.stop().unwrap(), sockets.stop().unwrap());
    println!("grows {grows:.1?}, four {full:.1?}, busiest {:.2} x mean, shrinks {shrinks:.1?}", most / mean);
    println!("{report}\n{sockets}");
    assert_clean(&report);
    assert!(report.requests >= 50_000, "\n{report}");
    assert_eq!(sockets.failures(), 0, "\n{sockets}");
    // Each socket on a proxy that left was told so; some met another one that left later.
    println!("websockets by proxy {opened:?}, {on_leaving} on those that left");
    assert!(on_leaving > 0 && sockets.ws.closed_1001 >= on_leaving, "{opened:?}\n{sockets}");
    assert_eq!(sockets.ws.opened, 24 + sockets.ws.closed_1001, "\n{sockets}");
    // What the clients counted is what the upstream saw, but for the probes above.
    assert!(echo.requests() >= report.requests + sockets.ws.opened);
}

/// Client connections that are WebSockets.
fn websockets(proxy: &Proxy) -> u64 {
    let report: Value = serde_json::from_str(&admin_get(proxy.admin, "/connections").unwrap()).unwrap();
    let workers = report["workers"].as_array().unwrap();
    let others: u64 = workers.iter().map(|worker| worker["clients"].as_u64().unwrap()).sum();
    report["open"].as_u64().unwrap() - others
}

/// The requests that each proxy served within this time.
fn shares(proxies: &[Proxy], time: Duration) -> Vec<f64> {
    let count = || -> Vec<f64> {
        proxies.iter().map(|proxy| metric(proxy.admin, "sluice_requests_total", &[]).unwrap()).collect()
    };
    let before = count();
    pause(time);
    count().iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn a_heavy_steady_load_loses_nothing_while_replicas_come_and_go() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::fixed(port, 1).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    let load = Load::start(Plan::new(at(port), HOST).mixed().step(2200.0, Duration::from_secs(300))).unwrap();
    for replicas in [3, 1, 2] {
        gateway.write("fleet.yaml", &Fleet::fixed(port, replicas).yaml()).unwrap();
        gateway.wait_for_proxies(replicas as usize, Duration::from_secs(60)).unwrap();
        pause(Duration::from_secs(3));
    }
    while load.live().requests < 50_000 {
        pause(Duration::from_millis(100));
    }
    let report = load.stop().unwrap();
    assert_clean(&report);
    assert_heavy(&report);
}
