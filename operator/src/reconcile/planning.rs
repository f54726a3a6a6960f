//! Plans are made beside the loop, which goes on however long that takes, whatever the objects are. Leases are kept,
//! proxies are heard and counted, and probes of liveness are answered, by the plan that was made last.
//!
//! One plan is made at a time. Worlds that come meanwhile are not planned one by one: the latest is, next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{Holds, ObjectRef, Plan, Planner, World};
use tokio::task::{JoinError, JoinHandle};

use super::Reconciler;
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

/// The plan that is being made, if one is.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// Knows the objects that it has validated before. With the plan under way, while there is one.
    planner: Planner,
    under_way: Option<UnderWay>,
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

    fn begin(&mut self, observed: Arc<Observed>, of: Known, before: Option<Arc<Plan>>) {
        let (mut planner, (kept, holds)) = (std::mem::take(&mut self.planner), of.clone());
        let task = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let timer = metrics::get().plans.start_timer();
            // The same in both, so that the age of what is new does not change with the next plan.
            let now = jiff::Timestamp::now();
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
            tracing::debug!(?joined, ?planned, total = ?start.elapsed(), objects = world.objects.len(), "derived");
            let (world, plan, records) = (Arc::new(world), Arc::new(plan), Arc::new(records));
            Derived { planner, observed, world, plan, records, in_force }
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
            }
            None => {}
        }
        if self.planning.is_under_way() {
            return;
        }
        // What is gone counts for a while, and no source says when that is over.
        let changes = self.plan.as_ref().and_then(|plan| plan.changes_at).is_some_and(|at| at <= status::now());
        if (std::mem::take(&mut self.plan_due) || changes)
            && let Some(observed) = self.latest.clone()
        {
            let of = (Arc::clone(&self.records), Arc::clone(&self.holds));
            self.planning.begin(observed, of, self.plan.clone());
        }
    }

    fn take_up(&mut self, derived: Derived, (remembered_then, holds_then): &Known) {
        let Derived { planner, observed, world, plan, records, in_force } = derived;
        self.planning.planner = planner;
        if !Arc::ptr_eq(remembered_then, &self.records) || !Arc::ptr_eq(holds_then, &self.holds) {
            // Meanwhile the leader before was heard: of what it left, this plan knows nothing.
            self.plan_due = true;
            return;
        }
        let is_unfinished = plan.is_unfinished();
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
        self.persisted_due = false;
        for fleet in plan.fleets.keys() {
            self.states.entry(fleet.clone()).or_default();
        }
        self.context.registry.planned(plan);
        self.publish_due = true;
        self.decided = None;
        self.plan_due |= is_unfinished;
    }
}
