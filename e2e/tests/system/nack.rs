//! A resource that the proxies refuse is rolled back alone. The proxy here is a build with a fault switch.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, Options, eventually, free_port, http,
        manifests::{Fleet, HOST, route},
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, serves};

#[test]
fn a_nacked_resource_is_rolled_back_alone() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let switch = ("SLUICE_FAULT_NACK".to_owned(), "Route/shop/refused".to_owned());
    let options = Options { fault: Some(vec![switch]) };
    let manifests = [("fleet.yaml", Fleet::fixed(port, 2).yaml()), ("good.yaml", route("good", "/good", echo.addr))];
    let mut gateway = Gateway::start_with(&manifests, options).unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(30)).unwrap();
    let status = |path: &str| http::get(at(port), HOST, path).unwrap().status;
    serves(port, "/good");

    let mut plan = Plan::new(at(port), HOST).mixed().step(500.0, Duration::from_secs(600));
    plan.paths = vec!["/good".to_owned()];
    let load = Load::start(plan).unwrap();
    gateway.write("refused.yaml", &route("refused", "/refused", echo.addr)).unwrap();
    gateway.write("other.yaml", &route("other", "/other", echo.addr)).unwrap();

    // The others are served, this one is named with its field, and answers 500: it was never acknowledged.
    serves(port, "/other");
    let programmed = eventually("the refusal is in the status", Duration::from_secs(15), || {
        gateway.condition("apiroutes", "shop", "refused", "Programmed").filter(|c| c.status == "False")
    })
    .unwrap();
    assert!(programmed.message.contains("shop/refused"), "{programmed:?}");
    assert_eq!(status("/refused"), 500);
    eventually("the others are programmed", Duration::from_secs(15), || {
        gateway.condition("apiroutes", "shop", "other", "Programmed").filter(|c| c.status == "True")
    })
    .unwrap();

    // Newly started proxies still become ready.
    gateway.write("fleet.yaml", &Fleet::fixed(port, 3).yaml()).unwrap();
    gateway.wait_for_proxies(3, Duration::from_secs(30)).unwrap();
    let report = load.stop().unwrap();
    assert_clean(&report);
}
