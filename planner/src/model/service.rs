//! Service: the ports that routes name.

use std::net::IpAddr;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use snapshot::proto::ClusterProtocol;

use super::Findings;

/// A Service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Ports of protocol TCP.
    pub(crate) ports: Vec<ServicePort>,
    /// Names another DNS name instead of endpoints.
    pub(crate) external: bool,
    /// Whether it selects pods.
    pub(crate) selects: bool,
    /// The Service's own addresses.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// Whether its first family is IPv6; `None`: the cluster does not say, so every address counts.
    pub(crate) ipv6_first: Option<bool>,
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    /// Empty when the Service has one port without name.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Number of the port on the endpoints, when the Service gives it as one.
    pub(crate) target: Option<u16>,
    /// The protocol of its endpoints; `Err`: the `appProtocol` that this version can't speak.
    pub(crate) protocol: Result<ClusterProtocol, String>,
}

/// The API server decides what a Service may be; here a port without sense is simply not there to be named.
pub(super) fn validate(service: &core::Service) -> Result<Service, Findings> {
    let spec = service.spec.as_ref();
    let external = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let ports = ports.filter(|p| matches!(p.protocol.as_deref(), None | Some("TCP")));
    let families = spec.and_then(|s| s.ip_families.as_ref());
    let ipv6_first = families.and_then(|families| families.first()).map(|family| family == "IPv6");
    let selects = spec.and_then(|s| s.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
    let cluster_ips = spec.into_iter().flat_map(|s| s.cluster_ip.iter().chain(s.cluster_ips.iter().flatten()));
    let cluster_ips = cluster_ips.filter_map(|ip| ip.parse().ok()).collect();
    Ok(Service { ports: ports.filter_map(port).collect(), external, selects, cluster_ips, ipv6_first })
}

fn port(port: &core::ServicePort) -> Option<ServicePort> {
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok().filter(|n| *n > 0),
        // A name stands for whatever number each endpoint gives it.
        Some(IntOrString::String(_)) => None,
        None => u16::try_from(port.port).ok(),
    };
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(port.port).ok().filter(|n| *n > 0)?,
        target,
        protocol: protocol(port.app_protocol.as_deref()),
    })
}

/// Kubernetes' `appProtocol` words (GEP-1911); what is not known is not guessed.
fn protocol(word: Option<&str>) -> Result<ClusterProtocol, String> {
    match word {
        None | Some("" | "http" | "kubernetes.io/ws") => Ok(ClusterProtocol::Http1),
        Some("kubernetes.io/h2c") => Ok(ClusterProtocol::H2c),
        Some(other) => Err(other.to_owned()),
    }
}
