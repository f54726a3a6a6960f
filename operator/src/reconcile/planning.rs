//! Plans are made beside the loop, which goes on however long that takes, whatever the objects are. Leases are kept,
//! proxies are heard and counted, and probes of liveness are answered, by the plan that was made last.
//!
//! One plan is made at a time. Worlds that come meanwhile are not planned one by one: the latest is, next. When that
//! begins is for [`pace`] to say; a standby, whose plans nobody waits for, rests longer.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{Holds, ObjectRef, Plan, Planner, World};
use tokio::task::{JoinError, JoinHandle};

use super::{
    Reconciler,
    leadership::Leadership,
    pace::{self, Causes, Pace},
};
use crate::{
    admin::metrics,
    events::changes,
    fleet::Fleet,
    reconcile::world,
    source::{InForce, Observed, in_force},
    state::{objects::ObjectRecord, persisted::ObjectRecords},
    status,
};

/// A plan that takes this long is worth a word in the log, once.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// What nobody waits for (a standby's plans; content that is gone, and counts no more) takes one part in so many of the
/// time,
const REST: u32 = 10;
/// and waits no longer than this.
const MAX_REST: Duration = Duration::from_secs(10);

/// The time after a plan that failed in which none begins.
const FAILURE_REST: Duration = Duration::from_secs(2);

/// The plan that is being made, if one is.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// Knows the objects that it has validated before. With the plan under way, while there is one.
    planner: Planner,
    under_way: Option<UnderWay>,
    /// The world of the last plan that began.
    begun: Option<Arc<Observed>>,
    /// Until when nothing begins that nobody waits for.
    pub(super) rests_until: Option<Instant>,
    pub(super) pace: Pace,
    /// Whether the last plan came to nothing: nobody knows whose content it was, and it is not tried again and again.
    has_failed: bool,
}

#[derive(Debug)]
struct UnderWay {
    task: JoinHandle<Derived>,
    /// The records and holds that the plan is made of.
    of: Known,
    began: Instant,
    is_slow: bool,
    done: Option<Result<Derived, JoinError>>,
}

/// The records of objects, and the holders of hostnames.
type Known = (ObjectRecords, Arc<Holds>);

/// The outcome of planning a world.
#[derive(Debug)]
struct Derived {
    planner: Planner,
    observed: Arc<Observed>,
    world: Arc<World>,
    plan: Arc<Plan>,
    records: ObjectRecords,
    in_force: InForce,
    causes: Causes,
    took: Duration,
}

impl Planning {
    /// Returns when the plan under way is made; never when there is none.
    pub(super) async fn is_made(&mut self) {
        match &mut self.under_way {
            Some(UnderWay { task, done: done @ None, .. }) => *done = Some(task.await),
            _ => std::future::pending().await,
        }
    }

    /// Whether a plan is being made, or waits to be taken up.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether anything that changed since the last plan is due.
    fn is_due(&mut self, latest: &Arc<Observed>, former: &Arc<Observed>, plan: &Plan, is_standby: bool) -> bool {
        let now = Instant::now();
        let rests = self.rests_until.is_some_and(|until| now < until);
        if rests && (is_standby || self.has_failed) {
            return false;
        }
        !self.has_begun(latest) && self.pace.permits_any(former, latest, now)
            || plan.waiting.iter().any(|id| self.pace.permits(id.kind, &id.namespace, now))
            // What is gone counts for a while, and no source says when that is over.
            || !rests && plan.changes_at.is_some_and(|at| at <= status::now())
    }

    /// Whether this very world was planned last, or is being planned.
    pub(super) fn has_begun(&self, world: &Arc<Observed>) -> bool {
        self.begun.as_ref().is_some_and(|begun| Arc::ptr_eq(begun, world))
    }

    fn begin(&mut self, observed: Arc<Observed>, former: Arc<Observed>, of: Known, before: Option<Arc<Plan>>) {
        let (mut planner, (kept, holds)) = (std::mem::take(&mut self.planner), of.clone());
        self.begun = Some(Arc::clone(&observed));
        let task = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let timer = metrics::get().plans.start_timer();
            // The same in both, so that the age of what is new does not change with the next plan.
            let now = jiff::Timestamp::now();
            let none = BTreeSet::new();
            let causes = pace::causes(&former, &observed, before.as_ref().map_or(&none, |plan| &plan.waiting));
            drop(former);
            let mut world = world::world(&observed, &kept, &holds, Some(now));
            world.last_ready = before.as_ref().map(|plan| Arc::clone(&plan.last_ready));
            let joined = start.elapsed();
            let plan = planner.plan(&world);
            let planned = start.elapsed() - joined;
            let records = world::records(&observed, &plan, &kept, now);
            changes::log(before.as_deref(), &plan);
            let secrets = in_force::secrets(&records);
            let is_stale =
                |id: &ObjectRef, known: &ObjectRecord| known.accepted.is_some() && !plan.accepted.contains(id);
            let stale = records.iter().filter(|(id, known)| is_stale(id, known)).map(|(id, _)| id.clone());
            let in_force = InForce { world: observed.number, secrets, stale: stale.collect() };
            timer.observe_duration();
            let took = start.elapsed();
            tracing::debug!(?joined, ?planned, ?took, objects = world.objects.len(), ?causes, "derived");
            let (world, plan, records) = (Arc::new(world), Arc::new(plan), Arc::new(records));
            Derived { planner, observed, world, plan, records, in_force, causes, took }
        });
        self.under_way = Some(UnderWay { task, of, began: Instant::now(), is_slow: false, done: None });
    }

    /// The plan that was under way, if it is made, with the memory that it is made of.
    async fn take(&mut self) -> Option<(Result<Derived, JoinError>, Known)> {
        let under_way = self.under_way.as_mut()?;
        if under_way.done.is_none() && !under_way.task.is_finished() {
            let took = under_way.began.elapsed();
            if took > SLOW_AFTER && !std::mem::replace(&mut under_way.is_slow, true) {
                tracing::warn!("planning takes more than {} s; what was planned before is in force", took.as_secs());
            }
            return None;
        }
        let UnderWay { task, of, done, .. } = self.under_way.take()?;
        let done = match done {
            Some(done) => done,
            None => task.await,
        };
        Some((done, of))
    }
}

impl<F: Fleet> Reconciler<F> {
    /// Takes up the plan that is made, and has the latest world planned next.
    pub(super) async fn plan(&mut self) {
        match self.planning.take().await {
            Some((Ok(derived), of)) => self.take_up(derived, &of),
            // A bug of ours that this very content brings out: what ran goes on running.
            Some((Err(error), _)) => {
                tracing::error!(%error, "planning failed; what was planned before stays in force");
                self.persisted_due = false;
                self.planning.has_failed = true;
                self.planning.rests_until = Some(Instant::now() + FAILURE_REST);
            }
            None => {}
        }
        let Some(latest) = self.latest.as_ref().filter(|_| !self.planning.is_under_way()) else { return };
        let is_standby = matches!(self.leadership, Leadership::Standby);
        let is_due = match &self.plan {
            Some(plan) => self.planning.is_due(latest, &self.observed, plan, is_standby),
            None => !self.planning.has_begun(latest),
        };
        if self.plan_due || is_due {
            self.plan_due = false;
            let of = (Arc::clone(&self.records), Arc::clone(&self.holds));
            self.planning.begin(Arc::clone(latest), Arc::clone(&self.observed), of, self.plan.clone());
        }
    }

    fn take_up(&mut self, derived: Derived, (remembered_then, holds_then): &Known) {
        let Derived { planner, observed, world, plan, records, in_force, causes, took } = derived;
        let now = Instant::now();
        self.planning.planner = planner;
        self.planning.has_failed = false;
        self.planning.pace.charge(&causes, took, now);
        self.planning.rests_until = Some(now + (took * (REST - 1)).min(MAX_REST));
        if !Arc::ptr_eq(remembered_then, &self.records) || !Arc::ptr_eq(holds_then, &self.holds) {
            // Meanwhile the leader before was heard: of what it left, this plan knows nothing.
            self.plan_due = true;
            return;
        }
        let former = (
            std::mem::replace(&mut self.observed, observed),
            std::mem::replace(&mut self.world, world),
            std::mem::replace(&mut self.records, records),
            self.plan.replace(Arc::clone(&plan)),
        );
        // What nobody has any more may be much.
        tokio::task::spawn_blocking(move || drop(former));
        if let Some(source) = &self.context.in_force {
            source.send_replace(Some(in_force));
        }
        self.holds = Arc::clone(&plan.holds);
        self.store_due = true;
        // One that began before the state was heard does not count for it.
        self.persisted_due &= self.plan_due;
        for fleet in plan.fleets.keys() {
            self.states.entry(fleet.clone()).or_default();
        }
        self.context.registry.planned(plan);
        self.publish_due = true;
        self.decided = None;
    }
}
