//! The difference between the wanted and the live objects, as jobs: pure.

use std::{sync::Arc, time::Instant};

use planner::FleetRef;

use super::{
    child_kind::ChildKind,
    pod_deletion_cost::{self, Candidate, Change},
    render::Desired,
    store::{Applied, Store, Task, Wanted},
};

/// A job: one change of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Job {
    /// Apply an object that exists, in this version.
    Apply { child: ChildKind, desired: Arc<Desired>, version: u64 },
    /// Make an object, unless another has its name; a Deployment with these replicas.
    Create { child: ChildKind, desired: Arc<Desired>, replicas: u32 },
    /// Set the replicas of the Deployment that has the rest, after the pods that are to leave are marked.
    Scale { replicas: u32, marks: Vec<Change> },
    /// Delete these pods, by name and uid.
    Replace { pods: Vec<(String, String)> },
    /// Delete these, by kind and uid.
    Remove { objects: Vec<(ChildKind, String)> },
}

/// The jobs of one fleet that may be begun now.
pub(super) fn due(fleet: &FleetRef, wanted: &Wanted, state: &Store, now: Instant) -> Vec<(Task, Job)> {
    // What is not known to be there would be made anew, and what runs set to what nobody decided.
    if !state.is_known(&fleet.namespace) {
        return vec![];
    }
    let may_begin = |task: &Task| wanted.tasks.get(task).is_none_or(|p| !p.busy && p.reapply.over(now));
    let mut jobs = open(fleet, wanted, state);
    for (_, job) in &mut jobs {
        if let Job::Replace { pods } = job {
            pods.truncate(wanted.replacements.left(wanted.plan.replicas, now) as usize);
        }
    }
    jobs.retain(|(task, job)| may_begin(task) && !matches!(job, Job::Replace { pods } if pods.is_empty()));
    jobs
}

/// The jobs of one fleet, whether or not they may be begun now.
pub(super) fn open(fleet: &FleetRef, wanted: &Wanted, state: &Store) -> Vec<(Task, Job)> {
    if wanted.plan.spec.is_none() {
        let live = ChildKind::ALL.into_iter().filter_map(|child| Some((child, state.live(child, fleet)?)));
        let objects: Vec<_> = live.filter(|(_, l)| !l.leaving).map(|(child, live)| (child, live.uid.clone())).collect();
        // What is being made would come after its deletion.
        let is_idle = wanted.tasks.iter().all(|(task, progress)| *task == Task::Removal || !progress.busy);
        return match !objects.is_empty() && is_idle {
            true => vec![(Task::Removal, Job::Remove { objects })],
            false => vec![],
        };
    }
    if wanted.tasks.get(&Task::Removal).is_some_and(|progress| progress.busy) {
        return vec![];
    }
    let object = |(child, desired): (&ChildKind, &Arc<Desired>)| {
        Some((Task::Object(*child), object(fleet, *child, desired, wanted, state)?))
    };
    let mut jobs: Vec<(Task, Job)> = wanted.objects.iter().filter_map(object).collect();
    jobs.extend(replicas(fleet, wanted, state).map(|job| (Task::Replicas, job)));
    jobs.extend(replace(fleet, state).map(|job| (Task::Replacement, job)));
    jobs
}

fn object(fleet: &FleetRef, child: ChildKind, desired: &Arc<Desired>, wanted: &Wanted, state: &Store) -> Option<Job> {
    let Some(live) = state.live(child, fleet) else {
        // Pods that find no ServiceAccount are made late; those that find no ConfigMap start late.
        let needs: &[ChildKind] =
            if child == ChildKind::Deployment { &[ChildKind::ServiceAccount, ChildKind::ConfigMap] } else { &[] };
        let is_ready = needs.iter().all(|child| state.live(*child, fleet).is_some_and(|live| !live.leaving));
        return is_ready.then(|| Job::Create { child, desired: Arc::clone(desired), replicas: wanted.plan.replicas });
    };
    // It is made again once it is gone.
    if live.leaving {
        return None;
    }
    let as_it_is = Applied { desired: desired.hash, fingerprint: live.fingerprint };
    let applied = wanted.tasks.get(&Task::Object(child)).and_then(|progress| progress.applied);
    (applied != Some(as_it_is)).then(|| Job::Apply { child, desired: Arc::clone(desired), version: live.version })
}

fn replicas(fleet: &FleetRef, wanted: &Wanted, state: &Store) -> Option<Job> {
    let live = state.live(ChildKind::Deployment, fleet).filter(|live| !live.leaving)?;
    // Before the operator has applied the rest, the scaler has it all: what it no longer applies would be lost.
    let scale = live.details.scale.filter(|scale| scale.is_applied)?;
    let replicas = wanted.plan.replicas;
    if scale.replicas == replicas && scale.is_scalers {
        return None;
    }
    let leaving = scale.replicas.saturating_sub(replicas) as usize;
    let marks =
        if leaving == 0 { vec![] } else { pod_deletion_cost::changes(candidates(fleet, wanted, state), leaving) };
    Some(Job::Scale { replicas, marks })
}

/// The kubelet waits 10 s before it starts a container for the third time, then 20 s, up to minutes; another pod is there
/// within a few seconds.
fn replace(fleet: &FleetRef, state: &Store) -> Option<Job> {
    let held_back = state.pods_of(fleet).filter(|(_, pod)| pod.held_back && pod.living && !pod.leaving);
    let pods: Vec<_> = held_back.map(|(name, pod)| (name.to_owned(), pod.uid.clone())).collect();
    (!pods.is_empty()).then_some(Job::Replace { pods })
}

fn candidates<'a>(fleet: &'a FleetRef, wanted: &Wanted, state: &'a Store) -> Vec<Candidate<'a>> {
    let candidate = |(name, pod): (&'a str, &super::pods::Pod)| {
        let report = wanted.reports.get(name).cloned().unwrap_or_default();
        Candidate {
            name,
            ready: pod.ready,
            serves: report.ready,
            connections: report.connections,
            rate: report.rate,
            cost: pod.cost,
        }
    };
    state.pods_of(fleet).filter(|(_, pod)| pod.living && !pod.leaving).map(candidate).collect()
}

#[cfg(test)]
mod tests;
