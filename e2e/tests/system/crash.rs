//! `kill -9` on either half, under load.

use std::time::{Duration, Instant};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http, kill,
        manifests::{Fleet, HOST, route, route_with},
        pause,
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, bound, serves};

#[test]
fn a_killed_proxy_is_replaced_and_only_its_requests_fail() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::fixed(port, 2).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start(&manifests).unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(30)).unwrap();
    let mut plan = Plan::new(at(port), HOST).mixed().step(2000.0, Duration::from_secs(600));
    plan.paths = vec!["/delay/5".to_owned()]; // so that something is in flight
    let in_flight = plan.h1 + plan.h2 * plan.h2_streams + 1;
    let load = Load::start(plan.clone()).unwrap();
    pause(Duration::from_secs(3));
    assert_eq!(load.live().failed, 0);

    let before = gateway.proxies();
    kill(before[0].pid);
    let killed = Instant::now();
    eventually("the killed proxy is replaced", bound(Duration::from_secs(2)), || {
        let now = gateway.ready_proxies();
        (now.len() == 2 && now.iter().all(|proxy| proxy.pid != before[0].pid)).then_some(())
    })
    .unwrap();
    let replaced = killed.elapsed();
    assert!(gateway.proxies().contains(&before[1]), "the other one is untouched");
    pause(Duration::from_secs(2));
    let report = load.stop().unwrap();
    println!("replaced after {replaced:.2?}\n{report}");
    // At most one request on each connection and stream was in flight, on about half of them.
    assert!(report.failed <= in_flight as u64, "\n{report}");
    assert_eq!(report.ok + report.failed, report.requests, "\n{report}");
    // And then all is as before.
    plan.steps[0].duration = Duration::from_secs(3);
    assert_clean(&e2e::load::run(plan).unwrap());
}

#[test]
fn a_killed_operator_is_not_missed_and_its_successor_adopts_everything() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [
        ("fleet.yaml", Fleet::fixed(port, 2).yaml()),
        ("all.yaml", route("all", "/", echo.addr)),
        ("extra.yaml", route("extra", "/extra", echo.addr)),
    ];
    let mut gateway = Gateway::start(&manifests).unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(30)).unwrap();
    let rewritten = |to: &str| {
        let rule = format!(
            "matches: [{{path: {{type: PathPrefix, value: /extra}}}}]\n    filters:\n    \
             - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: {to}}}}}}}"
        );
        route_with("extra", &rule, echo.addr)
    };
    let extra = || http::get(at(port), HOST, "/extra").unwrap().json()["path"].as_str().map(str::to_owned);
    let becomes = |path: &str| {
        let what = format!("/extra reaches the upstream as {path}");
        eventually(&what, Duration::from_secs(10), || (extra().as_deref() == Some(path)).then_some(())).unwrap();
    };
    gateway.write("extra.yaml", &rewritten("/accepted")).unwrap();
    becomes("/accepted");
    // Broken: it keeps what was accepted, now and after the operator is gone.
    gateway.write("extra.yaml", &rewritten("no-slash")).unwrap();
    eventually("the broken route is refused", Duration::from_secs(10), || {
        gateway.condition("apiroutes", "shop", "extra", "Accepted").filter(|c| c.status == "False")
    })
    .unwrap();

    let load = Load::start(Plan::new(at(port), HOST).mixed().step(1000.0, Duration::from_secs(600))).unwrap();
    pause(Duration::from_secs(1));
    let before = gateway.proxies();
    gateway.kill_operator().unwrap();
    pause(Duration::from_secs(3));
    assert_eq!(gateway.proxies(), before, "the proxies go on");
    assert_eq!(extra().as_deref(), Some("/accepted"));

    gateway.start_operator().unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(20)).unwrap();
    pause(Duration::from_secs(3));
    assert_eq!(gateway.proxies(), before, "the same processes, adopted");
    assert_eq!(extra().as_deref(), Some("/accepted"), "the last accepted state of the broken object");

    // The new operator is in charge: a change is live, a killed proxy is replaced, the fleet shrinks.
    gateway.write("extra.yaml", &rewritten("/fixed")).unwrap();
    becomes("/fixed");
    let report = load.stop().unwrap();
    assert_clean(&report);
    kill(before[0].pid);
    eventually("a proxy that was adopted and killed is replaced", Duration::from_secs(20), || {
        let now = gateway.ready_proxies();
        (now.len() == 2 && now.iter().all(|proxy| proxy.pid != before[0].pid)).then_some(())
    })
    .unwrap();
    gateway.write("fleet.yaml", &Fleet::fixed(port, 1).yaml()).unwrap();
    gateway.wait_for_proxies(1, Duration::from_secs(60)).unwrap();
}

#[test]
fn a_proxy_restarted_without_an_operator_serves_what_it_had() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::single(port).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    let before = gateway.proxies();
    gateway.kill_operator().unwrap();
    kill(before[0].pid);
    // Nobody is left; the state folder is. A new operator starts a proxy that serves.
    gateway.start_operator().unwrap();
    gateway.wait_for_proxies(1, Duration::from_secs(20)).unwrap();
    assert_eq!(http::get(at(port), HOST, "/").unwrap().status, 200);
    assert_ne!(gateway.proxies()[0].pid, before[0].pid);
}
