//! Statuses into an API server, by server-side apply of the `status` subresource.
//!
//! Apply, and not a merge patch: what a status no longer says goes by itself, conditions that others add stay, and a
//! status that is there already changes nothing. The object's uid goes along, so that nothing is said of an object of
//! the same name that came later.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::header::{ACCEPT, HeaderValue};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind, Request},
};
use planner::{Kind, ObjectRef, Status};
use serde_json::json;
use tokio::sync::watch;

use super::{
    Input, Pace, derive,
    queue::{Job, Outcome, Queue},
};
use crate::{
    kube::{
        api::{Class, RequestError, request},
        keyed_tasks::KeyedTasks,
        outage,
    },
    source::kube::{Lists, Raw},
};

/// The field manager of statuses.
const MANAGER: &str = "sluice-status";
/// Writes at a time.
const MAX_CONCURRENT_WRITES: usize = 8;
/// A write that takes longer is given up, and tried again a second later: what waits for an API server that is silent
/// waits little longer than this once it answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// No more of an object is asked back when its status is written: it may have 1.5 MiB, and nothing of it is read.
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
/// Objects in one answer to a list: each may have 1.5 MiB, all of which is in memory for a moment.
const PAGE_LEN: u32 = 8;
/// A page that takes longer is given up, and all is listed again.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// After an error, the next attempt to list.
const LIST_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// At the end, what is still to be written is waited for so long.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn follow(client: Client, lists: Lists, pace: Pace, mut receiver: watch::Receiver<Input>) {
    if receiver.changed().await.is_err() {
        return; // it never led
    }
    receiver.mark_changed();
    // What an earlier leader wrote: the times of conditions go on from there, and what is the same is not written again.
    let mut present = present(&client, &lists).await;
    let mut previous = Arc::new(present.clone());
    let mut queue = Queue::default();
    let mut writes = KeyedTasks::new(MAX_CONCURRENT_WRITES);
    let mut not_before = Instant::now();
    loop {
        begin(&client, &mut queue, &mut writes);
        let wake = queue.next().filter(|_| writes.has_room());
        tokio::select! {
            changed = ready(&mut receiver, not_before) => {
                if !changed {
                    break;
                }
                let input = receiver.borrow_and_update().clone();
                let began = Instant::now();
                let derived = derive(input, Arc::clone(&previous), |input, statuses| (wanted(input, &statuses), statuses));
                let Some((wanted, statuses)) = derived.await else { continue };
                queue.want(wanted, std::mem::take(&mut present), pace.drift, Instant::now());
                previous = Arc::new(statuses);
                // A fifth of a thread at most goes into them. Few are told sooner.
                let pause = (began.elapsed() * 4).clamp(pace.coalesce / 5, pace.coalesce);
                not_before = Instant::now() + pause;
            }
            (job, outcome) = writes.ended() => done(&mut queue, job, outcome, pace.drift),
            () = sleep_until(wake) => {}
        }
    }
    let rest = async {
        loop {
            begin(&client, &mut queue, &mut writes);
            if writes.is_empty() {
                break;
            }
            let (job, outcome) = writes.ended().await;
            done(&mut queue, job, outcome, pace.drift);
        }
    };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
        tracing::warn!("the last statuses could not be written in time; the next leader writes them");
    }
}

/// Begins the writes that are due, as far as there is room.
fn begin(client: &Client, queue: &mut Queue, writes: &mut KeyedTasks<Job, Outcome>) {
    let now = Instant::now();
    while writes.has_room()
        && let Some(job) = queue.take(now)
    {
        writes.begin(job.clone(), write(client.clone(), job));
    }
}

/// Takes up how a write ended. One that panicked, by a bug of ours, does so again: it is tried as rarely as what is refused.
fn done(queue: &mut Queue, job: Job, outcome: Option<Outcome>, drift: Duration) {
    queue.done(job, outcome.unwrap_or(Outcome::Refused), drift, Instant::now());
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
    let uid = |id: &ObjectRef| Some(Arc::clone(&input.observed.objects.get(id)?.creation.as_ref()?.uid));
    statuses.iter().map(|(id, status)| (id.clone(), (uid(id), status.clone()))).collect()
}

/// The statuses that the API server has.
async fn present(client: &Client, lists: &Lists) -> BTreeMap<ObjectRef, Status> {
    let mut present = BTreeMap::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.info().has_status) {
        loop {
            match list(client, lists, kind).await {
                Ok(listed) => break present.extend(listed),
                // Its definition is not installed, or not yet: the statuses of other kinds need not wait for that.
                Err(error) if error.class() == Class::NotFound => break,
                Err(error) => {
                    outage::log(&format!("statuses of {}s", kind.name()), kind.plural(), &error);
                    tokio::time::sleep(LIST_RETRY_INTERVAL).await;
                }
            }
        }
    }
    present
}

/// Statuses are read as values: one that is not understood hides no other.
async fn list(client: &Client, lists: &Lists, kind: Kind) -> Result<BTreeMap<ObjectRef, Status>, RequestError> {
    let api: Api<Raw> = Api::all_with(client.clone(), &resource(kind));
    let mut found = BTreeMap::new();
    let mut params = ListParams::default().limit(PAGE_LEN);
    loop {
        // For this page alone: the source, if it lists too, takes its pages in between.
        let _turn = lists.turn().await;
        let page = request(PAGE_TIMEOUT, api.list(&params)).await?;
        for raw in page.items {
            let Some(status) = Status::read(kind, raw.value()["status"].take()) else { continue };
            let (Some(namespace), Some(name)) = (raw.namespace(), raw.meta().name.clone()) else { continue };
            found.insert(ObjectRef { kind, namespace, name }, status);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn write(client: Client, job: Job) -> Outcome {
    let object = &job.object;
    let api: Api<Raw> = Api::namespaced_with(client.clone(), &object.namespace, &resource(object.kind));
    let done = request(REQUEST_TIMEOUT, apply(&client, &api, &job)).await;
    let fails = |error: &dyn fmt::Display| {
        let url = format!("{}/{}/status", api.resource_url(), object.name);
        outage::log(&format!("status of {object}"), &url, error);
    };
    let Err(error) = done else { return Outcome::Written };
    match error.class() {
        Class::NotFound | Class::Conflict => {
            tracing::debug!(%object, answer = error.message(), "the status has no object any more");
            Outcome::Gone
        }
        // The process ends in a moment.
        Class::NotLeading => Outcome::Refused,
        Class::Unavailable | Class::NoAnswer => {
            fails(&error);
            // At 500, it may fail at this very object.
            if error.code() == Some(500) { Outcome::Failed } else { Outcome::Unreached }
        }
        Class::Forbidden | Class::Invalid | Class::Other => {
            tracing::warn!(%object, %error, "the status can't be written; tries again");
            Outcome::Refused
        }
    }
}

async fn apply(client: &Client, api: &Api<Raw>, job: &Job) -> Result<(), kube::Error> {
    let Job { object: ObjectRef { kind, namespace, name }, uid, status } = job;
    let mut patch = json!({
        "apiVersion": api_version(*kind),
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": namespace},
        "status": status,
    });
    if let Some(uid) = uid {
        patch["metadata"]["uid"] = (**uid).into();
    }
    let (request, params) = (Request::new(api.resource_url()), PatchParams::apply(MANAGER).force());
    let request = request.patch_subresource("status", name, &params, &Patch::Apply(patch));
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, METADATA);
    client.request_text(request).await.map(drop)
}

fn resource(kind: Kind) -> ApiResource {
    let version = kind.info().versions().next().unwrap_or_default();
    let gvk = GroupVersionKind::gvk(kind.info().group(), version, kind.name());
    ApiResource::from_gvk_with_plural(&gvk, kind.plural())
}

/// The version that is written.
fn api_version(kind: Kind) -> &'static str {
    kind.api_versions().first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crds::policy::RatePolicyStatus;

    use super::*;
    use crate::kube::testing::{Answer, api_server};

    fn job() -> Job {
        let status = Status::Policy(RatePolicyStatus { conditions: vec![], targets: 1, limited: None });
        let object = ObjectRef { kind: Kind::RatePolicy, namespace: "shop".into(), name: "p".into() };
        Job { object, uid: Some("u".into()), status }
    }

    #[tokio::test]
    async fn of_what_is_written_only_metadata_comes_back() {
        let (client, mut asked) = api_server(|_| Answer::json(200, json!({"metadata": {"name": "p"}})));
        assert_eq!(write(client, job()).await, Outcome::Written);
        let asked = asked.recv().await.unwrap();
        let at = "/apis/sluice.dev/v1alpha1/namespaces/shop/ratepolicies/p/status";
        assert_eq!((asked.method.as_str(), asked.uri.path()), ("PATCH", at));
        assert_eq!(asked.header("accept"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    }

    #[tokio::test]
    async fn what_comes_of_a_write() {
        let cases = [
            (404, Outcome::Gone),
            (409, Outcome::Gone),
            (422, Outcome::Refused),
            (403, Outcome::Refused),
            (500, Outcome::Failed),
            (503, Outcome::Unreached),
            (429, Outcome::Unreached),
        ];
        for (code, expect) in cases {
            let (client, _asked) = api_server(move |_| Answer::status(code));
            assert_eq!(write(client, job()).await, expect, "{code}");
        }
    }

    /// What is present is listed in turns with what the source lists.
    #[tokio::test(start_paused = true)]
    async fn statuses_are_listed_in_turns() {
        let none = json!({"kind": "L", "apiVersion": "v1", "metadata": {}, "items": []});
        let (client, mut asked) = api_server(move |_| Answer::json(200, none.clone()));
        let lists = Lists::default();
        let turns = (lists.turn().await, lists.turn().await);
        let mut listing = tokio::spawn(async move { present(&client, &lists).await });
        assert!(tokio::time::timeout(Duration::from_secs(60), &mut listing).await.is_err());
        assert!(asked.try_recv().is_err());
        drop(turns);
        assert_eq!(listing.await.unwrap(), BTreeMap::new());
        assert!(asked.recv().await.unwrap().uri.to_string().ends_with("gatewayfleets?&limit=8"));
    }
}
