//! A limit admits what it says.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, free_port,
        manifests::{Fleet, HOST, route, token_bucket},
    },
    load::{Plan, run},
};

use crate::{at, long, serves};

const RATE: u32 = 100;
const BURST: u32 = 50;
const TIME: Duration = Duration::from_secs(10);

#[test]
fn a_token_bucket_admits_its_rate_and_its_burst() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("all.yaml", route("all", "/", echo.addr)),
        ("free.yaml", route("free", "/free", echo.addr)),
        ("policy.yaml", token_bucket("hundred", "all", RATE, BURST)),
    ])
    .unwrap();
    serves(port, "/free");
    for round in 0..if long() { 3 } else { 1 } {
        // The bucket is full again before each round.
        e2e::harness::pause(Duration::from_secs(1));
        let before = echo.requests();
        let mut plan = Plan::new(at(port), HOST).step(f64::from(RATE) * 10.0, TIME);
        plan.h1 = 32;
        let report = run(plan).unwrap();
        let admitted = report.ok as f64;
        let fair = f64::from(RATE) * TIME.as_secs_f64();
        println!("round {round}: admitted {admitted}, fair {fair} + {BURST}\n{report}");
        assert_eq!((report.failures(), report.missed), (0, 0), "\n{report}");
        assert_eq!(report.ok + report.limited, report.requests, "\n{report}");
        assert!((admitted - f64::from(BURST) - fair).abs() <= fair * 0.01, "admitted {admitted}\n{report}");
        // A rejected request never reaches the upstream.
        assert_eq!(echo.requests() - before, report.ok);
    }
    drop(gateway);
}
