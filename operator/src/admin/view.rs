//! The content of the admin port: the outcome of the last reconciliation. Rendered when asked for; until then it is
//! only pointers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use planner::{
    FleetRef, Millis, ObjectRef, Origin, Plan, Problem, World, WorldObject,
    scale::{self, Decision},
};
use serde_json::{Value, json};
use snapshot::{Entry, Hash, Key, Snapshot, proto::Nack};

use crate::{
    admin::metrics,
    push::Published,
    reconcile::{
        fleet_state::{FleetState, ProxyInfo, RefusalShown, Scope},
        load::Totals,
    },
};

/// Most refusals that are to be forgotten in one reconciliation.
const MOST_FORGOTTEN: usize = 100;

/// The outcome of one reconciliation.
#[derive(Debug)]
pub struct View {
    world: Arc<World>,
    plan: Arc<Plan>,
    fleets: BTreeMap<FleetRef, FleetShown>,
}

#[derive(Debug)]
struct FleetShown {
    decision: Option<Decision>,
    replicas: scale::Observed,
    /// Fewest that must be Ready; `None`: the fleet is leaving.
    least: Option<u32>,
    published: Option<Arc<Published>>,
    /// The revision that was rolled out last.
    stable: Option<Hash>,
    halted: Option<String>,
    rolled_back: Vec<Nack>,
    refusals: Vec<RefusalShown>,
    withheld: BTreeMap<Key, String>,
    proxies: Vec<ProxyInfo>,
    addresses: Vec<String>,
    totals: Totals,
}

/// The part of a view whose changes are written to statuses at once; all else drifts.
#[derive(Debug)]
pub struct Transitions {
    plan: Arc<Plan>,
    fleets: Vec<FleetTransitions>,
}

#[derive(Debug, PartialEq)]
struct FleetTransitions {
    fleet: FleetRef,
    desired: Option<u32>,
    replicas: u32,
    published: Option<Hash>,
    halted: Option<String>,
    rolled_back: Vec<Nack>,
    refusals: Vec<RefusalShown>,
    withheld: BTreeMap<Key, String>,
    proxies: Vec<ProxyInfo>,
    addresses: Vec<String>,
}

impl PartialEq for Transitions {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.plan, &other.plan) && self.fleets == other.fleets
    }
}

/// Hands views from the loop to the admin port.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Latest>>);

#[derive(Debug, Default)]
struct Latest {
    view: Option<Arc<View>>,
    turned: Option<Instant>,
    leads: bool,
    forgotten: Vec<Key>,
}

impl Shared {
    /// Shows this from now on.
    pub fn set(&self, view: View) {
        self.latest().view = Some(Arc::new(view));
    }

    /// The view of the last reconciliation; `None` until the source was read.
    pub fn view(&self) -> Option<Arc<View>> {
        self.latest().view.clone()
    }

    /// The loop began a reconciliation.
    pub fn turned(&self, at: Instant) {
        self.latest().turned = Some(at);
    }

    /// How long ago it began one; `None`: never yet.
    pub fn since_turn(&self) -> Option<Duration> {
        self.latest().turned.map(|at| at.elapsed())
    }

    /// Whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.latest().leads = leads;
    }

    /// Whether it did in its last reconciliation.
    pub fn is_leading(&self) -> bool {
        self.latest().leads
    }

    /// Asks the loop to forget what is refused of a resource. False: too much is asked already.
    pub fn forget(&self, key: Key) -> bool {
        let mut latest = self.latest();
        let has_room = latest.forgotten.len() < MOST_FORGOTTEN;
        latest.forgotten.extend(has_room.then_some(key));
        has_room
    }

    /// The refusals that people asked to have forgotten since the last call.
    pub fn take_forgotten(&self) -> Vec<Key> {
        std::mem::take(&mut self.latest().forgotten)
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// A view of this moment.
    pub fn new(world: &Arc<World>, plan: &Arc<Plan>, states: &BTreeMap<FleetRef, FleetState>, now: Millis) -> Self {
        let shown = |(fleet, state): (&FleetRef, &FleetState)| {
            let scaling = plan.fleets.get(fleet).map(|planned| &planned.settings.spec.scaling);
            let shown = FleetShown {
                decision: state.decision.clone(),
                replicas: state.replicas(),
                least: scaling.map(|scaling| scaling.min_replicas),
                published: state.published.clone(),
                stable: state.stable(),
                halted: state.halted().map(str::to_owned),
                refusals: state.refusals(),
                rolled_back: state.rolled_back.values().cloned().collect(),
                withheld: state.withheld.clone(),
                proxies: state.proxies(),
                addresses: state.observation.addresses.clone(),
                totals: state.totals(now),
            };
            (fleet.clone(), shown)
        };
        let fleets = states.iter().map(shown).collect();
        Self { world: Arc::clone(world), plan: Arc::clone(plan), fleets }
    }

    /// The part of this view that is no drifting number.
    pub fn transitions(&self) -> Transitions {
        let fleet = |(fleet, shown): (&FleetRef, &FleetShown)| FleetTransitions {
            fleet: fleet.clone(),
            desired: shown.decision.as_ref().map(|decision| decision.desired),
            replicas: shown.replicas.current,
            published: shown.published.as_ref().map(|published| published.revision),
            halted: shown.halted.clone(),
            rolled_back: shown.rolled_back.clone(),
            refusals: shown.refusals.clone(),
            withheld: shown.withheld.clone(),
            proxies: shown.proxies.clone(),
            addresses: shown.addresses.clone(),
        };
        Transitions { plan: Arc::clone(&self.plan), fleets: self.fleets.iter().map(fleet).collect() }
    }

    /// Sets the gauges of fleets.
    pub fn count(&self) {
        let metrics = metrics::get();
        metrics.proxies.reset();
        metrics.desired.reset();
        metrics.refusals.reset();
        metrics.rollout_halted.reset();
        for (fleet, shown) in &self.fleets {
            let fleet = fleet.to_string();
            let count = |state: &str, n: usize| metrics.proxies.with_label_values(&[&fleet, state]).set(n as i64);
            let ready = shown.proxies.iter().filter(|p| p.ready).count();
            let draining = shown.proxies.iter().filter(|p| p.draining).count();
            count("ready", ready);
            count("draining", draining);
            count("starting", shown.proxies.len() - ready - draining);
            for (scope, word) in [(Scope::Fleet, "fleet"), (Scope::Proxy, "proxy")] {
                let refusals = shown.refusals.iter().filter(|refusal| refusal.scope == scope).count();
                metrics.refusals.with_label_values(&[&fleet, word]).set(refusals as i64);
            }
            metrics.rollout_halted.with_label_values(&[&fleet]).set(shown.halted.is_some().into());
            if let Some(decision) = &shown.decision {
                metrics.desired.with_label_values(&[&fleet]).set(decision.desired.into());
            }
        }
    }

    /// Sets the gauge of problems, of which there may be tens of thousands: it is for whoever has another plan.
    pub fn count_problems(&self) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for problem in &self.plan.problems {
            *counts.entry(problem.reason).or_default() += 1;
        }
        let problems = &metrics::get().problems;
        problems.reset();
        counts.into_iter().for_each(|(reason, count)| problems.with_label_values(&[reason]).set(count));
    }

    /// Why the operator is not ready; empty when it is: each fleet has its least number of proxies Ready on what is
    /// published, and every listener is served.
    pub fn not_ready(&self) -> Vec<String> {
        let lack = |(fleet, shown): (&FleetRef, &FleetShown)| {
            let closed = shown.withheld.iter().map(|(key, why)| format!("{key} is not served: {why}"));
            let closed: Vec<String> = shown.least.map(|_| closed.collect()).unwrap_or_default();
            too_few(fleet, shown).into_iter().chain(closed)
        };
        self.fleets.iter().flat_map(lack).collect()
    }

    /// Objects, problems, proxies.
    pub fn world(&self) -> Value {
        let object = |(id, object): (&ObjectRef, &WorldObject)| {
            let state = match (&object.current, &object.accepted) {
                (Ok(_), _) => "Admitted",
                (Err(_), Some(_)) => "BrokenLastAcceptedInForce",
                (Err(_), None) => "Broken",
            };
            let origin = object.origin.as_ref().map(|o| format!("{}:{}", o.file, o.line));
            json!({"kind": id.kind, "namespace": id.namespace, "name": id.name, "generation": object.generation,
                "state": state, "origin": origin})
        };
        let proxies = self.fleets.iter().flat_map(|(fleet, shown)| {
            shown.proxies.iter().map(move |proxy| {
                let mut proxy = json!(proxy);
                proxy["fleet"] = fleet.to_string().into();
                proxy
            })
        });
        json!({
            "objects": self.world.objects.iter().map(object).collect::<Vec<_>>(),
            "problems": self.plan.problems.iter().map(problem).collect::<Vec<_>>(),
            "proxies": proxies.collect::<Vec<_>>(),
        })
    }

    /// The published snapshots, resource by resource. Private keys are redacted where they are serialized.
    pub fn snapshot(&self) -> Value {
        let fleet = |(fleet, shown): (&FleetRef, &FleetShown)| {
            let desired = self.plan.fleets.get(fleet).map(|planned| planned.snapshot.revision());
            let empty = Snapshot::default();
            let snapshot = shown.published.as_ref().map_or(&empty, |published| &published.snapshot);
            json!({
                "fleet": fleet.to_string(),
                "revision": shown.published.as_ref().map(|published| published.revision),
                "desiredRevision": desired,
                "rolledBack": shown.rolled_back.iter().map(nack).collect::<Vec<_>>(),
                "resources": resources(snapshot),
            })
        };
        json!({"fleets": self.fleets.iter().map(fleet).collect::<Vec<_>>()})
    }

    /// The refusals of each fleet's proxies, and whether the wanted revision is rolled out.
    pub fn refusals(&self) -> Value {
        let fleet = |(fleet, shown): (&FleetRef, &FleetShown)| json!({"fleet": fleet.to_string(), "halted": shown.halted, "refusals": shown.refusals});
        json!({"fleets": self.fleets.iter().map(fleet).collect::<Vec<_>>()})
    }

    /// Whether any proxy refuses this resource.
    pub fn is_refused(&self, key: &Key) -> bool {
        let mut refusals = self.fleets.values().flat_map(|shown| &shown.refusals);
        refusals.any(|refusal| refusal.key == key.as_str())
    }

    /// The last decision for each fleet, and the numbers that it comes from.
    pub fn decision(&self) -> Value {
        let fleet = |(fleet, shown): (&FleetRef, &FleetShown)| {
            let desired = shown.decision.as_ref().map(|decision| decision.desired);
            json!({
                "fleet": fleet.to_string(),
                "decision": shown.decision,
                "observed": {"ready": shown.replicas.ready, "current": shown.replicas.current, "desired": desired},
                "totals": shown.totals,
            })
        };
        json!({"fleets": self.fleets.iter().map(fleet).collect::<Vec<_>>()})
    }
}

/// A problem as JSON.
pub fn problem(problem: &Problem) -> Value {
    let at = |origin: &Origin| format!("{}:{}", origin.file, origin.line_of(&problem.field));
    json!({
        "object": problem.object.as_ref().map(ToString::to_string),
        "origin": problem.origin.as_ref().map(at),
        "field": problem.field,
        "reason": problem.reason,
        "message": problem.message,
        "severity": format!("{:?}", problem.severity),
    })
}

/// The resources of a snapshot as JSON, by key.
pub fn resources(snapshot: &Snapshot) -> Value {
    let resource = |(key, entry): (&Key, &Entry)| {
        (key.to_string(), json!({"hash": entry.hash().short(), "resource": entry.decode().ok()}))
    };
    Value::Object(snapshot.iter().map(resource).collect())
}

fn nack(nack: &Nack) -> Value {
    json!({"key": nack.key, "field": nack.field, "reason": nack.reason, "message": nack.message})
}

/// Says so when fewer proxies than must be are Ready on what is published.
fn too_few(fleet: &FleetRef, shown: &FleetShown) -> Option<String> {
    let revision = shown.published.as_ref().map(|published| published.revision);
    // What is not rolled out yet, and what is halted, leaves what was before.
    let is_good = |p: &&ProxyInfo| p.ready && p.revision.is_some() && [revision, shown.stable].contains(&p.revision);
    let good = shown.proxies.iter().filter(is_good).count();
    let least = shown.least? as usize;
    (good < least).then(|| format!("fleet {fleet}: {good} of {least} proxies are Ready on what is published"))
}
