//! The recipes of `docs/access.md`, applied as they stand there and asked.

use std::{fs, path::Path, time::Duration};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route},
        metric,
    },
};

use crate::at;

/// The manifests below a heading of the page.
fn recipe(heading: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n### {heading}\n")).unwrap();
    let (_, manifests) = section.split_once("```yaml\n").unwrap();
    manifests.split_once("```").unwrap().0.to_owned()
}

/// A gateway with a route `orders` and a recipe, whose policies run.
fn gateway(heading: &str, policies: &[(&str, &str)]) -> (Gateway, Echo, u16) {
    let echo = Echo::start("orders").unwrap();
    let port = free_port().unwrap();
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("orders.yaml", route("orders", "/orders", echo.addr)),
        ("recipe.yaml", recipe(heading)),
    ])
    .unwrap();
    for (kind, name) in policies {
        let runs = || gateway.condition(kind, "shop", name, "Programmed").filter(|found| found.status == "True");
        eventually(&format!("{kind} {name} runs"), Duration::from_secs(15), runs).unwrap();
    }
    (gateway, echo, port)
}

fn ask(port: u16, method: &str, path: &str, key: &str) -> u16 {
    let key = [("x-api-key", key)];
    http::send(at(port), method, HOST, path, if key[0].1.is_empty() { &[] } else { &key }).unwrap().status
}

#[test]
fn api_keys_in_tiers() {
    let kinds = [
        ("consumers", "acme"),
        ("consumers", "small"),
        ("accesspolicies", "orders-access"),
        ("ratepolicies", "orders-limits"),
    ];
    let (gateway, echo, port) = gateway("API keys in tiers", &kinds);
    let (acme, small) = ("key-of-acme-4cf2e0", "key-of-small-91ab77");
    let ask = |method: &str, key: &str| ask(port, method, "/orders", key);
    assert_eq!((ask("GET", ""), ask("GET", "guessed")), (401, 401));
    assert_eq!((ask("GET", small), ask("POST", small)), (200, 403));
    assert_eq!([ask("POST", acme), ask("GET", acme), ask("GET", acme), ask("GET", acme)], [200, 200, 200, 429]);
    // What was refused took nothing from the limit.
    assert_eq!((ask("GET", small), ask("GET", small), ask("GET", small)), (200, 200, 429));
    assert_eq!(echo.requests(), 6);
    let admin = gateway.ready_proxies()[0].admin;
    let count = |outcome: &str| {
        let labels = ["policy=\"shop/orders-access\"", &format!("outcome=\"{outcome}\"")];
        metric(admin, "sluice_access_decisions_total", &labels).unwrap()
    };
    assert_eq!(["allowed", "denied", "invalid", "missing"].map(count), [8.0, 1.0, 1.0, 1.0]);
    let refused = || {
        let status = gateway.status("accesspolicies", "shop", "orders-access");
        status["refused"].as_str().filter(|share| *share != "0%").map(str::to_owned)
    };
    eventually("the share of refused requests", Duration::from_secs(45), refused).unwrap();
}

#[test]
fn ip_lists() {
    let (_gateway, _echo, port) = gateway("IP lists", &[("accesspolicies", "orders-networks")]);
    assert_eq!(ask(port, "GET", "/orders", ""), 200);
    for path in ["/orders/internal", "/orders/internal/x", "/orders/%69nternal", "/orders//x/../internal;a"] {
        assert_eq!(ask(port, "GET", path, ""), 403, "{path}");
    }
}

#[test]
fn an_audit_lets_pass() {
    let (gateway, _echo, port) = gateway("First see what would be refused", &[("accesspolicies", "orders-audit")]);
    assert_eq!(ask(port, "GET", "/orders", ""), 200);
    let admin = gateway.ready_proxies()[0].admin;
    let labels = ["mode=\"Audit\"", "outcome=\"missing\""];
    assert_eq!(metric(admin, "sluice_access_decisions_total", &labels).unwrap(), 1.0);
}
