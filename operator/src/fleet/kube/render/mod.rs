//! The objects of a fleet, rendered from its plan: pure, and the same for the same plan. `spec.replicas` is not in it:
//! it is the scaler's.

mod guard;
mod pod;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{ConfigMap, PodTemplateSpec, ServiceAccount},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use planner::FleetPlan;
use serde::Serialize;
use serde_json::Value;
use snapshot::Hash;

use super::{Settings, child_kind::ChildKind, labels};
use crate::kube::managers::DEFINED_BY;

/// An object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Desired {
    /// The object as it is applied.
    pub(super) body: Value,
    /// Tells whether it changed.
    pub(super) hash: Hash,
}

/// Every object of a fleet; none for a fleet that is to be no more. The ConfigMap is not in it as long as the
/// certificates in it are not known.
pub(super) fn render(plan: &FleetPlan, settings: &Settings, ca: &str) -> BTreeMap<ChildKind, Desired> {
    let Some(spec) = plan.spec.as_deref() else { return BTreeMap::new() };
    let body = |child: ChildKind| match child {
        ChildKind::ServiceAccount => Some(value(&service_account(plan))),
        ChildKind::ConfigMap => (!ca.is_empty()).then(|| value(&trust(plan, ca))),
        ChildKind::Deployment => Some(value(&deployment(plan, spec, settings))),
        ChildKind::Service => Some(value(&service::service(plan, spec))),
        ChildKind::Budget => Some(value(&guard::budget(plan))),
        ChildKind::NetworkPolicy => Some(value(&guard::network_policy(plan, settings))),
    };
    let desired = |body: Value| Desired { hash: Hash::of(body.to_string().as_bytes()), body };
    ChildKind::ALL.into_iter().filter_map(|child| Some((child, desired(body(child)?)))).collect()
}

/// The object as a JSON value, which none of these types fails to become.
fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn metadata(plan: &FleetPlan, child: ChildKind) -> ObjectMeta {
    // Without `blockOwnerDeletion`, which would need rights on the GatewayFleet's finalizers.
    let owner = OwnerReference {
        api_version: crds::API_VERSION.into(),
        kind: "GatewayFleet".into(),
        name: plan.fleet.name.clone(),
        uid: plan.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ObjectMeta {
        name: Some(child.name(&plan.fleet)),
        namespace: Some(plan.fleet.namespace.clone()),
        labels: Some(labels::all(&plan.fleet.name)),
        annotations: Some([(DEFINED_BY.to_owned(), format!("GatewayFleet {}", plan.fleet))].into()),
        owner_references: (!plan.uid.is_empty()).then(|| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn selector(plan: &FleetPlan) -> LabelSelector {
    LabelSelector { match_labels: Some(labels::selector(&plan.fleet.name)), match_expressions: None }
}

/// Known by its name when a proxy enrols; it has no rights, and no pod gets its ordinary token.
fn service_account(plan: &FleetPlan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan, ChildKind::ServiceAccount),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn trust(plan: &FleetPlan, ca: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(plan, ChildKind::ConfigMap),
        data: Some([(pod::CA_FILE.to_owned(), ca.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// A changed template is rolled out without ever having fewer pods that are Ready: a new one first, then an old one
/// leaves.
fn deployment(plan: &FleetPlan, spec: &crds::GatewayFleetSpec, settings: &Settings) -> Deployment {
    let rolling = RollingUpdateDeployment {
        max_unavailable: Some(IntOrString::Int(0)),
        // Rounded up: at least one.
        max_surge: Some(IntOrString::String("25%".into())),
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::over(&spec.template.labels, labels::all(&plan.fleet.name))),
            annotations: (!spec.template.annotations.is_empty()).then(|| spec.template.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod::spec(plan, spec, settings)),
    };
    Deployment {
        metadata: metadata(plan, ChildKind::Deployment),
        spec: DeploymentSpec {
            replicas: None,
            selector: selector(plan),
            strategy: Some(DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update: Some(rolling) }),
            revision_history_limit: Some(3),
            template,
            ..DeploymentSpec::default()
        },
        status: None,
    }
}
