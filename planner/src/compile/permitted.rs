//! The endpoints of a Service that a fleet permits as backends.
//!
//! Whoever may write EndpointSlices could send a fleet's proxies to whatever they reach: the API server, kubelets, another
//! tenant's pods (CVE-2021-25740). A slice says by a label who keeps it, and anyone may write that label. But Kubernetes'
//! own controller takes every slice with its label, of a Service that selects pods, for its own, and corrects it within a
//! second or two: such a slice is what a Service selects. All others are by hand, of which backends are only those that the
//! fleet names. And whoever wrote it: addresses of nodes and of the API server are none unless they are named, and those
//! that reach the proxy's own machine or a cloud's metadata never are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use snapshot::{
    Entry,
    proto::{self, ClusterProtocol, Resource, resource},
};

use super::addresses;
use crate::model::{Fleet, Model};

/// An endpoint, and what speaks against it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) address: SocketAddr,
    pub(super) endpoint: proto::Endpoint,
    /// A slice that names it; empty: none does any more.
    pub(super) slice: String,
    pub(super) doubt: Option<Doubt>,
}

/// A cluster, before a fleet has its say.
#[derive(Debug)]
pub(super) struct Cluster {
    protocol: ClusterProtocol,
    endpoints: Vec<Judged>,
    /// None of them is ready: where readiness is strict, requests go to none.
    tried: bool,
    /// With all of them: there is no doubt about any.
    whole: Option<Entry>,
    /// A backend's own address, which fleets allow elsewhere.
    is_address: bool,
}

/// A reason against an endpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Doubt {
    #[error("is {0}, which no endpoint may be")]
    Never(&'static str),
    #[error("is an address of Node {0}")]
    Node(String),
    #[error("is an address of the API server")]
    ApiServer,
    #[error("is there by hand: no Service selects it")]
    ByHand,
}

/// Addresses that are no pods'.
pub(super) struct Suspects<'m> {
    /// `None`: there is no cluster, and what manifests say is what is meant.
    nodes: Option<&'m BTreeMap<IpAddr, String>>,
    api_server: BTreeSet<IpAddr>,
}

/// The part of a cluster that a fleet permits.
pub(super) struct Permitted {
    /// `None`: it permits no endpoint of it.
    pub(super) entry: Option<Entry>,
    /// The message of what it leaves out, with the fix.
    pub(super) left_out: Option<String>,
}

impl<'m> Suspects<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let is_api_server = |namespace: &str, name: &str| (namespace, name) == ("default", "kubernetes");
        let slices = model.slices.iter().filter(|((namespace, name), _)| is_api_server(namespace, name));
        let endpoints = slices.flat_map(|(_, slices)| slices).flat_map(|slice| &slice.endpoints);
        let services = model.services.iter().filter(|(object, _)| is_api_server(&object.namespace, &object.name));
        let addresses = services.flat_map(|(_, service)| &service.cluster_ips).copied();
        let api_server = endpoints.map(|endpoint| endpoint.address).chain(addresses).map(addresses::bare).collect();
        Self { nodes: model.cluster.is_some().then_some(&model.nodes), api_server }
    }

    pub(super) fn doubt(&self, address: IpAddr, by_hand: bool) -> Option<Doubt> {
        let nodes = self.nodes?;
        let bare = addresses::bare(address);
        if let Some(what) = addresses::what_never(address) {
            return Some(Doubt::Never(what));
        }
        if self.api_server.contains(&bare) {
            return Some(Doubt::ApiServer);
        }
        let node = nodes.get(&bare).map(|node| Doubt::Node(node.clone()));
        node.or_else(|| by_hand.then_some(Doubt::ByHand))
    }
}

impl Cluster {
    /// The endpoints of a Service.
    pub(super) fn new(protocol: ClusterProtocol, endpoints: Vec<Judged>, tried: bool) -> Self {
        let mut cluster = Self { protocol, endpoints, tried, whole: None, is_address: false };
        if cluster.endpoints.iter().all(|judged| judged.doubt.is_none()) {
            cluster.whole = Some(cluster.entry(|_| true));
        }
        cluster
    }

    /// The cluster of one address.
    pub(super) fn of_address(protocol: ClusterProtocol, endpoint: proto::Endpoint) -> Self {
        let whole = Some(entry(protocol, vec![endpoint]));
        Self { protocol, endpoints: vec![], tried: false, whole, is_address: true }
    }

    /// The part that a fleet permits; `namespace` is that of its slices.
    pub(super) fn permitted(&self, namespace: &str, fleet: &Fleet, name: &str) -> Permitted {
        if self.tried && fleet.strict_readiness {
            return Permitted { entry: Some(entry(self.protocol, vec![])), left_out: None };
        }
        let networks = &fleet.endpoint_cidrs;
        if let Some(whole) = self.whole.as_ref().filter(|_| networks.is_empty() || self.is_address) {
            return Permitted { entry: Some(whole.clone()), left_out: None };
        }
        let is_named = |address: IpAddr| {
            addresses::is_in(address, networks) || addresses::is_in(address, &fleet.allowed_addresses)
        };
        let permits = |judged: &Judged| match judged.doubt {
            Some(Doubt::Never(_)) => false,
            Some(_) => is_named(judged.address.ip()),
            None => networks.is_empty() || is_named(judged.address.ip()),
        };
        let mut refused = self.endpoints.iter().filter(|judged| !permits(judged));
        let left_out = refused.next().map(|Judged { address, slice, doubt, .. }| {
            let why = doubt.as_ref().map_or("is in no network that the fleet names".to_owned(), ToString::to_string);
            let fix = match doubt {
                Some(Doubt::Never(_)) => "take it out of the slice".to_owned(),
                _ => format!(
                    "have its network named in spec.backends.endpointCIDRs of {name}, or take it out of the slice"
                ),
            };
            let more = match refused.count() {
                0 => String::new(),
                more => format!(" ({more} more endpoints are left out too)"),
            };
            let of = if slice.is_empty() { String::new() } else { format!(" of EndpointSlice {namespace}/{slice}") };
            format!("{}{of} {why}: {fix}{more}", address.ip())
        });
        let none = !self.endpoints.iter().any(permits);
        let entry = (!none || left_out.is_none()).then(|| self.entry(permits));
        Permitted { entry, left_out }
    }

    fn entry(&self, permits: impl Fn(&Judged) -> bool) -> Entry {
        let permitted = self.endpoints.iter().filter(|judged| permits(judged));
        entry(self.protocol, permitted.map(|judged| judged.endpoint.clone()).collect())
    }
}

fn entry(protocol: ClusterProtocol, endpoints: Vec<proto::Endpoint>) -> Entry {
    let cluster = proto::Cluster { protocol: protocol.into(), endpoints };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Cluster(cluster)) })
}
