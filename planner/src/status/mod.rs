//! Problems + acks + fleet → status, by the rules of Gateway API and GEP-713.
//!
//! - `Accepted`: the content of this generation is in use. A broken object keeps its last accepted content, and says so.
//! - `ResolvedRefs`: everything that it refers to is there.
//! - `Programmed`: every Ready proxy runs it, all of it. What is degraded is not programmed, with the reason.
//!
//! A route or policy that is programmed stays so while proxies come and go and other objects change: every Ready proxy
//! holds a whole snapshot, and counts live on the fleet alone. So scaling writes no route's status.

mod access;
mod closed;
mod conditions;
mod consumer;
mod fleet;
mod policy;
mod progress;
mod resource;
mod route;
mod settling;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

pub use self::fleet::unready;
use self::{closed::Closed, conditions::Findings};
use crate::{
    Millis, Plan, World,
    fleet::FleetView,
    world::{FleetRef, Kind, ObjectRef},
};

/// The status of one object.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Status {
    /// The status of a GatewayFleet.
    Fleet(crds::GatewayFleetStatus),
    /// The status of an ApiRoute.
    Route(crds::ApiRouteStatus),
    /// The status of a RatePolicy.
    Policy(crds::RatePolicyStatus),
    /// The status of an AccessPolicy.
    Access(crds::AccessPolicyStatus),
    /// The status of a Consumer.
    Consumer(crds::ConsumerStatus),
}

impl Status {
    /// Reads what was written of the status of an object of this kind. `None`: the kind has none, or it is not understood.
    pub fn read(kind: Kind, value: serde_json::Value) -> Option<Self> {
        fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Option<T> {
            serde_json::from_value(value).ok()
        }
        match kind {
            Kind::GatewayFleet => parse(value).map(Self::Fleet),
            Kind::ApiRoute => parse(value).map(Self::Route),
            Kind::RatePolicy => parse(value).map(Self::Policy),
            Kind::AccessPolicy => parse(value).map(Self::Access),
            Kind::Consumer => parse(value).map(Self::Consumer),
            _ => None,
        }
    }

    /// The status without the numbers that drift.
    pub fn steady(&self) -> Self {
        let mut status = self.clone();
        match &mut status {
            Self::Fleet(fleet) => {
                fleet.driven_by = None;
                // Why there are as many as there are; how many stands beside it.
                let scaling = fleet.conditions.iter_mut().find(|condition| condition.type_ == "ScalingActive");
                if let Some(condition) = scaling {
                    condition.message.clear();
                }
            }
            Self::Policy(policy) => policy.limited = None,
            Self::Access(policy) => policy.refused = None,
            Self::Route(_) | Self::Consumer(_) => {}
        }
        status
    }

    /// The conditions in it.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::Fleet(status) => &status.conditions,
            Self::Route(status) => &status.conditions,
            Self::Policy(status) => &status.conditions,
            Self::Access(status) => &status.conditions,
            Self::Consumer(status) => &status.conditions,
        }
    }
}

/// The inputs of every status.
struct Context<'a> {
    plan: &'a Plan,
    fleets: &'a BTreeMap<FleetRef, FleetView>,
    /// The routes that policies close, by fleet.
    closed: BTreeMap<&'a FleetRef, Closed>,
    /// Proxies are pods, which have labels.
    cluster: bool,
    now: Millis,
}

/// An object, and what is wrong with it.
struct Subject<'a> {
    object: &'a ObjectRef,
    generation: i64,
    findings: Findings<'a>,
    previous: Option<&'a Status>,
}

/// The status of every custom resource. What the views say is `published` was made of this very plan. `previous` keeps the
/// times of conditions that did not change.
pub fn statuses(
    world: &World,
    plan: &Plan,
    fleets: &BTreeMap<FleetRef, FleetView>,
    previous: &BTreeMap<ObjectRef, Status>,
    now: Millis,
) -> BTreeMap<ObjectRef, Status> {
    let closed = plan.fleets.iter().map(|(name, fleet)| (name, Closed::new(&fleet.snapshot))).collect();
    let context = Context { plan, fleets, closed, cluster: world.cluster.is_some(), now };
    let mut findings = conditions::by_object(plan);
    let status = |(object, entry): (&ObjectRef, &crate::WorldObject)| {
        let mut findings = findings.remove(object).unwrap_or_default();
        findings.fallback = entry.accepted.is_some();
        findings.rest = !findings.fallback && !findings.rejected.is_empty() && plan.parents.contains_key(object);
        let subject = Subject { object, generation: entry.generation, findings, previous: previous.get(object) };
        let status = match object.kind {
            Kind::GatewayFleet => Status::Fleet(fleet::status(&context, &subject)),
            Kind::ApiRoute => Status::Route(route::status(&context, &subject)),
            Kind::RatePolicy => Status::Policy(policy::status(&context, &subject)),
            Kind::AccessPolicy => Status::Access(access::status(&context, &subject)),
            Kind::Consumer => Status::Consumer(consumer::status(&context, &subject)),
            _ => return None, // it has none
        };
        let status = settling::known(&context, &subject, status)?;
        Some((object.clone(), status))
    };
    world.objects.iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests;
