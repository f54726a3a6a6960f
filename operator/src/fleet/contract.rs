//! The contract of every [`Fleet`], whatever runs its proxies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crds::fleet::Drain;
use planner::{FleetPlan, FleetRef};

use super::{Fleet, Observation, ProxyReport, nothing};

/// A fleet under test.
pub(super) struct Bench<F> {
    pub(super) fleet: F,
    pub(super) plan: FleetPlan,
    pub(super) rates: BTreeMap<String, f64>,
    /// The proxies that are Ready; `None`: every one.
    pub(super) ready: Ready,
    /// How long something takes to happen, if it does.
    pub(super) patience: Duration,
    /// Whether the fleet knows of every one that is Ready.
    pub(super) is_settled: fn(&F) -> bool,
}

/// The proxies that are Ready; `None`: every one.
pub(super) type Ready = Arc<Mutex<Option<BTreeSet<String>>>>;

impl<F: Fleet> Bench<F> {
    pub(super) fn new(fleet: F) -> Self {
        let name = FleetRef { namespace: "ns".into(), name: "f".into() };
        let plan = FleetPlan { replicas: 0, template_hash: 1, workers: Some(1), ..nothing(&name, Drain::default()) };
        let patience = Duration::from_millis(25);
        Self { fleet, plan, rates: BTreeMap::new(), ready: Ready::default(), patience, is_settled: |_| true }
    }

    fn reports(&self) -> BTreeMap<String, ProxyReport> {
        let only = self.ready.lock().unwrap().clone();
        let report = |name: &String| {
            let rate = self.rates.get(name).copied().unwrap_or_default();
            let ready = only.as_ref().is_none_or(|only| only.contains(name));
            ProxyReport { ready, rate, connections: 0, admin: "127.0.0.1:1".into() }
        };
        self.observe().proxies.keys().map(|name| (name.clone(), report(name))).collect()
    }

    pub(super) fn observe(&self) -> Observation {
        self.fleet.observe().remove(&self.plan.fleet).unwrap_or_default()
    }

    /// Names of living proxies that are not leaving.
    pub(super) fn staying(&self) -> Vec<String> {
        self.observe().proxies.iter().filter(|(_, p)| !p.draining).map(|(name, _)| name.clone()).collect()
    }

    /// A step, as a reconciliation makes it.
    pub(super) fn step(&mut self) {
        let reports = self.reports();
        self.fleet.ensure(&self.plan, &reports);
    }

    /// Steps until something holds.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        let limit = Duration::from_secs(10).max(self.patience * 30);
        while !holds(self) {
            assert!(start.elapsed() < limit, "{what}: {:#?}", self.observe());
            self.step();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Steps for as long as something would take to happen: it must hold all the while.
    #[track_caller]
    pub(super) fn stays(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while start.elapsed() < self.patience {
            self.step();
            assert!(holds(self), "{what}: {:#?}", self.observe());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Runs the contract on an implementation that has nothing yet.
pub(super) fn check<F: Fleet>(mut bench: Bench<F>) {
    grows_and_shrinks(&mut bench);
    changes_template_one_by_one(&mut bench);
    leaves_nothing(&mut bench);
}

fn grows_and_shrinks<F: Fleet>(bench: &mut Bench<F>) {
    bench.plan.replicas = 3;
    bench.until("three proxies", |b| b.staying().len() == 3 && (b.is_settled)(&b.fleet));
    let names = bench.staying();
    bench.stays("steps that change nothing", |b| (b.staying(), b.observe().replicas) == (names.clone(), 3));
    bench.rates = names.iter().cloned().zip([5.0, 1.0, 9.0]).collect();
    bench.plan.replicas = 2;
    bench.until("one leaves", |b| b.staying().len() == 2);
    assert_eq!(bench.staying(), [names[0].clone(), names[2].clone()], "the least loaded leaves");
    assert_eq!(bench.observe().replicas, 2);
    bench.until("the third is gone", |b| b.observe().proxies.len() == 2);
}

fn changes_template_one_by_one<F: Fleet>(bench: &mut Bench<F>) {
    let old = bench.observe().proxies;
    *bench.ready.lock().unwrap() = Some(old.keys().cloned().collect());
    change_template(&mut bench.plan);
    bench.until("a third of the new template", |b| b.staying().len() == 3);
    bench.stays("nobody leaves before the new one is Ready", |b| b.staying().len() == 3);
    assert_eq!(bench.observe().replicas, 2, "it takes the place of another");
    *bench.ready.lock().unwrap() = None;
    bench.until("all of the new template", |b| {
        // A name may come again, with another process.
        let now = b.observe().proxies;
        now.len() == 2 && now.iter().all(|(name, proxy)| old.get(name) != Some(proxy))
    });
}

fn change_template(plan: &mut FleetPlan) {
    plan.template_hash = 2;
    plan.workers = Some(2);
    if let Some(spec) = &plan.spec {
        let mut spec = crds::GatewayFleetSpec::clone(spec);
        spec.template.workers = Some(2);
        plan.spec = Some(Arc::new(spec));
    }
}

fn leaves_nothing<F: Fleet>(bench: &mut Bench<F>) {
    bench.plan = nothing(&bench.plan.fleet, Drain::default());
    bench.until("everything leaves", |b| (b.staying().len(), b.observe().replicas) == (0, 0));
    bench.until("nothing is left", |b| !b.fleet.observe().contains_key(&b.plan.fleet));
}
