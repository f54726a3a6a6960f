//! EndpointSlice: where a Service's pods listen.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;
use snapshot::check::Unfit;

use super::{Findings, unless};
use crate::problem::reason;

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    /// The Service's name.
    pub(crate) service: String,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// One port of every endpoint of a slice.
#[derive(Clone, Debug)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    /// `None`: whatever the Service says.
    pub(crate) port: Option<u16>,
}

/// One pod that may get requests.
#[derive(Clone, Debug)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: IpAddr,
    pub(crate) zone: String,
    pub(crate) terminating: bool,
}

/// `None`: it belongs to no Service.
pub(super) fn validate(slice: &discovery::EndpointSlice) -> Result<Option<Slice>, Findings> {
    let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else {
        return Ok(None);
    };
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
        if let Some(terminating) = usable(endpoint.conditions.as_ref()) {
            endpoints.push(SliceEndpoint { address, zone: endpoint.zone.clone().unwrap_or_default(), terminating });
        }
    }
    let ports = slice.ports.iter().flatten().filter(|p| matches!(p.protocol.as_deref(), None | Some("TCP")));
    let ports = ports.filter_map(|p| {
        let port = match p.port {
            Some(number) => Some(u16::try_from(number).ok().filter(|n| *n > 0)?),
            None => None,
        };
        Some(SlicePort { name: p.name.clone().unwrap_or_default(), port })
    });
    unless(findings, Some(Slice { service: service.clone(), ports: ports.collect(), endpoints }))
}

/// Whether an endpoint may get requests at all, and if so, whether it is leaving. Unknown conditions count as Kubernetes
/// says: ready when absent, serving as ready, not terminating.
fn usable(conditions: Option<&discovery::EndpointConditions>) -> Option<bool> {
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    // Leaving but serving: kept, for when nothing else is there (as kube-proxy does).
    if terminating { serving.then_some(true) } else { ready.then_some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>, expect: Option<bool>) {
        let conditions = discovery::EndpointConditions { ready, serving, terminating };
        assert_eq!(usable(Some(&conditions)), expect);
    }

    #[test]
    fn conditions() {
        assert_eq!(usable(None), Some(false));
        check(None, None, None, Some(false));
        check(Some(true), None, None, Some(false));
        check(Some(false), None, None, None);
        check(Some(false), Some(true), Some(true), Some(true));
        check(Some(false), Some(false), Some(true), None);
        // publishNotReadyAddresses says ready of a pod that leaves.
        check(Some(true), Some(true), Some(true), Some(true));
    }
}
