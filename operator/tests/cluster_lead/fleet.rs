//! The fleet that comes with an installation.

use crds::GatewayFleet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::{
    default_fleet::{Follow, State},
    events::recorder::EventRecorder,
    leader::election,
};
use serde_json::{Value, json};
use tokio::sync::watch;

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

fn follow(space: &Space, events: EventRecorder) -> (Follow, watch::Receiver<State>) {
    let (state, told) = watch::channel(State::default());
    (Follow { namespace: space.name.clone(), name: "defaults".into(), events, state }, told)
}

#[tokio::test]
async fn the_fleet_follows_its_configmap_and_goes_with_it() {
    Space::with("fleet", async |space| {
        let client = space.client.clone();
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &space.name);
        let fleets: Api<GatewayFleet> = Api::namespaced(client.clone(), &space.name);
        let (follow, state) = follow(space, EventRecorder::start(client.clone(), "test"));
        let task = tokio::spawn(follow.run(client.clone(), election::sole_leader(1)));

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
        let refused = async || match &*state.borrow() {
            State::NotAsDefined { fleet: Some(fleet), why } => Some((fleet.name.clone(), why.clone())),
            _ => None,
        };
        let (name, why) = eventually("the state says so", refused).await;
        assert!(name == "default" && why.contains("maxReplicas"), "{name}: {why}");
        configmaps.patch("defaults", &apply, &Patch::Apply(configmap(4))).await.unwrap();
        let mended = async || (*state.borrow() == State::AsDefined).then_some(());
        eventually("all is well again", mended).await;

        // What somebody edits is put back at once, and said on the fleet, with the program's name.
        let edit = Patch::Merge(json!({"spec": {"scaling": {"maxReplicas": 9}}}));
        fleets
            .patch("default", &PatchParams { field_manager: Some("kubectl-edit".into()), ..Default::default() }, &edit)
            .await
            .unwrap();
        eventually("it is put back", async || (most().await == 4).then_some(())).await;
        let note = eventually("an Event", async || {
            let list = events.list(&kube::api::ListParams::default()).await.unwrap();
            list.items.into_iter().find(|event| event.reason.as_deref() == Some("Restored"))?.note
        })
        .await;
        assert!(note.contains("kubectl-edit changed spec.scaling.maxReplicas"), "{note}");

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
        let (follow, _state) = follow(space, EventRecorder::nowhere());
        let task = tokio::spawn(follow.run(client, election::sole_leader(1)));
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

/// What `helm uninstall` runs takes away what helm installed, and nothing else.
#[tokio::test]
async fn only_what_helm_installed_is_removed() {
    Space::with("removed", async |space| {
        let client = space.client.clone();
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), &space.name);
        let fleets: Api<GatewayFleet> = Api::namespaced(client.clone(), &space.name);
        let apply = PatchParams::apply("test").force();
        let remove = async || {
            let mut remove = tokio::process::Command::new(env!("CARGO_BIN_EXE_sluice-operator"));
            remove.args(["remove-fleet", "--manifest=defaults", "--fleet=default", "--namespace", &space.name]);
            let output = remove.output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let there = async || {
            let fleet = fleets.get_opt("default").await.unwrap();
            let fleet = fleet.is_some_and(|fleet| fleet.metadata.deletion_timestamp.is_none());
            (configmaps.get_opt("defaults").await.unwrap().is_some(), fleet)
        };
        assert!(remove().await.contains("nothing to remove"));

        // Made from what is rendered, hooks and all.
        let (follow, _state) = follow(space, EventRecorder::nowhere());
        let task = tokio::spawn(follow.run(client, election::sole_leader(1)));
        configmaps.patch("defaults", &apply, &Patch::Apply(configmap(3))).await.unwrap();
        eventually("the fleet", async || there().await.1.then_some(())).await;
        assert!(remove().await.contains("nothing is removed"));
        assert_eq!(there().await, (true, true));

        let mut of_release = configmap(3);
        of_release["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "sluice"});
        configmaps.patch("defaults", &apply, &Patch::Apply(of_release.clone())).await.unwrap();
        assert!(remove().await.contains("no proxy of GatewayFleet"));
        assert_eq!(there().await, (false, false));
        task.abort();

        // Somebody's own of that name.
        let gone = async || fleets.get_opt("default").await.unwrap().is_none().then_some(());
        eventually("it is gone", gone).await;
        let fleet = serde_yaml::from_str(configmap(3)["data"]["fleet.yaml"].as_str().unwrap()).unwrap();
        fleets.create(&PostParams::default(), &fleet).await.unwrap();
        configmaps.patch("defaults", &apply, &Patch::Apply(of_release)).await.unwrap();
        assert!(remove().await.contains("of that ConfigMap is there"));
        assert_eq!(there().await, (false, true));
    })
    .await;
}
