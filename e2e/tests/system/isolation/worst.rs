//! Work that one client causes for the bytes it sends: whatever it sends, and on however many connections, another client
//! notices next to nothing, and nothing of his fails.
//!
//! The kind: heads that cost more than they weigh, before any limit. Each step's cost is held by `proxy/tests/worst.rs`; here
//! one attacker sends 1 MB/s of the worst of them, as many at once as connections allow.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, free_port,
        manifests::{Fleet, HOST, route},
        rss,
    },
    load::{Load, Plan, Report},
};

use super::attacker::{Attacker, Sends};
use crate::{at, long, serves};

/// What he may send in a second.
const PER_SECOND: u64 = 1_000_000;
/// His address.
const ATTACKER: [u8; 4] = [127, 0, 0, 66];

/// The other client, for some seconds.
fn other(port: u16) -> Report {
    let mut plan = Plan::new(at(port), HOST).step(300.0, Duration::from_secs(if long() { 15 } else { 4 }));
    plan.paths = vec!["/ok".into()];
    (plan.h1, plan.h2) = (12, 4);
    Load::start(plan).unwrap().join().unwrap()
}

#[test]
fn worst_heads_of_one_client_do_not_slow_another() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::single(port).yaml()), ("ok.yaml", route("ok", "/ok", echo.addr))];
    let gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/ok");
    let pid = gateway.ready_proxies().remove(0).pid;
    let leak = |text: String| -> &'static str { text.leak() };
    let get = |target: &str, fields: &str| -> &'static [u8] {
        leak(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).as_bytes()
    };
    let names: String = (0..99).map(|n| format!("n{n},")).collect();
    let lines: String = (0..97).map(|n| format!("n{n}: 1\r\n")).collect();
    let attacks = [
        ("plain requests", Sends::Http1(get("/", ""))),
        ("paths of slashes", Sends::Http1(get(&format!("/x{}", "/".repeat(8000)), ""))),
        ("Connection with many names", Sends::Http1(get("/", &format!("Connection: {names}\r\n{lines}")))),
        ("requests by HTTP/2 of 13 bytes", Sends::Http2("/x")),
        ("paths by HPACK's table", Sends::Http2(leak(format!("/x{}", "/".repeat(3900))))),
    ];
    let calm = other(port);
    println!("alone: p99 {} ms of {} requests", calm.latency.p99, calm.requests);
    assert_eq!(calm.failures(), 0, "{calm}");
    for (name, sends) in attacks {
        let connections = match (long(), sends) {
            (false, _) => 100,
            (true, Sends::Http1(_)) => 2000,
            // 50 requests on each at once.
            (true, Sends::Http2(_)) => 200,
        };
        let attacker = Attacker::start(ATTACKER, at(port), connections, PER_SECOND, sends);
        let report = other(port);
        let came_to = attacker.stop();
        let p99 = report.latency.p99;
        println!(
            "{name} on {connections} connections: {came_to}; another's p99 {p99} ms (goal: {} ms), {} failed (goal: 0), \
             proxy of {} MiB",
            2.0 * calm.latency.p99,
            report.failures(),
            rss(pid).unwrap() >> 20
        );
        assert_eq!(report.failures(), 0, "{name}: {report}");
        let allowed = if long() { 2.0 } else { 20.0 } * calm.latency.p99.max(1.0);
        assert!(p99 <= allowed, "{name}: p99 {p99} ms instead of {} ms", calm.latency.p99);
    }
}
