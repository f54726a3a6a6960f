//! Statuses into an API server, by server-side apply of the `status` subresource.
//!
//! Apply, and not a merge patch: what a status no longer says goes by itself, conditions that others add stay, and a
//! status that is there already changes nothing. The object's uid goes along, so that nothing is said of an object of
//! the same name that came later.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use planner::{Kind, ObjectRef, Status};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Input, Pace, derive,
    queue::{Job, Outcome, Queue},
};
use crate::{fence, outage, source::kube::Raw, state::plural};

/// Who writes statuses.
const MANAGER: &str = "sluice-status";
/// Writes at a time.
const AT_ONCE: usize = 8;
/// A write that takes longer is given up, and tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Objects in one answer to a list: each may have 1.5 MiB, all of which is in memory for a moment.
const PAGE: u32 = 25;
/// After an error, the next attempt to list.
const RETRY: Duration = Duration::from_secs(2);
/// At the end, what is still to be written is waited for so long.
const LAST: Duration = Duration::from_secs(2);
/// Kinds that have a status.
const KINDS: [Kind; 3] = [Kind::GatewayFleet, Kind::ApiRoute, Kind::RatePolicy];

pub(super) async fn follow(client: Client, pace: Pace, mut receiver: watch::Receiver<Input>) {
    if receiver.changed().await.is_err() {
        return; // it never led
    }
    receiver.mark_changed();
    // What an earlier leader wrote: the times of conditions go on from there, and what is the same is not written again.
    let mut present = present(&client).await;
    let mut previous = Arc::new(present.clone());
    let mut queue = Queue::default();
    let mut writes = JoinSet::new();
    let mut not_before = Instant::now();
    loop {
        let now = Instant::now();
        while writes.len() < AT_ONCE
            && let Some(job) = queue.take(now)
        {
            writes.spawn(write(client.clone(), job));
        }
        let wake = queue.next().filter(|_| writes.len() < AT_ONCE);
        tokio::select! {
            changed = ready(&mut receiver, not_before) => {
                if !changed {
                    break;
                }
                let input = receiver.borrow_and_update().clone();
                let derived = derive(input, Arc::clone(&previous), |input, statuses| (wanted(input, &statuses), statuses));
                let Some((wanted, statuses)) = derived.await else { continue };
                queue.want(wanted, std::mem::take(&mut present), pace.drift, Instant::now());
                previous = Arc::new(statuses);
                not_before = Instant::now() + pace.coalesce;
            }
            Some(Ok((job, outcome))) = writes.join_next() => queue.done(job, outcome, pace.drift, Instant::now()),
            () = sleep_until(wake) => {}
        }
    }
    let rest = async {
        loop {
            while writes.len() < AT_ONCE
                && let Some(job) = queue.take(Instant::now())
            {
                writes.spawn(write(client.clone(), job));
            }
            let Some(Ok((job, outcome))) = writes.join_next().await else { break };
            queue.done(job, outcome, pace.drift, Instant::now());
        }
    };
    if tokio::time::timeout(LAST, rest).await.is_err() {
        tracing::warn!("the last statuses could not be written in time; the next leader writes them");
    }
}

/// Waits for the next input, but not before that moment. False: there is none any more.
async fn ready(receiver: &mut watch::Receiver<Input>, not_before: Instant) -> bool {
    tokio::time::sleep_until(not_before.into()).await;
    receiver.changed().await.is_ok()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Statuses with the uid of the very object that each is of.
fn wanted(input: &Input, statuses: &BTreeMap<ObjectRef, Status>) -> BTreeMap<ObjectRef, (Option<Arc<str>>, Status)> {
    let uid = |id: &ObjectRef| Some(Arc::clone(&input.observed.objects.get(id)?.birth.as_ref()?.uid));
    statuses.iter().map(|(id, status)| (id.clone(), (uid(id), status.clone()))).collect()
}

/// The statuses that the API server has.
async fn present(client: &Client) -> BTreeMap<ObjectRef, Status> {
    let mut present = BTreeMap::new();
    for kind in KINDS {
        loop {
            match list(client, kind).await {
                Ok(listed) => break present.extend(listed),
                Err(error) => {
                    outage::log(&format!("statuses of {kind:?}s"), plural(kind), &error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
    present
}

/// Statuses are read as values: one that is not understood hides no other.
async fn list(client: &Client, kind: Kind) -> Result<BTreeMap<ObjectRef, Status>, String> {
    let api: Api<Raw> = Api::all_with(client.clone(), &resource(kind));
    let mut found = BTreeMap::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = tokio::time::timeout(PATIENCE, api.list(&params)).await;
        let page = page.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        for raw in page.items {
            let Some(status) = super::status(kind, raw.value()["status"].take()) else { continue };
            let (Some(namespace), Some(name)) = (raw.namespace(), raw.meta().name.clone()) else { continue };
            found.insert(ObjectRef { kind, namespace, name }, status);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn write(client: Client, job: Job) -> (Job, Outcome) {
    let Job { object: ObjectRef { kind, namespace, name }, uid, status } = &job;
    // The answer is the whole object, of which nothing is read.
    let api: Api<Raw> = Api::namespaced_with(client, namespace, &resource(*kind));
    let mut patch = json!({
        "apiVersion": crds::API_VERSION,
        "kind": format!("{kind:?}"),
        "metadata": {"name": name, "namespace": namespace},
        "status": status,
    });
    if let Some(uid) = uid {
        patch["metadata"]["uid"] = (**uid).into();
    }
    let params = PatchParams::apply(MANAGER).force();
    let done = tokio::time::timeout(PATIENCE, api.patch_status(name, &params, &Patch::Apply(patch))).await;
    let (object, url) = (&job.object, format!("{}/{name}/status", api.resource_url()));
    let outcome = match done {
        Ok(Ok(_)) => Outcome::Written,
        Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => {
            tracing::debug!(%object, answer = answer.message, "the status has no object any more");
            Outcome::Gone
        }
        // The process ends in a moment.
        Ok(Err(error)) if fence::is_not_leading(&error) => Outcome::Failed,
        Ok(Err(error)) if outage::is_one(&error) => {
            outage::log(&format!("status of {object}"), &url, &error);
            Outcome::Failed
        }
        Ok(Err(error)) => {
            tracing::warn!(%object, %error, "the status can't be written; tries again");
            Outcome::Failed
        }
        Err(_) => {
            outage::log(&format!("status of {object}"), &url, &"no answer");
            Outcome::Failed
        }
    };
    (job, outcome)
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version) = crds::API_VERSION.split_once('/').unwrap_or_default();
    let kind_name = format!("{kind:?}");
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind_name), plural(kind))
}
