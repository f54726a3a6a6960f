//! The watches, and the changes that they send to the collector.

use std::{fmt, sync::Arc};

use kube::{Client, runtime::watcher::Event};
use planner::{Kind, ObjectRef};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch as channel};

use super::{
    lists::Lists,
    prune,
    raw::Raw,
    resource::{self, Watched},
    watch_error::Failure,
    watch_stream::{WatchStep, WatchStream},
};

/// A change that a watch sends.
#[derive(Debug)]
pub(super) enum Change {
    /// All objects of a kind are told from here on; what there was stays until they are.
    Began(Kind),
    /// An object, as it is now, less what is not kept.
    Set(ObjectRef, Content),
    /// A list of the Secrets of a namespace has begun.
    BeganIn(Arc<str>),
    /// A Secret, of which only this version is known as long as it is not read.
    Seen(ObjectRef, Arc<str>),
    /// A Secret that was asked for, as it is now; nothing: there is none any more.
    Read(ObjectRef, Option<Content>),
    /// A Secret that was asked for can't be read now, for this reason.
    Unread(ObjectRef, String),
    /// An object is no more, or nothing of it is kept.
    Gone(ObjectRef),
    /// All objects of a kind were told: there are no others.
    Listed(Kind, &'static str),
    /// All Secrets of a namespace were told.
    ListedIn(Arc<str>),
    /// The watch of the Secrets of a namespace does not work.
    FailingIn(Arc<str>, Failure),
    /// The kind does not exist, so there are no objects.
    Absent(Kind, &'static str),
    /// The watch of this name does not work.
    Failing(&'static str, Failure),
    /// The watch works again.
    Well(&'static str),
}

/// The kept content of an object, as text: many wait to be taken up (raw.rs says why).
#[derive(Clone)]
pub(super) struct Content(Box<str>);

impl Content {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default() // it is what was written of a value
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

/// Only how long: it may be a Secret's.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where watches tell what they find, and what they are told.
#[derive(Clone)]
pub(super) struct Changes {
    sender: mpsc::Sender<Change>,
    pub(super) lists: Lists,
    /// Everything is to be listed anew.
    anew: channel::Receiver<()>,
}

impl Changes {
    pub(super) fn new(sender: mpsc::Sender<Change>, lists: Lists, anew: channel::Receiver<()>) -> Self {
        Self { sender, lists, anew }
    }

    /// An error: nobody listens any more.
    pub(super) async fn send(&self, change: Change) -> Result<(), mpsc::error::SendError<Change>> {
        self.sender.send(change).await
    }

    /// Returns when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Returns when everything is to be listed anew.
    async fn anew(&mut self) {
        if self.anew.changed().await.is_err() {
            std::future::pending::<()>().await; // nobody will say so
        }
    }
}

/// Tells what a watch says until nobody listens.
pub(super) async fn watch(client: Client, watched: &'static Watched, version: &'static str, mut changes: Changes) {
    let Some(kind) = watched.kind else { return };
    let mut stream = WatchStream::new(client.clone(), changes.lists.clone(), watched, version, None);
    let api_version = watched.api_version(version);
    loop {
        let step = tokio::select! {
            step = stream.next() => step,
            () = changes.anew() => {
                stream = WatchStream::new(client.clone(), changes.lists.clone(), watched, version, None);
                continue;
            }
        };
        let change = match step {
            WatchStep::Event(Event::Init) => Some(Change::Began(kind)),
            WatchStep::Event(Event::InitDone) => Some(Change::Listed(kind, watched.name)),
            WatchStep::Event(Event::InitApply(raw) | Event::Apply(raw)) => set(kind, &api_version, &raw),
            WatchStep::Event(Event::Delete(raw)) => prune::identity(kind, &raw.value()).map(Change::Gone),
            WatchStep::Failing(failure) => Some(Change::Failing(watched.name, failure)),
            WatchStep::Well => Some(Change::Well(watched.name)),
        };
        // Without a name it is no object, and there is nothing to say it of. An API server has none such.
        let Some(change) = change else { continue };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// Tells what there is of the Secrets of a namespace until nobody listens.
pub(super) async fn secrets(client: Client, namespace: Arc<str>, changes: Changes) {
    let (watched, place) = (resource::secrets(), Some(Arc::clone(&namespace)));
    let mut stream = WatchStream::new(client, changes.lists.clone(), watched, watched.versions[0], place);
    loop {
        let change = match stream.next().await {
            WatchStep::Event(Event::Init) => Some(Change::BeganIn(Arc::clone(&namespace))),
            WatchStep::Event(Event::InitDone) => Some(Change::ListedIn(Arc::clone(&namespace))),
            WatchStep::Event(Event::InitApply(raw) | Event::Apply(raw)) => {
                prune::identity(Kind::Secret, &raw.value()).map(|id| Change::Seen(id, raw.version().into()))
            }
            WatchStep::Event(Event::Delete(raw)) => prune::identity(Kind::Secret, &raw.value()).map(Change::Gone),
            WatchStep::Failing(failure) => Some(Change::FailingIn(Arc::clone(&namespace), failure)),
            WatchStep::Well => Some(Change::Well(watched.name)),
        };
        let Some(change) = change else { continue };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

fn set(kind: Kind, api_version: &str, raw: &Raw) -> Option<Change> {
    let value = raw.value();
    let id = prune::identity(kind, &value)?;
    Some(match kept(kind, api_version, value) {
        Some(content) => Change::Set(id, content),
        None => Change::Gone(id),
    })
}

/// The kept content of an object, if anything is kept.
pub(super) fn kept(kind: Kind, api_version: &str, value: Value) -> Option<Content> {
    prune::keep(kind, typed(kind, api_version, value)).map(Content::from)
}

/// The object with what it is, which the API server says of what it watches, but not of what it lists. Always at the same
/// place: the order of fields is a part of what is compared.
fn typed(kind: Kind, api_version: &str, value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let mut document = Map::from_iter([("apiVersion".into(), json!(api_version)), ("kind".into(), json!(kind.name()))]);
    for (key, value) in fields {
        document.entry(key).or_insert(value);
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_and_watched_are_the_same() {
        let metadata = json!({"name": "a", "namespace": "b"});
        let listed = json!({"metadata": metadata, "spec": {"ports": []}});
        let watched =
            json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": {"ports": []}, "status": {}});
        let set = |value| match set(Kind::Service, "v1", &serde_json::from_value(value).unwrap()) {
            Some(Change::Set(_, content)) => content.text().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(set(listed), set(watched));
    }
}
