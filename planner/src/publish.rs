//! What is pushed: the desired snapshot, less what a proxy refused.

use std::collections::BTreeMap;

use snapshot::{Entry, Hash, Key, Snapshot, proto::Nack};

/// What the proxies of one fleet said of resources.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Last content that a proxy acknowledged, by key.
    pub acked: BTreeMap<Key, Entry>,
    /// Content that a proxy refused.
    pub nacked: BTreeMap<(Key, Hash), Nack>,
}

impl Ledger {
    /// Takes up an acknowledgement of `published`. True when a nack is new, so that [`publish`] gives another result.
    pub fn acknowledge(&mut self, _published: &Snapshot, _nacks: &[Nack]) -> bool {
        false
    }

    /// Forgets nacks of content that is no longer desired.
    pub fn retain(&mut self, _desired: &Snapshot) {}
}

/// Replaces each refused resource by its last acknowledged content (none: a Route becomes one that answers 500, anything
/// else is left out); names what was replaced.
pub fn publish(desired: &Snapshot, _ledger: &Ledger) -> (Snapshot, BTreeMap<Key, Nack>) {
    (desired.clone(), BTreeMap::new())
}
