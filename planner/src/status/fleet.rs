//! GatewayFleet: its replicas, what drives them, which configuration they run.

use crds::fleet::{GatewayFleetStatus, ScalingMode};
use snapshot::{Key, Kind};

use super::{
    Context, Status, Subject,
    conditions::Verdict,
    progress::{self, PROGRAMMED},
};
use crate::{
    fleet::{FleetView, selector},
    plan::PlannedFleet,
    problem::reason,
    scale::Decision,
    world::{self, FleetRef},
};

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> GatewayFleetStatus {
    let previous = match subject.previous {
        Some(Status::Fleet(status)) => status.conditions.as_slice(),
        _ => &[],
    };
    let fleet = FleetRef::from(subject.object);
    let (planned, view) = (context.plan.fleets.get(&fleet), context.fleets.get(&fleet));
    let nothing = FleetView::default();
    let counted = view.unwrap_or(&nothing);
    let (running, ready) = view.map_or((0, 0), progress::count);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let known = || number(counted.proxies.iter().filter(|proxy| !proxy.draining).count());
    let replicas = counted.replicas.unwrap_or_else(known);
    let desired = counted.decision.as_ref().map_or(replicas, |decision| decision.desired);

    let findings = &subject.findings;
    let programmed = findings
        .rejection_programmed()
        .or_else(|| progress::refusal(subject.object, view, &own_keys(planned, subject)))
        .or_else(|| findings.degradation())
        .or_else(|| counted.withheld.keys().find_map(|key| progress::closed(view, [key])))
        .or_else(|| progress::disagreement(view, counted.disagreeing.keys()))
        .unwrap_or_else(|| progress::everywhere(view));
    let all = [
        ("Accepted", findings.rejection().unwrap_or_else(|| Verdict::good(reason::ACCEPTED, "the settings are valid"))),
        ("ResolvedRefs", findings.resolved_refs()),
        (PROGRAMMED, programmed),
        ("Ready", self::ready(planned, ready)),
        ("ScalingActive", scaling(planned, counted.decision.as_ref())),
    ];
    let conditions = all.map(|(type_, verdict)| verdict.condition(type_, subject.generation, previous, context.now));
    GatewayFleetStatus {
        conditions: conditions.into(),
        replicas,
        ready_replicas: number(ready),
        desired_replicas: desired,
        ready: view.map(|_| format!("{ready}/{replicas}")),
        driven_by: counted.decision.as_ref().and_then(|decision| decision.driven_by.clone()),
        config: counted.published.map(|revision| revision.short()),
        programmed_replicas: number(running),
        // The schema takes 16.
        addresses: counted.addresses.iter().take(16).cloned().collect(),
        selector: context.cluster.then(|| selector(&fleet.name)),
    }
}

/// Keys of the fleet's own resources: its settings, its listeners, their certificates.
fn own_keys(planned: Option<&PlannedFleet>, subject: &Subject<'_>) -> Vec<Key> {
    let own = |(key, source): &(&Key, &world::ObjectRef)| *source == subject.object || key.kind() == Kind::Certificate;
    let sources = planned.into_iter().flat_map(|planned| &planned.sources);
    sources.filter(own).map(|(key, _)| key.clone()).collect()
}

/// Whether load moves the number of replicas, and why it is what it is.
fn scaling(planned: Option<&PlannedFleet>, decision: Option<&Decision>) -> Verdict {
    let (Some(planned), Some(decision)) = (planned, decision) else {
        return Verdict::unknown(reason::PENDING, "nothing is decided yet");
    };
    let message = decision.reason.clone();
    match planned.settings.spec.scaling.mode {
        ScalingMode::Managed => Verdict::good(reason::MANAGED, message),
        ScalingMode::External => Verdict::bad(reason::EXTERNAL, message),
        ScalingMode::DryRun => Verdict::bad(reason::DRY_RUN, message),
        ScalingMode::Paused => Verdict::bad(reason::PAUSED, message),
    }
}

/// Serves as many as it must: the number itself drifts and stands in the columns.
fn ready(planned: Option<&PlannedFleet>, ready: usize) -> Verdict {
    lacks(planned, ready).map_or_else(
        || Verdict::good(reason::READY, "at least minReplicas proxies are Ready"),
        |(reason, message)| Verdict::bad(reason, message),
    )
}

/// The reason and message of a fleet whose condition `Ready` is False; `None`: it is True.
pub fn unready(planned: &PlannedFleet, view: &FleetView) -> Option<(&'static str, String)> {
    lacks(Some(planned), progress::count(view).1)
}

fn lacks(planned: Option<&PlannedFleet>, ready: usize) -> Option<(&'static str, String)> {
    let least = planned.map_or(1, |planned| planned.settings.spec.scaling.min_replicas.max(1)) as usize;
    match ready {
        0 => Some((reason::NO_READY_PROXY, "no proxy is Ready".to_owned())),
        ready if ready < least => {
            Some((reason::BELOW_MINIMUM, format!("{ready} proxies are Ready; minReplicas is {least}")))
        }
        _ => None,
    }
}
