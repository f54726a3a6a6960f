//! GatewayFleet: listeners and settings.

use std::collections::{BTreeMap, BTreeSet};

use crds::fleet::{FromNamespaces, Protocol, Target};
use snapshot::{
    Key, Kind, check,
    check::Unfit,
    proto::{self, Resource, resource},
};

use super::{Findings, Hostname, quantity, unless};
use crate::{fleet::FleetSettings, problem::reason};

/// A valid GatewayFleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) settings: FleetSettings,
    pub(crate) listeners: Vec<Listener>,
    /// The settings that proxies read.
    pub(crate) resource: proto::Fleet,
}

/// One port of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) hostname: Option<Hostname>,
    /// Namespace (`None`: the fleet's) and name of each Secret.
    pub(crate) certificates: Vec<(Option<String>, String)>,
    pub(crate) from: FromNamespaces,
}

pub(super) fn validate(fleet: &crds::GatewayFleet, generation: i64) -> Result<Fleet, Findings> {
    let (spec, mut findings) = (&fleet.spec, vec![]);
    let mut found = |field: String, reason, message: String| findings.push(Unfit::new(field, reason, message));

    let mut names = BTreeSet::new();
    for (i, listener) in spec.listeners.iter().enumerate() {
        if !names.insert(&listener.name) {
            let message = format!("two listeners are named {:?}: give each its own name", listener.name);
            found(format!("spec.listeners[{i}].name"), reason::DUPLICATE_NAME, message);
        }
        if let Err(unfit) = fit(listener) {
            found(format!("spec.listeners[{i}].{}", unfit.field), unfit.reason, unfit.message);
        }
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
    let mut memory_bytes = None;
    if let Some(memory) = &spec.template.memory {
        match quantity::positive(memory) {
            // A fraction of a byte is none: "500m" is 0 bytes, and no base for a share.
            Some(bytes) if bytes >= 1.0 => memory_bytes = Some(bytes as u64),
            _ => found("spec.template.memory".into(), reason::INVALID_QUANTITY, bad_quantity(memory, "256Mi")),
        }
    }

    let settings = FleetSettings { spec: spec.clone(), memory_bytes, rates, generation };
    let listeners = spec.listeners.iter().map(listener).collect();
    unless(findings, Fleet { settings, listeners, resource: resource(spec) })
}

/// What the proxy would say of a listener, before its certificates are known.
fn fit(listener: &crds::fleet::Listener) -> Result<(), Unfit> {
    let hostname = listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase();
    let listener = proto::Listener { port: listener.port.into(), hostname, ..proto::Listener::default() };
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) };
    check::resource(&Key::new(Kind::Listener, "namespace", "name"), &resource)
}

fn listener(listener: &crds::fleet::Listener) -> Listener {
    let refs = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
    Listener {
        name: listener.name.clone(),
        port: listener.port,
        tls: listener.protocol == Protocol::Https,
        hostname: listener.hostname.as_deref().map(Hostname::new),
        certificates: refs.map(|r| (r.namespace.clone(), r.name.clone())).collect(),
        from: listener.allowed_routes.namespaces.from,
    }
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
    }
}

fn bad_quantity(text: &str, such_as: &str) -> String {
    format!("{text:?} is no quantity above 0, such as \"{such_as}\"")
}
