//! The loop that begins jobs as they become due. Every call of the API server is a task of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, api::DynamicObject};
use planner::FleetRef;

use super::{
    apply,
    child_kind::{ChildId, ChildKind},
    diff::{self, Job},
    live_object::LiveObject,
    problems::{self, Error},
    render::Desired,
    store::{Applied, Shared, Store, Task},
};
use crate::{
    events::recorder::Event,
    kube::{
        api::{Class, class},
        keyed_tasks::KeyedTasks,
        managers, outage,
    },
    reason,
};

/// Calls of the API server at once.
const MAX_CONCURRENT_JOBS: usize = 16;
/// A job that takes longer is given up, and tried again later: as long as it is under way, its task does nothing else.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);
/// Looked at this often when nothing happens.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// The outcome of a job.
type Outcome = Result<Option<(ChildId, LiveObject)>, Error>;
/// The jobs under way.
type Jobs = KeyedTasks<(FleetRef, Task, Job), Outcome>;

/// Runs for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut jobs = Jobs::new(MAX_CONCURRENT_JOBS);
    let mut ca = shared.settings.ca.clone();
    let mut ca_changes = true;
    loop {
        let next = begin(&shared, &mut jobs);
        tokio::select! {
            () = shared.changed.notified() => {}
            () = tokio::time::sleep_until(next.into()) => {}
            ((fleet, task, job), outcome) = jobs.ended() => finish(&shared, &fleet, task, &job, outcome),
            changed = ca.changed(), if ca_changes => match changed {
                Ok(()) => shared.state().render_again(&shared.settings),
                // Nobody can change them any more.
                Err(_) => ca_changes = false,
            },
        }
    }
}

/// Begins what is due, and says when to look again.
fn begin(shared: &Arc<Shared>, jobs: &mut Jobs) -> Instant {
    let now = Instant::now();
    let mut state = shared.state();
    let fleets: Vec<FleetRef> = state.fleets.keys().cloned().collect();
    let mut due = vec![];
    for fleet in fleets {
        forget_solved(&mut state, &fleet);
        if let Some(wanted) = state.fleets.get(&fleet) {
            due.extend(
                diff::due(&fleet, wanted, &state, now).into_iter().map(|(task, job)| (fleet.clone(), task, job)),
            );
        }
    }
    for (fleet, task, job) in due {
        // What finds no room is begun when another ends.
        if !jobs.has_room() {
            break;
        }
        if let Some(wanted) = state.fleets.get_mut(&fleet) {
            wanted.tasks.entry(task).or_default().busy = true;
        }
        tracing::debug!(%fleet, ?task, "begun");
        let run = tokio::time::timeout(JOB_TIMEOUT, apply::run(shared.client.clone(), fleet.clone(), job.clone()));
        let run = async { run.await.unwrap_or(Err(Error::Slow(JOB_TIMEOUT))) };
        jobs.begin((fleet, task, job), run);
    }
    let next = state.fleets.values().filter_map(|wanted| wanted.next_try(now)).min();
    next.unwrap_or(now + RESYNC_INTERVAL).min(now + RESYNC_INTERVAL)
}

/// Forgets the problems of tasks that have nothing left to do.
pub(super) fn forget_solved(state: &mut Store, fleet: &FleetRef) {
    let Some(wanted) = state.fleets.get(fleet) else { return };
    let open: Vec<Task> = diff::open(fleet, wanted, state).into_iter().map(|(task, _)| task).collect();
    let Some(wanted) = state.fleets.get_mut(fleet) else { return };
    for (_, progress) in wanted.tasks.iter_mut().filter(|(task, p)| !p.busy && !open.contains(task)) {
        progress.problem = None;
    }
}

/// Takes up what came of it.
fn finish(shared: &Shared, fleet: &FleetRef, task: Task, job: &Job, outcome: Option<Outcome>) {
    let now = Instant::now();
    let mut state = shared.state();
    let is_failure = !matches!(outcome, Some(Ok(_)));
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            tracing::error!(%fleet, ?task, "ended in the midst");
            Ok(None)
        }
    };
    let problem = outcome.as_ref().err().filter(|error| !is_passing(error)).map(|error| {
        let problem = problems::failed(fleet, &what(fleet, task), error);
        match error {
            Error::Api(cause) if matches!(class(cause), Class::Unavailable | Class::NotLeading) => {
                outage::log(&what(fleet, task), &url(fleet, task), cause);
            }
            Error::Slow(_) => outage::log(&what(fleet, task), &url(fleet, task), error),
            _ => tracing::warn!(%fleet, reason = problem.reason, "{}", problem.message),
        }
        problem
    });
    let live = outcome.ok().flatten();
    let edit = edit(&state, fleet, job);
    let again = note(&mut state, fleet, task, job, live.as_ref().map(|(_, live)| live), is_failure, now);
    if let Some(edit) = edit.filter(|_| again) {
        let restored = restored(&state, fleet, &what(fleet, task), &edit);
        tracing::info!(%fleet, "{}", restored.note);
        shared.settings.recorder.publish(restored);
    }
    if let Some(progress) = state.fleets.get_mut(fleet).and_then(|wanted| wanted.tasks.get_mut(&task)) {
        progress.problem = problem;
    }
    if let Some((id, live)) = live {
        state.answered(id, live);
    }
    drop(state);
    shared.notify();
}

/// The edit that made it necessary to apply something again. `None`: nobody, as far as is known; what was applied a
/// moment ago is applied again when it is not seen yet, and then no other has a field of it.
fn edit(state: &Store, fleet: &FleetRef, job: &Job) -> Option<String> {
    let others = |child: ChildKind| state.live(child, fleet).map(|live| live.others.as_slice()).unwrap_or_default();
    match job {
        Job::Apply { child, desired, .. } => {
            managers::of_owners(&desired.body, others(*child), &[]).map(|edit| edit.to_string())
        }
        Job::Create { .. } => Some("somebody deleted it".to_owned()),
        // As above, they are set once more also because the first time is not seen yet.
        Job::Scale { replicas, .. } => {
            let set = serde_json::json!({"spec": {"replicas": replicas}});
            managers::of_owners(&set, others(ChildKind::Deployment), &[]).map(|edit| edit.to_string())
        }
        Job::Replace { .. } | Job::Remove { .. } => None,
    }
}

/// Says that something is as it should be again.
fn restored(state: &Store, fleet: &FleetRef, what: &str, edit: &str) -> Event {
    let regarding = ObjectReference {
        api_version: Some(crds::API_VERSION.into()),
        kind: Some("GatewayFleet".into()),
        namespace: Some(fleet.namespace.clone()),
        name: Some(fleet.name.clone()),
        uid: state.fleets.get(fleet).map(|wanted| wanted.plan.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    };
    let note = format!("{what}: {edit}; it is as GatewayFleet {fleet} has it again: change that one instead");
    Event { regarding, warning: true, reason: reason::RESTORED, action: "Apply", note }
}

/// Notes what was applied, and how soon it may be again. True when it is what had been applied before: something had undone
/// it.
fn note(
    state: &mut Store,
    fleet: &FleetRef,
    task: Task,
    job: &Job,
    live: Option<&LiveObject>,
    is_failure: bool,
    now: Instant,
) -> bool {
    let Some(wanted) = state.fleets.get_mut(fleet) else { return false };
    if let Job::Replace { pods } = job {
        wanted.replacements.take(pods.len(), now);
    }
    let Some(progress) = wanted.tasks.get_mut(&task) else { return false };
    progress.busy = false;
    if is_failure {
        progress.reapply.failed(now);
        return false;
    }
    let mut again = false;
    if let (Some(desired), Some(live)) = (applied(job), live) {
        let same = progress.applied.is_some_and(|applied| applied.desired == desired.hash);
        // What others add changes nothing of ours: then it stays the version that it was.
        again = same && !matches!(job, Job::Apply { version, .. } if *version == live.version);
        progress.applied = Some(Applied { desired: desired.hash, fingerprint: live.fingerprint });
    }
    // The scaler's, too: to set what was set before is to restore it.
    if let Job::Scale { replicas, .. } = job {
        again = progress.scaled == Some(*replicas);
        progress.scaled = Some(*replicas);
    }
    progress.reapply.done(again, now);
    again
}

/// The object that a job applied. (A Deployment is made by the scaler.)
fn applied(job: &Job) -> Option<&Desired> {
    match job {
        Job::Apply { desired, .. } => Some(desired),
        Job::Create { child, desired, .. } => (*child != ChildKind::Deployment).then_some(desired),
        Job::Scale { .. } | Job::Replace { .. } | Job::Remove { .. } => None,
    }
}

/// The object was changed or deleted at the same moment: the next look tells.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Api(error) if class(error) == Class::Conflict)
}

/// Where the API server has what a task is about.
fn url(fleet: &FleetRef, task: Task) -> String {
    let child = match task {
        Task::Object(child) => child,
        Task::Replicas | Task::Replacement | Task::Removal => ChildKind::Deployment,
    };
    format!("{}/{}", DynamicObject::url_path(&child.resource(), Some(&fleet.namespace)), child.name(fleet))
}

fn what(fleet: &FleetRef, task: Task) -> String {
    match task {
        Task::Object(child) => format!("{} {}/{}", child.kind(), fleet.namespace, child.name(fleet)),
        Task::Replicas => {
            format!("spec.replicas of Deployment {}/{}", fleet.namespace, ChildKind::Deployment.name(fleet))
        }
        Task::Replacement => format!("another pod in place of one of fleet {fleet} that crashed"),
        Task::Removal => format!("the end of fleet {fleet}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{settings, small, wanting},
        *,
    };
    use crate::kube::testing::{Answer, api_server};

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_is_asked_again_later() {
        let (client, _asked) = api_server(|_| Answer::Silence);
        let shared = Arc::new(Shared::new(client, settings(), Arc::new(|| ())));
        *shared.state() = wanting(&small(2));
        let mut jobs = Jobs::new(MAX_CONCURRENT_JOBS);
        begin(&shared, &mut jobs);
        let waited = tokio::time::timeout(2 * JOB_TIMEOUT, jobs.ended()).await;
        let ((fleet, task, job), outcome) = waited.expect("it is given up");
        finish(&shared, &fleet, task, &job, outcome);
        let progress = &shared.state().fleets[&fleet].tasks[&task];
        assert!(!progress.busy && progress.reapply.until().is_some());
        assert_eq!(progress.problem.as_ref().map(|problem| problem.reason), Some("ApiServerFails"));
    }
}
