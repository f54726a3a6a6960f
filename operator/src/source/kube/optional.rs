//! Kinds whose definitions need not be installed (Gateway API's ReferenceGrant, and what of Sluice came later than an
//! installation): they are read while their definition is there, in the best version that it serves.

use std::{future::Future, pin::Pin};

use kube::{Client, runtime::watcher::Event};
use serde_json::Value;

use super::{
    resource::Optional,
    watch::{Change, Changes, watch},
    watch_stream::{WatchStep, WatchStream},
};

/// Tells what there is of such a kind until nobody listens.
pub(super) async fn follow(client: Client, optional: &'static Optional, changes: Changes) {
    let Optional { watched, definition, absent } = optional;
    let (name, Some(kind), Some(version)) = (definition.name, watched.kind, definition.versions.first().copied())
    else {
        return;
    };
    let mut definition = WatchStream::new(client.clone(), changes.lists.clone(), definition, version, None);
    let mut watching = nothing();
    // What is watched; `None`: not known yet whether there is anything to watch.
    let mut current: Option<Option<&'static str>> = None;
    let mut listed = None;
    loop {
        let step = tokio::select! {
            step = definition.next() => step,
            () = &mut watching => return, // nobody listens
        };
        let served = match step {
            WatchStep::Event(Event::Init) => {
                listed = None;
                continue;
            }
            WatchStep::Event(Event::InitApply(raw)) => {
                listed = served(&raw.value(), &watched.versions);
                continue;
            }
            WatchStep::Event(Event::InitDone) => listed,
            WatchStep::Event(Event::Apply(raw)) => served(&raw.value(), &watched.versions),
            WatchStep::Event(Event::Delete(_)) => None,
            WatchStep::Failing(failure) => {
                if changes.send(Change::Failing(name, failure)).await.is_err() {
                    return;
                }
                continue;
            }
            WatchStep::Well => {
                if changes.send(Change::Well(name)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        if current == Some(served) {
            continue;
        }
        current = Some(served);
        // Ends the watch of the other version first: what it said stays until the new one has listed.
        watching = match served {
            Some(version) => Box::pin(watch(client.clone(), watched, version, changes.clone())),
            None => nothing(),
        };
        match served {
            Some(version) => tracing::info!(version, "{}s are read", kind.name()),
            None => {
                tracing::info!("{absent}");
                if changes.send(Change::Absent(kind, watched.name)).await.is_err() {
                    return;
                }
            }
        }
    }
}

type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

fn nothing() -> Watching {
    Box::pin(std::future::pending())
}

/// The best of these versions that a definition serves.
fn served(definition: &Value, known: &[&'static str]) -> Option<&'static str> {
    let versions = definition.pointer("/spec/versions")?.as_array()?;
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    let is = |condition: &Value, kind: &str| condition["type"] == kind && condition["status"] == "True";
    conditions?.iter().find(|condition| is(condition, "Established"))?;
    // Its objects are being deleted.
    if definition.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let serves = |name: &str| versions.iter().any(|version| version["name"] == name && version["served"] == true);
    known.iter().copied().find(|name| serves(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(versions: &[(&str, bool)], established: &str, expect: Option<&str>) {
        let versions: Vec<_> = versions.iter().map(|(name, served)| json!({"name": name, "served": served})).collect();
        let conditions =
            json!([{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": established}]);
        let definition = json!({"spec": {"versions": versions}, "status": {"conditions": conditions}});
        assert_eq!(served(&definition, &["v1", "v1beta1"]), expect);
    }

    #[test]
    fn the_best_version_that_is_served() {
        check(&[("v1beta1", true)], "True", Some("v1beta1"));
        check(&[("v1beta1", true), ("v1", true)], "True", Some("v1"));
        check(&[("v1beta1", true), ("v1", false)], "True", Some("v1beta1"));
        check(&[("v1alpha2", true)], "True", None);
        check(&[("v1", true)], "False", None);
        assert_eq!(served(&json!({"spec": {"versions": "odd"}}), &["v1"]), None);
    }
}
