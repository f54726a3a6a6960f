//! One object of the operators' own: the leader keeps it as it should be, and its successor reads it. The chart makes it; it
//! is only ever filled, so that it goes with the release: made anew by an operator that is about to end, it would be left
//! behind.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    kube::{
        api::{Class, RequestError, request},
        backoff::{Backoff, Bounds},
    },
    leader::election::MANAGER,
};

/// Writes that follow within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// After an error, the next attempt; writing, twice as long after each further one.
const READ_RETRY_INTERVAL: Duration = Duration::from_secs(2);
const WRITE_PAUSES: Bounds = Bounds::new(READ_RETRY_INTERVAL, Duration::from_secs(60));
/// At the end, the last write is waited for so long.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// A request that takes longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The data of the object as it should be, of which empty texts are not there; keys that are not here stay as they are.
pub(super) type Data = BTreeMap<&'static str, String>;

/// A kind of object that holds texts by key.
pub(super) trait Holder:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Its name in messages.
    const KIND: &'static str;
    /// Whether it may hold what must not be quoted.
    const IS_SECRET: bool;
    /// A merge patch that makes its data so.
    fn patch(data: &Data) -> Value;
    /// Its data.
    fn data(self) -> BTreeMap<String, Vec<u8>>;
}

impl Holder for ConfigMap {
    const KIND: &'static str = "ConfigMap";
    const IS_SECRET: bool = false;

    fn patch(data: &Data) -> Value {
        let data: BTreeMap<_, _> = data.iter().map(|(key, text)| (key, (!text.is_empty()).then_some(text))).collect();
        json!({ "data": data })
    }

    fn data(self) -> BTreeMap<String, Vec<u8>> {
        self.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes())).collect()
    }
}

impl Holder for Secret {
    const KIND: &'static str = "Secret";
    const IS_SECRET: bool = true;

    fn patch(data: &Data) -> Value {
        let (gone, there): (Vec<_>, Vec<_>) = data.iter().partition(|(_, text)| text.is_empty());
        let gone: BTreeMap<_, _> = gone.into_iter().map(|(key, _)| (key, Value::Null)).collect();
        let there: BTreeMap<_, _> = there.into_iter().collect();
        let parts = [("data", json!(gone), gone.is_empty()), ("stringData", json!(there), there.is_empty())];
        parts.into_iter().filter(|(.., is_empty)| !is_empty).map(|(key, part, _)| (key.to_owned(), part)).collect()
    }

    fn data(self) -> BTreeMap<String, Vec<u8>> {
        self.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect()
    }
}

/// Where the object is, and what it holds.
#[derive(Clone, Debug)]
pub(super) struct KeptObject<K> {
    api: Api<K>,
    name: String,
    /// What it holds, in messages.
    what: &'static str,
    /// Whether it holds anything, of whichever operator.
    holds: Arc<AtomicBool>,
}

impl<K: Holder> KeptObject<K> {
    pub(super) fn new(client: Client, namespace: &str, name: &str, what: &'static str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), what, holds: Arc::default() }
    }

    /// Whether it holds anything, or is about to.
    pub(super) fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// It is about to hold something.
    pub(super) fn set_holds(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }

    /// Its data. Tries until it is answered, unless it is not allowed to read: then nothing is known, which is said, with
    /// what is `lost` by that.
    pub(super) async fn load(self, lost: &'static str) -> BTreeMap<String, Vec<u8>> {
        let (kind, name, what) = (K::KIND, &self.name, self.what);
        loop {
            let error = match request(REQUEST_TIMEOUT, self.api.get_opt(name)).await {
                Ok(found) => {
                    let data = found.map(K::data).unwrap_or_default();
                    self.holds.fetch_or(!data.is_empty(), Ordering::Relaxed);
                    return data;
                }
                Err(error) if error.class() == Class::Forbidden => {
                    tracing::error!(kind, name, error = error.message(), "{what} can't be read: {lost}");
                    return BTreeMap::new();
                }
                Err(error) => error,
            };
            tracing::warn!(kind, name, %error, "can't read {what}; tries again");
            tokio::time::sleep(READ_RETRY_INTERVAL).await;
        }
    }

    /// Keeps the object as `data` makes it of the newest that is wanted, beside the caller's thread; `None`: nothing is
    /// wanted yet.
    pub(super) fn keep<W: Clone + Send + Sync + 'static>(
        &self,
        wanted: watch::Receiver<W>,
        data: impl FnMut(W) -> Option<Data> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.clone().follow(wanted, data))
    }

    async fn follow<W: Clone + Send + Sync + 'static>(
        self,
        mut wanted: watch::Receiver<W>,
        data: impl FnMut(W) -> Option<Data> + Send + 'static,
    ) {
        let (kind, name, what) = (K::KIND, &self.name, self.what);
        let data = Arc::new(Mutex::new(data));
        let (mut written, mut retries) = (None, Backoff::new(WRITE_PAUSES));
        loop {
            let ended = wanted.changed().await.is_err();
            loop {
                let (newest, data) = (wanted.borrow_and_update().clone(), Arc::clone(&data));
                let make = move || (data.lock().unwrap_or_else(PoisonError::into_inner))(newest);
                let Ok(made) = tokio::task::spawn_blocking(make).await else {
                    tracing::error!(kind, name, "making a text of {what} failed; what was written before stays");
                    break;
                };
                // Nothing to say, and nothing was ever said: there is no need for an object.
                let is_needless = |data: &Data| data.values().all(String::is_empty) && !self.holds();
                let Some(data) = made.filter(|data| !is_needless(data) && written.as_ref() != Some(data)) else {
                    break;
                };
                self.set_holds();
                match self.write(&data).await {
                    Ok(()) => {
                        written = Some(data);
                        retries.reset();
                    }
                    Err(error) => {
                        let pause = retries.pause();
                        tracing::warn!(kind, name, %error, ?pause, "can't write {what}; tries again");
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

    /// Writes the data. A merge patch, unlike an apply, makes nothing that is not there.
    pub(super) async fn write(&self, data: &Data) -> Result<(), WriteError> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(K::patch(data));
        let Err(error) = request(REQUEST_TIMEOUT, self.api.patch(&self.name, &params, &patch)).await else {
            return Ok(());
        };
        match (error.class(), error) {
            // Whoever leads now writes what it knows.
            (Class::NotLeading, _) => Ok(()),
            (Class::NotFound, _) => Err(WriteError::Missing(K::KIND)),
            (_, RequestError::Failed(kube::Error::Api(status))) if K::IS_SECRET => {
                Err(WriteError::Refused(status.code, status.reason))
            }
            (_, error) => Err(WriteError::Request(error)),
        }
    }

    /// Waits a moment for the last write, once nothing else is wanted.
    pub(super) async fn finish(&self, task: JoinHandle<()>) {
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, task).await.is_err() {
            tracing::warn!(kind = K::KIND, name = self.name, "{} could not be written to the end", self.what);
        }
    }
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The object is not there.
    #[error("there is no such {0}: it comes with the chart, apply that again")]
    Missing(&'static str),
    /// The API server refused it. Its message is left out, which may quote a secret.
    #[error("{0} {1}")]
    Refused(u16, String),
    /// The request failed.
    #[error(transparent)]
    Request(RequestError),
}
