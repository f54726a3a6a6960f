//! Slots of clusters: a push that changes endpoints changes a slot's content, and no rule that names it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use snapshot::{
    Hash, Key, Kind, Snapshot,
    proto::{self, ClusterProtocol, resource},
    refs,
};

use crate::upstream::{Cluster, ClusterSlot, Endpoints, Protocol};

/// Every cluster's slot, with the hash of what is in it.
#[derive(Default)]
pub(crate) struct Clusters {
    slots: HashMap<Key, (Arc<ClusterSlot>, Option<Hash>)>,
}

/// New content of a slot.
pub(crate) struct Update {
    slot: Arc<ClusterSlot>,
    cluster: Option<Arc<Cluster>>,
}

impl Clusters {
    /// The slot of a key; empty until a snapshot holds that cluster.
    pub(crate) fn slot(&mut self, key: &Key) -> Arc<ClusterSlot> {
        let slot = || Arc::new(ClusterSlot { key: key.clone(), cluster: ArcSwapOption::empty() });
        Arc::clone(&self.slots.entry(key.clone()).or_insert_with(|| (slot(), None)).0)
    }

    /// The slots of every cluster that a resource refers to.
    pub(crate) fn slots(&mut self, content: &resource::Kind) -> Box<[Arc<ClusterSlot>]> {
        refs::needed(content).filter(|key| key.kind() == Kind::Cluster).map(|key| self.slot(&key)).collect()
    }

    /// The changes by which the slots come to hold what the snapshot says, whose routes name these. Forgets slots that
    /// nothing names.
    pub(crate) fn updates<'a>(
        &mut self,
        snapshot: &Snapshot,
        named: impl Iterator<Item = &'a Arc<ClusterSlot>>,
        endpoints: &Endpoints,
    ) -> Vec<Update> {
        self.slots.retain(|key, (slot, _)| Arc::strong_count(slot) > 1 || snapshot.entry(key).is_some());
        let mut updates = vec![];
        for (key, entry) in snapshot.of_kind(Kind::Cluster) {
            let slot = self.slot(key);
            let hash = self.slots.get_mut(key).map(|(_, hash)| hash);
            if let Some(hash) = hash.filter(|hash| **hash != Some(entry.hash()))
                && let Some(resource::Kind::Cluster(cluster)) = entry.kind()
            {
                *hash = Some(entry.hash());
                updates.push(Update { slot, cluster: Some(Arc::new(compile(&cluster, endpoints))) });
            }
        }
        let gone = |(key, (_, hash)): (&Key, &(_, Option<Hash>))| hash.is_some() && snapshot.entry(key).is_none();
        let gone: Vec<Key> = self.slots.iter().filter(|slot| gone(*slot)).map(|(key, _)| key.clone()).collect();
        if gone.is_empty() {
            return updates;
        }
        let named: HashSet<&Key> = named.map(|slot| &slot.key).collect();
        for key in gone {
            let Some((slot, hash)) = self.slots.get_mut(&key) else { continue };
            if named.contains(&key) {
                *hash = None;
                updates.push(Update { slot: Arc::clone(slot), cluster: None });
            } else {
                // Only rules that are on their way out hold it: their last requests still find their backend.
                self.slots.remove(&key);
            }
        }
        updates
    }
}

impl Update {
    /// Puts the content in its slot: requests see it from now on.
    pub(crate) fn swap(self) {
        self.slot.cluster.store(self.cluster);
    }
}

fn compile(cluster: &proto::Cluster, endpoints: &Endpoints) -> Cluster {
    let protocol = match cluster.protocol() {
        ClusterProtocol::Http1 => Protocol::Http1,
        ClusterProtocol::H2c => Protocol::H2c,
    };
    let serving = cluster.endpoints.iter().any(|e| !e.terminating);
    let used = cluster.endpoints.iter().filter(|e| e.terminating != serving);
    // check::resource made sure that they are addresses.
    let used = used.filter_map(|e| e.address.parse().ok());
    Cluster { endpoints: used.map(|address| endpoints.endpoint(address, protocol)).collect() }
}

#[cfg(test)]
mod tests {
    use snapshot::{
        Entry,
        proto::{Resource, Route, Rule, WeightedCluster},
    };

    use super::*;

    /// Also what a route names and sends nothing to: it may any moment.
    #[test]
    fn what_a_route_refers_to_keeps_its_slot() {
        let key = Key::cluster("ns", "c", "80");
        let backends = vec![WeightedCluster { cluster: key.to_string(), weight: 0 }];
        let rules = vec![Rule { backends, ..Rule::default() }];
        let route = resource::Kind::Route(Route { rules, ..Route::default() });
        let content = resource::Kind::Cluster(proto::Cluster::default());
        let full: Snapshot =
            [(key, Entry::new(&Resource { requires: vec![], kind: Some(content) }))].into_iter().collect();
        let (mut clusters, endpoints) = (Clusters::default(), Endpoints::default());
        let named = clusters.slots(&route);
        let mut take = |snapshot: &Snapshot, named: &[Arc<ClusterSlot>]| {
            let updates = clusters.updates(snapshot, named.iter(), &endpoints);
            updates.into_iter().for_each(Update::swap);
            clusters.slots.len()
        };
        assert_eq!(take(&full, &named), 1);
        assert!(named[0].cluster.load().is_some());
        assert_eq!(take(&Snapshot::default(), &named), 1);
        assert!(named[0].cluster.load().is_none(), "its requests get 500");
        assert_eq!(take(&full, &named), 1);
        assert_eq!(take(&Snapshot::default(), &[]), 0);
        assert!(named[0].cluster.load().is_some(), "requests that are under way still find their backend");
    }
}
