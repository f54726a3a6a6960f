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
        let more = match key.kind() {
            Kind::Cluster => endpoints_of(&entry),
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

fn endpoints_of(entry: &Entry) -> usize {
    match entry.kind() {
        Some(resource::Kind::Cluster(cluster)) => cluster.endpoints.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use snapshot::proto::{Certificate, Cluster, Endpoint, Resource, Route};

    use super::*;
    use crate::{World, world};

    fn object(name: &str) -> ObjectRef {
        ObjectRef { kind: world::Kind::ApiRoute, namespace: "ns".into(), name: name.into() }
    }

    fn sourced(name: &str, kind: resource::Kind) -> Sourced {
        let of = match kind {
            resource::Kind::Route(_) => Kind::Route,
            resource::Kind::Cluster(_) => Kind::Cluster,
            _ => Kind::Certificate,
        };
        let entry = Entry::new(&Resource { requires: vec![], kind: Some(kind) });
        Sourced { key: Key::new(of, "ns", name), entry, source: object(name) }
    }

    /// What is left out, and why.
    #[track_caller]
    fn check(resources: Vec<Sourced>, expect: &[(&str, &str)]) {
        let (world, all) = (World::default(), resources.len());
        let mut problems = Problems::new(&world);
        let (snapshot, sources) = fill(&object("fleet"), resources, &mut problems);
        let problems = problems.into_sorted();
        let got: Vec<_> =
            problems.iter().map(|p| (p.object.as_ref().unwrap().name.as_str(), p.message.as_str())).collect();
        assert_eq!(got, expect);
        assert_eq!((snapshot.len(), sources.len()), (all - expect.len(), all - expect.len()));
    }

    fn certificate(name: &str, size: usize) -> Sourced {
        let chain_pem = vec![b'a'; size].into();
        sourced(name, resource::Kind::Certificate(Certificate { chain_pem, ..Certificate::default() }))
    }

    fn cluster(name: &str, endpoints: usize) -> Sourced {
        let endpoint = Endpoint { address: "[::1]:1".into(), ..Endpoint::default() };
        sourced(name, resource::Kind::Cluster(Cluster { endpoints: vec![endpoint; endpoints], ..Cluster::default() }))
    }

    #[test]
    fn a_resource() {
        let message = "compiles to 1048584 bytes, and 1048576 is the most: split it";
        check(vec![certificate("a", MAX_RESOURCE), certificate("b", 10)], &[("a", message)]);
    }

    #[test]
    fn routes() {
        let routes = (0..=MAX_ROUTES).map(|i| sourced(&format!("r{i:05}"), resource::Kind::Route(Route::default())));
        let message = "is beyond the 10000 oldest routes of ApiRoute ns/fleet, the most that it serves";
        check(routes.collect(), &[("r10000", message)]);
    }

    #[test]
    fn endpoints() {
        let half = MAX_ENDPOINTS / 2;
        let message = "is beyond the first 100000 endpoints of ApiRoute ns/fleet, the most that it serves";
        check(vec![cluster("a", half), cluster("b", half), cluster("c", 1), cluster("d", 0)], &[("c", message)]);
    }

    #[test]
    fn all_together() {
        let certificates = (0..65).map(|i| certificate(&format!("c{i}"), MAX_RESOURCE - 100));
        let message = "is beyond the first 67108864 bytes of ApiRoute ns/fleet, the most that it holds";
        check(certificates.collect(), &[("c64", message)]);
    }
}
