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

/// One of the objects of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    ServiceAccount,
    ConfigMap,
    Deployment,
    Service,
    Budget,
    NetworkPolicy,
}

impl Part {
    /// Every one, in the order in which they are made: pods need the first two.
    pub(super) const ALL: [Part; 6] =
        [Part::ServiceAccount, Part::ConfigMap, Part::Deployment, Part::Service, Part::Budget, Part::NetworkPolicy];

    /// Its kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Part::ServiceAccount => "ServiceAccount",
            Part::ConfigMap => "ConfigMap",
            Part::Deployment => "Deployment",
            Part::Service => "Service",
            Part::Budget => "PodDisruptionBudget",
            Part::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// Its name, by the fleet's.
    pub(super) fn name(self, fleet: &FleetRef) -> String {
        match self {
            Part::ConfigMap => names::fleet_ca(&fleet.name),
            _ => names::fleet_object(&fleet.name),
        }
    }

    /// How the API calls it.
    pub(super) fn resource(self) -> ApiResource {
        fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
            ApiResource::erase::<K>(&())
        }
        match self {
            Part::ServiceAccount => of::<ServiceAccount>(),
            Part::ConfigMap => of::<ConfigMap>(),
            Part::Deployment => of::<Deployment>(),
            Part::Service => of::<Service>(),
            Part::Budget => of::<PodDisruptionBudget>(),
            Part::NetworkPolicy => of::<NetworkPolicy>(),
        }
    }
}
