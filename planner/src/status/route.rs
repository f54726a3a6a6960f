//! ApiRoute: conditions on each fleet, and over all of them.

use std::collections::BTreeSet;

use crds::route::{ApiRouteStatus, RouteParentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use snapshot::{Key, Kind};

use super::{
    Context, Status, Subject,
    conditions::Verdict,
    progress::{self, PROGRAMMED},
};
use crate::{
    plan::{Parent, PlannedFleet},
    problem::reason,
    world::FleetRef,
};

/// The condition that is absent when all is well.
const CONTESTED: &str = "Contested";

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> ApiRouteStatus {
    let previous = match subject.previous {
        Some(Status::Route(status)) => Some(status),
        _ => None,
    };
    let conditions_before = previous.map_or(&[][..], |p| p.conditions.as_slice());
    let in_force = context.plan.parents.get(subject.object).map_or(&[][..], Vec::as_slice);
    let before = |parent: &Parent| {
        let parents = previous.map_or(&[][..], |p| p.parents.as_slice());
        let of_parent = parents.iter().find(|p| p.parent_ref == parent.parent_ref).map(|p| p.conditions.as_slice());
        // Of the only parent there were none of its own.
        of_parent.unwrap_or(if parents.is_empty() { conditions_before } else { &[] })
    };
    let parents: Vec<(&Parent, Verdicts)> =
        in_force.iter().map(|parent| (parent, verdicts(context, subject, parent, before(parent)))).collect();
    let overall = overall(subject, &parents);
    // With one parent its conditions are those of the whole: they stand in one place.
    let several = if parents.len() > 1 { parents } else { vec![] };
    let parents = several.into_iter().map(|(parent, verdicts)| {
        let conditions = verdicts.conditions(subject.generation, before(parent), context);
        RouteParentStatus { parent_ref: parent.parent_ref.clone(), conditions }
    });
    let mut conditions = overall.conditions(subject.generation, conditions_before, context);
    let contested = subject.findings.contested();
    conditions.extend(
        contested.map(|verdict| verdict.condition(CONTESTED, subject.generation, conditions_before, context.now)),
    );
    ApiRouteStatus { parents: parents.collect(), conditions, fleet: fleets(in_force) }
}

/// Names of the fleets that serve a route.
fn fleets(parents: &[Parent]) -> Option<String> {
    let fleets: BTreeSet<&FleetRef> = parents.iter().filter_map(|p| p.fleet.as_ref()).collect();
    let names: Vec<&str> = fleets.iter().map(|fleet| fleet.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The three conditions.
#[derive(Clone)]
struct Verdicts {
    accepted: Verdict,
    resolved_refs: Verdict,
    programmed: Verdict,
}

impl Verdicts {
    fn conditions(self, generation: i64, previous: &[Condition], context: &Context<'_>) -> Vec<Condition> {
        let all = [("Accepted", self.accepted), ("ResolvedRefs", self.resolved_refs), (PROGRAMMED, self.programmed)];
        all.map(|(type_, verdict)| verdict.condition(type_, generation, previous, context.now)).into()
    }
}

/// The verdicts on one fleet.
fn verdicts(context: &Context<'_>, subject: &Subject<'_>, parent: &Parent, previous: &[Condition]) -> Verdicts {
    let findings = &subject.findings;
    let detached = parent.detached.as_ref().map(|(reason, message)| Verdict::bad(reason, message.clone()));
    let accepted = findings.rejection().or_else(|| detached.clone());
    let programmed = findings.rejection_programmed().or(detached).or_else(|| {
        let fleet = parent.fleet.as_ref()?;
        let view = context.fleets.get(fleet);
        let planned = context.plan.fleets.get(fleet);
        let keys = planned.map(|planned| keys(planned, subject)).unwrap_or_default();
        let refused = progress::refusal(subject.object, view, &keys);
        let closed_by = || context.closed.get(fleet)?.of(&key(subject));
        let missing = || planned.and_then(|planned| missing(fleet, planned, &keys));
        let listeners = planned.map(|planned| listeners(fleet, planned, subject)).unwrap_or_default();
        let closed = || progress::closed(view, &listeners);
        let made_of: Vec<&Key> = keys.iter().chain(&listeners).collect();
        Some(
            refused
                .or_else(|| findings.degradation())
                .or_else(closed_by)
                .or_else(missing)
                .or_else(closed)
                .or_else(|| progress::disagreement(view, &keys))
                .unwrap_or_else(|| progress::of_generation(view, planned, &made_of, subject.generation, previous)),
        )
    });
    Verdicts {
        accepted: accepted.unwrap_or_else(|| Verdict::good(reason::ACCEPTED, "attached")),
        resolved_refs: findings.resolved_refs(),
        programmed: programmed.unwrap_or_else(|| Verdict::bad(reason::PENDING, "not attached to a fleet")),
    }
}

/// The parts of a route that are not in what its fleet is to run. Whatever kept them out has said so already; should it not
/// have, this is what counts.
fn missing(fleet: &FleetRef, planned: &PlannedFleet, keys: &[Key]) -> Option<Verdict> {
    let key = keys.iter().find(|key| planned.snapshot.entry(key).is_none())?;
    Some(Verdict::bad(reason::TOO_LARGE, format!("{key} is not in what GatewayFleet {fleet} serves")))
}

/// The route's own key, and those of the clusters it sends requests to.
fn keys(planned: &PlannedFleet, subject: &Subject<'_>) -> Vec<Key> {
    let key = key(subject);
    let needs = planned.routes.get(&key).into_iter().flat_map(|route| &route.needs).cloned();
    std::iter::once(key.clone()).chain(needs).collect()
}

/// Keys of the listeners that it is attached to.
fn listeners(fleet: &FleetRef, planned: &PlannedFleet, subject: &Subject<'_>) -> Vec<Key> {
    let names = planned.routes.get(&key(subject)).into_iter().flat_map(|route| route.listeners());
    names.map(|name| Key::listener(&fleet.namespace, &fleet.name, name)).collect()
}

fn key(subject: &Subject<'_>) -> Key {
    subject.object.key(Kind::Route)
}

/// Over all fleets: accepted where it is on one, programmed when it is on every one that accepts it.
fn overall(subject: &Subject<'_>, parents: &[(&Parent, Verdicts)]) -> Verdicts {
    let findings = &subject.findings;
    if let (Some(accepted), Some(programmed)) = (findings.rejection(), findings.rejection_programmed()) {
        return Verdicts { accepted, resolved_refs: findings.resolved_refs(), programmed };
    }
    let attached: Vec<_> = parents.iter().filter(|(parent, _)| parent.fleet.is_some()).collect();
    let detached = Verdict::of(&findings.detached);
    let Some((_, first)) = attached.first() else {
        // Without an attached parent there is a reason for it; a plan without one is none of this world's.
        let accepted = detached.unwrap_or_else(|| Verdict::bad(reason::PENDING, "not planned yet"));
        return Verdicts { programmed: accepted.clone(), accepted, resolved_refs: findings.resolved_refs() };
    };
    let mut accepted = Verdict::good(reason::ACCEPTED, "attached");
    if let Some(detached) = detached {
        accepted.message = format!("attached, but not everywhere: {}", detached.message);
    }
    let programmed =
        attached.iter().find(|(_, v)| !v.programmed.is_good()).map_or(first, |(_, v)| v).programmed.clone();
    Verdicts { accepted, resolved_refs: findings.resolved_refs(), programmed }
}
