//! The fleet that comes with an installation: a manifest in a ConfigMap, which the leader applies.
//!
//! A chart can't hold a GatewayFleet beside the definition of that kind: the API server would not know it yet. So the
//! chart holds the manifest as text. The ConfigMap owns the fleet: with it, the fleet goes, and what the fleet owns. Each
//! name of a fleet has a ConfigMap of its own, so that the chart takes the former one away when the name changes.
//!
//! A fleet of that name which the ConfigMap does not own is somebody's: it is left alone. Of one that it owns, the replicas
//! are left alone once somebody set them through `/scale`, as an autoscaler does.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{PartialObjectMeta, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::{
    events::{Events, Happening},
    lead::{Lead, Leading, MANAGER},
    metrics,
};

/// Where in the ConfigMap the manifest stands.
pub const KEY: &str = "fleet.yaml";
/// Applied again this often: a fleet that was edited by hand comes back as the ConfigMap has it. One that was deleted comes
/// back at once.
const AGAIN: Duration = Duration::from_secs(60);
/// After an error of the API server, the next attempt.
const RETRY: Duration = Duration::from_secs(2);
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest manifest: the API server takes no larger ConfigMap.
const LONGEST: usize = 1 << 20;

/// Why the fleet is not as the ConfigMap says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DefaultFleetError {
    /// There is nothing to apply.
    #[error("the ConfigMap has no key {KEY}: put the manifest of a GatewayFleet there")]
    NoManifest,
    /// No YAML.
    #[error("{KEY} is no YAML: {0}")]
    NoYaml(String),
    /// Something else.
    #[error("{KEY} is no GatewayFleet: its apiVersion must be {api}, its kind GatewayFleet", api = crds::API_VERSION)]
    NoFleet,
    /// A ConfigMap can only own what is in its own namespace.
    #[error("{KEY}: metadata.namespace is {0:?}: leave it out, or make it that of the ConfigMap, {1:?}")]
    Elsewhere(String, String),
    /// The API server would refuse it.
    #[error("{KEY}: {0}")]
    Invalid(String),
    /// Somebody else made one of that name.
    #[error(
        "{KEY}: GatewayFleet {0} is there already, and not from this ConfigMap: it stays as it is. Delete it, change the \
         chart's fleet.name, or set fleet.enabled=false"
    )]
    Occupied(String),
    /// The API server refuses it.
    #[error("{KEY}: the API server refuses it: {0}")]
    Refused(String),
}

/// Follows the ConfigMap `namespace/name` for ever, and applies what is in it while this operator leads.
pub async fn follow(client: Client, namespace: String, name: String, mut lead: Leading, events: Events) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let changes = watcher::watch_object(api, &name).default_backoff();
    let mut changes = std::pin::pin!(changes);
    // Only names are needed, and all of them: which one it is may change with the manifest.
    let fleets: Api<PartialObjectMeta<crds::GatewayFleet>> = Api::namespaced(client.clone(), &namespace);
    let mut fleets = std::pin::pin!(watcher(fleets, watcher::Config::default()).default_backoff());
    let mut again = tokio::time::interval(AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut latest: Option<Arc<ConfigMap>> = None;
    let mut said = None;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(found)) => latest = found.map(Arc::new),
                Some(Err(error)) => {
                    tracing::warn!(configmap = name, %error, "the default fleet's ConfigMap can't be watched; tries again");
                    continue;
                }
                None => return,
            },
            fleet = fleets.next() => match fleet {
                Some(Ok(watcher::Event::Delete(_) | watcher::Event::InitDone)) => {}
                // It is applied from time to time all the same.
                Some(Ok(_) | Err(_)) => continue,
                None => return,
            },
            () = changed(&mut lead) => {}
            _ = again.tick() => {}
        }
        let Some(found) = latest.clone() else { continue };
        if !matches!(*lead.borrow(), Lead::Leader { .. }) {
            continue;
        }
        let problem = match apply(&client, &found).await {
            Ok(()) => None,
            Err(Failure::Manifest(problem)) => Some(problem),
            Err(Failure::Later(error)) => {
                tracing::warn!(configmap = name, error, "the default fleet can't be applied; tries again");
                again.reset_after(RETRY);
                continue;
            }
        };
        metrics::get().default_fleet_problem.set(problem.is_some().into());
        if said.as_ref() != Some(&problem) {
            match &problem {
                None => tracing::info!(configmap = name, "the default fleet is applied"),
                Some(problem) => {
                    tracing::warn!(configmap = name, %problem, "the default fleet is not as its ConfigMap says");
                    events.say(happening(&found, problem));
                }
            }
            said = Some(problem);
        }
    }
}

/// Waits until who leads may have changed.
async fn changed(lead: &mut Leading) {
    if lead.changed().await.is_err() {
        // As it is now it stays.
        std::future::pending::<()>().await;
    }
}

#[derive(Debug)]
enum Failure {
    /// It has to be changed.
    Manifest(DefaultFleetError),
    /// It is not the manifest's fault.
    Later(String),
}

async fn apply(client: &Client, found: &ConfigMap) -> Result<(), Failure> {
    let mut fleet = fleet(found).map_err(Failure::Manifest)?;
    let namespace = found.namespace().unwrap_or_default();
    let name = fleet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let api: Api<crds::GatewayFleet> = Api::namespaced(client.clone(), &namespace);
    let there = within(api.get_metadata_opt(&name)).await?;
    if let Some(there) = there {
        if !is_owned(&there.metadata, found) {
            return Err(Failure::Manifest(DefaultFleetError::Occupied(format!("{namespace}/{name}"))));
        }
        if is_scaled(&there.metadata)
            && let Some(scaling) = fleet.pointer_mut("/spec/scaling").and_then(Value::as_object_mut)
        {
            scaling.remove("replicas");
        }
    }
    let params = PatchParams::apply(MANAGER).force();
    within(api.patch_metadata(&name, &params, &Patch::Apply(fleet))).await.map(drop)
}

/// Whether an object is of this ConfigMap, or of one of that name that was deleted and made anew.
fn is_owned(object: &ObjectMeta, by: &ConfigMap) -> bool {
    let owners = object.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|o| o.controller == Some(true) && o.kind == "ConfigMap" && o.name == by.name_any())
}

/// Whether somebody set the replicas through `/scale`.
fn is_scaled(fleet: &ObjectMeta) -> bool {
    let mut through_scale =
        fleet.managed_fields.iter().flatten().filter(|entry| entry.subresource.as_deref() == Some("scale"));
    through_scale.any(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:scaling/f:replicas").is_some())
    })
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
            Err(Failure::Manifest(DefaultFleetError::Refused(status.message)))
        }
        // Among others that this operator does not lead any more: the process ends in a moment.
        Ok(Err(error)) => Err(Failure::Later(error.to_string())),
        Err(_) => Err(Failure::Later("no answer".to_owned())),
    }
}

/// The fleet as it is to be applied.
fn fleet(found: &ConfigMap) -> Result<Value, DefaultFleetError> {
    let text = found.data.as_ref().and_then(|data| data.get(KEY)).filter(|text| !text.trim().is_empty());
    let text = text.ok_or(DefaultFleetError::NoManifest)?;
    if text.len() > LONGEST {
        return Err(DefaultFleetError::NoYaml(format!("it has more than {LONGEST} bytes")));
    }
    let mut fleet: Value = serde_yaml::from_str(text).map_err(|error| DefaultFleetError::NoYaml(error.to_string()))?;
    if fleet["apiVersion"] != crds::API_VERSION || fleet["kind"] != "GatewayFleet" {
        return Err(DefaultFleetError::NoFleet);
    }
    let namespace = found.namespace().unwrap_or_default();
    let metadata = fleet["metadata"].as_object_mut().ok_or(DefaultFleetError::NoFleet)?;
    match metadata.get("namespace").and_then(Value::as_str) {
        Some(other) if other != namespace => return Err(DefaultFleetError::Elsewhere(other.to_owned(), namespace)),
        _ => drop(metadata.insert("namespace".into(), namespace.into())),
    }
    crds::admit(fleet.clone()).map_err(|violations| {
        let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
        DefaultFleetError::Invalid(all.join("; "))
    })?;
    let owner = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": found.name_any(),
        "uid": found.uid().unwrap_or_default(),
        "controller": true,
    });
    fleet["metadata"]["ownerReferences"] = json!([owner]);
    if let Some(object) = fleet.as_object_mut() {
        object.remove("status");
    }
    Ok(fleet)
}

fn happening(found: &ConfigMap, problem: &DefaultFleetError) -> Happening {
    let ObjectReference { api_version, kind, namespace, name, uid, .. } = found.object_ref(&());
    let regarding = ObjectReference { api_version, kind, namespace, name, uid, ..ObjectReference::default() };
    Happening { regarding, warning: true, reason: "InvalidFleet", action: "Apply", note: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Request, Response};
    use kube::client::Body;

    use super::*;

    fn configmap(text: Option<&str>) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some("defaults".into()),
            namespace: Some("sys".into()),
            uid: Some("u-1".into()),
            ..ObjectMeta::default()
        };
        let data = text.map(|text| [(KEY.to_owned(), text.to_owned())].into());
        ConfigMap { metadata, data, ..ConfigMap::default() }
    }

    #[track_caller]
    fn check(text: Option<&str>, expect: Result<&str, &str>) {
        match (fleet(&configmap(text)), expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got["metadata"].to_string(), expect),
            (Err(got), Err(expect)) => assert!(got.to_string().contains(expect), "{got}"),
            (got, expect) => panic!("{got:?} instead of {expect:?}"),
        }
    }

    const GOOD: &str = "apiVersion: sluice.dev/v1alpha1\nkind: GatewayFleet\nmetadata: {name: default}\n\
        spec: {listeners: [{name: http, protocol: HTTP, port: 80}]}\n";

    /// Applies a manifest where this fleet is already: what the API server was asked, and what came of it.
    async fn applied(manifest: &str, there: Option<Value>) -> (Vec<(Method, Value)>, Result<(), Failure>) {
        let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (status, body) = match (request.method(), &there) {
                (&Method::GET, None) => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
                (_, there) => (200, there.clone().unwrap_or_else(|| owned("ConfigMap", "defaults", "u-1"))),
            };
            let answer = Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap();
            let told = told.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
                told.send((head.method, body)).unwrap();
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let done = apply(&Client::new(service, "sys"), &configmap(Some(manifest))).await;
        asked.close();
        let mut requests = vec![];
        while let Some(request) = asked.recv().await {
            requests.push(request);
        }
        (requests, done)
    }

    fn methods(requests: Vec<(Method, Value)>) -> Vec<Method> {
        requests.into_iter().map(|(method, _)| method).collect()
    }

    #[tokio::test]
    async fn who_scales_the_fleet_is_not_overruled() {
        let manifest = GOOD.replace("spec: {", "spec: {scaling: {mode: External, replicas: 3}, ");
        let replicas = json!({"f:spec": {"f:scaling": {"f:replicas": {}}}});
        let managed = |subresource: Option<&str>, fields: &Value| {
            let mut there = owned("ConfigMap", "defaults", "u-1");
            there["metadata"]["managedFields"] =
                json!([{"manager": "m", "subresource": subresource, "fieldsV1": fields}]);
            Some(there)
        };
        let cases = [
            (None, Some(3)),
            (managed(None, &replicas), Some(3)),
            (managed(Some("status"), &json!({"f:status": {}})), Some(3)),
            (managed(Some("scale"), &replicas), None),
        ];
        for (there, expect) in cases {
            let (requests, done) = applied(&manifest, there).await;
            assert!(done.is_ok(), "{done:?}");
            let scaling = &requests[1].1["spec"]["scaling"];
            assert_eq!((scaling["replicas"].as_u64(), &scaling["mode"]), (expect, &json!("External")));
        }
    }

    fn owned(kind: &str, name: &str, uid: &str) -> Value {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true});
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "default", "namespace": "sys", "uid": "f-1", "ownerReferences": [owner]},
        })
    }

    #[tokio::test]
    async fn a_fleet_of_somebody_else_is_left_alone() {
        let mut users = owned("ConfigMap", "defaults", "u-1");
        users["metadata"]["ownerReferences"] = json!([]);
        for strangers in [users, owned("ConfigMap", "others", "u-2"), owned("Deployment", "defaults", "u-3")] {
            let (requests, done) = applied(GOOD, Some(strangers)).await;
            let Err(Failure::Manifest(DefaultFleetError::Occupied(name))) = done else { panic!("{done:?}") };
            assert_eq!((methods(requests), name.as_str()), (vec![Method::GET], "sys/default"));
        }
        let applies = vec![Method::GET, Method::PATCH];
        for ours in [None, Some(owned("ConfigMap", "defaults", "u-1")), Some(owned("ConfigMap", "defaults", "u-0"))] {
            let (requests, done) = applied(GOOD, ours).await;
            assert!(done.is_ok(), "{done:?}");
            assert_eq!(methods(requests), applies);
        }
    }

    #[test]
    fn the_configmap_owns_the_fleet() {
        check(
            Some(GOOD),
            Ok(
                r#"{"name":"default","namespace":"sys","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"defaults","uid":"u-1","controller":true}]}"#,
            ),
        );
        check(None, Err("no key fleet.yaml"));
        check(Some(" "), Err("no key fleet.yaml"));
        check(Some("{"), Err("is no YAML"));
        check(Some("- a"), Err("is no GatewayFleet"));
        check(Some(&GOOD.replace("GatewayFleet", "ApiRoute")), Err("is no GatewayFleet"));
        check(Some(&GOOD.replace("name: default", "name: a, namespace: b")), Err("\"b\": leave it out"));
        check(Some(&GOOD.replace("port: 80", "port: 0")), Err("spec.listeners[0].port"));
        check(Some(&GOOD.replace("port: 80", "prot: 80")), Err("prot"));
    }
}
