//! The fleet that comes with an installation: a manifest in a ConfigMap, which the leader applies.
//!
//! A chart can't hold a GatewayFleet beside the definition of that kind: the API server would not know it yet. So the
//! chart holds the manifest as text. The ConfigMap owns the fleet: with it, the fleet goes, and what the fleet owns.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::{
    events::{Events, Happening},
    fence,
    lead::{Lead, Leading, MANAGER},
    metrics,
};

/// Where in the ConfigMap the manifest stands.
pub const KEY: &str = "fleet.yaml";
/// Applied again this often: a fleet that was deleted or edited by hand comes back as the ConfigMap has it.
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
    /// The API server refuses it.
    #[error("{KEY}: the API server refuses it: {0}")]
    Refused(String),
}

/// Follows the ConfigMap `namespace/name` for ever, and applies what is in it while this operator leads.
pub async fn follow(client: Client, namespace: String, name: String, mut lead: Leading, events: Events) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let changes = watcher::watch_object(api, &name).default_backoff();
    let mut changes = std::pin::pin!(changes);
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
    let fleet = fleet(found).map_err(Failure::Manifest)?;
    let namespace = found.namespace().unwrap_or_default();
    let name = fleet["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let api: Api<crds::GatewayFleet> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::apply(MANAGER).force();
    match tokio::time::timeout(PATIENCE, api.patch_metadata(&name, &params, &Patch::Apply(fleet))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 400 | 422) => {
            Err(Failure::Manifest(DefaultFleetError::Refused(status.message)))
        }
        // The process ends in a moment.
        Ok(Err(error)) if fence::is_not_leading(&error) => Err(Failure::Later(error.to_string())),
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
