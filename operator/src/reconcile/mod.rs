//! The loop: takes up events, and in each turn derives everything anew from state.
//!
//! plan → fleet → publish → status. Ports open before what needs them is published.
//!
//! - [`event`]: what the loop takes up. [`world`]: what the planner reads. [`planning`]: plans are made beside the loop.
//! - [`leadership`]: whether this operator may do more than plan, and how it takes over.
//! - [`fleet_state`]: what is known of one fleet while it runs. [`load`]: the load of its proxies.

pub mod event;
pub mod fleet_state;
mod leadership;
pub mod load;
mod planning;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{FleetRef, FleetView, Holds, Millis, Plan, World, plan::PlannedFleet, rollout::Care, scale::Decision};
use tokio::sync::{mpsc, watch};

use self::{leadership::Reign, planning::Planning};
use crate::{
    admin::{
        metrics,
        view::{self, Transitions, View},
    },
    default_fleet,
    events::{
        changes::{self, Known, Wrong},
        recorder::Events,
    },
    fleet::{self, Fleet},
    leader::election::Leading,
    push::{Published, Registry},
    reconcile::{
        event::{Event, ProxyEvent},
        fleet_state::Gateway,
        world::Complete,
    },
    source::{self, Observed},
    state::{
        memory::{Memory, Objects, Recalled},
        rollbacks::Rollback,
    },
    status,
};

/// At most one turn in this time: what happens within it is taken up together.
const TURN: Duration = Duration::from_millis(20);
/// Time passes at least this often: back-offs and deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the scaler decides when nothing else happens.
const DECIDE: Duration = Duration::from_millis(500);
/// How often Events are told when there is no other plan.
const TELL: Duration = Duration::from_secs(1);

/// The parts that the loop works with.
#[derive(Debug)]
pub struct Parts<F> {
    /// What happens.
    pub events: mpsc::Receiver<Event>,
    /// Runs proxies.
    pub fleet: F,
    /// Takes what they are to run.
    pub registry: Arc<Registry>,
    /// What earlier operators left.
    pub recalled: Recalled,
    /// Keeps what later ones are to know.
    pub memory: Memory,
    /// Whether this operator leads: if not, it only plans.
    pub lead: Leading,
    /// Told what happens to objects.
    pub happenings: Events,
    /// Writes statuses.
    pub statuses: status::Writer,
    /// What the admin port shows.
    pub view: view::Shared,
    /// Told which certificates the contents in force refer to, for a source that reads no others.
    pub certificates: watch::Sender<Option<source::kube::InForce>>,
    /// Whether the fleet that comes with the installation is as it is defined.
    pub default_fleet: watch::Receiver<default_fleet::State>,
}

/// The operator's state.
pub struct Operator<F> {
    parts: Parts<F>,
    reign: Reign,
    /// News of the source, until a turn takes them up.
    news: Option<Arc<Observed>>,
    /// What the source has, as planned.
    observed: Arc<Observed>,
    /// What is known of objects beyond that.
    remembered: Objects,
    /// Who has which hostname.
    holds: Arc<Holds>,
    /// What is remembered may differ from what is kept.
    memory_due: bool,
    world: Arc<World>,
    planning: Planning,
    /// What the leader before left is joined with the rest, and not planned yet.
    recall_due: bool,
    /// `None` until the source said what there is: until then nothing is changed.
    plan: Option<Arc<Plan>>,
    gateways: BTreeMap<FleetRef, Gateway>,
    /// What is published may differ from what should be.
    publish_due: bool,
    decided: Option<Instant>,
    /// What statuses were last made of, less the numbers that drift, and when.
    shown: Option<(Transitions, BTreeSet<FleetRef>, Instant)>,
    /// The plan as it is shown.
    complete: Complete,
    /// What is wrong, as it was told; of which plan, and when.
    known: Known,
    told: Option<(Arc<Plan>, Instant)>,
    leaving: bool,
}

impl<F: Fleet> Operator<F> {
    /// Ready to run.
    pub fn new(mut parts: Parts<F>) -> Self {
        let Recalled { objects, ledgers, holds } = std::mem::take(&mut parts.recalled);
        let gateways = ledgers.into_iter().map(|(fleet, ledger)| (fleet, Gateway::with_ledger(ledger))).collect();
        Self {
            parts,
            reign: Reign::No,
            news: None,
            observed: Arc::default(),
            remembered: Arc::new(objects),
            holds: Arc::new(Holds::recalled(holds)),
            memory_due: false,
            world: Arc::default(),
            planning: Planning::default(),
            recall_due: false,
            plan: None,
            gateways,
            publish_due: false,
            decided: None,
            shown: None,
            complete: Complete::default(),
            known: Known::default(),
            told: None,
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
                () = self.planning.is_made() => Event::Tick,
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
            let outlived = self.parts.fleet.outlives_operator();
            if self.leaving && (outlived || self.parts.fleet.observe().values().all(|o| o.proxies.is_empty())) {
                break;
            }
        }
        tokio::join!(self.parts.statuses.finish(), self.parts.memory.finish());
        self.parts.fleet
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::WorldChanged(latest) => self.news = latest.take().or(self.news.take()),
            Event::Proxy(event) => self.take_proxy(event),
            Event::FleetChanged | Event::Tick => {}
            Event::Shutdown => self.leaving = true,
        }
    }

    fn take_proxy(&mut self, event: ProxyEvent) {
        let ProxyEvent { session, fleet, proxy, what, room: _room } = event;
        let gateway = self.gateways.entry((*fleet).clone()).or_default();
        gateway.take(session, &proxy, what, status::now());
    }

    async fn turn(&mut self) {
        let (now, millis) = (Instant::now(), status::now());
        self.parts.view.turned(now);
        self.plan().await;
        if self.plan.is_none() {
            return;
        }
        let leads = self.leads(now).await;
        self.parts.view.leads(leads);
        let Some(plan) = self.plan.clone() else { return };
        self.observe(&plan);
        if !leads {
            self.tell(&plan, false, now, millis);
            self.parts.view.set(View::new(&self.world, &plan, &self.gateways, millis));
            return;
        }
        if std::mem::take(&mut self.memory_due) {
            self.parts.memory.keep_objects(&self.remembered, &plan);
            self.parts.memory.keep_holds(&self.holds);
        }
        if self.leaving && self.parts.fleet.outlives_operator() {
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
        if self.decided.is_some_and(|last| now.duration_since(last) < DECIDE) {
            return;
        }
        self.decided = Some(now);
        for (fleet, planned) in &plan.fleets {
            // Nothing is concluded from the silence of proxies that had no time to dial, or can't be seen.
            let is_settled = |gateway: &Gateway| self.settled(gateway, now) && !gateway.observation.unknown;
            if !self.gateways.get(fleet).is_some_and(is_settled) {
                continue;
            }
            let Some(gateway) = self.gateways.get_mut(fleet) else { continue };
            if gateway.decision.is_none() && matches!(self.reign, Reign::Yes(Some(_))) {
                gateway.scaler.recall(&planned.settings, gateway.replicas(), millis);
            }
            let decision = gateway.scaler.decide(&planned.settings, gateway.replicas(), millis);
            let former = gateway.decision.as_ref();
            if former.is_none_or(|former| former.desired != decision.desired) {
                let Decision { desired, current, reason, .. } = &decision;
                tracing::info!(%fleet, desired, current, reason, "scaling");
            }
            if let Some(news) = changes::of_decision(&self.observed, fleet, former, &decision) {
                self.parts.happenings.say(news);
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
            // Undecided, it stays as it is.
            let replicas = gateway.decision.as_ref().map_or(gateway.observation.replicas, |decision| decision.desired);
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

    /// Publishes what should run, less what fleets refuse, and rolls it out.
    fn publish(&mut self, plan: &Plan, millis: Millis) {
        // Proxies that leave end with what they have.
        if self.leaving {
            return;
        }
        let due = std::mem::take(&mut self.publish_due) | self.forget_refusals();
        let mut changed = false;
        for (fleet, planned) in &plan.fleets {
            let Some(gateway) = self.gateways.get_mut(fleet) else { continue };
            if gateway.settle(&planned.snapshot, millis) || due {
                changed = true;
                let snapshot = gateway.publishable(fleet, &planned.snapshot);
                let published = Published::from(snapshot);
                if gateway.published.as_ref().is_none_or(|former| former.revision != published.revision) {
                    let (revision, resources) = (published.revision.short(), published.snapshot.len());
                    tracing::info!(%fleet, revision, resources, "published");
                    gateway.published = Some(Arc::new(published));
                }
            }
            let canary = planned.settings.spec.rollout.canary;
            let care = Care { percent: canary.percent, observe: canary.observe.std() };
            if let Some(offered) = gateway.roll(care, millis) {
                self.parts.registry.offer(fleet, offered);
            }
        }
        if changed {
            let rollback = |(fleet, planned): (&FleetRef, &PlannedFleet)| {
                let gateway = self.gateways.get(fleet)?;
                Rollback::new(fleet, &gateway.ledger, &planned.snapshot, &gateway.published.as_ref()?.snapshot)
            };
            let rollbacks: Vec<Rollback> = plan.fleets.iter().filter_map(rollback).collect();
            self.parts.memory.keep_rollbacks(&rollbacks);
        }
    }

    /// Forgets what people asked to be forgotten. True when something else is to be published.
    fn forget_refusals(&mut self) -> bool {
        let mut due = false;
        for key in self.parts.view.take_forgotten() {
            tracing::info!(%key, "what is refused of it is forgotten: it is tried again");
            for gateway in self.gateways.values_mut() {
                due |= gateway.forget_refusal(&key);
            }
        }
        due
    }

    fn rebalance(&mut self, now: Instant, millis: Millis) {
        // Proxies that dial after a takeover are no growth.
        let settled: Vec<FleetRef> = self.settled_fleets(now).cloned().collect();
        for (_, gateway) in self.gateways.iter_mut().filter(|(fleet, _)| settled.contains(fleet)) {
            gateway.rebalance(now, millis);
        }
    }

    /// Tells in Events what is wrong from now on, and what no more.
    fn tell(&mut self, plan: &Arc<Plan>, leads: bool, now: Instant, millis: Millis) {
        let is_news = self.told.as_ref().is_none_or(|(last, at)| !Arc::ptr_eq(last, plan) || now >= *at + TELL);
        // Nothing is concluded from the silence of proxies that had no time to dial.
        if !is_news || leads && self.settled_fleets(now).count() < self.gateways.len() {
            return;
        }
        self.told = Some((Arc::clone(plan), now));
        let unready = plan.fleets.iter().filter(|_| leads && !self.leaving).filter_map(|(fleet, planned)| {
            let lacks = planner::unready(planned, &self.gateways.get(fleet)?.view(millis))?;
            Some(Wrong::of_readiness(fleet, lacks))
        });
        let refused = self.gateways.iter().flat_map(|(fleet, gateway)| {
            Wrong::of_proxies(fleet, gateway, plan.fleets.get(fleet).map(|planned| &planned.sources))
        });
        let wrong = plan.problems.iter().filter_map(Wrong::of_problem).chain(unready).chain(refused);
        let age = |id: &planner::ObjectRef| {
            let object = self.world.objects.get(id)?;
            Some(object.created.map_or(Duration::MAX, |created| millis.since(created)))
        };
        for happening in self.known.take(wrong, &self.observed, leads, now, age) {
            // Problems of plans are in the log of whoever plans.
            match happening.action {
                "Plan" => {}
                _ if happening.warning => tracing::warn!(reason = happening.reason, "{}", happening.note),
                _ => tracing::info!(reason = happening.reason, "{}", happening.note),
            }
            self.parts.happenings.say(happening);
        }
    }

    /// Shows what came of it: statuses, the admin port, metrics.
    fn show(&mut self, plan: &Arc<Plan>, now: Instant, millis: Millis) {
        let default_fleet = self.parts.default_fleet.borrow().clone();
        let (plan, is_new) = self.complete.of(plan, &self.world, &self.gateways, &default_fleet);
        self.tell(&plan, true, now, millis);
        let view = View::new(&self.world, &plan, &self.gateways, millis);
        view.count();
        if is_new {
            view.count_problems();
        }
        let shown = view.transitions();
        let drift = self.parts.statuses.pace.drift;
        // Until then, what the leader before wrote of proxies is nearer to the truth than what is known here.
        let settled: BTreeSet<FleetRef> = self.settled_fleets(now).cloned().collect();
        let is_decided = |gateway: &Gateway| gateway.decision.is_some() || gateway.observation.unknown;
        let is_known = |fleet: &FleetRef| settled.contains(fleet) && self.gateways.get(fleet).is_some_and(is_decided);
        // Of a fleet that is planned no more, nothing is decided either: nobody waits for it.
        let settling: BTreeSet<FleetRef> = plan.fleets.keys().filter(|fleet| !is_known(fleet)).cloned().collect();
        let due = self
            .shown
            .as_ref()
            .is_none_or(|(last, former, at)| *last != shown || *former != settling || now.duration_since(*at) >= drift);
        if due {
            let view = |(fleet, gateway): (&FleetRef, &Gateway)| {
                (fleet.clone(), FleetView { settling: settling.contains(fleet), ..gateway.view(millis) })
            };
            self.parts.statuses.set(status::Input {
                world: Arc::clone(&self.world),
                observed: Arc::clone(&self.observed),
                plan,
                fleets: self.gateways.iter().map(view).collect(),
                remembered: Arc::clone(&self.remembered),
            });
            self.shown = Some((shown, settling, now));
        }
        self.parts.view.set(view);
    }
}

#[cfg(test)]
mod tests;
