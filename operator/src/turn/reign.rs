//! Whether this operator leads, and what it makes of what the one before left. Until the proxies that it takes over have
//! said what they run, their silence says nothing: no status falls, and no number moves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use planner::FleetRef;
use tokio::task::JoinHandle;

use super::Operator;
use crate::{fleet::Fleet, gateway::Gateway, lead::Lead, state::memory::Recalled};

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
            self.reign = Reign::Yes(Some(now));
            self.take_over(recalled).await;
        }
        matches!(self.reign, Reign::Yes(_))
    }

    /// Joins what the leader before left with what this one saw itself.
    async fn take_over(&mut self, mut recalled: Recalled) {
        let (objects, refused) = (recalled.objects.len(), recalled.ledgers.len());
        tracing::info!(objects, refused, "leads now, with what the leader before left");
        for (fleet, ledger) in std::mem::take(&mut recalled.ledgers) {
            let gateway = self.gateways.entry(fleet).or_default();
            // Proxies may have dialled already.
            let said = std::mem::replace(&mut gateway.ledger, ledger);
            gateway.ledger.nacked.extend(said.nacked);
        }
        if recalled.merge_into(Arc::make_mut(&mut self.remembered)) {
            self.news.get_or_insert_with(|| Arc::clone(&self.observed));
            self.plan().await;
        }
        (self.publish_due, self.memory_due) = (true, true);
    }

    /// Whether silence of this fleet's proxies says something: they have all said what they run, or had the time to.
    pub(super) fn settled(&self, gateway: &Gateway, now: Instant) -> bool {
        match self.reign {
            Reign::Yes(Some(since)) => now.duration_since(since) >= SETTLES || gateway.all_attached(),
            Reign::Yes(None) => true,
            Reign::No | Reign::Begins(_) => false,
        }
    }

    pub(super) fn settled_fleets(&self, now: Instant) -> impl Iterator<Item = &FleetRef> {
        self.gateways.iter().filter(move |(_, gateway)| self.settled(gateway, now)).map(|(fleet, _)| fleet)
    }
}

#[cfg(test)]
mod tests;
