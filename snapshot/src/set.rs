//! Snapshots: resources by key, what differs between two, and the hash that names one.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use prost::Message;

use crate::{
    key::{Hash, Key, Kind},
    proto::{Resource, resource},
};

/// A resource: its encoding, and the hash of that. It is decoded where it is read: the decoded form of a route takes
/// ten times the memory, and who holds 10,000 of them reads those that change.
#[derive(Clone)]
pub struct Entry {
    hash: Hash,
    bytes: Bytes,
}

/// The reason why bytes are no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("undecodable resource: {0}")]
pub struct DecodeError(String);

impl Entry {
    /// Encodes a resource. Encoding is deterministic: the same resource always has the same hash.
    pub fn new(resource: &Resource) -> Self {
        Self::encoded(resource.encode_to_vec().into())
    }

    /// Takes an encoding over as it is; [`Entry::decode`] tells whether it is one.
    pub fn encoded(bytes: Bytes) -> Self {
        Self { hash: Hash::of(&bytes), bytes }
    }

    /// Hash of the encoding.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The resource.
    pub fn decode(&self) -> Result<Resource, DecodeError> {
        Resource::decode(self.bytes.clone()).map_err(|e| DecodeError(e.to_string()))
    }

    /// The content, for callers that decoded it before. `None`: of a kind that this version does not know.
    pub fn kind(&self) -> Option<resource::Kind> {
        self.decode().ok()?.kind
    }
}

/// Hash and size: the encoding of a certificate holds its key.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.hash, self.bytes.len())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Entry {}

/// Everything a proxy executes. Clones share their content until one of them changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: Arc<BTreeMap<Key, Entry>>,
}

/// The difference between two snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New or changed resources.
    pub puts: BTreeMap<Key, Entry>,
    /// Resources that are gone.
    pub deletes: Vec<Key>,
}

impl Delta {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

impl Snapshot {
    /// Adds or replaces one resource.
    pub fn insert(&mut self, key: Key, entry: Entry) {
        Arc::make_mut(&mut self.entries).insert(key, entry);
    }

    /// Removes one resource.
    pub fn remove(&mut self, key: &Key) -> Option<Entry> {
        Arc::make_mut(&mut self.entries).remove(key)
    }

    /// The resource under a key.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All resources, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// All resources of a kind, in the order of their keys.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(Key::first(kind)..).take_while(move |(key, _)| key.kind() == kind)
    }

    /// The number of resources.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no resource.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Size of all encodings, in bytes.
    pub fn size(&self) -> usize {
        self.entries.values().map(|e| e.bytes.len()).sum()
    }

    /// The hash that names this content.
    pub fn revision(&self) -> Hash {
        revision(self.entries.iter().map(|(k, e)| (k, e.hash)))
    }

    /// Key and hash of every resource: what a proxy says it holds.
    pub fn held(&self) -> BTreeMap<Key, Hash> {
        self.entries.iter().map(|(k, e)| (k.clone(), e.hash)).collect()
    }

    /// The difference that turns a holder of `held` into a holder of this snapshot.
    pub fn diff(&self, held: &BTreeMap<Key, Hash>) -> Delta {
        let puts = self.entries.iter().filter(|(k, e)| held.get(k) != Some(&e.hash));
        let deletes = held.keys().filter(|k| !self.entries.contains_key(k));
        Delta { puts: puts.map(|(k, e)| (k.clone(), e.clone())).collect(), deletes: deletes.cloned().collect() }
    }

    /// Applies a delta; `a.apply(b.diff(&a.held()))` makes `a` equal to `b`.
    pub fn apply(&mut self, delta: Delta) {
        let entries = Arc::make_mut(&mut self.entries);
        for key in &delta.deletes {
            entries.remove(key);
        }
        entries.extend(delta.puts);
    }
}

impl FromIterator<(Key, Entry)> for Snapshot {
    fn from_iter<I: IntoIterator<Item = (Key, Entry)>>(iter: I) -> Self {
        Self { entries: Arc::new(iter.into_iter().collect()) }
    }
}

/// The revision of a content, from its keys (in order) and hashes alone.
pub fn revision<'a>(content: impl IntoIterator<Item = (&'a Key, Hash)>) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for (key, hash) in content {
        // Length first, so that no two contents hash the same bytes.
        hasher.update(&(key.as_str().len() as u64).to_le_bytes());
        hasher.update(key.as_str().as_bytes());
        hasher.update(hash.as_bytes());
    }
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::Cluster;

    fn entry(protocol: i32) -> Entry {
        let cluster = Cluster { protocol, endpoints: vec![] };
        Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Cluster(cluster)) })
    }

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        proptest::collection::btree_map(0..20u8, 0..4i32, 0..20).prop_map(|entries| {
            entries.into_iter().map(|(k, v)| (Key::new(Kind::Cluster, "ns", &format!("c{k}")), entry(v))).collect()
        })
    }

    proptest! {
        #[test]
        fn applying_the_diff_gives_the_other(a in snapshots(), b in snapshots()) {
            let mut got = a.clone();
            let delta = b.diff(&a.held());
            prop_assert_eq!(delta.is_empty(), a == b);
            got.apply(delta);
            prop_assert_eq!(got.revision(), b.revision());
            prop_assert_eq!(got, b);
        }

        #[test]
        fn the_revision_names_the_content(a in snapshots(), b in snapshots()) {
            prop_assert_eq!(a.revision() == b.revision(), a == b);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            if let Ok(resource) = Entry::encoded(bytes.into()).decode() {
                let _ = crate::check::resource(&Key::new(Kind::Route, "a", "b"), &resource);
            }
        }
    }
}
