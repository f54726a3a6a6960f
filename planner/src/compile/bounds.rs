//! The bounds of a snapshot (`snapshot::wire`): what is beyond them is left out, and its object says so.

use std::collections::BTreeMap;

use snapshot::{
    Entry, Key, Kind, Snapshot,
    proto::resource,
    wire::{MAX_ENDPOINTS, MAX_RESOURCE, MAX_ROUTES, MAX_SNAPSHOT},
};

use crate::{
    problem::{Problems, reason},
    world::ObjectRef,
};

/// A resource and the object that it comes from.
pub(super) struct Sourced {
    pub(super) key: Key,
    pub(super) entry: Entry,
    pub(super) source: ObjectRef,
}

/// Fills a snapshot; what comes first has precedence.
pub(super) fn fill(
    fleet: &ObjectRef,
    resources: impl IntoIterator<Item = Sourced>,
    problems: &mut Problems<'_>,
) -> (Snapshot, BTreeMap<Key, ObjectRef>) {
    let (mut snapshot, mut sources) = (Snapshot::default(), BTreeMap::new());
    let (mut routes, mut endpoints, mut size) = (0, 0, 0);
    for Sourced { key, entry, source } in resources {
        let route = usize::from(key.kind() == Kind::Route);
        let more = match &entry.resource().kind {
            Some(resource::Kind::Cluster(cluster)) => cluster.endpoints.len(),
            _ => 0,
        };
        let bytes = entry.bytes().len();
        let over = if bytes > MAX_RESOURCE {
            Some(format!("compiles to {bytes} bytes, and {MAX_RESOURCE} is the most: split it"))
        } else if routes + route > MAX_ROUTES {
            Some(format!("is beyond the {MAX_ROUTES} oldest routes of {fleet}, the most that it serves"))
        } else if endpoints + more > MAX_ENDPOINTS {
            Some(format!("is beyond the first {MAX_ENDPOINTS} endpoints of {fleet}, the most that it serves"))
        } else if size + bytes > MAX_SNAPSHOT {
            Some(format!("is beyond the first {MAX_SNAPSHOT} bytes of {fleet}, the most that it holds"))
        } else {
            None
        };
        if let Some(message) = over {
            problems.degraded(&source, "", reason::TOO_LARGE, message);
            continue;
        }
        (routes, endpoints, size) = (routes + route, endpoints + more, size + bytes);
        sources.insert(key.clone(), source);
        snapshot.insert(key, entry);
    }
    (snapshot, sources)
}
