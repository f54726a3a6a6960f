//! Timelines: a fleet that carries a load, second by second, and what the scaler wants of it.
#![allow(clippy::needless_pass_by_value)] // `json!({..})` reads best as an argument

use std::sync::Arc;

use crds::Object;
use serde_json::{Value, json};
use snapshot::{
    latency,
    proto::{LatencyCount, LoadWindow},
};

use super::*;
use crate::{FleetRef, Kind, ObjectRef, World, WorldObject, plan};

const T0: u64 = 1_700_000_000_000;

fn settings(scaling: Value) -> FleetSettings {
    let fleet: crds::GatewayFleet = serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "GatewayFleet",
        "metadata": {"name": "f", "namespace": "n"},
        "spec": {
            "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
            "scaling": scaling,
            "template": {"resources": {"limits": {"memory": "100M"}}},
        },
    }))
    .unwrap();
    let object = ObjectRef { kind: Kind::GatewayFleet, namespace: "n".into(), name: "f".into() };
    let current = Ok(Arc::new(Object::GatewayFleet(fleet)));
    let entry = WorldObject {
        current,
        raw: None,
        accepted: None,
        accepted_at: None,
        generation: 1,
        created: None,
        origin: None,
    };
    let world = World { objects: [(object, entry)].into(), ..World::default() };
    let plan = plan(&world);
    assert_eq!(plan.problems, []);
    plan.fleets[&FleetRef { namespace: "n".into(), name: "f".into() }].settings.clone()
}

/// A fleet of proxies that each carry 1000 requests/s at most, with 1 ms of CPU each; what is more is shed.
struct Fleet {
    settings: FleetSettings,
    scaler: Scaler,
    /// Second at which each is Ready.
    proxies: Vec<(String, u64)>,
    names: u32,
    second: u64,
    /// Seconds from the start of a proxy to Ready.
    start: u64,
    added_us: u64,
    /// Proxies that say nothing.
    silent: usize,
}

impl Fleet {
    fn new(scaling: Value, replicas: usize) -> Self {
        let mut fleet = Self {
            settings: settings(scaling),
            scaler: Scaler::default(),
            proxies: vec![],
            names: 0,
            second: 0,
            start: 2,
            added_us: 100,
            silent: 0,
        };
        fleet.resize(replicas);
        fleet.proxies.iter_mut().for_each(|(_, ready)| *ready = 0);
        fleet
    }

    fn resize(&mut self, replicas: usize) {
        while self.proxies.len() < replicas {
            self.names += 1;
            self.proxies.push((format!("p{}", self.names), self.second + self.start));
        }
        for (name, _) in self.proxies.drain(replicas..) {
            self.scaler.forget(&name);
        }
    }

    fn ready(&self) -> usize {
        self.proxies.iter().filter(|(_, at)| *at <= self.second).count()
    }

    /// One second of load, reported and decided on.
    fn second(&mut self, rps: u64) -> Decision {
        let now = Millis(T0 + self.second * 1000 + 1000);
        let each = rps / (self.ready().max(1) as u64);
        for (i, (name, ready)) in self.proxies.iter().enumerate() {
            if i < self.silent {
                continue;
            }
            let load = if *ready <= self.second { each } else { 0 };
            let window = LoadWindow {
                start_unix_ms: T0 + self.second * 1000,
                duration_ms: 1000,
                admitted: load.min(1000),
                shed: load.saturating_sub(1000),
                limited: 77,
                cpu_us: load.min(1000) * 1000,
                workers: 1,
                memory_bytes: 20_000_000,
                added_latency: vec![LatencyCount { bucket: latency::bucket(self.added_us) as u32, count: load }],
                ..LoadWindow::default()
            };
            self.scaler.observe(name, &window, now);
        }
        self.second += 1;
        let observed = Observed { current: self.proxies.len() as u32, ready: self.ready() as u32 };
        let decision = self.scaler.decide(&self.settings, observed, now);
        self.resize(decision.desired as usize);
        decision
    }

    fn run(&mut self, seconds: u64, rps: u64) -> Decision {
        (1..seconds).for_each(|_| drop(self.second(rps)));
        self.second(rps)
    }
}

/// Runs a table of (seconds, requests/s, replicas wanted at the end of them).
#[track_caller]
fn check(scaling: Value, replicas: usize, timeline: &[(u64, u64, u32)]) {
    let mut fleet = Fleet::new(scaling, replicas);
    for (i, (seconds, rps, expect)) in timeline.iter().enumerate() {
        let decision = fleet.run(*seconds, *rps);
        assert_eq!(decision.desired, *expect, "row {i}, second {}: {decision:#?}", fleet.second);
    }
}

fn rate(extra: Value) -> Value {
    merge(
        json!({"minReplicas": 1, "maxReplicas": 20, "targets": [{"type": "RequestRate", "averageValue": "500"}]}),
        extra,
    )
}

fn merge(mut a: Value, b: Value) -> Value {
    a.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    a
}

fn down_after(seconds: u64) -> Value {
    json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": seconds}}})
}

#[test]
fn grows_within_seconds_and_shrinks_after_the_window() {
    let timeline = [(30, 400, 1), (4, 1900, 4), (60, 1900, 4), (9, 100, 4), (5, 100, 1), (60, 100, 1)];
    check(rate(down_after(10)), 1, &timeline);
}

#[test]
fn the_default_window_is_five_minutes() {
    check(rate(json!({})), 4, &[(30, 1900, 4), (299, 100, 4), (5, 100, 1)]);
}

#[test]
fn a_load_within_the_tolerance_changes_nothing() {
    // 500 ± 10 % each.
    check(rate(down_after(0)), 2, &[(30, 1090, 2), (30, 910, 2), (30, 1150, 3)]);
    check(
        rate(json!({"behavior": {"scaleUp": {"tolerance": "0.5"}, "scaleDown": {"tolerance": "500m"}}})),
        2,
        &[(30, 1400, 2), (30, 1600, 4)],
    );
}

#[test]
fn what_is_starting_is_not_asked_for_again() {
    let mut fleet = Fleet::new(rate(json!({})), 1);
    fleet.start = 30;
    fleet.run(30, 400);
    let most = (0..40).map(|_| fleet.second(1900).desired).max();
    assert_eq!(most, Some(4));
}

#[test]
fn a_signal_that_saturates_grows_step_by_step() {
    // One proxy at 100 % of its CPU shows no more than 1/0.5 = 2; two show 4, and so on.
    let cpu = json!({"minReplicas": 1, "maxReplicas": 20, "targets": [{"type": "CPU", "averageUtilization": 50}]});
    check(cpu, 1, &[(30, 400, 1), (2, 6000, 2), (60, 6000, 12), (60, 6000, 12)]);
}

#[test]
fn cpu_is_a_share_of_what_is_requested() {
    let cpu = json!({"minReplicas": 1, "maxReplicas": 20, "targets": [{"type": "CPU", "averageUtilization": 50}]});
    let mut fleet = Fleet::new(cpu, 1);
    // 200 requests/s are 0.2 cores: 40 % of the half that is requested, whatever the worker threads could do.
    fleet.settings.cpu_cores = Some(0.5);
    let decision = fleet.run(30, 200);
    assert_eq!((decision.desired, decision.driven_by.as_deref()), (1, Some("CPU=80%")));
    assert_eq!(decision.signals[0].value, Some(40.0));
    assert_eq!(fleet.run(30, 700).desired, 3);
}

#[test]
fn growth_is_bounded_in_time() {
    // × 4 or + 4 within 3 s: 1 → 5 → 20.
    let mut fleet = Fleet::new(rate(json!({"maxReplicas": 100})), 1);
    fleet.run(20, 100);
    let desired: Vec<u32> = (0..8).map(|_| fleet.second(25_000).desired).collect();
    assert_eq!(desired, [5, 5, 5, 20, 20, 20, 50, 50]);
}

#[test]
fn policies_bound_growth_and_shrinking() {
    let behavior = json!({"behavior": {
        "scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 10}]},
        "scaleDown": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Min",
            "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": 20},
                {"type": "Pods", "value": 3, "periodSeconds": 20},
            ],
        },
    }});
    check(rate(behavior), 1, &[(20, 400, 1), (4, 4000, 2), (10, 4000, 3), (10, 4000, 4), (50, 4000, 8)]);
    let disabled =
        json!({"behavior": {"scaleUp": {"selectPolicy": "Disabled"}, "scaleDown": {"selectPolicy": "Disabled"}}});
    check(rate(disabled), 2, &[(20, 4000, 2), (400, 0, 2)]);
}

#[test]
fn shrinking_by_policy() {
    let behavior = json!({"behavior": {"scaleDown": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 3, "periodSeconds": 20}],
    }}});
    check(rate(behavior), 8, &[(30, 4000, 8), (4, 100, 5), (15, 100, 5), (5, 100, 2), (20, 100, 1)]);
}

#[test]
fn missing_data_holds() {
    let mut fleet = Fleet::new(rate(down_after(0)), 4);
    assert_eq!(fleet.run(30, 1900).desired, 4);
    fleet.silent = 2;
    fleet.run(6, 1900);
    let decision = fleet.run(60, 100);
    assert_eq!(decision.desired, 4);
    assert_eq!(decision.signals[0].replicas, None, "two of four say nothing of a fleet");
    // What the others carry is enough to grow.
    assert_eq!(fleet.run(4, 6000).desired, 6);
    fleet.silent = 100;
    let decision = fleet.run(60, 100);
    assert_eq!((decision.desired, decision.driven_by), (6, None));
    assert_eq!(decision.reason, "stays at 6: no data for RequestRate");
}

#[test]
fn one_signal_without_data_forbids_to_shrink_but_not_to_grow() {
    let two = json!({"targets": [
        {"type": "RequestRate", "averageValue": "500"},
        {"type": "Memory", "averageUtilization": 50},
    ]});
    let mut fleet = Fleet::new(merge(rate(down_after(0)), two), 4);
    fleet.settings.memory_bytes = None;
    assert_eq!(fleet.run(60, 100).desired, 4);
    assert_eq!(fleet.run(4, 2900).desired, 6);
}

#[test]
fn the_most_demanding_wins() {
    let all = json!({"targets": [
        {"type": "RequestRate", "averageValue": "500"},
        {"type": "CPU", "averageUtilization": 20},
        {"type": "Memory", "averageUtilization": 80},
        {"type": "ProxyLatency", "percentile": 99, "value": "5ms"},
    ]});
    let mut fleet = Fleet::new(merge(rate(json!({})), all), 1);
    fleet.run(30, 150);
    fleet.run(60, 800);
    let decision = fleet.second(800);
    assert_eq!(decision.desired, 4);
    assert_eq!(decision.driven_by.as_deref(), Some("CPU=100%"));
    let signals: Vec<_> =
        decision.signals.iter().map(|s| (s.target.as_str(), s.value, s.percent, s.replicas)).collect();
    assert_eq!(
        signals,
        [
            ("RequestRate", Some(200.0), Some(40.0), Some(2)),
            ("CPU", Some(20.0), Some(100.0), Some(4)),
            ("Memory", Some(20.0), Some(25.0), Some(1)),
            ("ProxyLatency", Some(0.11), Some(2.22), Some(3)),
        ]
    );
}

#[test]
fn latency_doubles_at_most_and_waits_for_what_it_asked_for() {
    let latency = json!({"targets": [{"type": "ProxyLatency", "percentile": 99, "value": "1ms"}]});
    let mut fleet = Fleet::new(merge(rate(down_after(60)), latency), 2);
    assert_eq!(fleet.run(30, 400).desired, 2);
    fleet.added_us = 50_000;
    assert_eq!(fleet.run(4, 400).desired, 4);
    assert_eq!(fleet.run(12, 400).desired, 4, "the new ones have still to show what they do");
    assert_eq!(fleet.run(6, 400).desired, 8);
    fleet.added_us = 600;
    assert_eq!(fleet.run(100, 400).desired, 8, "60 % of the target");
    fleet.added_us = 100;
    assert_eq!(fleet.run(66, 400).desired, 7, "one at a time");
    assert_eq!(fleet.run(600, 0).desired, 1, "idle");
}

#[test]
fn a_crash_does_not_shrink_the_fleet() {
    let mut fleet = Fleet::new(rate(down_after(0)), 4);
    fleet.run(30, 1900);
    let (name, _) = fleet.proxies.remove(0);
    fleet.scaler.forget(&name);
    assert_eq!(fleet.second(1900).desired, 4);
}

#[test]
fn a_new_scaler_takes_over_what_it_finds() {
    let scaling = rate(down_after(20));
    let mut scaler = Scaler::default();
    let settings = settings(scaling);
    let at = |s: u64| Millis(T0 + s * 1000);
    let mut decide = |s, current| scaler.decide(&settings, Observed { current, ready: 0 }, at(s)).desired;
    assert_eq!(decide(0, 0), 1);
    assert_eq!(decide(1, 2), 2);
    assert_eq!(decide(3, 6), 6, "the rest attached");
    assert_eq!(decide(100, 6), 6, "no data holds");
}

/// The second at which a fleet of 4 shrinks whose load went down at second 60; `after` more another scaler takes over.
fn shrinks_at(window: u64, after: u64, takes_over: bool, recalls: bool) -> u64 {
    let mut fleet = Fleet::new(rate(down_after(window)), 4);
    fleet.run(60, 1900);
    fleet.run(after, 100);
    if takes_over {
        let (before, now) = (std::mem::take(&mut fleet.scaler), Millis(T0 + fleet.second * 1000));
        for (_, proxy, load) in before.windows.by_arrival() {
            fleet.scaler.observe(proxy, load, now);
        }
        if recalls {
            fleet.scaler.recall(&fleet.settings, Observed { current: 4, ready: 4 }, now);
        }
    }
    while fleet.second(100).desired == 4 {
        assert!(fleet.second < 2_000);
    }
    fleet.second
}

#[test]
fn a_scaler_that_takes_over_shrinks_when_the_one_before_would_have() {
    let alone = shrinks_at(100, 40, false, false);
    assert!((160..=165).contains(&alone), "{alone}");
    assert!(shrinks_at(100, 40, true, true).abs_diff(alone) <= 1, "{}", shrinks_at(100, 40, true, true));
    assert!(shrinks_at(100, 40, true, false) >= 200, "else the window begins anew");
}

#[test]
fn a_scaler_that_takes_over_never_shrinks_before_the_one_before_would_have() {
    // Of a window of 600 s, windows of load tell the last 300: at second 460 nothing is known of the first 160.
    let alone = shrinks_at(600, 400, false, false);
    assert!((660..=665).contains(&alone), "{alone}");
    let taken_over = shrinks_at(600, 400, true, true);
    assert!((alone..=alone + 101).contains(&taken_over), "{taken_over}");
    // The default window, a while after the load went down: what is known is all there is to know.
    let (alone, taken_over) = (shrinks_at(300, 200, false, false), shrinks_at(300, 200, true, true));
    assert!(taken_over.abs_diff(alone) <= 1, "{taken_over} {alone}");
}

#[test]
fn bounds() {
    check(rate(json!({"minReplicas": 3, "maxReplicas": 5})), 1, &[(1, 0, 3), (60, 9000, 5), (400, 0, 3)]);
    check(rate(json!({"maxReplicas": 2})), 4, &[(1, 1900, 2)]);
}

#[test]
fn modes() {
    check(rate(json!({"mode": "Paused"})), 3, &[(30, 9000, 3), (400, 0, 3)]);
    check(rate(json!({"mode": "External", "replicas": 7})), 3, &[(3, 0, 7)]);
    check(rate(json!({"mode": "External", "replicas": 70})), 3, &[(3, 0, 20)]);
    check(rate(json!({"mode": "External"})), 3, &[(3, 0, 3)]);
    let mut fleet = Fleet::new(rate(json!({"mode": "DryRun"})), 2);
    fleet.run(20, 900);
    let decision = fleet.run(4, 1900);
    assert_eq!(decision.desired, 2);
    assert_eq!(decision.driven_by.as_deref(), Some("RequestRate=190%"));
    let expect = "dry run: stays at 2; Managed would be 4: grows from 2 to 4: RequestRate is at 190% of its target";
    assert_eq!(decision.reason, expect);
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_number_is_always_within_its_bounds(
            loads in proptest::collection::vec((1..20u64, 0..100_000u64, 0..5usize), 1..20),
            start in 0..20u64,
        ) {
            let mut fleet = Fleet::new(rate(merge(json!({"minReplicas": 2}), down_after(5))), 2);
            fleet.start = start;
            for (seconds, rps, silent) in loads {
                fleet.silent = silent;
                let desired = fleet.run(seconds, rps).desired;
                prop_assert!((2..=20).contains(&desired));
            }
        }

        #[test]
        fn a_steady_load_settles_at_what_it_needs(rps in 0..9_000u64, replicas in 1..20usize) {
            let mut fleet = Fleet::new(rate(down_after(5)), replicas);
            let settled = fleet.run(120, rps).desired;
            let exact = rps as f64 / 500.0;
            let slack = exact * 0.11 + 1e-6;
            prop_assert!(f64::from(settled) >= exact - slack, "{settled} for {exact}");
            prop_assert!(f64::from(settled) <= (exact + slack).ceil().max(1.0), "{settled} for {exact}");
            for _ in 0..60 {
                prop_assert_eq!(fleet.second(rps).desired, settled, "no flapping");
            }
        }

        #[test]
        fn any_window_is_taken(start: u64, duration: u32, n: u64, cpu: u64, workers: u32, bucket: u32, now: u64) {
            let mut scaler = Scaler::default();
            let window = LoadWindow {
                start_unix_ms: start, duration_ms: duration, admitted: n, shed: n, cpu_us: cpu, workers, memory_bytes: n,
                added_latency: vec![LatencyCount { bucket, count: n }; 3],
                ..LoadWindow::default()
            };
            let settings = settings(rate(json!({})));
            scaler.observe("a", &window, Millis(now));
            scaler.observe("b", &window, Millis(now));
            let decision = scaler.decide(&settings, Observed { current: 2, ready: 2 }, Millis(now));
            prop_assert!((1..=20).contains(&decision.desired));
        }
    }
}
