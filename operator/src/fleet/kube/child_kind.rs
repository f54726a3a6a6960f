//! The kinds of objects that a fleet is made of.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::core::{ApiResource, Resource};
use planner::FleetRef;

use crate::kube::names;

/// A kind of object that a fleet is made of, one object of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ChildKind {
    ServiceAccount,
    ConfigMap,
    Deployment,
    Service,
    Budget,
    NetworkPolicy,
}

impl ChildKind {
    /// Every one, in the order in which they are made: pods need the first two.
    pub(super) const ALL: [ChildKind; 6] = [
        ChildKind::ServiceAccount,
        ChildKind::ConfigMap,
        ChildKind::Deployment,
        ChildKind::Service,
        ChildKind::Budget,
        ChildKind::NetworkPolicy,
    ];

    /// Its kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            ChildKind::ServiceAccount => "ServiceAccount",
            ChildKind::ConfigMap => "ConfigMap",
            ChildKind::Deployment => "Deployment",
            ChildKind::Service => "Service",
            ChildKind::Budget => "PodDisruptionBudget",
            ChildKind::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// Its name, by the fleet's.
    pub(super) fn name(self, fleet: &FleetRef) -> String {
        match self {
            ChildKind::ConfigMap => names::fleet_ca(&fleet.name),
            _ => names::fleet_object(&fleet.name),
        }
    }

    /// How the API calls it.
    pub(super) fn resource(self) -> ApiResource {
        fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
            ApiResource::erase::<K>(&())
        }
        match self {
            ChildKind::ServiceAccount => of::<ServiceAccount>(),
            ChildKind::ConfigMap => of::<ConfigMap>(),
            ChildKind::Deployment => of::<Deployment>(),
            ChildKind::Service => of::<Service>(),
            ChildKind::Budget => of::<PodDisruptionBudget>(),
            ChildKind::NetworkPolicy => of::<NetworkPolicy>(),
        }
    }
}

/// The identity of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChildId {
    pub(super) child: ChildKind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ChildId {
    pub(super) fn new(child: ChildKind, fleet: &FleetRef) -> Self {
        Self { child, namespace: fleet.namespace.clone(), name: child.name(fleet) }
    }
}
