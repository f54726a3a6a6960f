//! What the next leader must know.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use operator::state::{configmap::ConfigMapStore, objects::ObjectRecord};
use planner::{Kind, ObjectRef, Plan};
use serde_json::json;

use crate::support::{Space, eventually};

#[tokio::test]
async fn what_is_broken_is_known_to_the_next_and_forgotten_once_it_is_not() {
    Space::with("memory", async |space| {
        let id = ObjectRef { kind: Kind::ApiRoute, namespace: "shop".into(), name: "r".into() };
        let value = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute",
            "metadata": {"name": "r", "namespace": "shop", "uid": "u-1", "generation": 3},
            "spec": {"rules": [{"backendRefs": [{"name": "b", "port": 80}]}]},
        });
        let record = ObjectRecord {
            generation: 4,
            content: snapshot::Hash::of(b"x"),
            created: jiff::Timestamp::UNIX_EPOCH,
            accepted: Some(Arc::new(crds::admit(value).unwrap())),
            accepted_at: None,
            gone: None,
        };
        let objects = Arc::new(BTreeMap::from([(id.clone(), record)]));
        let well = Arc::new(Plan { accepted: [id.clone()].into(), ..Plan::default() });

        let api: Api<ConfigMap> = Api::namespaced(space.client.clone(), &space.name);
        let empty = serde_json::from_value(json!({"metadata": {"name": "sluice-memory"}})).unwrap();
        api.create(&PostParams::default(), &empty).await.unwrap();
        let memory = ConfigMapStore::start(space.client.clone(), &space.name, "sluice-memory");
        assert!(memory.load().await.objects.is_empty());
        // Nothing is broken: nothing is written.
        memory.keep_objects(&objects, &well);
        memory.keep_objects(&objects, &Arc::default());
        memory.finish().await;

        let next = ConfigMapStore::start(space.client.clone(), &space.name, "sluice-memory");
        let recalled = next.load().await;
        let accepted = recalled.objects[&id].accepted.as_ref().unwrap();
        assert_eq!(accepted.metadata().uid.as_deref(), Some("u-1"));
        assert_eq!(recalled.objects[&id].accepted_generation(), Some(3));

        next.keep_objects(&objects, &well);
        eventually("it is forgotten", async || {
            let found = api.get("sluice-memory").await.unwrap();
            found.data.is_none_or(|data| data.is_empty()).then_some(())
        })
        .await;
    })
    .await;
}
