//! What each fleet's proxies are offered, for streams to follow; and what is planned, which says what fleets there are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use planner::{FleetRef, Plan};
use tokio::sync::watch;

use super::Offered;

type Sender = watch::Sender<Offered>;

/// What each fleet's proxies are offered.
#[derive(Debug)]
pub struct Registry {
    fleets: Mutex<BTreeMap<FleetRef, Sender>>,
    plan: watch::Sender<Option<Arc<Plan>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { fleets: Mutex::default(), plan: watch::Sender::new(None) }
    }
}

impl Registry {
    /// Makes this what the fleet's proxies are to run.
    pub fn offer(&self, fleet: &FleetRef, offered: Offered) {
        self.with(fleet, |sender| sender.send_replace(offered));
    }

    /// This is what should be now: of a leader and of a standby, in whose name nothing is published. What a fleet that is
    /// no more published goes with the last of its proxies.
    pub fn planned(&self, plan: Arc<Plan>) {
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        fleets.retain(|fleet, sender| plan.fleets.contains_key(fleet) || sender.receiver_count() > 0);
        drop(fleets);
        self.plan.send_replace(Some(plan));
    }

    /// What should be; nothing until the operator knows all that there is.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.borrow().clone()
    }

    /// Follows what a fleet's proxies are offered; nothing until the first time.
    pub(super) fn subscribe(&self, fleet: &FleetRef) -> watch::Receiver<Offered> {
        self.with(fleet, watch::Sender::subscribe)
    }

    fn with<T>(&self, fleet: &FleetRef, f: impl FnOnce(&Sender) -> T) -> T {
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        f(fleets.entry(fleet.clone()).or_insert_with(|| watch::Sender::new(Offered::default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_is_no_more_is_forgotten_with_its_proxies() {
        let registry = Registry::default();
        let fleet = FleetRef { namespace: "ns".into(), name: "f".into() };
        let known = || registry.fleets.lock().unwrap().len();
        let proxy = registry.subscribe(&fleet);
        registry.offer(&fleet, Offered::to_all(Arc::default()));
        registry.planned(Arc::default());
        assert_eq!(known(), 1, "a proxy follows it");
        assert!(proxy.borrow().all.is_some());
        drop(proxy);
        registry.planned(Arc::default());
        assert_eq!(known(), 0);
    }
}
