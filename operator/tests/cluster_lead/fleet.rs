//! The fleet that comes with an installation.

use crds::GatewayFleet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::{default_fleet, events::Events, lead};
use serde_json::{Value, json};

use crate::support::{Space, eventually};

fn configmap(most: u32) -> Value {
    with(&format!("minReplicas: 1, maxReplicas: {most}"))
}

fn with(scaling: &str) -> Value {
    let fleet = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: GatewayFleet\nmetadata: {{name: default}}\nspec:\n  \
         listeners: [{{name: http, protocol: HTTP, port: 80}}]\n  service: {{type: ClusterIP}}\n  \
         scaling: {{{scaling}}}\n"
    );
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "defaults"}, "data": {"fleet.yaml": fleet}})
}

#[tokio::test]
async fn the_fleet_follows_its_configmap_and_goes_with_it() {
    Space::with("fleet", async |space| {
        let client = space.client.clone();
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &space.name);
        let fleets: Api<GatewayFleet> = Api::namespaced(client.clone(), &space.name);
        let follow = default_fleet::follow(
            client.clone(),
            space.name.clone(),
            "defaults".into(),
            lead::alone(1),
            Events::start(client.clone(), "test"),
        );
        let task = tokio::spawn(follow);

        configmaps.create(&PostParams::default(), &serde_json::from_value(configmap(3)).unwrap()).await.unwrap();
        let fleet = eventually("the fleet", async || fleets.get_opt("default").await.unwrap()).await;
        assert_eq!(fleet.spec.scaling.max_replicas, 3);
        assert_eq!(fleet.owner_references()[0].name, "defaults");

        let apply = PatchParams::apply("test").force();
        configmaps.patch("defaults", &apply, &Patch::Apply(configmap(4))).await.unwrap();
        let most = async || fleets.get("default").await.unwrap().spec.scaling.max_replicas;
        eventually("the change", async || (most().await == 4).then_some(())).await;

        // What no API server would take changes nothing, and is said on the ConfigMap.
        configmaps.patch("defaults", &apply, &Patch::Apply(configmap(0))).await.unwrap();
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), &space.name);
        let note = eventually("an Event", async || {
            let list = events.list(&kube::api::ListParams::default()).await.unwrap();
            list.items.into_iter().find(|event| event.reason.as_deref() == Some("InvalidFleet"))?.note
        })
        .await;
        assert!(note.contains("maxReplicas"), "{note}");
        assert_eq!(most().await, 4);

        // The garbage collector takes it.
        configmaps.delete("defaults", &DeleteParams::background()).await.unwrap();
        let gone = async || fleets.get_opt("default").await.unwrap().is_none().then_some(());
        eventually("the fleet is gone", gone).await;
        task.abort();
    })
    .await;
}

#[tokio::test]
async fn who_scales_the_fleet_is_not_overruled_and_who_deletes_it_is() {
    Space::with("scaled", async |space| {
        let client = space.client.clone();
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &space.name);
        let fleets: Api<GatewayFleet> = Api::namespaced(client.clone(), &space.name);
        let (name, nobody) = ("defaults".into(), Events::nowhere());
        let task = tokio::spawn(default_fleet::follow(client, space.name.clone(), name, lead::alone(1), nobody));
        let apply = PatchParams::apply("test").force();
        let values = async |scaling: &str| {
            configmaps.patch("defaults", &apply, &Patch::Apply(with(scaling))).await.unwrap();
        };
        values("mode: External, replicas: 1, maxReplicas: 3").await;
        let scaling = async || Some(fleets.get_opt("default").await.unwrap()?.spec.scaling);
        let replicas = async || scaling().await?.replicas;
        eventually("the fleet", async || (replicas().await == Some(1)).then_some(())).await;

        let two = Patch::Merge(json!({"spec": {"replicas": 2}}));
        fleets.patch_scale("default", &PatchParams::default(), &two).await.unwrap();
        values("mode: External, replicas: 1, maxReplicas: 4").await;
        eventually("the change", async || (scaling().await?.max_replicas == 4).then_some(())).await;
        assert_eq!(replicas().await, Some(2));

        fleets.delete("default", &DeleteParams::default()).await.unwrap();
        // Well before it would be applied again anyway.
        eventually("the fleet again", async || (replicas().await == Some(1)).then_some(())).await;
        task.abort();
    })
    .await;
}
