//! As many routes as a fleet may have arrive at once while requests are served: none fails, and none waits for them.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route},
        pause, rss,
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, long, serves};

const ROUTES: usize = 9_999;
const RATE: f64 = 500.0;
const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(2);

#[test]
fn ten_thousand_routes_come_and_go_under_load() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let gateway =
        Gateway::start(&[("fleet.yaml", Fleet::single(port).yaml()), ("hot.yaml", route("hot", "/hot", echo.addr))])
            .unwrap();
    serves(port, "/hot");
    let many: String =
        (0..ROUTES).map(|n| format!("---\n{}", route(&format!("r{n}"), &format!("/r{n}"), echo.addr))).collect();
    let last = format!("/r{}", ROUTES - 1);
    let becomes = |status: u16| {
        let answers = || (http::get(at(port), HOST, &last).unwrap().status == status).then_some(());
        eventually(&format!("{last} is answered {status}"), Duration::from_secs(60), answers).unwrap();
    };
    let memory = || rss(gateway.proxies()[0].pid).unwrap() >> 10;

    let mut plan = Plan::new(at(port), HOST).step(RATE, Duration::from_secs(3600));
    (plan.h1, plan.paths) = (16, vec!["/hot".to_owned()]);
    let load = Load::start(plan).unwrap();
    pause(WINDOW);
    let (mut quiet, mut busy) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        load.live();
        pause(WINDOW);
        quiet.push(load.live().latency.p99);
        let before = memory();
        gateway.write("many.yaml", &many).unwrap();
        becomes(200);
        busy.push(load.live().latency.p99);
        println!("{ROUTES} routes: {before} KiB resident before, {} KiB with them", memory());
        gateway.remove("many.yaml").unwrap();
        becomes(404);
    }
    let report = load.stop().unwrap();
    println!("p99 in ms: {quiet:.1?} while nothing changed, {busy:.1?} while the routes came\n{report}");
    assert_clean(&report);
    // The planner needs a core meanwhile, and there may be but two for everything.
    busy.sort_by(f64::total_cmp);
    let (noise, median) = (quiet.iter().copied().fold(0.0, f64::max), busy[ROUNDS / 2]);
    let allowed = noise * if long() { 2.0 } else { 10.0 };
    assert!(median <= allowed, "p99 was {median:.1} ms while the routes came, {allowed:.1} ms is allowed");
}
