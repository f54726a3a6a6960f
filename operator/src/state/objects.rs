//! Records of objects: how often each changed, and its last accepted content, which stays in force while what the
//! source has is broken.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use crds::{Object, admit::Manifest};
use planner::ObjectRef;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapshot::Hash;

use super::mirror::{self, Stored};

/// The record of one object.
#[derive(Clone, Debug)]
pub struct ObjectRecord {
    /// Counts its changes.
    pub generation: i64,
    /// Hash of the content that has this generation.
    pub content: Hash,
    /// When it was first seen.
    pub created: jiff::Timestamp,
    /// The content last accepted.
    pub accepted: Option<Arc<Object>>,
    /// When that was accepted, as far as it is known; of what others refer to.
    pub accepted_at: Option<jiff::Timestamp>,
    /// Since when the source has it no more: it counts for a while, since what is deleted is often made again.
    pub gone: Option<jiff::Timestamp>,
}

impl ObjectRecord {
    /// `metadata.generation` of the accepted content; an API server counts it.
    pub fn accepted_generation(&self) -> Option<i64> {
        self.accepted.as_ref().map(|object| object.metadata().generation.unwrap_or_default())
    }
}

/// As it stands in the file; the content as it is read, or written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<A> {
    object: ObjectRef,
    generation: i64,
    content: String,
    created: jiff::Timestamp,
    accepted: Option<A>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted_at: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<jiff::Timestamp>,
}

impl Stored for ObjectRecord {
    fn same(&self, other: &Self) -> bool {
        let accepted = match (&self.accepted, &other.accepted) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        accepted && (self.generation, self.content, self.gone) == (other.generation, other.content, other.gone)
    }

    fn json(&self, id: &ObjectRef) -> Value {
        let accepted = self.accepted.as_deref().map(Manifest);
        serde_json::to_value(self.record(id, accepted)).unwrap_or_default()
    }
}

impl ObjectRecord {
    fn record<A>(&self, id: &ObjectRef, accepted: Option<A>) -> Record<A> {
        Record {
            object: id.clone(),
            generation: self.generation,
            content: self.content.to_string(),
            created: self.created,
            accepted,
            accepted_at: self.accepted_at,
            gone: self.gone,
        }
    }

    /// The text that [`from_record`] reads.
    pub(super) fn text(&self, id: &ObjectRef) -> String {
        serde_json::to_string(&self.record(id, self.accepted.as_deref().map(Manifest))).unwrap_or_default()
    }

    /// How long that text is. `content`: how long that of its content is ([`length`]).
    pub(super) fn text_length(&self, id: &ObjectRef, content: usize) -> usize {
        written(&self.record::<()>(id, None)) - "null".len() + content
    }
}

/// The object as its manifest would have it.
pub fn to_value(object: &Object) -> Value {
    // Types with string keys only: this can't fail.
    serde_json::to_value(Manifest(object)).unwrap_or_default()
}

/// How long a content is as text, which is not made for that: it may have a megabyte.
pub(super) fn length(object: &Object) -> usize {
    written(&Manifest(object))
}

fn written(value: &impl Serialize) -> usize {
    struct Counts(usize);

    impl Write for Counts {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counts = Counts(0);
    let _ = serde_json::to_writer(&mut counts, value);
    counts.0
}

/// Reads the folder.
pub fn load(folder: &Path) -> BTreeMap<ObjectRef, ObjectRecord> {
    mirror::read(folder).into_iter().filter_map(from_record).collect()
}

/// Reads what [`Stored::json`] wrote. An object that this version would not admit any more is dropped, and said so.
pub(crate) fn from_record(value: Value) -> Option<(ObjectRef, ObjectRecord)> {
    let mut record: Record<Value> = serde_json::from_value(value)
        .map_err(|error| tracing::warn!(%error, "what was remembered of an object is not understood"))
        .ok()?;
    let admit = |value| match crds::admit(value) {
        Ok(object) => Some(Arc::new(object)),
        Err(violations) => {
            let why = violations.first().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(object = %record.object, why, "its last accepted content is not valid any more");
            None
        }
    };
    let content = parse_hash(&record.content)?;
    let accepted = record.accepted.take().and_then(admit);
    let Record { object, generation, created, accepted_at, gone, .. } = record;
    Some((object, ObjectRecord { generation, content, created, accepted, accepted_at, gone }))
}

/// Reads the 64 hex digits that a hash prints as.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    let digits: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Hash::from_slice(&digits?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::mirror::Mirror;

    #[tokio::test]
    async fn what_is_remembered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("objects");
        let id = |name: &str| ObjectRef { kind: planner::Kind::Service, namespace: "ns".into(), name: name.into() };
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "ns"}, "spec": {"ports": [{"port": 80}]},
        });
        let object = ObjectRecord {
            generation: 3,
            content: Hash::of(b"x"),
            created: jiff::Timestamp::UNIX_EPOCH,
            accepted: Some(Arc::new(crds::admit(value).unwrap())),
            accepted_at: Some(jiff::Timestamp::UNIX_EPOCH),
            gone: Some(jiff::Timestamp::UNIX_EPOCH),
        };
        let broken = ObjectRecord { accepted: None, ..object.clone() };
        // Its length is known before it is written.
        let content = length(object.accepted.as_deref().unwrap());
        assert_eq!(object.text_length(&id("a"), content), object.text(&id("a")).len());
        let mirror = Mirror::start(folder.clone(), Arc::default(), Duration::ZERO);
        mirror.set(Arc::new(BTreeMap::from([(id("a"), object.clone()), (id("../b"), broken)])));
        mirror.finish().await;
        let mut loaded = load(&folder);
        assert_eq!(loaded.len(), 2);
        assert!(loaded[&id("a")].same(&object));
        assert_eq!(loaded[&id("a")].accepted_at, object.accepted_at);
        assert!(loaded[&id("../b")].accepted.is_none());

        let mirror = Mirror::start(folder.clone(), Arc::new(loaded.clone()), Duration::ZERO);
        loaded.remove(&id("../b"));
        mirror.set(Arc::new(loaded));
        mirror.finish().await;
        assert_eq!(load(&folder).len(), 1);
    }
}
