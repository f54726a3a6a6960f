//! What the watches tell the collector.

use kube::{Client, runtime::watcher::Event};
use planner::{Kind, ObjectRef};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    keep,
    outage::Failure,
    raw::Raw,
    resource::Watched,
    steps::{Step, Steps},
};

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change {
    /// All objects of a kind are told from here on; what there was stays until they are.
    Began(Kind),
    /// An object, as it is now, less what is not kept.
    Set(ObjectRef, Value),
    /// An object is no more, or nothing of it is kept.
    Gone(ObjectRef),
    /// All objects of a kind were told: there are no others.
    Listed(Kind, &'static str),
    /// There is no such kind, so there are no objects.
    Absent(Kind, &'static str),
    /// The watch of this name does not work.
    Failing(&'static str, Failure),
    /// It works again.
    Well(&'static str),
}

pub(super) type Changes = mpsc::Sender<Change>;

/// Tells what a watch says until nobody listens.
pub(super) async fn watch(client: Client, watched: &'static Watched, version: &'static str, changes: Changes) {
    let Some(kind) = watched.kind else { return };
    let mut steps = Steps::new(client, watched, version);
    let api_version = watched.api_version(version);
    loop {
        let change = match steps.next().await {
            Step::Event(Event::Init) => Some(Change::Began(kind)),
            Step::Event(Event::InitDone) => Some(Change::Listed(kind, watched.name)),
            Step::Event(Event::InitApply(raw) | Event::Apply(raw)) => set(kind, &api_version, raw),
            Step::Event(Event::Delete(raw)) => keep::identity(kind, &raw.value).map(Change::Gone),
            Step::Failing(failure) => Some(Change::Failing(watched.name, failure)),
            Step::Well => Some(Change::Well(watched.name)),
        };
        // Without a name it is no object, and there is nothing to say it of. An API server has none such.
        let Some(change) = change else { continue };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn set(kind: Kind, api_version: &str, raw: Raw) -> Option<Change> {
    let id = keep::identity(kind, &raw.value)?;
    let mut value = raw.value;
    // What the API server lists does not say what it is.
    let document = value.as_object_mut()?;
    document.insert("apiVersion".into(), json!(api_version));
    document.insert("kind".into(), json!(kind.name()));
    Some(match keep::keep(kind, value) {
        Some(value) => Change::Set(id, value),
        None => Change::Gone(id),
    })
}
