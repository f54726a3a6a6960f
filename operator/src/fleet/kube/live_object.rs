//! A live object of a fleet, as far as decisions need it.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::{Resource, ResourceExt};
use planner::FleetRef;
use serde::Serialize;
use serde_json::Value;
use snapshot::Hash;

use super::{
    MANAGER, SCALER,
    child_kind::{ChildId, ChildKind},
    labels,
};

/// An object that exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LiveObject {
    /// The fleet that the object belongs to.
    pub(super) fleet: FleetRef,
    pub(super) uid: String,
    /// Its resource version; 0 where that is not a number.
    pub(super) version: u64,
    /// Hash of all that someone may have set: not of status, and not of `spec.replicas`.
    pub(super) fingerprint: Hash,
    /// Deleted, but not gone yet.
    pub(super) leaving: bool,
    /// The managed fields of all but the operator.
    pub(super) others: Vec<ManagedFieldsEntry>,
    pub(super) details: Details,
}

/// Facts that only some kinds have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) scale: Option<Scale>,
    /// The addresses at which clients reach a Service.
    pub(super) addresses: Vec<String>,
    /// The reason why a Deployment can't make pods.
    pub(super) failure: Option<String>,
}

/// The replicas of a Deployment, and who set what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) replicas: u32,
    /// The operator has applied the rest: what the scaler no longer applies stays.
    pub(super) is_applied: bool,
    /// The scaler has `spec.replicas`, and nothing else.
    pub(super) is_scalers: bool,
}

/// A kind of object of a fleet.
pub(super) trait ChildObject: Resource<DynamicType = ()> + Serialize {
    const CHILD: ChildKind;

    /// The facts that only this kind has.
    fn details(&self) -> Details {
        Details::default()
    }
}

impl ChildObject for ServiceAccount {
    const CHILD: ChildKind = ChildKind::ServiceAccount;
}

impl ChildObject for ConfigMap {
    const CHILD: ChildKind = ChildKind::ConfigMap;
}

impl ChildObject for PodDisruptionBudget {
    const CHILD: ChildKind = ChildKind::Budget;
}

impl ChildObject for NetworkPolicy {
    const CHILD: ChildKind = ChildKind::NetworkPolicy;
}

impl ChildObject for Deployment {
    const CHILD: ChildKind = ChildKind::Deployment;

    fn details(&self) -> Details {
        let replicas = self.spec.replicas.unwrap_or(1);
        let managers = self.metadata.managed_fields.as_deref().unwrap_or_default();
        let applied_by = |name: &str| managers.iter().find(|entry| is_apply(entry, name));
        let only_replicas = serde_json::json!({"f:spec": {"f:replicas": {}}});
        let scale = Scale {
            replicas: u32::try_from(replicas).unwrap_or_default(),
            is_applied: applied_by(MANAGER).is_some(),
            is_scalers: applied_by(SCALER)
                .and_then(|entry| entry.fields_v1.as_ref())
                .is_some_and(|f| f.0 == only_replicas),
        };
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let failure = conditions
            .iter()
            .find(|c| c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True"));
        let failure = failure.map(|c| c.message.clone().unwrap_or_default());
        Details { scale: Some(scale), failure, ..Details::default() }
    }
}

impl ChildObject for Service {
    const CHILD: ChildKind = ChildKind::Service;

    fn details(&self) -> Details {
        let spec = self.spec.as_ref();
        let addresses = if spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
            let balancer = self.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
            ingress.iter().filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone())).collect()
        } else {
            // A node port has as many addresses as there are nodes, which are not watched; this one works inside.
            let ips = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
            ips.iter().filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect()
        };
        Details { addresses, ..Details::default() }
    }
}

/// Reads an object; `None` when it is no fleet's.
pub(super) fn read<K: ChildObject>(object: &K) -> Option<(ChildId, LiveObject)> {
    let meta = object.meta();
    let (namespace, name) = (meta.namespace.clone()?, meta.name.clone()?);
    let owner = object.owner_references().iter().find(|o| o.controller == Some(true) && o.kind == "GatewayFleet");
    let label = object.labels().get(labels::FLEET);
    let fleet = FleetRef { namespace: namespace.clone(), name: owner.map(|o| &o.name).or(label)?.clone() };
    let live = LiveObject {
        fleet,
        uid: meta.uid.clone().unwrap_or_default(),
        version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default(),
        fingerprint: fingerprint(object),
        leaving: meta.deletion_timestamp.is_some(),
        others: others(meta.managed_fields.as_deref().unwrap_or_default()),
        details: object.details(),
    };
    Some((ChildId { child: K::CHILD, namespace, name }, live))
}

/// Changes whenever someone changes something that could be ours.
fn fingerprint<K: ChildObject>(object: &K) -> Hash {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    let mut remove = |at: &str, key: &str| {
        if let Some(map) = value.pointer_mut(at).and_then(Value::as_object_mut) {
            map.remove(key);
        }
    };
    remove("", "status");
    for key in ["managedFields", "resourceVersion", "generation"] {
        remove("/metadata", key);
    }
    if K::CHILD == ChildKind::Deployment {
        remove("/spec", "replicas");
    }
    Hash::of(value.to_string().as_bytes())
}

fn others(managed: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    let is_other = |entry: &&ManagedFieldsEntry| {
        let own = [MANAGER, SCALER].map(Some).contains(&entry.manager.as_deref());
        !own && entry.subresource.as_deref().unwrap_or_default().is_empty()
    };
    managed.iter().filter(is_other).cloned().collect()
}

fn is_apply(entry: &ManagedFieldsEntry, manager: &str) -> bool {
    entry.manager.as_deref() == Some(manager)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json<K: ChildObject + serde::de::DeserializeOwned>(value: Value) -> LiveObject {
        read(&serde_json::from_value::<K>(value).unwrap()).unwrap().1
    }

    fn deployment(change: impl FnOnce(&mut Value)) -> LiveObject {
        let mut value = json!({
            "metadata": {
                "namespace": "ns", "name": "sluice-f", "uid": "u", "resourceVersion": "7",
                "labels": {"sluice.dev/fleet": "f"},
                "managedFields": [
                    {"manager": "sluice-operator", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}},
                    {"manager": "sluice-scaler", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                ],
            },
            "spec": {"replicas": 3, "selector": {}, "template": {}},
        });
        change(&mut value);
        read_json::<Deployment>(value)
    }

    #[test]
    fn deployments() {
        let live = deployment(|_| {});
        let scale = Scale { replicas: 3, is_applied: true, is_scalers: true };
        assert_eq!((live.details.scale, live.version, live.fleet.to_string()), (Some(scale), 7, "ns/f".to_owned()));
        let first = deployment(|value| {
            value["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:template"] = json!({});
            value["metadata"]["managedFields"].as_array_mut().unwrap().remove(0);
        });
        assert_eq!(first.details.scale, Some(Scale { replicas: 3, is_applied: false, is_scalers: false }));
        let quota = json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}]);
        let live = deployment(|value| value["status"] = json!({"conditions": quota}));
        assert_eq!(live.details.failure.as_deref(), Some("exceeded quota: q"));
    }

    #[test]
    fn fingerprints() {
        let plain = deployment(|_| {}).fingerprint;
        let with =
            |pointer: &str, new: Value| deployment(|value| *value.pointer_mut(pointer).unwrap() = new).fingerprint;
        assert_eq!(with("/spec/replicas", json!(9)), plain, "the scaler's");
        assert_eq!(with("/metadata/resourceVersion", json!("8")), plain);
        assert_eq!(with("/metadata/managedFields", json!([])), plain);
        assert_eq!(deployment(|value| value["status"] = json!({"replicas": 3})).fingerprint, plain);
        assert_ne!(with("/metadata/uid", json!("v")), plain, "made again");
        assert_ne!(with("/metadata/labels", json!({"sluice.dev/fleet": "f", "a": "b"})), plain);
        assert_ne!(with("/spec/template", json!({"metadata": {"labels": {"a": "b"}}})), plain);
    }

    #[track_caller]
    fn addresses(spec: &Value, status: &Value, expect: &[&str]) {
        let metadata = json!({"namespace": "ns", "name": "sluice-f", "labels": {"sluice.dev/fleet": "f"}});
        let live = read_json::<Service>(json!({"metadata": metadata, "spec": spec, "status": status}));
        assert_eq!(live.details.addresses, expect);
    }

    #[test]
    fn where_clients_reach_it() {
        let ingress = json!([{"ip": "203.0.113.10"}, {"hostname": "lb.example"}]);
        let (balancer, ips) =
            (json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"]}), json!(["10.0.0.1", "fd00::1"]));
        addresses(&balancer, &json!({"loadBalancer": {"ingress": ingress}}), &["203.0.113.10", "lb.example"]);
        addresses(&balancer, &json!({"loadBalancer": {}}), &[]);
        addresses(&json!({"type": "ClusterIP", "clusterIPs": ips}), &json!({}), &["10.0.0.1", "fd00::1"]);
        addresses(&json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"]}), &json!({}), &["10.0.0.1"]);
        addresses(&json!({"type": "ClusterIP", "clusterIPs": ["None"]}), &json!({}), &[]);
    }

    #[test]
    fn whose_it_is() {
        let owner = json!([{"apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "name": "long", "uid": "o", "controller": true}]);
        let live = read_json::<ConfigMap>(json!({"metadata": {
            "namespace": "ns", "name": "n", "ownerReferences": owner, "labels": {"sluice.dev/fleet": "l"},
        }}));
        assert_eq!(live.fleet.name, "long", "a label may be cut");
        let nobodys = json!({"metadata": {"namespace": "ns", "name": "n"}});
        assert!(read(&serde_json::from_value::<ConfigMap>(nobodys).unwrap()).is_none());
    }
}
