//! Slots of clusters: a push that changes endpoints changes a slot's content, and no rule that names it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use snapshot::{
    Hash, Key, Kind, Snapshot,
    proto::{self, ClusterProtocol, resource},
};

use crate::{
    rule::{Cluster, ClusterSlot, Rule},
    upstream::{Endpoints, Protocol},
};

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

    /// The changes by which the slots come to hold what the snapshot says, whose rules are these. Forgets slots that
    /// nothing names.
    pub(crate) fn updates<'a>(
        &mut self,
        snapshot: &Snapshot,
        rules: impl Iterator<Item = &'a Rule>,
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
        let named: HashSet<&Key> = rules.flat_map(Rule::clusters).collect();
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
