//! The objects that guard a fleet's pods: how many may be evicted at once, and who may reach them.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use planner::FleetPlan;

use super::{ChildKind, Settings, metadata, pod::METRICS_PORT, selector, service::container_port};

/// Pods are evicted one by one. Said as what may be missing rather than what must be there: that a single replica must be
/// there would keep its node from ever being drained.
pub(super) fn budget(plan: &FleetPlan) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(plan, ChildKind::Budget),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(plan)),
            // One that does not serve is no loss, and would hold up its node for as long as it is broken.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Lets in what a proxy serves, and nothing else, also where a namespace lets in nothing: to the listeners' ports from
/// anywhere, since a gateway is for anyone; to the metrics from whom the settings name. To the admin port from nobody: the
/// kubelet of a pod's node always gets in, whatever a policy says. Where proxies may go is not limited: they go to pods of
/// every namespace, to the operator, and to the name server.
pub(super) fn network_policy(plan: &FleetPlan, settings: &Settings) -> NetworkPolicy {
    let port = |number: i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(number)),
        protocol: Some("TCP".into()),
        end_port: None,
    };
    let served: BTreeSet<i32> = plan.ports.iter().map(|p| i32::from(container_port(plan, *p))).collect();
    let served = served.into_iter().map(port).collect();
    let mut ingress = vec![NetworkPolicyIngressRule { ports: Some(served), from: None }];
    // From nobody: no rule. One that names nobody would mean everybody.
    if !settings.metrics_from.is_empty() {
        let from = Some(settings.metrics_from.clone());
        ingress.push(NetworkPolicyIngressRule { ports: Some(vec![port(METRICS_PORT)]), from });
    }
    NetworkPolicy {
        metadata: metadata(plan, ChildKind::NetworkPolicy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(plan)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}
