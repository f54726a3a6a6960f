//! GatewayFleet: listeners and settings.

use std::collections::{BTreeMap, BTreeSet};

use crds::fleet::{FromNamespaces, Protocol, Readiness, RouteNamespaces, Target};
use ipnet::IpNet;
use snapshot::{
    Key, Kind, check,
    check::Unfit,
    proto::{self, Resource, resource},
};

use super::{Findings, Hostname, Selector, quantity, unless};
use crate::{
    fleet::{DEFAULT_CPU_REQUEST, DEFAULT_MEMORY_LIMIT, FleetSettings},
    problem::reason,
};

/// The ports of a proxy's own, which no listener can have within its pod: admin and metrics.
const OWN_PORTS: [u16; 2] = [9091, 9092];

/// A valid GatewayFleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) settings: FleetSettings,
    pub(crate) listeners: Vec<Listener>,
    /// The settings that proxies read.
    pub(crate) resource: proto::Fleet,
    /// The networks that a backend's address may be of, in a cluster.
    pub(crate) allowed_addresses: Vec<IpNet>,
    /// Without a ready endpoint a backend has none.
    pub(crate) strict_readiness: bool,
    /// The networks that endpoints may be of, in a cluster; empty: wherever a Service selects them.
    pub(crate) endpoint_cidrs: Vec<IpNet>,
}

/// A port of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) hostname: Option<Hostname>,
    /// Namespace (`None`: the fleet's) and name of each Secret.
    pub(crate) certificates: Vec<(Option<String>, String)>,
    pub(crate) from: RoutesFrom,
    /// Namespaces, and the hostname patterns that are theirs alone; `*`: any host.
    pub(crate) assigned: Vec<(Vec<String>, Vec<String>)>,
}

/// The namespaces that a listener takes routes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RoutesFrom {
    All,
    Same,
    Selector(Selector),
}

pub(super) fn validate(fleet: &crds::GatewayFleet, generation: i64, cluster: bool) -> Result<Fleet, Findings> {
    let (spec, mut findings) = (&fleet.spec, vec![]);
    let mut found = |field: String, reason, message: String| findings.push(Unfit::new(field, reason, message));

    let (mut names, mut listeners) = (BTreeSet::new(), vec![]);
    for (i, listener) in spec.listeners.iter().enumerate() {
        if !names.insert(&listener.name) {
            let message = format!("two listeners are named {:?}: give each its own name", listener.name);
            found(format!("spec.listeners[{i}].name"), reason::DUPLICATE_NAME, message);
        }
        if let Err(unfit) = fit(listener) {
            found(format!("spec.listeners[{i}].{}", unfit.field), unfit.reason, unfit.message);
        }
        match routes_from(&listener.allowed_routes.namespaces) {
            Ok(from) => listeners.push(self::listener(listener, from)),
            Err((member, message)) => {
                let field = format!("spec.listeners[{i}].allowedRoutes.namespaces.{member}");
                found(field, reason::INVALID, message);
            }
        }
    }

    let resource = resource(spec);
    if let Err(unfit) = fit_fleet(&resource) {
        found(format!("spec.{}", unfit.field), unfit.reason, unfit.message);
    }

    let scaling = &spec.scaling;
    if scaling.min_replicas > scaling.max_replicas {
        let message = format!("minReplicas {} is above maxReplicas {}", scaling.min_replicas, scaling.max_replicas);
        found("spec.scaling.minReplicas".into(), reason::INVALID, message);
    }
    let mut rates = BTreeMap::new();
    for (i, target) in scaling.targets.iter().enumerate() {
        let field = |member: &str| format!("spec.scaling.targets[{i}].{member}");
        match target {
            Target::RequestRate { average_value } => match quantity::positive(average_value) {
                Some(rate) => drop(rates.insert(i, rate)),
                None => found(field("averageValue"), reason::INVALID_QUANTITY, bad_quantity(average_value, "4k")),
            },
            Target::Cpu { average_utilization: 0 } | Target::Memory { average_utilization: 0 } => {
                found(field("averageUtilization"), reason::INVALID, "must be 1 to 100 percent".into());
            }
            Target::ProxyLatency { value, .. } if value.as_millis() == 0 => {
                found(field("value"), reason::INVALID, "must be above 0s".into());
            }
            Target::Cpu { .. } | Target::Memory { .. } | Target::ProxyLatency { .. } => {}
        }
    }
    let backends = &spec.backends;
    let [allowed_addresses, endpoint_cidrs] =
        [(&backends.allowed_addresses, "allowedAddresses"), (&backends.endpoint_cidrs, "endpointCIDRs")].map(
            |(list, name)| {
                let mut networks = vec![];
                for (i, text) in list.iter().enumerate() {
                    match text.parse() {
                        Ok(network) => networks.push(network),
                        Err(_) => {
                            let message = format!("{text:?} is no network such as 10.0.0.0/8 or fd00::/8");
                            found(format!("spec.backends.{name}[{i}]"), reason::INVALID_ADDRESS, message);
                        }
                    }
                }
                networks
            },
        );
    let resources = &spec.template.resources;
    let mut amount = |list: &BTreeMap<String, String>, which: &str, name: &str, least: f64, such_as: &str| {
        let text = list.get(name)?;
        let amount = quantity::positive(text).filter(|amount| *amount >= least);
        if amount.is_none() {
            let field = format!("spec.template.resources.{which}.{name}");
            found(field, reason::INVALID_QUANTITY, bad_quantity(text, such_as));
        }
        amount
    };
    // A fraction of a byte is none: "500m" is 0 bytes, and no base for a share.
    let [memory_limit, memory_request] = [(&resources.limits, "limits"), (&resources.requests, "requests")]
        .map(|(list, which)| amount(list, which, "memory", 1.0, "256Mi"));
    let [cpu_limit, cpu_request] = [(&resources.limits, "limits"), (&resources.requests, "requests")]
        .map(|(list, which)| amount(list, which, "cpu", 0.001, "500m"));

    let default = |text: &str| quantity::positive(text).filter(|_| cluster);
    let memory = memory_limit.or(memory_request).or_else(|| default(DEFAULT_MEMORY_LIMIT));
    let cpu = cpu_request.or(cpu_limit).or_else(|| default(DEFAULT_CPU_REQUEST));

    let settings = FleetSettings {
        spec: spec.clone(),
        memory_bytes: memory.map(|bytes| bytes as u64),
        cpu_cores: cpu.filter(|_| cluster),
        rates,
        generation,
        uid: fleet.metadata.uid.clone().unwrap_or_default(),
        container_ports: if cluster { container_ports(&spec.listeners) } else { BTreeMap::new() },
    };
    let strict_readiness = backends.readiness == Readiness::Strict;
    unless(findings, Fleet { settings, listeners, resource, allowed_addresses, strict_readiness, endpoint_cidrs })
}

/// The ports that pods open instead of the listeners' own: one below 1024 is not for a process without privileges.
fn container_ports(listeners: &[crds::fleet::Listener]) -> BTreeMap<u16, u16> {
    let own: BTreeSet<u16> = listeners.iter().map(|listener| listener.port).collect();
    let (mut taken, mut ports) = (own.clone(), BTreeMap::new());
    for port in own.into_iter().filter(|port| *port < 1024 || OWN_PORTS.contains(port)) {
        // 80 → 10080; 10081 when a listener has 10080 itself. At most 64 ports are taken, so that it ends far below 65536.
        let free = (10_000 + port..).find(|free| taken.insert(*free));
        ports.extend(free.map(|free| (port, free)));
    }
    ports
}

/// The check of a listener as the proxy makes it, before its certificates are known.
fn fit(listener: &crds::fleet::Listener) -> Result<(), Unfit> {
    let hostname = listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
    let listener = proto::Listener { port: listener.port.into(), hostname, ..proto::Listener::default() };
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) };
    check::resource(&Key::new(Kind::Listener, "namespace", "name"), &resource)
}

/// The check of the settings as the proxy makes it.
fn fit_fleet(fleet: &proto::Fleet) -> Result<(), Unfit> {
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::Fleet(fleet.clone())) };
    check::resource(&Key::new(Kind::Fleet, "namespace", "name"), &resource)
}

fn routes_from(namespaces: &RouteNamespaces) -> Result<RoutesFrom, (String, String)> {
    match (namespaces.from, &namespaces.selector) {
        (FromNamespaces::All, _) => Ok(RoutesFrom::All),
        (FromNamespaces::Same, _) => Ok(RoutesFrom::Same),
        (FromNamespaces::Selector, Some(selector)) => match Selector::new(selector) {
            Ok(selector) => Ok(RoutesFrom::Selector(selector)),
            Err((member, message)) => Err((format!("selector.{member}"), message)),
        },
        (FromNamespaces::Selector, None) => {
            Err(("selector".into(), "from: Selector needs a selector of namespaces".into()))
        }
    }
}

fn listener(listener: &crds::fleet::Listener, from: RoutesFrom) -> Listener {
    let refs = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    Listener {
        name: listener.name.clone(),
        port: listener.port,
        tls: listener.protocol == Protocol::Https,
        hostname: listener.hostname.as_deref().map(Hostname::new),
        certificates: refs.map(|r| (r.namespace.clone(), r.name.clone())).collect(),
        from,
        assigned: listener.allowed_routes.hostnames.iter().map(assigned).collect(),
    }
}

fn assigned(assigned: &crds::fleet::AssignedHostnames) -> (Vec<String>, Vec<String>) {
    let hostnames = assigned.hostnames.iter().map(|name| Hostname::new(name).as_str().to_owned());
    (assigned.namespaces.clone(), hostnames.collect())
}

fn resource(spec: &crds::GatewayFleetSpec) -> proto::Fleet {
    let level = match spec.access_log.level {
        crds::fleet::AccessLogLevel::Off => proto::AccessLogLevel::Off,
        crds::fleet::AccessLogLevel::Errors => proto::AccessLogLevel::Errors,
        crds::fleet::AccessLogLevel::All => proto::AccessLogLevel::All,
    };
    proto::Fleet {
        min_drain_ms: spec.drain.min_drain.as_millis(),
        drain_timeout_ms: spec.drain.timeout.as_millis(),
        connection_max_age_ms: spec.connection.max_age.as_millis(),
        access_log_level: level.into(),
        access_log_sampling_percent: spec.access_log.sampling.min(100),
        limits: Some(limits(&spec.limits)),
        held: vec![],
        paths: Some(paths(spec.paths)).filter(|paths| *paths != proto::Paths::default()),
        client_address: spec.client_address.as_ref().map(client_address),
    }
}

fn client_address(address: &crds::fleet::ClientAddress) -> proto::ClientAddress {
    use crds::fleet::ClientAddressHeader;
    let header = match address.header {
        ClientAddressHeader::XForwardedFor => proto::ClientAddressHeader::XForwardedFor,
        ClientAddressHeader::Forwarded => proto::ClientAddressHeader::Forwarded,
    };
    proto::ClientAddress {
        header: header.into(),
        trusted_hops: address.trusted_hops.unwrap_or_default(),
        trusted_cidrs: address.trusted_cidrs.clone(),
    }
}

fn paths(paths: crds::fleet::Paths) -> proto::Paths {
    use crds::fleet::{EscapedSlashes, PathParameters};
    let parameters = match paths.parameters {
        PathParameters::StripForMatching => proto::PathParameters::Strip,
        PathParameters::Keep => proto::PathParameters::Keep,
        PathParameters::Reject => proto::PathParameters::Reject,
    };
    proto::Paths {
        parameters: parameters.into(),
        keep_escaped_slashes: paths.escaped_slashes == EscapedSlashes::KeepEncoded,
        keep_empty_segments: !paths.merge_slashes,
    }
}

fn limits(limits: &crds::fleet::Limits) -> proto::Limits {
    proto::Limits {
        header_bytes: limits.header_bytes,
        header_fields: limits.header_fields,
        target_bytes: limits.target_bytes,
        body_bytes: limits.body_bytes.unwrap_or_default(),
        connections_per_client: limits.connections_per_client.unwrap_or_default(),
        header_timeout_ms: limits.header_timeout.as_millis(),
        idle_timeout_ms: limits.idle_timeout.as_millis(),
        client_stall_timeout_ms: limits.client_stall_timeout.as_millis(),
        backend_stall_timeout_ms: limits.backend_stall_timeout.as_millis(),
        http2_concurrent_streams: limits.http2.concurrent_streams,
        http2_stream_window_bytes: limits.http2.stream_window_bytes,
        http2_connection_window_bytes: limits.http2.connection_window_bytes,
        websocket_idle_timeout_ms: limits.web_socket.idle_timeout.as_millis(),
        websocket_max_age_ms: limits.web_socket.max_age.as_millis(),
        descriptors_per_client_percent: limits.descriptors_per_client_percent,
        min_body_bytes_per_second: Some(limits.min_body_bytes_per_second),
    }
}

fn bad_quantity(text: &str, such_as: &str) -> String {
    format!("{text:?} is no quantity above 0, such as \"{such_as}\"")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The amounts that targets of CPU and memory are a share of.
    fn base(resources: &serde_json::Value, cluster: bool) -> (Option<f64>, Option<u64>) {
        let fleet = serde_json::from_value(json!({
            "apiVersion": crds::API_VERSION, "kind": "GatewayFleet", "metadata": {"name": "f"},
            "spec": {
                "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
                "template": {"resources": resources},
            },
        }));
        let settings = validate(&fleet.unwrap(), 1, cluster).unwrap().settings;
        (settings.cpu_cores, settings.memory_bytes)
    }

    #[test]
    fn targets_are_a_share_of_what_pods_ask_for_also_by_default() {
        assert_eq!(base(&json!({}), true), (Some(0.5), Some(1 << 30)));
        assert_eq!(base(&json!({}), false), (None, None));
        let named = json!({"requests": {"memory": "256Mi"}, "limits": {"cpu": "2"}});
        assert_eq!(base(&named, true), (Some(2.0), Some(256 << 20)));
    }
}
