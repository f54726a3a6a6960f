//! Listeners that are planned and not served: their port does not open, or proxies refuse what they need.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{Entry, Key, Kind, Snapshot, proto::resource};

use super::FleetState;

impl FleetState {
    /// Why desired listeners are not served: left out of the snapshot, or without any certificate in it.
    pub(super) fn withheld(&self, desired: &Snapshot, snapshot: &Snapshot) -> BTreeMap<Key, String> {
        let refusal = |key: &Key| self.rolled_back.get(key).map(|nack| format!("{}: {}", nack.field, nack.message));
        let closed = |port: u32| self.observation.problems.iter().find(|p| p.port.map(u32::from) == Some(port));
        let why = |(key, entry): (&Key, &Entry)| {
            let Some(resource::Kind::Listener(listener)) = entry.kind() else { return None };
            let why = if snapshot.entry(key).is_none() {
                closed(listener.port).map(|problem| problem.message.clone()).or_else(|| refusal(key))
            } else if listener.tls {
                let keys: Vec<Key> = listener.certificates.iter().filter_map(|key| key.parse().ok()).collect();
                let none = keys.iter().all(|key| snapshot.entry(key).is_none());
                none.then(|| keys.iter().find_map(|key| Some(format!("{key}: {}", refusal(key)?))))?
            } else {
                return None;
            };
            Some((key.clone(), why.unwrap_or_else(|| "it is not published".to_owned())))
        };
        desired.of_kind(Kind::Listener).filter_map(why).collect()
    }
}

/// Takes out the listeners whose port could not be opened: proxies would refuse them, and a refusal stands.
pub(super) fn withhold(snapshot: &mut Snapshot, ports: &BTreeSet<u16>) {
    let is_closed = |entry: &Entry| match entry.kind() {
        Some(resource::Kind::Listener(listener)) => ports.iter().any(|port| u32::from(*port) == listener.port),
        _ => false,
    };
    let closed = snapshot.of_kind(Kind::Listener).filter(|(_, entry)| is_closed(entry));
    let closed: Vec<Key> = closed.map(|(key, _)| key.clone()).collect();
    for key in closed {
        snapshot.remove(&key);
    }
}
