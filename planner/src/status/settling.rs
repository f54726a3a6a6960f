//! Statuses while not all proxies of a fleet have reported to an operator that begins to lead: what plans say is true at once,
//! and what proxies said before stands until they say something else.

use crds::{AccessPolicyStatus, consumer::ConsumerStatus, fleet::GatewayFleetStatus, policy::RatePolicyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Context, Status, Subject, conditions::find, progress::PROGRAMMED};
use crate::{
    fleet::FleetView,
    problem::reason,
    world::{FleetRef, Kind},
};

/// A status less what is concluded from silence; `None`: of a fleet of which nothing is known yet.
pub(super) fn known(context: &Context<'_>, subject: &Subject<'_>, status: Status) -> Option<Status> {
    if !is_settling(context, subject) {
        return Some(status);
    }
    let known = match (status, subject.previous) {
        (Status::Fleet(now), Some(Status::Fleet(before))) => Status::Fleet(GatewayFleetStatus {
            conditions: conditions(now.conditions, &before.conditions),
            ..before.clone()
        }),
        (Status::Fleet(_), _) => return None,
        (Status::Route(mut now), before) => {
            let before = before.and_then(|before| if let Status::Route(before) = before { Some(before) } else { None });
            let merged = before.map_or(&[][..], |before| &before.conditions);
            now.conditions = conditions(now.conditions, merged);
            for parent in &mut now.parents {
                let of_parent = before.and_then(|b| b.parents.iter().find(|p| p.parent_ref == parent.parent_ref));
                let before = of_parent.map_or(merged, |parent| &parent.conditions);
                parent.conditions = conditions(std::mem::take(&mut parent.conditions), before);
            }
            Status::Route(now)
        }
        (Status::Consumer(now), before) => {
            let before = before.map_or(&[][..], Status::conditions);
            Status::Consumer(ConsumerStatus { conditions: conditions(now.conditions, before), ..now })
        }
        (Status::Access(now), before) => {
            let (conditions_before, refused) = match before {
                Some(Status::Access(before)) => (&before.conditions[..], before.refused.clone()),
                _ => (&[][..], None),
            };
            let conditions = conditions(now.conditions, conditions_before);
            Status::Access(AccessPolicyStatus { conditions, refused, ..now })
        }
        (Status::Policy(now), before) => {
            let (conditions_before, limited) = match before {
                Some(Status::Policy(before)) => (&before.conditions[..], before.limited.clone()),
                _ => (&[][..], None),
            };
            Status::Policy(RatePolicyStatus {
                conditions: conditions(now.conditions, conditions_before),
                limited,
                ..now
            })
        }
    };
    Some(known)
}

/// Whether a fleet that serves it is. Of a policy: any, which is as long as one route of it may be.
fn is_settling(context: &Context<'_>, subject: &Subject<'_>) -> bool {
    let settles = |fleet: &FleetRef| context.fleets.get(fleet).is_some_and(|view| view.settling);
    match subject.object.kind {
        Kind::GatewayFleet => settles(&FleetRef::from(subject.object)),
        Kind::ApiRoute => {
            let parents = context.plan.parents.get(subject.object);
            parents.into_iter().flatten().filter_map(|parent| parent.fleet.as_ref()).any(settles)
        }
        _ => context.fleets.values().any(|view: &FleetView| view.settling),
    }
}

/// The conditions with what is derived from proxies as it was before, unless it is known by now; all else as it is.
fn conditions(now: Vec<Condition>, before: &[Condition]) -> Vec<Condition> {
    let known = now.into_iter().filter_map(|condition| {
        let of_proxies = match condition.type_.as_str() {
            PROGRAMMED => condition.reason == reason::PENDING,
            "Ready" | "ScalingActive" => true,
            _ => false,
        };
        if of_proxies { find(before, &condition.type_).cloned() } else { Some(condition) }
    });
    known.collect()
}
