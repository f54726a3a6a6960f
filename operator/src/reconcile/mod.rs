//! The control loop: takes up events, and in each reconciliation derives everything anew from state.
//!
//! plan → fleet → publish → status. Ports open before what needs them is published.
//!
//! - [`event`]: what the loop takes up. [`world`]: what the planner reads. [`planning`]: plans are made beside the loop.
//!   [`pace`]: whose changes begin one at once.
//! - [`leadership`]: whether this operator may do more than plan, and how it takes over.
//! - [`fleet_state`]: what is known of one fleet while it runs. [`load`]: the load of its proxies.

pub mod event;
pub mod fleet_state;
mod leadership;
pub mod load;
mod pace;
mod planning;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{FleetRef, FleetView, Holds, Millis, Plan, World, plan::PlannedFleet, rollout::Care, scale::Decision};
use tokio::sync::{mpsc, watch};

use self::{leadership::Leadership, planning::Planning};
use crate::{
    admin::{
        metrics,
        view::{self, Transitions, View},
    },
    default_fleet,
    events::{
        changes::{self, ActiveProblem, ProblemTracker},
        recorder::EventRecorder,
    },
    fleet::{self, Fleet},
    leader::election::LeaderWatch,
    push::{Published, Registry},
    reconcile::{
        event::{Event, ProxyEvent},
        fleet_state::FleetState,
        world::EffectivePlan,
    },
    source::{InForce, Latest, Observed},
    state::{
        persisted::{ObjectRecords, PersistedState},
        rollbacks::Rollback,
        store::StateStore,
    },
    status,
};

/// The least time between two reconciliations: what happens within it is taken up together.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Time passes at least this often: back-offs and deadlines are looked at.
const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the scaler decides when nothing else happens.
const DECISION_INTERVAL: Duration = Duration::from_millis(500);
/// How often problems become Events when there is no other plan.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// The dependencies of the loop.
#[derive(Debug)]
pub struct Context<F> {
    /// The input of the loop.
    pub events: mpsc::Receiver<Event>,
    /// Runs proxies.
    pub fleet: F,
    /// The registry of offers to proxies.
    pub registry: Arc<Registry>,
    /// The state that earlier operators left.
    pub persisted: PersistedState,
    /// The store of state for later operators.
    pub store: StateStore,
    /// Whether this operator leads: if not, it only plans.
    pub lead: LeaderWatch,
    /// The recorder of Kubernetes Events.
    pub recorder: EventRecorder,
    /// Writes statuses.
    pub statuses: status::Writer,
    /// The content of the admin port.
    pub view: view::Shared,
    /// The contents in force, for a source that reads only what they refer to. `None`: it reads all there is.
    pub in_force: Option<watch::Sender<Option<InForce>>>,
    /// Whether the fleet that comes with the installation is as it is defined.
    pub default_fleet: watch::Receiver<default_fleet::State>,
}

/// The state of the control loop.
pub struct Reconciler<F> {
    context: Context<F>,
    leadership: Leadership,
    /// The latest world of the source; `None`: it has not said yet what there is. Nothing else is ever planned: a plan of an
    /// older one would take back what a newer one brought.
    latest: Option<Arc<Observed>>,
    /// Whether that is to be planned, be it new or not.
    plan_due: bool,
    /// Where the source puts its worlds.
    source: Latest,
    /// The world of the source, as planned.
    observed: Arc<Observed>,
    /// The records of objects, which the source does not have.
    records: ObjectRecords,
    /// The holders of hostnames.
    holds: Arc<Holds>,
    /// Whether the records may differ from those in the store.
    store_due: bool,
    world: Arc<World>,
    planning: Planning,
    /// Whether the state that the leader before left is joined with the rest, and not planned yet.
    persisted_due: bool,
    /// `None` until the source said what there is: until then nothing is changed.
    plan: Option<Arc<Plan>>,
    states: BTreeMap<FleetRef, FleetState>,
    /// Whether the published snapshots may differ from the wanted ones.
    publish_due: bool,
    decided: Option<Instant>,
    /// The view that statuses were last made of, less the numbers that drift, and when.
    shown: Option<(Transitions, BTreeSet<FleetRef>, Instant)>,
    /// The plan as it is shown.
    effective: EffectivePlan,
    /// The problems that became Events.
    known: ProblemTracker,
    announced: Option<(Arc<Plan>, Instant)>,
    leaving: bool,
}

impl<F: Fleet> Reconciler<F> {
    /// Ready to run.
    pub fn new(mut context: Context<F>) -> Self {
        let PersistedState { objects, ledgers, holds } = std::mem::take(&mut context.persisted);
        let states = ledgers.into_iter().map(|(fleet, ledger)| (fleet, FleetState::with_ledger(ledger))).collect();
        Self {
            context,
            leadership: Leadership::Standby,
            latest: None,
            plan_due: false,
            source: Latest::default(),
            observed: Arc::default(),
            records: Arc::new(objects),
            holds: Arc::new(Holds::recalled(holds)),
            store_due: false,
            world: Arc::default(),
            planning: Planning::default(),
            persisted_due: false,
            plan: None,
            states,
            publish_due: false,
            decided: None,
            shown: None,
            effective: EffectivePlan::default(),
            known: ProblemTracker::default(),
            announced: None,
            leaving: false,
        }
    }

    /// Runs until told to end and every proxy has left; gives back what is to be finished.
    pub async fn run(mut self) -> F {
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut next_turn = tokio::time::Instant::now();
        loop {
            let event = tokio::select! {
                event = self.context.events.recv() => event.unwrap_or(Event::Shutdown),
                _ = tick.tick() => Event::Tick,
                () = self.planning.is_made() => Event::Tick,
            };
            self.take(event);
            tokio::time::sleep_until(next_turn).await;
            while let Ok(event) = self.context.events.try_recv() {
                self.take(event);
            }
            next_turn = tokio::time::Instant::now() + MIN_INTERVAL;
            let timer = metrics::get().turns.start_timer();
            self.reconcile().await;
            timer.observe_duration();
            let outlived = self.context.fleet.outlives_operator();
            if self.leaving && (outlived || self.context.fleet.observe().values().all(|o| o.proxies.is_empty())) {
                break;
            }
        }
        tokio::join!(self.context.statuses.finish(), self.context.store.finish());
        self.context.fleet
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::WorldChanged(latest) => {
                if let Some(world) = latest.take() {
                    self.latest = Some(world);
                }
                self.source = latest;
            }
            Event::Proxy(event) => self.take_proxy(event),
            Event::FleetChanged | Event::Tick => {}
            Event::Shutdown => self.leaving = true,
        }
    }

    fn take_proxy(&mut self, event: ProxyEvent) {
        let ProxyEvent { session, fleet, proxy, what, room: _room } = event;
        let state = self.states.entry((*fleet).clone()).or_default();
        state.take(session, &proxy, what, status::now());
    }

    async fn reconcile(&mut self) {
        let (now, millis) = (Instant::now(), status::now());
        self.context.view.turned(now);
        self.plan().await;
        if self.plan.is_none() {
            return;
        }
        let leads = self.leads(now).await;
        self.context.view.leads(leads);
        let Some(plan) = self.plan.clone() else { return };
        self.observe(&plan);
        if !leads {
            self.announce(&plan, false, now, millis);
            self.context.view.set(View::new(&self.world, &plan, &self.states, millis));
            return;
        }
        if std::mem::take(&mut self.store_due) {
            self.context.store.keep_objects(&self.records, &plan);
            self.context.store.keep_holds(&self.holds);
        }
        if self.leaving && self.context.fleet.outlives_operator() {
            return;
        }
        self.decide(&plan, now, millis);
        self.ensure(&plan, millis);
        self.publish(&plan, millis);
        self.rebalance(now, millis);
        self.show(&plan, now, millis);
    }

    /// How many replicas each fleet should have.
    fn decide(&mut self, plan: &Plan, now: Instant, millis: Millis) {
        if self.decided.is_some_and(|last| now.duration_since(last) < DECISION_INTERVAL) {
            return;
        }
        self.decided = Some(now);
        for (fleet, planned) in &plan.fleets {
            // Nothing is concluded from the silence of proxies that had no time to dial, or can't be seen.
            let is_settled = |state: &FleetState| self.settled(state, now) && !state.observation.unknown;
            if !self.states.get(fleet).is_some_and(is_settled) {
                continue;
            }
            let Some(state) = self.states.get_mut(fleet) else { continue };
            if state.decision.is_none() && matches!(self.leadership, Leadership::Leading(Some(_))) {
                state.scaler.recall(&planned.settings, state.replicas(), millis);
            }
            let decision = state.scaler.decide(&planned.settings, state.replicas(), millis);
            let former = state.decision.as_ref();
            if former.is_none_or(|former| former.desired != decision.desired) {
                let Decision { desired, current, reason, .. } = &decision;
                tracing::info!(%fleet, desired, current, reason, "scaling");
            }
            if let Some(event) = changes::of_decision(&self.observed, fleet, former, &decision) {
                self.context.recorder.publish(event);
            }
            state.decision = Some(decision);
        }
    }

    /// Moves fleets towards what is decided.
    fn ensure(&mut self, plan: &Plan, millis: Millis) {
        let gone = self.context.fleet.observe().into_keys().filter(|fleet| !plan.fleets.contains_key(fleet));
        for fleet in gone.collect::<Vec<_>>() {
            let drain = self.states.get(&fleet).map(|state| state.drain).unwrap_or_default();
            self.context.fleet.ensure(&fleet::nothing(&fleet, drain), &BTreeMap::new());
        }
        for (fleet, planned) in &plan.fleets {
            let Some(state) = self.states.get_mut(fleet) else { continue };
            state.drain = planned.settings.spec.drain;
            // Undecided, it stays as it is.
            let replicas = state.decision.as_ref().map_or(state.observation.replicas, |decision| decision.desired);
            // Leaving, it takes no new connection: clients are refused at once, instead of waiting for nobody.
            let wanted = match self.leaving {
                true => fleet::nothing(fleet, state.drain),
                false => fleet::plan(fleet, &planned.settings, replicas),
            };
            self.context.fleet.ensure(&wanted, &state.reports(millis));
        }
        self.observe(plan);
    }

    /// Looks at what there is of each fleet.
    fn observe(&mut self, plan: &Plan) {
        let mut observed = self.context.fleet.observe();
        for (fleet, state) in &mut self.states {
            let closed = state.observation.closed_ports();
            state.observed(observed.remove(fleet).unwrap_or_default());
            self.publish_due |= closed != state.observation.closed_ports();
        }
        // A fleet that is no more, with all its proxies gone, is forgotten.
        self.states.retain(|fleet, state| plan.fleets.contains_key(fleet) || !state.is_empty());
    }

    /// Publishes what should run, less what fleets refuse, and rolls it out.
    fn publish(&mut self, plan: &Plan, millis: Millis) {
        // Proxies that leave end with what they have.
        if self.leaving {
            return;
        }
        let due = std::mem::take(&mut self.publish_due) | self.forget_refusals();
        let mut changed = false;
        for (fleet, planned) in &plan.fleets {
            let Some(state) = self.states.get_mut(fleet) else { continue };
            if state.settle(&planned.snapshot, millis) || due {
                changed = true;
                let snapshot = state.publishable(fleet, &planned.snapshot);
                let published = Published::from(snapshot);
                if state.published.as_ref().is_none_or(|former| former.revision != published.revision) {
                    let (revision, resources) = (published.revision.short(), published.snapshot.len());
                    tracing::info!(%fleet, revision, resources, "published");
                    state.published = Some(Arc::new(published));
                }
            }
            let canary = planned.settings.spec.rollout.canary;
            let care = Care { percent: canary.percent, observe: canary.observe.std() };
            if let Some(offered) = state.roll(care, millis) {
                self.context.registry.offer(fleet, offered);
            }
        }
        if changed {
            let rollback = |(fleet, planned): (&FleetRef, &PlannedFleet)| {
                let state = self.states.get(fleet)?;
                Rollback::new(fleet, &state.ledger, &planned.snapshot, &state.published.as_ref()?.snapshot)
            };
            let rollbacks: Vec<Rollback> = plan.fleets.iter().filter_map(rollback).collect();
            self.context.store.keep_rollbacks(&rollbacks);
        }
    }

    /// Forgets what people asked to be forgotten. True when something else is to be published.
    fn forget_refusals(&mut self) -> bool {
        let mut due = false;
        for key in self.context.view.take_forgotten() {
            tracing::info!(%key, "what is refused of it is forgotten: it is tried again");
            for state in self.states.values_mut() {
                due |= state.forget_refusal(&key);
            }
        }
        due
    }

    fn rebalance(&mut self, now: Instant, millis: Millis) {
        // Proxies that dial after a takeover are no growth.
        let settled: Vec<FleetRef> = self.settled_fleets(now).cloned().collect();
        for (_, state) in self.states.iter_mut().filter(|(fleet, _)| settled.contains(fleet)) {
            state.rebalance(now, millis);
        }
    }

    /// Writes an Event for each problem that begins, and for each that is over.
    fn announce(&mut self, plan: &Arc<Plan>, leads: bool, now: Instant, millis: Millis) {
        let is_due =
            self.announced.as_ref().is_none_or(|(last, at)| !Arc::ptr_eq(last, plan) || now >= *at + ANNOUNCE_INTERVAL);
        // Nothing is concluded from the silence of proxies that had no time to dial.
        if !is_due || leads && self.settled_fleets(now).count() < self.states.len() {
            return;
        }
        self.announced = Some((Arc::clone(plan), now));
        let unready = plan.fleets.iter().filter(|_| leads && !self.leaving).filter_map(|(fleet, planned)| {
            let lacks = planner::unready(planned, &self.states.get(fleet)?.view(millis))?;
            Some(ActiveProblem::of_readiness(fleet, lacks))
        });
        let refused = self.states.iter().flat_map(|(fleet, state)| {
            ActiveProblem::of_proxies(fleet, state, plan.fleets.get(fleet).map(|planned| &planned.sources))
        });
        let wrong = plan.problems.iter().filter_map(ActiveProblem::of_problem).chain(unready).chain(refused);
        let age = |id: &planner::ObjectRef| {
            let object = self.world.objects.get(id)?;
            Some(object.created.map_or(Duration::MAX, |created| millis.since(created)))
        };
        for event in self.known.take(wrong, &self.observed, leads, now, age) {
            // Problems of plans are in the log of whoever plans.
            match event.action {
                "Plan" => {}
                _ if event.warning => tracing::warn!(reason = event.reason, "{}", event.note),
                _ => tracing::info!(reason = event.reason, "{}", event.note),
            }
            self.context.recorder.publish(event);
        }
    }

    /// Publishes the outcome: statuses, the admin port, metrics.
    fn show(&mut self, plan: &Arc<Plan>, now: Instant, millis: Millis) {
        let default_fleet = self.context.default_fleet.borrow().clone();
        let (plan, is_new) = self.effective.of(plan, &self.world, &self.states, &default_fleet);
        self.announce(&plan, true, now, millis);
        let view = View::new(&self.world, &plan, &self.states, millis);
        view.count();
        if is_new {
            view.count_problems();
        }
        let shown = view.transitions();
        let drift = self.context.statuses.pace.drift;
        // Until then, what the leader before wrote of proxies is nearer to the truth than what is known here.
        let settled: BTreeSet<FleetRef> = self.settled_fleets(now).cloned().collect();
        let is_decided = |state: &FleetState| state.decision.is_some() || state.observation.unknown;
        let is_known = |fleet: &FleetRef| settled.contains(fleet) && self.states.get(fleet).is_some_and(is_decided);
        // Of a fleet that is planned no more, nothing is decided either: nobody waits for it.
        let settling: BTreeSet<FleetRef> = plan.fleets.keys().filter(|fleet| !is_known(fleet)).cloned().collect();
        let due = self
            .shown
            .as_ref()
            .is_none_or(|(last, former, at)| *last != shown || *former != settling || now.duration_since(*at) >= drift);
        if due {
            let view = |(fleet, state): (&FleetRef, &FleetState)| {
                (fleet.clone(), FleetView { settling: settling.contains(fleet), ..state.view(millis) })
            };
            self.context.statuses.set(status::Input {
                world: Arc::clone(&self.world),
                observed: Arc::clone(&self.observed),
                plan,
                fleets: self.states.iter().map(view).collect(),
                records: Arc::clone(&self.records),
            });
            self.shown = Some((shown, settling, now));
        }
        self.context.view.set(view);
    }
}

#[cfg(test)]
mod tests;
