//! Consumers, decoded once, and their table, which is the same allocation while none of them changes.

use std::{collections::HashMap, sync::Arc};

use snapshot::{
    Hash, Key, Kind, Snapshot,
    credential::Digest,
    proto::{self, resource},
    set::revision,
};

use crate::consumers::{Consumer, Consumers};

/// What was compiled of consumers.
#[derive(Default)]
pub(super) struct Known {
    consumers: HashMap<Key, (Hash, Arc<Consumer>)>,
    /// Hash of all that the table was made of.
    from: Hash,
    table: Arc<Consumers>,
}

impl Known {
    /// The table of a snapshot's consumers.
    pub(super) fn table(&mut self, snapshot: &Snapshot) -> Arc<Consumers> {
        let from = revision(snapshot.of_kind(Kind::Consumer).map(|(key, entry)| (key, entry.hash())));
        if self.from == from {
            return Arc::clone(&self.table);
        }
        self.consumers.retain(|key, _| snapshot.entry(key).is_some());
        for (key, entry) in snapshot.of_kind(Kind::Consumer) {
            if self.consumers.get(key).is_some_and(|(hash, _)| *hash == entry.hash()) {
                continue;
            }
            // It was checked when it was pushed.
            if let Some(resource::Kind::Consumer(consumer)) = entry.kind() {
                self.consumers.insert(key.clone(), (entry.hash(), Arc::new(compile(key, &consumer))));
            }
        }
        let in_order = snapshot.of_kind(Kind::Consumer).filter_map(|(key, _)| self.consumers.get(key));
        self.table = Arc::new(in_order.map(|(_, consumer)| Arc::clone(consumer)).collect());
        self.from = from;
        Arc::clone(&self.table)
    }
}

fn compile(key: &Key, consumer: &proto::Consumer) -> Consumer {
    let label = |label: &proto::Label| (label.name.as_str().into(), label.value.as_str().into());
    Consumer {
        namespace: key.namespace().into(),
        name: key.name().into(),
        labels: consumer.labels.iter().map(label).collect(),
        digests: consumer.credentials.iter().filter_map(|c| Digest::from_slice(&c.digest)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use snapshot::{
        Entry,
        proto::{Credential, Label, Resource},
    };

    use super::*;

    fn entry(name: &str, tier: &str, api_key: &str) -> (Key, Entry) {
        let credentials = vec![Credential { kind: 0, digest: Digest::of_api_key(api_key.as_bytes()).to_bytes() }];
        let labels = vec![Label { name: "tier".into(), value: tier.into() }];
        let kind = resource::Kind::Consumer(proto::Consumer { labels, credentials });
        (Key::new(Kind::Consumer, "shop", name), Entry::new(&Resource { requires: vec![], kind: Some(kind) }))
    }

    #[test]
    fn what_did_not_change_is_taken_over() {
        let mut known = Known::default();
        let find = |table: &Consumers, key: &str| {
            table
                .find("shop", &Digest::of_api_key(key.as_bytes()))
                .map(|found| (found.name.clone(), Arc::as_ptr(found)))
        };
        assert!(known.table(&Snapshot::default()).is_empty());
        let mut snapshot: Snapshot = [entry("a", "gold", "k1"), entry("b", "silver", "k2")].into_iter().collect();
        let first = known.table(&snapshot);
        assert_eq!(
            first.find("shop", &Digest::of_api_key(b"k1")).unwrap().labels[..],
            [("tier".into(), "gold".into())]
        );
        assert!(Arc::ptr_eq(&first, &known.table(&snapshot)));
        let (key, rotated) = entry("b", "silver", "k3");
        snapshot.insert(key, rotated);
        let second = known.table(&snapshot);
        assert_eq!((find(&second, "k1"), find(&second, "k2")), (find(&first, "k1"), None));
        assert_eq!(find(&second, "k3").map(|(name, _)| name), Some("b".into()));
        snapshot.remove(&entry("a", "", "").0);
        assert_eq!((known.table(&snapshot).len(), find(&known.table(&snapshot), "k1")), (1, None));
    }
}
