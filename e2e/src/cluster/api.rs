//! The API server, asked from plain threads, in JSON: the tests say what is sent and read what comes back.

use std::{path::Path, sync::mpsc, time::Duration};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use http::{Method, Request};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    core::{Status, WatchEvent},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::resource::Resource;

/// A connection to the API server.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

/// An answer of the API server that is no success.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// The status.
    pub code: u16,
    /// The whole message.
    pub message: String,
    /// The fields it names with what it says of each.
    pub causes: Vec<(String, String)>,
}

impl Api {
    /// Connects as the kubeconfig says.
    pub fn connect(kubeconfig: &Path) -> anyhow::Result<Api> {
        // One thread runs the watches while the caller's thread waits for its own requests.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            config.proxy_url = None;
            // The tests want to see each answer.
            config.default_retry = false;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Api { runtime, client })
    }

    /// Sends a request; the outer error is none of the API server's making.
    pub fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Result<Value, Refusal>> {
        self.send_as(None, method, path, body)
    }

    /// Sends a request with the rights of a user, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub fn send_as(
        &self,
        user: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Result<Value, Refusal>> {
        let content = match method {
            Method::PATCH if path.contains("fieldManager=") => "application/apply-patch+yaml",
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = Request::builder().method(method).uri(path).header("content-type", content);
        if let Some(user) = user {
            request = request.header("impersonate-user", user);
        }
        let request = request.body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default())?;
        match self.runtime.block_on(self.client.request::<Value>(request)) {
            Ok(value) => Ok(Ok(value)),
            Err(kube::Error::Api(status)) => Ok(Err(Refusal::from(*status))),
            Err(error) => Err(error).with_context(|| path.to_owned()),
        }
    }

    /// An object, `None` if it does not exist.
    pub fn get(&self, resource: Resource, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        match self.send(Method::GET, &resource.named(namespace, name), None)? {
            Ok(value) => Ok(Some(value)),
            Err(refusal) if refusal.code == 404 => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The objects of a namespace (of all, if it is empty) that a label selector finds.
    pub fn list(&self, resource: Resource, namespace: &str, labels: &str) -> anyhow::Result<Vec<Value>> {
        let labels = labels.replace('=', "%3D").replace(',', "%2C");
        let path = format!("{}?labelSelector={labels}", resource.all(namespace));
        let mut list = self.send(Method::GET, &path, None)??;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Server-side apply, with conflicts forced.
    pub fn apply(&self, resource: Resource, object: &Value, manager: &str) -> anyhow::Result<Value> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let path = resource.named(text("/metadata/namespace"), text("/metadata/name"));
        Ok(self.send(Method::PATCH, &format!("{path}?fieldManager={manager}&force=true"), Some(object))??)
    }

    /// A JSON merge patch.
    pub fn patch(&self, resource: Resource, namespace: &str, name: &str, patch: &Value) -> anyhow::Result<Value> {
        Ok(self.send(Method::PATCH, &resource.named(namespace, name), Some(patch))??)
    }

    /// Deletes an object, its dependents in the background; one that does not exist is no error.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str, grace: Option<u32>) -> anyhow::Result<()> {
        let mut options = json!({"propagationPolicy": "Background"});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = grace.into();
        }
        match self.send(Method::DELETE, &resource.named(namespace, name), Some(&options))? {
            Err(refusal) if refusal.code != 404 => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// Text, such as a pod's log or what a pod answers through the API server.
    pub fn text(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(body.map(|body| body.to_string().into_bytes()).unwrap_or_default())?;
        self.runtime.block_on(self.client.request_text(request)).with_context(|| path.to_owned())
    }

    /// The log of a pod's only container, or of the one before it.
    pub fn log(&self, namespace: &str, pod: &str, previous: bool) -> anyhow::Result<String> {
        let path = format!("{}/log?previous={previous}&tailLines=400", Resource::PODS.named(namespace, pod));
        self.text(Method::GET, &path, None)
    }

    /// Evicts a pod, as draining a node does; false when its disruption budget forbids it now.
    pub fn evict(&self, namespace: &str, pod: &str) -> anyhow::Result<bool> {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod},
        });
        match self.send(Method::POST, &format!("{}/eviction", Resource::PODS.named(namespace, pod)), Some(&eviction))? {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.code == 429 => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Server-side apply of every document of a manifest.
    pub fn apply_all(&self, manifest: &str, manager: &str) -> anyhow::Result<()> {
        for document in serde_yaml::from_multiple::<Value>(manifest)? {
            let kind = document["kind"].as_str().unwrap_or_default();
            let resource = Resource::of(kind).with_context(|| format!("kind {kind:?} is not known here"))?;
            self.apply(resource, &document, manager)?;
        }
        Ok(())
    }

    /// Events of the objects of a namespace from now on: `ADDED`, `MODIFIED` or `DELETED`, and the object. Ends when
    /// the receiver is dropped, or after a day.
    pub fn watch(&self, resource: Resource, namespace: &str) -> anyhow::Result<mpsc::Receiver<(&'static str, Value)>> {
        let list = self.send(Method::GET, &format!("{}?limit=1", resource.all(namespace)), None)??;
        let from = list["metadata"]["resourceVersion"].as_str().context("a list without a version")?;
        let path = format!("{}?watch=true&resourceVersion={from}&timeoutSeconds=86400", resource.all(namespace));
        let request = Request::get(path).body(Vec::new())?;
        let events = self.runtime.block_on(self.client.request_events::<Value>(request))?;
        let (send, receive) = mpsc::channel();
        self.runtime.spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                let event = match event {
                    WatchEvent::Added(object) => ("ADDED", object),
                    WatchEvent::Modified(object) => ("MODIFIED", object),
                    WatchEvent::Deleted(object) => ("DELETED", object),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                if send.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(receive)
    }

    /// Waits until `done` gives something, or fails with `what` that did not come.
    pub fn eventually<T>(
        &self,
        what: &str,
        within: Duration,
        mut done: impl FnMut(&Api) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let mut last = None;
        let found = crate::harness::eventually(what, within, || match done(self) {
            Ok(found) => found,
            Err(error) => {
                last = Some(error);
                None
            }
        });
        match (found, last) {
            (Err(late), Some(error)) => Err(error.context(late.to_string())),
            (found, _) => found,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let causes = causes.into_iter().map(|cause| (cause.field, cause.message)).collect();
        Refusal { code: status.code, message: status.message, causes }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}
