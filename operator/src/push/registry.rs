//! The offer to each fleet's proxies, for streams to follow, and the plan, which names the fleets.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use planner::{FleetRef, Plan};
use tokio::sync::watch;

use super::Offered;

type Sender = watch::Sender<Offered>;

/// The offers to each fleet's proxies, and the plan.
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
    /// Offers this to the fleet's proxies.
    pub fn offer(&self, fleet: &FleetRef, offered: Offered) {
        self.with(fleet, |sender| sender.send_replace(offered));
    }

    /// Takes the plan, of a leader and of a standby, in whose name nothing is published. What a fleet that is no more
    /// published goes with the last of its proxies.
    pub fn planned(&self, plan: Arc<Plan>) {
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        fleets.retain(|fleet, sender| plan.fleets.contains_key(fleet) || sender.receiver_count() > 0);
        drop(fleets);
        self.plan.send_replace(Some(plan));
    }

    /// The plan; `None` until the operator knows all that there is.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.borrow().clone()
    }

    /// Follows the offers to a fleet's proxies; empty until the first one.
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
