//! Problems + acks + fleet → status, by the rules of Gateway API and GEP-713.
//!
//! - `Accepted`: the content of this generation is in use. A broken object keeps its last accepted content, and says so.
//! - `ResolvedRefs`: everything that it refers to is there.
//! - `Programmed`: every Ready proxy runs it, all of it. What is degraded is not programmed, with the reason.
//!
//! A route or policy that is programmed stays so while proxies come and go and other objects change: every Ready proxy
//! holds a whole snapshot, and counts live on the fleet alone. So scaling writes no route's status.

mod conditions;
mod fleet;
mod policy;
mod progress;
mod route;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::conditions::Findings;
use crate::{
    Millis, Plan, World,
    fleet::FleetView,
    world::{FleetRef, Kind, ObjectRef},
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

impl Status {
    /// Its conditions.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::Fleet(status) => &status.conditions,
            Self::Route(status) => &status.conditions,
            Self::Policy(status) => &status.conditions,
        }
    }
}

/// What every status is derived from.
struct Context<'a> {
    plan: &'a Plan,
    views: BTreeMap<&'a FleetRef, View<'a>>,
    now: Millis,
}

/// One fleet as observed.
struct View<'a> {
    fleet: &'a FleetView,
    /// What is published is what this plan wants. While a newer plan is still to be published, nothing runs it.
    current: bool,
}

impl<'a> Context<'a> {
    fn new(plan: &'a Plan, fleets: &'a BTreeMap<FleetRef, FleetView>, now: Millis) -> Self {
        let view = |(name, fleet): (&'a FleetRef, &'a FleetView)| {
            // With a resource rolled back, what is published differs from the plan, as it should.
            let wanted = || plan.fleets.get(name).map(|planned| planned.snapshot.revision());
            let current = !fleet.rolled_back.is_empty() || (fleet.published.is_some() && fleet.published == wanted());
            (name, View { fleet, current })
        };
        Self { plan, views: fleets.iter().map(view).collect(), now }
    }
}

/// One object, and what is wrong with it.
struct Subject<'a> {
    object: &'a ObjectRef,
    generation: i64,
    findings: Findings<'a>,
    previous: Option<&'a Status>,
}

/// The status of every custom resource. `previous` keeps the times of conditions that did not change.
pub fn statuses(
    world: &World,
    plan: &Plan,
    fleets: &BTreeMap<FleetRef, FleetView>,
    previous: &BTreeMap<ObjectRef, Status>,
    now: Millis,
) -> BTreeMap<ObjectRef, Status> {
    let context = Context::new(plan, fleets, now);
    let mut findings = conditions::by_object(plan);
    let status = |(object, entry): (&ObjectRef, &crate::WorldObject)| {
        let mut findings = findings.remove(object).unwrap_or_default();
        findings.fallback = entry.accepted.is_some();
        let subject = Subject { object, generation: entry.generation, findings, previous: previous.get(object) };
        let status = match object.kind {
            Kind::GatewayFleet => Status::Fleet(fleet::status(&context, &subject)),
            Kind::ApiRoute => Status::Route(route::status(&context, &subject)),
            Kind::RatePolicy => Status::Policy(policy::status(&context, &subject)),
            Kind::Service | Kind::EndpointSlice | Kind::Secret => return None,
        };
        Some((object.clone(), status))
    };
    world.objects.iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests;
