//! The observation of each fleet for the control loop: pure.

use std::collections::{BTreeMap, BTreeSet};

use planner::FleetRef;

use super::{
    child_kind::ChildKind,
    labels, problems,
    store::{Store, Wanted},
};
use crate::fleet::{Observation, Problem, Proxy};

/// Every fleet that is wanted, or of which anything is left.
pub(super) fn observe(state: &Store) -> BTreeMap<FleetRef, Observation> {
    let mut fleets: BTreeSet<&FleetRef> = state.fleets.keys().collect();
    fleets
        .extend(state.objects.iter().filter(|(id, live)| id.name == id.child.name(&live.fleet)).map(|(_, l)| &l.fleet));
    let mut all: BTreeMap<FleetRef, Observation> =
        fleets.iter().map(|fleet| ((*fleet).clone(), observation(state, fleet))).collect();
    // Pods outlive the Deployment for as long as they drain, and only have a label.
    let labels: BTreeSet<(&str, String)> =
        fleets.iter().map(|fleet| (fleet.namespace.as_str(), labels::value(&fleet.name))).collect();
    for ((namespace, _), pod) in &state.pods {
        if !labels.contains(&(namespace.as_str(), pod.fleet.clone())) {
            let fleet = FleetRef { namespace: namespace.clone(), name: pod.fleet.clone() };
            all.entry(fleet.clone()).or_insert_with(|| observation(state, &fleet));
        }
    }
    all
}

fn observation(state: &Store, fleet: &FleetRef) -> Observation {
    let wanted = state.fleets.get(fleet);
    let is_wanted = wanted.is_some_and(|wanted| wanted.plan.spec.is_some());
    let deployment = state.live(ChildKind::Deployment, fleet);
    let replicas = match deployment.filter(|live| !live.leaving) {
        Some(live) => live.details.scale.map_or(0, |scale| scale.replicas),
        // Deleted by hand it is made again as it was: it did not shrink to nothing.
        None => wanted.filter(|_| is_wanted).map_or(0, |wanted| wanted.plan.replicas),
    };
    let proxy = |(name, pod): (&str, &super::pods::Pod)| {
        pod.living.then(|| (name.to_owned(), Proxy { pid: None, draining: pod.leaving, pod_ready: Some(pod.ready) }))
    };
    let addresses =
        state.live(ChildKind::Service, fleet).map(|live| live.details.addresses.clone()).unwrap_or_default();
    let mut problems: Vec<Problem> = wanted.map(|wanted| tasks(fleet, wanted)).unwrap_or_default();
    problems.extend(state.refusal(&fleet.namespace).map(|(kind, said)| problems::unseen(fleet, kind, said)));
    if is_wanted {
        let failure = deployment.and_then(|live| live.details.failure.as_deref());
        problems.extend(failure.map(|said| problems::no_pods(fleet, said)));
        problems.extend(problems::pods(fleet, state.pods_of(fleet)));
    }
    let proxies = state.pods_of(fleet).filter_map(proxy).collect();
    Observation { replicas, proxies, addresses, problems, unknown: !state.is_known(&fleet.namespace) }
}

fn tasks(fleet: &FleetRef, wanted: &Wanted) -> Vec<Problem> {
    let of_task = |(task, progress): (&super::store::Task, &super::store::Progress)| {
        let contested = || match task {
            _ if !progress.reapply.is_contested() => None,
            super::store::Task::Object(child) => Some(problems::contested(fleet, *child)),
            _ => Some(problems::contested(fleet, ChildKind::Deployment)),
        };
        progress.problem.clone().or_else(contested)
    };
    let mut problems: Vec<Problem> = wanted.tasks.iter().filter_map(of_task).collect();
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests;
