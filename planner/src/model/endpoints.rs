//! EndpointSlice: where a Service's pods listen.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;
use snapshot::check::Unfit;

use super::{Findings, unless};
use crate::problem::reason;

/// The label that names who keeps a slice, and the one who keeps those of Services that select pods. He corrects whatever
/// else bears his name.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// Its name.
    pub(crate) name: String,
    /// The Service's name.
    pub(crate) service: String,
    /// Whether it is Kubernetes' own, made of the pods that a Service selects.
    pub(crate) managed: bool,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// A port that every endpoint of a slice has.
#[derive(Clone, Debug)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    /// `None`: whatever the Service says.
    pub(crate) port: Option<u16>,
}

/// An endpoint of a slice, which is a pod most often.
#[derive(Clone, Debug)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: IpAddr,
    pub(crate) zone: String,
    pub(crate) state: State,
}

/// The state of an endpoint; the better is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Requests.
    Ready,
    /// It was told to leave, and serves still: for when nothing else is there (as kube-proxy does).
    Leaving,
    /// Nothing, as things are.
    Unready,
    /// It was told to leave, and serves no more.
    Left,
}

/// `None`: it belongs to no Service.
pub(super) fn validate(slice: &discovery::EndpointSlice) -> Result<Option<Slice>, Findings> {
    let label = |name| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let Some(service) = label(SERVICE_NAME) else {
        return Ok(None);
    };
    let managed = label(MANAGED_BY).is_some_and(|by| by == CONTROLLER);
    let (mut findings, mut endpoints) = (vec![], vec![]);
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        // Of several addresses of one endpoint the first counts: they are the same pod, and the rest is undefined.
        let Some(address) = endpoint.addresses.first() else { continue };
        let Ok(address) = address.parse() else {
            let message =
                format!("{address:?} is no IP address (addressType IPv4 and IPv6 are supported, FQDN is not)");
            findings.push(Unfit::new(format!("endpoints[{i}].addresses[0]"), reason::INVALID_ADDRESS, message));
            continue;
        };
        let (zone, state) = (endpoint.zone.clone().unwrap_or_default(), state(endpoint.conditions.as_ref()));
        endpoints.push(SliceEndpoint { address, zone, state });
    }
    let ports = slice.ports.iter().flatten().filter(|p| matches!(p.protocol.as_deref(), None | Some("TCP")));
    let ports = ports.filter_map(|p| {
        let port = match p.port {
            Some(number) => Some(u16::try_from(number).ok().filter(|n| *n > 0)?),
            None => None,
        };
        Some(SlicePort { name: p.name.clone().unwrap_or_default(), port })
    });
    let name = slice.metadata.name.clone().unwrap_or_default();
    unless(findings, Some(Slice { name, service: service.clone(), managed, ports: ports.collect(), endpoints }))
}

/// Unknown conditions count as Kubernetes says: ready when absent, serving as ready, not terminating.
fn state(conditions: Option<&discovery::EndpointConditions>) -> State {
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    match (conditions.and_then(|c| c.terminating).unwrap_or(false), ready, serving) {
        (true, _, true) => State::Leaving,
        (true, _, false) => State::Left,
        (false, true, _) => State::Ready,
        (false, false, _) => State::Unready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, expect: State) {
        let conditions = discovery::EndpointConditions { ready, serving, terminating };
        assert_eq!(state(Some(&conditions)), expect);
    }

    #[test]
    fn conditions() {
        assert_eq!(state(None), State::Ready);
        check(None, None, None, State::Ready);
        check(Some(true), None, None, State::Ready);
        check(Some(false), None, None, State::Unready);
        check(Some(false), Some(true), Some(true), State::Leaving);
        check(Some(false), Some(false), Some(true), State::Left);
        // publishNotReadyAddresses says ready of a pod that leaves.
        check(Some(true), Some(true), Some(true), State::Leaving);
    }
}
