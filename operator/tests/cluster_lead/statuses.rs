//! Statuses in an API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crds::ApiRoute;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::{
    reconcile::world,
    source::{CreationMeta, Observed, SourceObject, kube::Lists},
    status::{self, Input, Writer},
};
use planner::{Cluster, Kind, ObjectRef};
use serde_json::{Value, json};

use crate::support::{Space, eventually};

fn route() -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "r"},
        "spec": {"parentRefs": [{"name": "nobody"}], "rules": [{"backendRefs": [{"name": "b", "port": 80}]}]},
    })
}

/// What a source and a planner make of this route alone.
fn input(namespace: &str, found: &ApiRoute) -> Input {
    let mut value = serde_json::to_value(found).unwrap();
    value["apiVersion"] = crds::API_VERSION.into();
    value["kind"] = "ApiRoute".into();
    let object = SourceObject {
        current: crds::admit(value).map(Arc::new),
        raw: None,
        generation: found.meta().generation.unwrap(),
        content: snapshot::Hash::of(b"x"),
        origin: None,
        creation: Some(CreationMeta { uid: found.uid().unwrap().into(), created: jiff::Timestamp::now() }),
    };
    let id = ObjectRef { kind: Kind::ApiRoute, namespace: namespace.to_owned(), name: "r".into() };
    let cluster = Some(Cluster { operator_namespace: "sluice-system".into(), ..Cluster::default() });
    let observed = Observed { objects: BTreeMap::from([(id, object)]), cluster, ..Observed::default() };
    let world = world::world(&observed, &BTreeMap::new(), &Arc::default(), None);
    let plan = planner::plan(&world);
    Input { world: Arc::new(world), observed: Arc::new(observed), plan: Arc::new(plan), ..Input::default() }
}

#[tokio::test]
async fn a_status_is_written_once_keeps_its_times_and_is_of_one_object() {
    Space::with("status", async |space| {
        let api: Api<ApiRoute> = Api::namespaced(space.client.clone(), &space.name);
        let create =
            async || api.create(&PostParams::default(), &serde_json::from_value(route()).unwrap()).await.unwrap();
        let first = create().await;
        let writer = Writer::to_api(space.client.clone(), Lists::default(), status::API);
        writer.set(input(&space.name, &first));
        let written = eventually("a status", async || api.get("r").await.unwrap().status.map(|s| s.conditions)).await;
        let accepted = written.iter().find(|c| c.type_ == "Accepted").unwrap();
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "NoMatchingParent"));
        assert!(written.iter().all(|c| c.observed_generation == Some(1)), "{written:?}");

        // The same again, from this writer and from another that begins later: nothing is written.
        let before = api.get("r").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        writer.set(input(&space.name, &before));
        writer.finish().await;
        let next = Writer::to_api(space.client.clone(), Lists::default(), status::API);
        next.set(input(&space.name, &before));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(api.get("r").await.unwrap().resource_version(), before.resource_version());

        // What others say of it stays.
        let condition = json!({"type": "Theirs", "status": "True", "reason": "X", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let theirs = json!({"apiVersion": crds::API_VERSION, "kind": "ApiRoute", "metadata": {"name": "r"},
        "status": {"conditions": [condition]}});
        api.patch_status("r", &PatchParams::apply("them"), &Patch::Apply(theirs)).await.unwrap();
        let change = json!({"spec": {"hostnames": ["a.example"]}});
        let changed = api.patch("r", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        next.set(input(&space.name, &changed));
        let conditions = eventually("generation 2", async || {
            let conditions = api.get("r").await.unwrap().status.unwrap().conditions;
            conditions.iter().any(|c| c.observed_generation == Some(2)).then_some(conditions)
        })
        .await;
        assert!(conditions.iter().any(|c| c.type_ == "Theirs"), "{conditions:?}");
        let since = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]| {
            conditions.iter().find(|c| c.type_ == "Accepted").unwrap().last_transition_time.clone()
        };
        assert_eq!(since(&conditions), since(&written), "false as before");

        // What is known of an object that is gone is not said of another of its name.
        let gone = api.get("r").await.unwrap();
        api.delete("r", &DeleteParams::default()).await.unwrap();
        create().await;
        let mut late = input(&space.name, &gone);
        late.world = Arc::default();
        next.set(late);
        next.set(input(&space.name, &gone));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(api.get("r").await.unwrap().status.is_none_or(|s| s.conditions.is_empty()));
        next.finish().await;
    })
    .await;
}
