//! Node: its addresses, which are no backends.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

/// The addresses of a node. What is none (a host's name) is not one that a slice could have.
pub(super) fn addresses(node: &core::Node) -> Vec<IpAddr> {
    let all = node.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
    all.filter_map(|address| address.address.parse::<IpAddr>().ok()).map(|address| address.to_canonical()).collect()
}
