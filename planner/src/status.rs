//! Problems + acks + fleet → status, by the rules of Gateway API and GEP-713.

use std::collections::BTreeMap;

use crate::{
    Millis, Plan, World,
    fleet::FleetView,
    world::{FleetRef, ObjectRef},
};

/// One object's status.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Of a GatewayFleet.
    Fleet(crds::GatewayFleetStatus),
    /// Of an ApiRoute.
    Route(crds::ApiRouteStatus),
    /// Of a RatePolicy.
    Policy(crds::RatePolicyStatus),
}

/// The status of every custom resource. `previous` keeps the times of conditions that did not change.
pub fn statuses(
    _world: &World,
    _plan: &Plan,
    _fleets: &BTreeMap<FleetRef, FleetView>,
    _previous: &BTreeMap<ObjectRef, Status>,
    _now: Millis,
) -> BTreeMap<ObjectRef, Status> {
    BTreeMap::new()
}
