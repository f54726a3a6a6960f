//! backendRefs → clusters: an address, or a Service with the endpoints of its slices.

use std::{collections::BTreeMap, net::IpAddr};

use snapshot::{
    Entry, Key,
    proto::{self, ClusterProtocol, Resource, resource},
};

use super::addresses::{self, NotAllowed};
use crate::{
    model::{Backend, Model, Route, Service, ServicePort, Slice, SlicePort, grant},
    problem::{Problems, reason},
    world::{Kind, ObjectRef},
};

/// A route's backends.
pub(super) struct Resolved {
    /// Of each rule; the order is the manifest's.
    pub(super) backends: Vec<Vec<proto::WeightedCluster>>,
    /// What they name, and the object it comes from.
    pub(super) clusters: BTreeMap<Key, (Entry, ObjectRef)>,
    /// In a cluster: the addresses among them, which each fleet must allow, and where they stand.
    pub(super) addresses: Vec<(Key, IpAddr, String)>,
}

/// Why a backendRef leads nowhere: its share of the requests answers 500.
#[derive(Clone, Debug, thiserror::Error)]
enum Unresolved {
    #[error("{0}")]
    NotPermitted(String),
    #[error(transparent)]
    NotAllowed(NotAllowed),
    #[error("no Service {0} exists: create it, or correct the name")]
    NoService(String),
    #[error("Service {0} is not valid, and never was")]
    InvalidService(String),
    #[error("Service {0} is of type ExternalName, which has no endpoints; give it a selector or EndpointSlices")]
    External(String),
    #[error("Service {service} has no TCP port {port}; it has: {has}")]
    NoPort { service: String, port: u16, has: String },
    #[error(
        "port {port} of Service {service} has appProtocol {word:?}; supported are http, kubernetes.io/ws and kubernetes.io/h2c"
    )]
    Protocol { service: String, port: u16, word: String },
}

impl Unresolved {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) | Self::NotAllowed(_) => reason::REF_NOT_PERMITTED,
            Self::NoService(_) | Self::InvalidService(_) | Self::NoPort { .. } => reason::BACKEND_NOT_FOUND,
            Self::External(_) => reason::UNSUPPORTED_VALUE,
            Self::Protocol { .. } => reason::UNSUPPORTED_PROTOCOL,
        }
    }

    fn member(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) => ".namespace",
            Self::NotAllowed(_) => ".address",
            Self::NoPort { .. } | Self::Protocol { .. } => ".port",
            Self::NoService(_) | Self::InvalidService(_) | Self::External(_) => ".name",
        }
    }
}

/// Clusters, each built once however many routes name it.
pub(super) struct Clusters<'m> {
    model: &'m Model,
    services: BTreeMap<Key, Result<Entry, Unresolved>>,
}

impl<'m> Clusters<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, services: BTreeMap::new() }
    }

    /// Resolves every backend of a route.
    pub(super) fn resolve(&mut self, object: &ObjectRef, route: &Route, problems: &mut Problems<'_>) -> Resolved {
        let (mut clusters, mut addresses) = (BTreeMap::new(), vec![]);
        let mut backends = vec![];
        for (i, refs) in route.backends.iter().enumerate() {
            let mut weighted = vec![];
            for (j, backend) in refs.iter().enumerate() {
                let (key, weight, found) = self.cluster(object, backend);
                match found {
                    Ok(cluster) => {
                        if let (true, Backend::Address { address, .. }) = (self.model.cluster.is_some(), backend) {
                            let field = format!("spec.rules[{i}].backendRefs[{j}].address");
                            addresses.push((key.clone(), address.ip(), field));
                        }
                        clusters.insert(key.clone(), cluster);
                    }
                    Err(why) => {
                        let field = format!("spec.rules[{i}].backendRefs[{j}]{}", why.member());
                        problems.degraded(object, field, why.reason(), why.to_string());
                    }
                }
                weighted.push(proto::WeightedCluster { cluster: key.to_string(), weight });
            }
            backends.push(weighted);
        }
        Resolved { backends, clusters, addresses }
    }

    fn cluster(&mut self, route: &ObjectRef, backend: &Backend) -> (Key, u32, Result<(Entry, ObjectRef), Unresolved>) {
        match backend {
            Backend::Address { address, protocol, weight } => {
                let word = match protocol {
                    ClusterProtocol::Http1 => "http1",
                    ClusterProtocol::H2c => "h2c",
                };
                let endpoint = proto::Endpoint { address: address.to_string(), ..proto::Endpoint::default() };
                let key = Key::cluster(&route.namespace, &address.to_string(), word);
                let allowed = if self.model.cluster.is_some() { addresses::never(address.ip()) } else { Ok(()) };
                let found = allowed.map(|()| (entry(*protocol, vec![endpoint]), route.clone()));
                (key, *weight, found.map_err(Unresolved::NotAllowed))
            }
            Backend::Service { namespace, name, port, weight } => {
                let namespace = namespace.as_ref().unwrap_or(&route.namespace);
                let service = ObjectRef { kind: Kind::Service, namespace: namespace.clone(), name: name.clone() };
                if !self.model.permits(route, &service) {
                    // A key that no cluster ever has (no Service has a dot in its name, every address has a colon): were
                    // it the Service's own, a route that may would bring the cluster and so open it to this one.
                    let key = Key::cluster(&route.namespace, &format!("{namespace}.{name}"), &port.to_string());
                    return (key, *weight, Err(Unresolved::NotPermitted(grant::missing(route, &service))));
                }
                let key = Key::cluster(namespace, name, &port.to_string());
                let found = self.services.entry(key.clone()).or_insert_with(|| build(self.model, &service, *port));
                let found = found.clone().map(|entry| (entry, service));
                (key, *weight, found)
            }
        }
    }
}

fn build(model: &Model, object: &ObjectRef, number: u16) -> Result<Entry, Unresolved> {
    let path = object.path();
    let Some(service) = model.services.get(object) else {
        return Err(match model.invalid.contains(object) {
            true => Unresolved::InvalidService(path),
            false => Unresolved::NoService(path),
        });
    };
    if service.external {
        return Err(Unresolved::External(path));
    }
    let Some(port) = service.ports.iter().find(|p| p.port == number) else {
        return Err(Unresolved::NoPort { service: path, port: number, has: ports(service) });
    };
    let protocol = port.protocol.clone().map_err(|word| Unresolved::Protocol { service: path, port: number, word })?;
    let slices = model.slices.get(&(object.namespace.clone(), object.name.clone()));
    Ok(entry(protocol, endpoints(service, port, slices.into_iter().flatten().map(AsRef::as_ref))))
}

fn ports(service: &Service) -> String {
    let ports: Vec<_> = service.ports.iter().map(|p| p.port.to_string()).collect();
    if ports.is_empty() { "none".into() } else { ports.join(", ") }
}

/// Endpoints of all slices, in the order of their addresses. While slices are rewritten an address can stand in two: it
/// is leaving only when both say so. A pod of two families stands in slices of both, and is one backend: by its address
/// of the Service's first family.
fn endpoints<'s>(
    service: &Service,
    port: &ServicePort,
    slices: impl Iterator<Item = &'s Slice>,
) -> Vec<proto::Endpoint> {
    let mut found: BTreeMap<std::net::SocketAddr, proto::Endpoint> = BTreeMap::new();
    for slice in slices {
        let Some(number) = slice_port(port, &slice.ports) else { continue };
        for endpoint in &slice.endpoints {
            let address = std::net::SocketAddr::new(endpoint.address, number);
            let entry = found.entry(address).or_insert_with(|| proto::Endpoint {
                address: address.to_string(),
                zone: endpoint.zone.clone(),
                terminating: true,
            });
            entry.terminating &= endpoint.terminating;
        }
    }
    let first = |address: &std::net::SocketAddr| service.ipv6_first.is_none_or(|ipv6| address.is_ipv6() == ipv6);
    if found.keys().any(first) {
        found.retain(|address, _| first(address));
    }
    found.into_values().collect()
}

/// A slice's ports bear the names of the Service's. Slices written by hand sometimes don't: then the number decides.
fn slice_port(port: &ServicePort, ports: &[SlicePort]) -> Option<u16> {
    let named = ports.iter().find(|p| p.name == port.name);
    let found = named.or_else(|| ports.iter().find(|p| p.port.is_some() && p.port == port.target))?;
    found.port.or(port.target)
}

fn entry(protocol: ClusterProtocol, endpoints: Vec<proto::Endpoint>) -> Entry {
    let cluster = proto::Cluster { protocol: protocol.into(), endpoints };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Cluster(cluster)) })
}
