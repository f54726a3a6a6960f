//! backendRefs → clusters: an address, or a Service with the endpoints of its slices.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use snapshot::{Key, proto};

use super::{
    addresses::{self, NotAllowed},
    endpoints::{Choice, Chosen, Unready},
    permitted,
};
use crate::{
    LastReady, Millis,
    model::{Backend, CalledService, Destination, Model, Route, Service, Stale, grant},
    problem::{Problems, reason},
    world::{Kind, ObjectRef},
};

/// A cluster, as its Service or address makes it.
#[derive(Clone)]
struct Built {
    cluster: Arc<permitted::Cluster>,
    /// The reason why not all is well with it.
    trouble: Option<String>,
}

/// A cluster, what it comes from, and where a route names it.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) cluster: Arc<permitted::Cluster>,
    pub(super) source: ObjectRef,
    pub(super) field: String,
}

/// The cluster that a reference leads to, and the object that it comes from.
type Found = Result<(Built, ObjectRef), Arc<Unresolved>>;

/// A cluster, and its share of the requests.
pub(super) type Weighted = (Key, u32);

/// The references of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvedRule {
    /// The clusters that its requests go to.
    pub(super) backends: Vec<Weighted>,
    /// The reason why it answers 500: a filter calls what leads nowhere.
    pub(super) unavailable: Option<String>,
}

/// A route's backends, and the services that its filters call.
pub(super) struct Resolved {
    /// Of each rule; the order is the manifest's.
    pub(super) rules: Vec<ResolvedRule>,
    /// What they name.
    pub(super) clusters: BTreeMap<Key, Cluster>,
    /// In a cluster: the addresses among them, which each fleet must allow, and where they stand.
    pub(super) addresses: Vec<(Key, IpAddr, String)>,
}

/// The reason why a backendRef leads nowhere: its share of the requests answers 500, or all when a filter names it.
#[derive(Clone, Debug, thiserror::Error)]
enum Unresolved {
    #[error("{0}")]
    NotPermitted(String),
    #[error(transparent)]
    NotAllowed(NotAllowed),
    #[error("no Service {0} exists: create it, or correct the name")]
    NoService(String),
    #[error("Service {0} is not valid, and never was: {1}")]
    InvalidService(String, String),
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
            Self::NoService(_) | Self::InvalidService(..) | Self::NoPort { .. } => reason::BACKEND_NOT_FOUND,
            Self::External(_) => reason::UNSUPPORTED_VALUE,
            Self::Protocol { .. } => reason::UNSUPPORTED_PROTOCOL,
        }
    }

    fn member(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) => ".namespace",
            Self::NotAllowed(_) => ".address",
            Self::NoPort { .. } | Self::Protocol { .. } => ".port",
            Self::NoService(_) | Self::InvalidService(..) | Self::External(_) => ".name",
        }
    }
}

/// Clusters, each built once however many routes name it.
pub(super) struct Clusters<'m> {
    model: &'m Model,
    choice: Choice<'m>,
    services: BTreeMap<Key, Result<Built, Arc<Unresolved>>>,
}

impl<'m> Clusters<'m> {
    pub(super) fn new(model: &'m Model, choice: Choice<'m>) -> Self {
        Self { model, choice, services: BTreeMap::new() }
    }

    /// The memory of endpoints for the next plan, and when it changes by itself.
    pub(super) fn finish(self) -> (LastReady, Option<Millis>) {
        self.choice.finish()
    }

    /// Resolves every backend of a route, and the services that its filters call.
    pub(super) fn resolve(&mut self, object: &ObjectRef, route: &Route, problems: &mut Problems<'_>) -> Resolved {
        let mut resolved = Resolved { rules: vec![], clusters: BTreeMap::new(), addresses: vec![] };
        // A route may have a thousand references to the same.
        let mut known = HashMap::new();
        for (i, refs) in route.backends.iter().enumerate() {
            let mut rule = ResolvedRule::default();
            for CalledService { field, to } in route.services.get(i).into_iter().flatten() {
                let (key, found) = known.entry(to).or_insert_with(|| self.cluster(object, to));
                self.told(object, (to, key, found), 1, &|| field.clone(), &mut resolved, problems);
                let why = found.as_ref().err();
                rule.unavailable = why.map(|why| format!("{field}: {why}")).or(rule.unavailable);
            }
            for (j, Backend { to, weight }) in refs.iter().enumerate() {
                let (key, found) = known.entry(to).or_insert_with(|| self.cluster(object, to));
                let field = || format!("spec.rules[{i}].backendRefs[{j}]");
                self.told(object, (to, key, found), *weight, &field, &mut resolved, problems);
                rule.backends.push((key.clone(), *weight));
            }
            resolved.rules.push(rule);
        }
        resolved
    }

    /// Takes up a cluster that a route names at a field, and tells what is wrong with it.
    fn told(
        &self,
        object: &ObjectRef,
        (to, key, found): (&Destination, &Key, &Found),
        weight: u32,
        field: &dyn Fn() -> String,
        resolved: &mut Resolved,
        problems: &mut Problems<'_>,
    ) {
        let (built, source) = match found {
            Ok(found) => found,
            Err(why) => {
                let finding = || (field() + why.member(), why.to_string());
                return problems.degraded_by(object, why.reason(), finding);
            }
        };
        let name = || field() + ".name";
        if let Some(stale) = self.model.stale.get(source).filter(|_| source != object) {
            problems.degraded_by(object, reason::BACKEND_NOT_FOUND, || (name(), tried(source, stale)));
        }
        if let Some(trouble) = built.trouble.as_ref().filter(|_| weight > 0) {
            problems.degraded_by(object, reason::NO_READY_ENDPOINTS, || (name(), trouble.clone()));
        }
        if let (true, Destination::Address { address, .. }) = (self.model.cluster.is_some(), to) {
            resolved.addresses.push((key.clone(), address.ip(), field() + ".address"));
        }
        resolved.clusters.entry(key.clone()).or_insert_with(|| {
            let (cluster, source) = (Arc::clone(&built.cluster), source.clone());
            Cluster { cluster, source, field: name() }
        });
    }

    fn cluster(&mut self, route: &ObjectRef, to: &Destination) -> (Key, Found) {
        let key = to.key(&route.namespace);
        match to {
            Destination::Address { address, protocol } => {
                let endpoint = proto::Endpoint { address: address.to_string(), ..proto::Endpoint::default() };
                let allowed = if self.model.cluster.is_some() { addresses::never(address.ip()) } else { Ok(()) };
                let cluster = || Arc::new(permitted::Cluster::of_address(*protocol, endpoint));
                let found = allowed.map(|()| (Built { cluster: cluster(), trouble: None }, route.clone()));
                (key, found.map_err(|why| Arc::new(Unresolved::NotAllowed(why))))
            }
            Destination::Service { namespace, name, port } => {
                let namespace = namespace.as_ref().unwrap_or(&route.namespace);
                let service = ObjectRef { kind: Kind::Service, namespace: namespace.clone(), name: name.clone() };
                if !self.model.permits(route, &service) {
                    // A key that no cluster ever has (no Service has a dot in its name, every address has a colon): were
                    // it the Service's own, a route that may would bring the cluster and so open it to this one.
                    let key = Key::cluster(&route.namespace, &format!("{namespace}.{name}"), &port.to_string());
                    let why = Unresolved::NotPermitted(grant::missing(route, &service));
                    return (key, Err(Arc::new(why)));
                }
                let (model, choice) = (self.model, &mut self.choice);
                let found = self
                    .services
                    .entry(key.clone())
                    .or_insert_with(|| build(model, choice, &key, &service, *port).map_err(Arc::new));
                let found = found.clone().map(|built| (built, service));
                (key, found)
            }
        }
    }
}

fn build(
    model: &Model,
    choice: &mut Choice<'_>,
    key: &Key,
    object: &ObjectRef,
    number: u16,
) -> Result<Built, Unresolved> {
    let path = object.path();
    let Some(service) = model.services.get(object) else {
        return Err(match model.invalid.get(object) {
            Some(why) => Unresolved::InvalidService(path, why.clone()),
            None => Unresolved::NoService(path),
        });
    };
    if service.external {
        return Err(Unresolved::External(path));
    }
    let Some(port) = service.ports.iter().find(|p| p.port == number) else {
        return Err(Unresolved::NoPort { service: path, port: number, has: ports(service) });
    };
    let protocol = port.protocol.clone().map_err(|word| Unresolved::Protocol { service: path, port: number, word })?;
    let Chosen { endpoints, tried, unready } = choice.of(key, object, service, port);
    let trouble = unready.map(|unready| no_ready(&object.path(), unready, endpoints.len()));
    Ok(Built { cluster: Arc::new(permitted::Cluster::new(protocol, endpoints, tried)), trouble })
}

/// The message that no endpoint of a Service is ready, and what becomes of its requests.
fn no_ready(service: &str, unready: Unready, tried: usize) -> String {
    match (unready, tried) {
        (Unready::Leaving(serve), _) => format!(
            "no endpoint of Service {service} is ready, and {serve} that were told to leave serve still: see that others \
             take their place"
        ),
        (Unready::Listed(0), 0) => format!(
            "Service {service} has no endpoints: see that it selects pods, and that they run; its share of the requests \
             answers 503"
        ),
        (Unready::Listed(there), 0) => format!(
            "none of the {there} endpoints of Service {service} is ready, and none of them was: see why its pods are not; its \
             share of the requests answers 503"
        ),
        (Unready::Listed(there), tried) => format!(
            "no endpoint of Service {service} is ready ({there} are there): see why its pods are not; meanwhile {tried} that \
             were are tried, but for fleets with spec.backends.readiness: Strict"
        ),
    }
}

/// The message of a Service that is wrong while requests go on to what it was.
fn tried(service: &ObjectRef, stale: &Stale) -> String {
    let service = service.path();
    let wrong = match &stale.fault {
        Some(fault) => format!("Service {service} is not valid: {fault}"),
        None => format!("Service {service} is gone: create it again"),
    };
    let until = stale.until.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{wrong}; requests go to what it was before{until}")
}

fn ports(service: &Service) -> String {
    let ports: Vec<_> = service.ports.iter().map(|p| p.port.to_string()).collect();
    if ports.is_empty() { "none".into() } else { ports.join(", ") }
}
