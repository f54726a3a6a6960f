//! The certificates and credentials that were accepted last, in a Secret of the operators' own: one that is broken or gone
//! serves on, whichever operators and proxies end. One that breaks while no operator runs was good before, so all of them are
//! kept. Of credentials they are the digests.
//!
//! The chart makes the Secret, empty, so that it goes with the release; whoever leads fills it. It has one key, and at most
//! 900 KiB: some 170 certificates with their chains, and, of what these leave, some 2,000 Secrets with credentials. Beyond that
//! each namespace keeps its share, what is broken first.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crds::Object;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use planner::{Kind, ObjectRef, credentials};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{
    configmap::{
        DEBOUNCE, MAX_BYTES, READ_RETRY_INTERVAL, REQUEST_TIMEOUT, SHUTDOWN_TIMEOUT, WRITE_PAUSES, WriteError,
    },
    mirror::Stored as _,
    objects::{self, ObjectRecord},
    persisted::ObjectRecords,
};
use crate::{
    kube::{
        api::{Class, RequestError, request},
        backoff::Backoff,
    },
    leader::election::MANAGER,
};

/// The key of the Secret.
const KEY: &str = "certificates.json";

/// The part of a certificate's record that tells whether it has to be written anew.
type Kept = (ObjectRef, Arc<Object>, Option<Timestamp>);

/// Keeps the Secret equal to what is in force.
pub struct Certificates {
    api: Api<Secret>,
    name: String,
    /// The text of the key; empty: there is to be no key. `None`: not told yet, so that what the leader before left stays.
    wanted: watch::Sender<Option<String>>,
    task: JoinHandle<()>,
    kept: Option<Vec<Kept>>,
    /// Whether there is something in the Secret, of whichever operator.
    holds: Arc<AtomicBool>,
}

impl fmt::Debug for Certificates {
    /// Without what it keeps: private keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Starts on `namespace/name`; writes nothing before it is told to keep something.
    pub fn start(client: Client, namespace: &str, name: &str) -> Self {
        let api: Api<Secret> = Api::namespaced(client, namespace);
        let (wanted, receiver) = watch::channel(None);
        let task = tokio::spawn(follow(api.clone(), name.to_owned(), receiver));
        Self { api, name: name.to_owned(), wanted, task, kept: None, holds: Arc::default() }
    }

    /// Reads what the leader before left. Tries until it is answered, unless it is not allowed to read: then nothing is
    /// known, which is said.
    pub fn load(&self) -> BoxFuture<'static, BTreeMap<ObjectRef, ObjectRecord>> {
        let (api, name, holds) = (self.api.clone(), self.name.clone(), Arc::clone(&self.holds));
        Box::pin(async move {
            loop {
                let error = match request(REQUEST_TIMEOUT, api.get_opt(&name)).await {
                    Ok(found) => {
                        let data = found.and_then(|secret| secret.data).unwrap_or_default();
                        holds.fetch_or(data.contains_key(KEY), Ordering::Relaxed);
                        return data.get(KEY).map(|text| parse(&text.0)).unwrap_or_default();
                    }
                    Err(error) if error.class() == Class::Forbidden => {
                        let error = error.message();
                        tracing::error!(
                            error,
                            "the certificates accepted last can't be read: one that is broken is lost"
                        );
                        return BTreeMap::new();
                    }
                    Err(error) => error,
                };
                tracing::warn!(secret = name, %error, "can't read the certificates accepted last; tries again");
                tokio::time::sleep(READ_RETRY_INTERVAL).await;
            }
        })
    }

    /// Keeps the certificates that proxies serve by, and the credentials that consumers are known by, `in_force`; `accepted` are
    /// those that are in use as they are. What a fleet only names, without a permission, takes no room.
    pub fn keep(&mut self, records: &ObjectRecords, accepted: &BTreeSet<ObjectRef>, in_force: &BTreeSet<ObjectRef>) {
        let first = ObjectRef { kind: Kind::Secret, namespace: String::new(), name: String::new() };
        let all = || records.range(first.clone()..).take_while(|(id, _)| id.kind == Kind::Secret);
        let secrets = || all().filter(|(id, _)| in_force.contains(*id));
        let kept = secrets().filter_map(|(id, known)| Some((id.clone(), known.accepted.clone()?, known.gone)));
        let kept: Vec<Kept> = kept.collect();
        let same = |a: &Kept, b: &Kept| (&a.0, a.2) == (&b.0, b.2) && (Arc::ptr_eq(&a.1, &b.1) || a.1 == b.1);
        let is_known = |known: &Vec<Kept>| kept.len() == known.len() && kept.iter().zip(known).all(|(a, b)| same(a, b));
        // Nothing to say, and nothing was ever said: there is no need for a Secret.
        let needless = kept.is_empty() && !self.holds.load(Ordering::Relaxed);
        if needless || self.kept.as_ref().is_some_and(is_known) {
            return;
        }
        self.kept = Some(kept);
        self.holds.store(true, Ordering::Relaxed);
        let records = secrets().filter(|(_, known)| known.accepted.is_some());
        let (credentials, certificates): (Vec<_>, Vec<_>) =
            records.partition(|(_, known)| known.accepted.as_deref().is_some_and(credentials::is_digested));
        let records = [certificates, credentials].map(|group| {
            let record = |(id, known): (_, &ObjectRecord)| (id, !accepted.contains(id), known.json(id).to_string());
            group.into_iter().map(record).collect()
        });
        self.wanted.send_replace(Some(text(records, MAX_BYTES)));
    }

    /// Waits a moment for the last write.
    pub async fn finish(self) {
        drop(self.wanted);
        if timeout(SHUTDOWN_TIMEOUT, self.task).await.is_err() {
            tracing::warn!(secret = self.name, "the certificates accepted last could not be written to the end");
        }
    }
}

/// A record: whose it is, whether that is broken now, and its text.
type Line<'a> = (&'a ObjectRef, bool, String);

/// The records within the bound; those of a later group have the room that the ones before leave.
fn text(groups: [Vec<Line<'_>>; 2], room: usize) -> String {
    let (mut lines, mut left_out, mut room) = (vec![], vec![], room);
    for records in groups {
        share(records, &mut room, &mut lines, &mut left_out);
    }
    if !left_out.is_empty() {
        let (count, first) = (left_out.len(), left_out.first());
        tracing::error!(
            count,
            first,
            most = MAX_BYTES,
            "more certificates and credentials are in use than the operators' Secret holds: should one of those that are left \
             out break while no operator runs, it serves no more"
        );
    }
    if lines.is_empty() { String::new() } else { format!("[{}]", lines.join(",\n")) }
}

/// Takes records within the room that is left. Of too many, namespaces give their next in turn, whichever took least before:
/// of each what is broken now comes first.
fn share(mut records: Vec<Line<'_>>, room: &mut usize, lines: &mut Vec<String>, left_out: &mut Vec<String>) {
    records.sort_by(|(a, broken, _), (b, too, _)| (&a.namespace, !broken, &a.name).cmp(&(&b.namespace, !too, &b.name)));
    // By bytes taken and namespace.
    let mut turns: BTreeSet<(usize, &str)> = records.iter().map(|(id, ..)| (0, id.namespace.as_str())).collect();
    let mut queues: BTreeMap<&str, VecDeque<(&ObjectRef, String)>> = BTreeMap::new();
    for (id, _, line) in records {
        queues.entry(&id.namespace).or_default().push_back((id, line));
    }
    while let Some((taken, namespace)) = turns.pop_first() {
        let Some((id, line)) = queues.get_mut(namespace).and_then(|queue| queue.pop_front()) else { continue };
        // A comma and a line break, or the brackets.
        let size = line.len() + 2;
        match room.checked_sub(size) {
            Some(rest) => {
                *room = rest;
                lines.push(line);
            }
            None => left_out.push(id.to_string()),
        }
        turns.insert((taken + size, namespace));
    }
}

fn parse(text: &[u8]) -> BTreeMap<ObjectRef, ObjectRecord> {
    let records: Vec<Value> = serde_json::from_slice(text)
        // The error could quote what it read.
        .map_err(|_| tracing::warn!("{KEY} of the operators' Secret is not understood"))
        .unwrap_or_default();
    let known = records.into_iter().filter_map(objects::from_record);
    known.filter(|(id, _)| id.kind == Kind::Secret).collect()
}

async fn follow(api: Api<Secret>, name: String, mut wanted: watch::Receiver<Option<String>>) {
    let (mut written, mut retries) = (None, Backoff::new(WRITE_PAUSES));
    loop {
        let ended = wanted.changed().await.is_err();
        loop {
            let Some(text) = wanted.borrow_and_update().clone().filter(|text| written.as_ref() != Some(text)) else {
                break;
            };
            match write(&api, &name, &text).await {
                Ok(()) => {
                    written = Some(text);
                    retries.reset();
                }
                Err(error) => {
                    let pause = retries.pause();
                    tracing::warn!(
                        secret = name,
                        %error,
                        ?pause,
                        "can't write the certificates accepted last; tries again"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
        if ended {
            return;
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

async fn write(api: &Api<Secret>, name: &str, text: &str) -> Result<(), WriteError> {
    // A merge patch, unlike an apply, makes nothing that is not there.
    let patch = match text {
        "" => json!({"data": {KEY: null}}),
        text => json!({"stringData": {KEY: text}}),
    };
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match request(REQUEST_TIMEOUT, api.patch(name, &params, &Patch::Merge(patch))).await {
        Ok(_) => Ok(()),
        // What was sent is not quoted.
        Err(RequestError::Failed(kube::Error::Api(status))) if status.code != 404 => {
            Err(WriteError::Refused(status.code, status.reason))
        }
        Err(error) => match error.class() {
            // Whoever leads now writes what it knows.
            Class::NotLeading => Ok(()),
            Class::NotFound => Err(WriteError::Missing("Secret")),
            _ => Err(WriteError::Request(error)),
        },
    }
}

#[cfg(test)]
mod tests;
