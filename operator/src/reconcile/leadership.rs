//! Taking over: whether this operator leads, and what it makes of the state that the leader before left. Until the
//! proxies that it takes over have said what they run, their silence says nothing: no status falls, and no number
//! moves.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{FleetRef, Kind, ObjectRef, references::SecretRef};
use tokio::task::JoinHandle;

use super::Reconciler;
use crate::{
    fleet::Fleet,
    leader::election::LeaderState,
    reconcile::fleet_state::FleetState,
    source::{in_force, kube::SECRET_READ_TIMEOUT},
    state::persisted::PersistedState,
    status,
};

/// Proxies that ran before this operator led dial it within this time; what they say is waited for before anything is
/// concluded from their silence.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The steps of taking over, from standby to leader.
#[derive(Debug)]
pub(super) enum Leadership {
    /// A standby plans, and changes nothing.
    Standby,
    /// The state that the leader before left is being read.
    Restoring(JoinHandle<PersistedState>),
    /// The state is read, and the plan that includes it is being made.
    AwaitingPlan {
        /// The Secrets that the contents in force before refer to.
        before: BTreeSet<SecretRef>,
        /// Whether the source had put off nothing until then.
        is_complete: bool,
    },
    /// The plan is made, and the source reads what it lacks. The wait ends at `until`.
    AwaitingSource { lacks: Lacks, until: Instant },
    /// This operator leads; `Some`: since then, and others led before.
    Leading(Option<Instant>),
}

/// What the plan of an operator that takes over lacks.
#[derive(Debug)]
pub(super) struct Lacks {
    /// Secrets that it refers to: a snapshot without them would take certificates from proxies that serve by them.
    secrets: BTreeSet<ObjectRef>,
    /// The number of the first world without objects as they were before: proxies may have later ones. `None`: the source
    /// has not read what it put off while this operator, a standby, planned rarely.
    up_to: Option<u64>,
}

impl<F: Fleet> Reconciler<F> {
    /// Whether this operator leads, and knows what the one before knew.
    pub(super) async fn leads(&mut self, now: Instant) -> bool {
        if matches!(*self.context.lead.borrow(), LeaderState::Standby { .. }) {
            return false;
        }
        if matches!(self.leadership, Leadership::Standby) {
            self.leadership = match self.context.store.load() {
                Some(recall) => Leadership::Restoring(tokio::spawn(recall)),
                None => Leadership::Leading(None),
            };
        }
        if let Leadership::Restoring(recall) = &mut self.leadership
            && recall.is_finished()
        {
            // It can't panic; and what it knows is a help, not a need.
            let persisted = recall.await.unwrap_or_default();
            let (before, is_complete) = (in_force::secrets(&self.records), self.source.is_complete());
            self.take_over(persisted);
            self.leadership = Leadership::AwaitingPlan { before, is_complete };
        }
        if let Leadership::AwaitingPlan { before, is_complete } = &self.leadership
            && !self.persisted_due
        {
            // The source got the same references with the plan, and reads what they name. What tenants refer to holds nobody up.
            let references = in_force::secrets(&self.records);
            let of_fleets = references.difference(before).filter(|reference| reference.by == Kind::GatewayFleet);
            let secrets = of_fleets.map(|reference| reference.secret.clone()).collect();
            let up_to = is_complete.then_some(self.observed.number);
            let lacks = Lacks { secrets, up_to };
            self.leadership = Leadership::AwaitingSource { lacks, until: now + SECRET_READ_TIMEOUT };
        }
        // A tick looks again when nothing else happens.
        if let Leadership::AwaitingSource { lacks: Lacks { secrets, up_to }, until } = &mut self.leadership {
            secrets.retain(|id| !self.observed.objects.contains_key(id));
            if let Some(latest) = self.latest.as_ref().filter(|_| up_to.is_none() && self.source.is_complete()) {
                *up_to = Some(latest.number);
            }
            let is_latest = up_to.is_some_and(|up_to| self.observed.number >= up_to);
            if secrets.is_empty() && is_latest || now >= *until {
                (self.leadership, self.publish_due, self.store_due) = (Leadership::Leading(Some(now)), true, true);
            } else if !is_latest {
                // Whatever its namespaces owe: it was their changes that the standby left unplanned.
                self.plan_due |= self.latest.as_ref().is_some_and(|latest| !self.planning.has_begun(latest));
            }
        }
        matches!(self.leadership, Leadership::Leading(_))
    }

    /// Joins what the leader before left with what this one saw itself.
    fn take_over(&mut self, mut persisted: PersistedState) {
        let (objects, refused) = (persisted.objects.len(), persisted.ledgers.len());
        tracing::info!(objects, refused, "leads now, with what the leader before left");
        for (fleet, ledger) in std::mem::take(&mut persisted.ledgers) {
            self.states.entry(fleet).or_default().ledger = ledger;
        }
        let holds = std::mem::take(&mut persisted.holds);
        let holds_changed = !holds.is_empty();
        Arc::make_mut(&mut self.holds).merge(holds, status::now());
        let is_more = persisted.merge_into(Arc::make_mut(&mut self.records)) || holds_changed;
        // A standby's plan may be of a world that is long past.
        let is_late = self.latest.as_ref().is_some_and(|latest| !Arc::ptr_eq(latest, &self.observed));
        (self.plan_due, self.persisted_due) = (self.plan_due || is_more || is_late, is_more || is_late);
    }

    /// Whether silence of this fleet's proxies says something: they have all said what they run, or had the time to.
    pub(super) fn settled(&self, state: &FleetState, now: Instant) -> bool {
        match self.leadership {
            Leadership::Leading(Some(since)) => now.duration_since(since) >= SETTLE_TIMEOUT || state.all_attached(),
            Leadership::Leading(None) => true,
            Leadership::Standby
            | Leadership::Restoring(_)
            | Leadership::AwaitingPlan { .. }
            | Leadership::AwaitingSource { .. } => false,
        }
    }

    pub(super) fn settled_fleets(&self, now: Instant) -> impl Iterator<Item = &FleetRef> {
        self.states.iter().filter(move |(_, state)| self.settled(state, now)).map(|(fleet, _)| fleet)
    }
}

#[cfg(test)]
mod tests;
