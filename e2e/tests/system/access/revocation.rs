//! Keys that come and go under load: one that overlaps another refuses nobody, and one that is gone is refused everywhere.

use std::time::{Duration, Instant};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route},
        pause,
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, bound};

const GOAL: Duration = Duration::from_secs(1);
const RATE: f64 = 200.0;
const OLD: &str = "old-key-55c1d0";
const NEW: &str = "new-key-8f03ab";

fn secret(name: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\n\
         metadata: {{name: {name}, namespace: shop, labels: {{sluice.dev/credential: \"api-key\"}}}}\n\
         stringData: {{api-key: {key}}}\n"
    )
}

fn consumer(secrets: &[&str]) -> String {
    let credentials: String =
        secrets.iter().map(|name| format!("  - {{type: APIKey, secretRef: {{name: {name}}}}}\n")).collect();
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: acme, namespace: shop}}\n\
         spec:\n  credentials:\n{credentials}"
    )
}

/// Without a limit on failures, so that what is refused is refused for the key.
fn policy() -> String {
    "apiVersion: sluice.dev/v1alpha1\n\
     kind: AccessPolicy\n\
     metadata: {name: access, namespace: shop}\n\
     spec:\n  \
       targetRefs: [{group: sluice.dev, kind: ApiRoute, name: all}]\n  \
       authentication:\n    \
         providers: [{name: keys, type: APIKey, apiKey: {from: [{header: X-API-Key}]}}]\n    \
         maxFailuresPerMinute: 0\n"
        .to_owned()
}

fn ask(port: u16, key: &str) -> u16 {
    http::send(at(port), "GET", HOST, "/", &[("x-api-key", key)]).unwrap().status
}

fn load(port: u16, key: &str) -> Load {
    let mut plan = Plan::new(at(port), HOST).step(RATE, Duration::from_secs(120));
    (plan.h1, plan.h2, plan.new_per_second) = (16, 2, 20.0);
    plan.headers.push(("x-api-key".to_owned(), key.to_owned()));
    Load::start(plan).unwrap()
}

/// How long after a change of manifests a key was taken for the last time. Each question is a connection of its own, which
/// any proxy may have.
fn last_taken(port: u16, key: &str, change: impl FnOnce()) -> Duration {
    let changed = Instant::now();
    change();
    let (mut last, mut refused) = (Duration::ZERO, 0);
    while refused < 200 {
        match ask(port, key) {
            200 => (last, refused) = (changed.elapsed(), 0),
            401 => refused += 1,
            other => panic!("{other}"),
        }
        assert!(changed.elapsed() < Duration::from_secs(30), "still taken");
        pause(Duration::from_millis(5));
    }
    last
}

#[test]
fn a_key_is_rotated_and_revoked_under_load() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let mut gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::fixed(port, 2).yaml()),
        ("all.yaml", route("all", "/", echo.addr)),
        ("old.yaml", secret("acme-old", OLD)),
        ("new.yaml", secret("acme-new", NEW)),
        ("consumer.yaml", consumer(&["acme-old"])),
        ("policy.yaml", policy()),
    ])
    .unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(20)).unwrap();
    // From its first answer on the route is guarded.
    let first = || http::get(at(port), HOST, "/").ok().map(|answer| answer.status).filter(|status| *status != 404);
    assert_eq!(eventually("the route", Duration::from_secs(10), first).unwrap(), 401);
    let taken = || (ask(port, OLD) == 200).then_some(());
    eventually("the key", Duration::from_secs(10), taken).unwrap();

    let old = load(port, OLD);
    gateway.write("consumer.yaml", &consumer(&["acme-old", "acme-new"])).unwrap();
    let both = || gateway.status("consumers", "shop", "acme")["credentials"].as_u64().filter(|count| *count == 2);
    eventually("two keys", Duration::from_secs(10), both).unwrap();
    let runs = || (0..20).all(|_| ask(port, NEW) == 200).then_some(());
    eventually("the new key", Duration::from_secs(10), runs).unwrap();
    let new = load(port, NEW);
    pause(Duration::from_secs(1));
    let report = old.stop().unwrap();
    println!("rotated under load, the old key:\n{report}");
    assert_clean(&report);

    let last = last_taken(port, OLD, || gateway.write("consumer.yaml", &consumer(&["acme-new"])).unwrap());
    println!("a key that was taken out was taken for {last:.1?} more (goal {GOAL:?})");
    assert!(last <= bound(GOAL));
    let report = new.stop().unwrap();
    println!("the new key:\n{report}");
    assert_clean(&report);

    let last = last_taken(port, NEW, || gateway.remove("consumer.yaml").unwrap());
    println!("the key of a consumer that was deleted was taken for {last:.1?} more (goal {GOAL:?})");
    assert!(last <= bound(GOAL));
    gateway.check().unwrap();
}
