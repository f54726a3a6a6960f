//! What every [`Fleet`] must do, whatever runs its proxies.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crds::fleet::Drain;
use planner::{FleetPlan, FleetRef};

use super::{Fleet, Observation, Sign, nothing};

/// A fleet under test: every living proxy is Ready, but for those that are held back.
pub(super) struct Bench<F> {
    pub(super) fleet: F,
    pub(super) plan: FleetPlan,
    pub(super) rates: BTreeMap<String, f64>,
    pub(super) not_ready: Vec<String>,
}

impl<F: Fleet> Bench<F> {
    pub(super) fn new(fleet: F) -> Self {
        let plan =
            FleetPlan { replicas: 0, template_hash: 1, workers: Some(1), ..nothing(&fleet_ref(), Drain::default()) };
        Self { fleet, plan, rates: BTreeMap::new(), not_ready: vec![] }
    }

    fn signs(&self) -> BTreeMap<String, Sign> {
        let sign = |name: &String| {
            let rate = self.rates.get(name).copied().unwrap_or_default();
            Sign { ready: !self.not_ready.contains(name), rate, connections: 0, admin: "127.0.0.1:1".into() }
        };
        self.observe().proxies.keys().map(|name| (name.clone(), sign(name))).collect()
    }

    pub(super) fn observe(&self) -> Observation {
        self.fleet.observe().remove(&fleet_ref()).unwrap_or_default()
    }

    /// Names of living proxies that are not leaving.
    pub(super) fn staying(&self) -> Vec<String> {
        self.observe().proxies.iter().filter(|(_, p)| !p.draining).map(|(name, _)| name.clone()).collect()
    }

    /// One step, as a turn of the loop makes it.
    pub(super) fn step(&mut self) {
        let signs = self.signs();
        self.fleet.ensure(&self.plan, &signs);
    }

    /// Steps until something holds.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:#?}", self.observe());
            self.step();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

pub(super) fn fleet_ref() -> FleetRef {
    FleetRef { namespace: "ns".into(), name: "f".into() }
}

/// Runs the contract on an implementation that has nothing yet.
pub(super) fn check<F: Fleet>(fleet: F) {
    let mut bench = Bench::new(fleet);
    grows_and_shrinks(&mut bench);
    changes_template_one_by_one(&mut bench);
    leaves_nothing(&mut bench);
}

fn grows_and_shrinks<F: Fleet>(bench: &mut Bench<F>) {
    bench.plan.replicas = 3;
    bench.until("three proxies", |b| b.staying().len() == 3);
    let names = bench.staying();
    bench.step();
    assert_eq!((bench.staying(), bench.observe().replicas), (names.clone(), 3), "a step that changes nothing");
    bench.rates = names.iter().cloned().zip([5.0, 1.0, 9.0]).collect();
    bench.plan.replicas = 2;
    bench.step();
    assert_eq!(bench.staying(), [names[0].clone(), names[2].clone()], "the least loaded leaves");
    assert_eq!(bench.observe().replicas, 2);
    bench.until("the third is gone", |b| b.observe().proxies.len() == 2);
}

fn changes_template_one_by_one<F: Fleet>(bench: &mut Bench<F>) {
    let old = bench.observe().proxies;
    bench.plan.template_hash = 2;
    bench.until("a third of the new template", |b| b.staying().len() == 3);
    let new: Vec<String> = bench.staying().into_iter().filter(|name| !old.contains_key(name)).collect();
    bench.not_ready.clone_from(&new);
    for _ in 0..5 {
        bench.step();
    }
    assert_eq!(bench.staying().len(), 3, "nobody leaves before the new one is Ready");
    assert_eq!(bench.observe().replicas, 2, "it takes the place of another");
    bench.not_ready.clear();
    bench.until("all of the new template", |b| {
        // A name may come again, with another process.
        let now = b.observe().proxies;
        now.len() == 2 && now.iter().all(|(name, proxy)| old.get(name) != Some(proxy))
    });
}

fn leaves_nothing<F: Fleet>(bench: &mut Bench<F>) {
    bench.plan = nothing(&fleet_ref(), Drain::default());
    bench.step();
    assert_eq!((bench.staying().len(), bench.observe().replicas), (0, 0));
    bench.until("nothing is left", |b| !b.fleet.observe().contains_key(&fleet_ref()));
}
