//! Whether this operator leads, and what it makes of what the one before left. Until the proxies that it takes over have
//! said what they run, their silence says nothing: no status falls, and no number moves.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{FleetRef, ObjectRef};
use tokio::task::JoinHandle;

use super::Operator;
use crate::{
    fleet::Fleet,
    leader::election::Lead,
    reconcile::fleet_state::Gateway,
    source::kube::{READ_WITHIN, in_force},
    state::memory::Recalled,
    status,
};

/// Proxies that ran before this operator led dial it within this time; what they say is waited for before anything is
/// concluded from their silence.
pub(super) const SETTLES: Duration = Duration::from_secs(10);

/// How far this operator is with leading.
#[derive(Debug)]
pub(super) enum Reign {
    /// It plans, and touches nothing.
    No,
    /// It reads what the leader before left.
    Begins(JoinHandle<Recalled>),
    /// It knows that, and has it planned; the Secrets that the contents in force before that refer to.
    Plans(BTreeSet<ObjectRef>),
    /// It knows that, and the source reads the Secrets that it refers to, of which these are missing: what was published
    /// without them would take certificates from proxies that serve by them. Waited for until then.
    Reads { missing: BTreeSet<ObjectRef>, until: Instant },
    /// It leads; `Some`: since then, and others led before.
    Yes(Option<Instant>),
}

impl<F: Fleet> Operator<F> {
    /// Whether this operator leads, and knows what the one before knew.
    pub(super) async fn leads(&mut self, now: Instant) -> bool {
        if matches!(*self.parts.lead.borrow(), Lead::Standby { .. }) {
            return false;
        }
        if matches!(self.reign, Reign::No) {
            self.reign = match self.parts.memory.recall() {
                Some(recall) => Reign::Begins(tokio::spawn(recall)),
                None => Reign::Yes(None),
            };
        }
        if let Reign::Begins(recall) = &mut self.reign
            && recall.is_finished()
        {
            // It can't panic; and what it knows is a help, not a need.
            let recalled = recall.await.unwrap_or_default();
            let before = in_force(&self.remembered);
            self.take_over(recalled);
            self.reign = Reign::Plans(before);
        }
        if let Reign::Plans(before) = &self.reign
            && !self.recall_due
        {
            // The source was told, too.
            let missing = in_force(&self.remembered).difference(before).cloned().collect();
            self.reign = Reign::Reads { missing, until: now + READ_WITHIN };
        }
        // A tick looks again when nothing else happens.
        if let Reign::Reads { missing, until } = &mut self.reign {
            missing.retain(|id| !self.observed.objects.contains_key(id));
            if missing.is_empty() || now >= *until {
                (self.reign, self.publish_due, self.memory_due) = (Reign::Yes(Some(now)), true, true);
            }
        }
        matches!(self.reign, Reign::Yes(_))
    }

    /// Joins what the leader before left with what this one saw itself.
    fn take_over(&mut self, mut recalled: Recalled) {
        let (objects, refused) = (recalled.objects.len(), recalled.ledgers.len());
        tracing::info!(objects, refused, "leads now, with what the leader before left");
        for (fleet, ledger) in std::mem::take(&mut recalled.ledgers) {
            self.gateways.entry(fleet).or_default().ledger = ledger;
        }
        let holds = std::mem::take(&mut recalled.holds);
        let holds_changed = !holds.is_empty();
        Arc::make_mut(&mut self.holds).merge(holds, status::now());
        if recalled.merge_into(Arc::make_mut(&mut self.remembered)) || holds_changed {
            self.news.get_or_insert_with(|| Arc::clone(&self.observed));
            self.recall_due = true;
        }
    }

    /// Whether silence of this fleet's proxies says something: they have all said what they run, or had the time to.
    pub(super) fn settled(&self, gateway: &Gateway, now: Instant) -> bool {
        match self.reign {
            Reign::Yes(Some(since)) => now.duration_since(since) >= SETTLES || gateway.all_attached(),
            Reign::Yes(None) => true,
            Reign::No | Reign::Begins(_) | Reign::Plans(_) | Reign::Reads { .. } => false,
        }
    }

    pub(super) fn settled_fleets(&self, now: Instant) -> impl Iterator<Item = &FleetRef> {
        self.gateways.iter().filter(move |(_, gateway)| self.settled(gateway, now)).map(|(fleet, _)| fleet)
    }
}

#[cfg(test)]
mod tests;
