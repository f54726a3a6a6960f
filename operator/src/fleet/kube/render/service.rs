//! The Service in front of a fleet.

use std::collections::BTreeSet;

use crds::{
    GatewayFleetSpec,
    fleet::{Listener, Protocol, ServiceType, TrafficPolicy},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use planner::FleetPlan;
use snapshot::Hash;

use super::{ChildKind, metadata};
use crate::fleet::kube::labels;

/// Longest name of a port of a Service.
const MAX_PORT_NAME_LEN: usize = 63;

pub(super) fn service(plan: &FleetPlan, spec: &GatewayFleetSpec) -> Service {
    let service = &spec.service;
    let mut metadata = metadata(plan, ChildKind::Service);
    metadata.labels = Some(labels::over(&service.labels, labels::all(&plan.fleet.name)));
    metadata.annotations = Some(labels::over(&service.annotations, metadata.annotations.unwrap_or_default()));
    let ranges = &service.load_balancer_source_ranges;
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(type_name(service.service_type).into()),
            selector: Some(labels::selector(&plan.fleet.name)),
            ports: Some(ports(plan, spec)),
            external_traffic_policy: service.traffic_policy().map(|policy| policy_name(policy).into()),
            // From inside, every proxy is as good as another.
            internal_traffic_policy: Some("Cluster".into()),
            load_balancer_class: service.load_balancer_class.clone(),
            load_balancer_source_ranges: (!ranges.is_empty()).then(|| ranges.clone()),
            // One that is not Ready has no configuration, or leaves.
            publish_not_ready_addresses: Some(false),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The ports of the Service: one for each port of the listeners; those that share one differ by hostname only.
fn ports(plan: &FleetPlan, spec: &GatewayFleetSpec) -> Vec<ServicePort> {
    let mut seen = BTreeSet::new();
    let first_of_port = spec.listeners.iter().filter(|listener| seen.insert(listener.port));
    first_of_port
        .map(|listener| ServicePort {
            name: Some(port_name(listener, &spec.listeners)),
            port: i32::from(listener.port),
            // By number: the pods' template knows no listeners.
            target_port: Some(IntOrString::Int(i32::from(container_port(plan, listener.port)))),
            protocol: Some("TCP".into()),
            app_protocol: Some(protocol_name(listener.protocol).into()),
            node_port: None,
        })
        .collect()
}

/// The port that proxies open for a listener's.
pub(super) fn container_port(plan: &FleetPlan, port: u16) -> u16 {
    plan.container_ports.get(&port).copied().unwrap_or(port)
}

/// The listener's name where a port may have it, which takes no dots.
fn port_name(listener: &Listener, all: &[Listener]) -> String {
    if listener.name.len() <= MAX_PORT_NAME_LEN && !listener.name.contains('.') {
        return listener.name.clone();
    }
    let plain = format!("port-{}", listener.port);
    if all.iter().all(|other| other.name != plain) {
        return plain;
    }
    let hash = Hash::of(listener.name.as_bytes()).to_string();
    format!("{plain}-{}", hash.chars().take(10).collect::<String>())
}

fn type_name(service: ServiceType) -> &'static str {
    match service {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}

fn policy_name(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
    }
}
