//! The loop: takes up events, and in each turn derives everything anew from state.
//!
//! plan → fleet → publish → status. Ports open before what needs them is published.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{FleetRef, Millis, ObjectRef, Plan, Planner, World, scale::Decision};
use tokio::sync::mpsc;

use crate::{
    event::{Event, ProxyEvent},
    fleet::{self, Fleet},
    gateway::Gateway,
    lead::{Lead, Leading},
    metrics,
    push::{Published, Registry},
    source::Observed,
    state::{
        mirror::Mirror,
        objects::Remembered,
        rollbacks::{Rollback, Rollbacks},
    },
    status,
    view::{self, Transitions, View},
    world::{self, Complete},
};

/// At most one turn in this time: what happens within it is taken up together.
const TURN: Duration = Duration::from_millis(20);
/// Time passes at least this often: back-offs and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the scaler decides when nothing else happens.
const DECIDE: Duration = Duration::from_millis(500);

/// The parts that the loop works with.
#[derive(Debug)]
pub struct Parts<F> {
    /// What happens.
    pub events: mpsc::Receiver<Event>,
    /// Runs proxies.
    pub fleet: F,
    /// Takes what they are to run.
    pub registry: Arc<Registry>,
    /// What is remembered of objects, and where it is kept.
    pub remembered: Arc<BTreeMap<ObjectRef, Remembered>>,
    /// Keeps it.
    pub objects: Mirror<Remembered>,
    /// Where refused resources are kept.
    pub rollbacks: PathBuf,
    /// Whether this operator leads: if not, it only plans.
    pub lead: Leading,
    /// Writes statuses.
    pub statuses: status::Writer,
    /// What the admin port shows.
    pub view: view::Shared,
}

/// The operator's state.
pub struct Operator<F> {
    parts: Parts<F>,
    rollbacks: Rollbacks,
    /// News of the source, until a turn takes them up.
    news: Option<Arc<Observed>>,
    world: Arc<World>,
    /// Knows the objects that it has validated before.
    planner: Planner,
    /// `None` until the source said what there is: until then nothing is changed.
    plan: Option<Arc<Plan>>,
    gateways: BTreeMap<FleetRef, Gateway>,
    /// What is published may differ from what should be.
    publish_due: bool,
    decided: Option<Instant>,
    /// What statuses were last made of, less the numbers that drift, and when.
    shown: Option<(Transitions, Instant)>,
    /// The plan as it is shown.
    complete: Complete,
    leaving: bool,
}

impl<F: Fleet> Operator<F> {
    /// Ready to run.
    pub fn new(parts: Parts<F>) -> Self {
        let (rollbacks, ledgers) = Rollbacks::load(&parts.rollbacks);
        let gateways = ledgers.into_iter().map(|(fleet, ledger)| (fleet, Gateway::with_ledger(ledger))).collect();
        Self {
            parts,
            rollbacks,
            news: None,
            world: Arc::default(),
            planner: Planner::default(),
            plan: None,
            gateways,
            publish_due: false,
            decided: None,
            shown: None,
            complete: Complete::default(),
            leaving: false,
        }
    }

    /// Runs until told to end and every proxy has left; gives back what is to be finished.
    pub async fn run(mut self) -> F {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut next_turn = tokio::time::Instant::now();
        loop {
            let event = tokio::select! {
                event = self.parts.events.recv() => event.unwrap_or(Event::Shutdown),
                _ = tick.tick() => Event::Tick,
            };
            self.take(event);
            tokio::time::sleep_until(next_turn).await;
            while let Ok(event) = self.parts.events.try_recv() {
                self.take(event);
            }
            next_turn = tokio::time::Instant::now() + TURN;
            let timer = metrics::get().turns.start_timer();
            self.turn().await;
            timer.observe_duration();
            if self.leaving && self.parts.fleet.observe().values().all(|o| o.proxies.is_empty()) {
                break;
            }
        }
        self.parts.statuses.finish().await;
        self.parts.objects.finish().await;
        self.parts.fleet
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::WorldChanged(observed) => self.news = Some(observed),
            Event::Proxy(event) => self.take_proxy(event),
            Event::FleetChanged | Event::Tick => {}
            Event::Shutdown => self.leaving = true,
        }
    }

    fn take_proxy(&mut self, event: ProxyEvent) {
        let ProxyEvent { session, fleet, proxy, what } = event;
        let gateway = self.gateways.entry((*fleet).clone()).or_default();
        self.publish_due |= gateway.take(session, &proxy, what, status::now());
    }

    async fn turn(&mut self) {
        let (now, millis) = (Instant::now(), status::now());
        self.plan().await;
        let Some(plan) = self.plan.clone() else { return };
        if matches!(*self.parts.lead.borrow(), Lead::Standby { .. }) {
            return;
        }
        self.observe(&plan);
        self.decide(&plan, now, millis);
        self.ensure(&plan, millis);
        self.publish(&plan);
        self.rebalance(now, millis);
        self.show(&plan, now, millis);
    }

    /// Derives what should be from what the source has, and remembers what was accepted.
    async fn plan(&mut self) {
        let Some(observed) = self.news.take() else { return };
        let remembered = Arc::clone(&self.parts.remembered);
        let mut planner = std::mem::take(&mut self.planner);
        let derive = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            // The same in both, so that the age of what is new does not change with the next turn.
            let now = jiff::Timestamp::now();
            let world = world::world(&observed, &remembered, Some(now));
            let joined = start.elapsed();
            let plan = planner.plan(&world);
            let planned = start.elapsed() - joined;
            let remembered = world::remember(&observed, &plan, &remembered, now);
            tracing::debug!(?joined, ?planned, total = ?start.elapsed(), objects = world.objects.len(), "derived");
            (planner, world, plan, remembered)
        });
        let Ok((planner, world, plan, remembered)) = derive.await else {
            // A bug of ours that this very content brings out: what ran goes on running.
            tracing::error!("planning failed; what was planned before stays in force");
            return;
        };
        note_problems(self.plan.as_deref(), &plan);
        self.parts.remembered = Arc::new(remembered);
        self.parts.objects.set(Arc::clone(&self.parts.remembered));
        for fleet in plan.fleets.keys() {
            self.gateways.entry(fleet.clone()).or_default();
        }
        self.planner = planner;
        let plan = Arc::new(plan);
        self.parts.registry.planned(Arc::clone(&plan));
        (self.world, self.plan) = (Arc::new(world), Some(plan));
        self.publish_due = true;
        self.decided = None;
    }

    /// How many replicas each fleet should have.
    fn decide(&mut self, plan: &Plan, now: Instant, millis: Millis) {
        if self.decided.is_some_and(|last| now.duration_since(last) < DECIDE) {
            return;
        }
        self.decided = Some(now);
        for (fleet, planned) in &plan.fleets {
            let Some(gateway) = self.gateways.get_mut(fleet) else { continue };
            let decision = gateway.scaler.decide(&planned.settings, gateway.replicas(), millis);
            if gateway.decision.as_ref().is_none_or(|former| former.desired != decision.desired) {
                let Decision { desired, current, reason, .. } = &decision;
                tracing::info!(%fleet, desired, current, reason, "scaling");
            }
            gateway.decision = Some(decision);
        }
    }

    /// Moves fleets towards what is decided.
    fn ensure(&mut self, plan: &Plan, millis: Millis) {
        let gone = self.parts.fleet.observe().into_keys().filter(|fleet| !plan.fleets.contains_key(fleet));
        for fleet in gone.collect::<Vec<_>>() {
            let drain = self.gateways.get(&fleet).map(|gateway| gateway.drain).unwrap_or_default();
            self.parts.fleet.ensure(&fleet::nothing(&fleet, drain), &BTreeMap::new());
        }
        for (fleet, planned) in &plan.fleets {
            let Some(gateway) = self.gateways.get_mut(fleet) else { continue };
            gateway.drain = planned.settings.spec.drain;
            let replicas = gateway.decision.as_ref().map_or(0, |decision| decision.desired);
            // Leaving, it takes no new connection: clients are refused at once, instead of waiting for nobody.
            let wanted = match self.leaving {
                true => fleet::nothing(fleet, gateway.drain),
                false => fleet::plan(fleet, &planned.settings, replicas),
            };
            self.parts.fleet.ensure(&wanted, &gateway.signs(millis));
        }
        self.observe(plan);
    }

    /// Looks at what there is of each fleet.
    fn observe(&mut self, plan: &Plan) {
        let mut observed = self.parts.fleet.observe();
        for (fleet, gateway) in &mut self.gateways {
            let closed = gateway.observation.closed_ports();
            gateway.observed(observed.remove(fleet).unwrap_or_default());
            self.publish_due |= closed != gateway.observation.closed_ports();
        }
        // A fleet that is no more, with all its proxies gone, is forgotten.
        self.gateways.retain(|fleet, gateway| plan.fleets.contains_key(fleet) || !gateway.is_empty());
    }

    /// Publishes what should run, less what proxies refused.
    fn publish(&mut self, plan: &Plan) {
        // Proxies that leave end with what they have.
        if self.leaving || !std::mem::take(&mut self.publish_due) {
            return;
        }
        let mut rollbacks = vec![];
        for (fleet, planned) in &plan.fleets {
            let Some(gateway) = self.gateways.get_mut(fleet) else { continue };
            let snapshot = gateway.publishable(fleet, &planned.snapshot);
            rollbacks.extend(Rollback::new(fleet, &gateway.ledger, &planned.snapshot, &snapshot));
            let published = Published::from(snapshot);
            if gateway.published.as_ref().is_none_or(|former| former.revision != published.revision) {
                let (revision, resources) = (published.revision.short(), published.snapshot.len());
                tracing::info!(%fleet, revision, resources, "published");
                let published = Arc::new(published);
                self.parts.registry.publish(fleet, Arc::clone(&published));
                gateway.published = Some(published);
            }
        }
        self.rollbacks.save(&self.parts.rollbacks, &rollbacks);
    }

    fn rebalance(&mut self, now: Instant, millis: Millis) {
        for gateway in self.gateways.values_mut() {
            gateway.rebalance(now, millis);
        }
    }

    /// Shows what came of it: statuses, the admin port, metrics.
    fn show(&mut self, plan: &Arc<Plan>, now: Instant, millis: Millis) {
        let plan = self.complete.of(plan, &self.world, &self.gateways);
        let view = View::new(&self.world, &plan, &self.gateways, millis);
        view.count();
        let shown = view.transitions();
        let drift = self.parts.statuses.pace.drift;
        let due = self.shown.as_ref().is_none_or(|(last, at)| *last != shown || now.duration_since(*at) >= drift);
        if due {
            self.parts.statuses.set(status::Input {
                world: Arc::clone(&self.world),
                plan,
                fleets: self.gateways.iter().map(|(fleet, gateway)| (fleet.clone(), gateway.view())).collect(),
                remembered: Arc::clone(&self.parts.remembered),
            });
            self.shown = Some((shown, now));
        }
        self.parts.view.set(view);
    }
}

/// Says what became wrong and what is right again.
fn note_problems(before: Option<&Plan>, after: &Plan) {
    let before = before.map(|plan| plan.problems.as_slice()).unwrap_or_default();
    let known: HashSet<String> = before.iter().map(ToString::to_string).collect();
    for problem in &after.problems {
        let problem = problem.to_string();
        if !known.contains(&problem) {
            tracing::warn!("{problem}");
        }
    }
    if !before.is_empty() && after.problems.is_empty() {
        tracing::info!("no problems any more");
    }
}

#[cfg(test)]
mod tests;
