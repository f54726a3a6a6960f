//! A resource that the proxies refuse is rolled back alone. The proxy here is a build with a fault switch: it refuses the
//! named resources while their content holds `fault-injected`.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, Options, eventually, free_port, http,
        manifests::{Fleet, HOST, route, route_with},
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, serves};

#[test]
fn a_nacked_resource_is_rolled_back_alone() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let switch = ("SLUICE_FAULT_NACK".to_owned(), "Route/shop/edited,Route/shop/never".to_owned());
    let rewritten = |name: &str, to: &str| {
        let rule = format!(
            "matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]\n    filters:\n    \
             - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: {to}}}}}}}"
        );
        route_with(name, &rule, echo.addr)
    };
    let manifests = [("fleet.yaml", Fleet::fixed(port, 2).yaml()), ("edited.yaml", rewritten("edited", "/v1"))];
    let mut gateway = Gateway::start_with(&manifests, Options { fault: Some(vec![switch]) }).unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(30)).unwrap();
    serves(port, "/edited");

    // The route that carries the load is the one that is refused.
    let mut plan = Plan::new(at(port), HOST).mixed().step(500.0, Duration::from_secs(600));
    plan.paths = vec!["/edited".to_owned()];
    let load = Load::start(plan).unwrap();
    gateway.write("edited.yaml", &rewritten("edited", "/fault-injected")).unwrap();
    gateway.write("never.yaml", &rewritten("never", "/fault-injected")).unwrap();
    gateway.write("other.yaml", &route("other", "/other", echo.addr)).unwrap();

    // The other one is served; these are named, the first with what it had, the second, which never had any, with 500.
    serves(port, "/other");
    for name in ["edited", "never"] {
        programmed(&gateway, name, "False", "refused by the fault switch");
    }
    programmed(&gateway, "other", "True", "");
    let reaches = |path: &str| http::get(at(port), HOST, path).unwrap().json()["path"].clone();
    assert_eq!(reaches("/edited"), "/v1");
    // What it is rolled back to is on its way when the refusal is told: so far no proxy knew this path.
    eventually("/never answers 500", Duration::from_secs(5), || {
        (http::get(at(port), HOST, "/never").unwrap().status == 500).then_some(())
    })
    .unwrap();

    // Newly started proxies still become ready, and have the same.
    gateway.write("fleet.yaml", &Fleet::fixed(port, 3).yaml()).unwrap();
    gateway.wait_for_proxies(3, Duration::from_secs(30)).unwrap();
    for _ in 0..50 {
        assert_eq!(reaches("/edited"), "/v1");
    }

    // What is fine again is taken.
    gateway.write("edited.yaml", &rewritten("edited", "/v2")).unwrap();
    gateway.write("never.yaml", &rewritten("never", "/v2")).unwrap();
    for name in ["edited", "never"] {
        programmed(&gateway, name, "True", "");
        assert_eq!(reaches(&format!("/{name}")), "/v2");
    }
    assert_clean(&load.stop().unwrap());
}

/// Waits until the route's Programmed has this status and its message says this.
fn programmed(gateway: &Gateway, route: &str, status: &str, says: &str) {
    let mut last = None;
    let found = eventually(&format!("{route} is Programmed={status}"), Duration::from_secs(15), || {
        last = gateway.condition("apiroutes", "shop", route, "Programmed");
        last.as_ref().is_some_and(|c| c.status == status && c.message.contains(says)).then_some(())
    });
    assert!(found.is_ok(), "{route}: {last:?}");
}
