//! Against a real API server, with its controllers: `KUBECONFIG=… cargo test -p operator --lib --features cluster kube::`.
//! No other operator may run in that cluster.

mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, ResourceQuota, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use planner::FleetPlan;
use serde_json::{Value, json};

use self::place::{Place, apply};
use super::{KubeFleet, Settings, part::Part, render, testing};
use crate::fleet::{
    Fleet as _, Observation, Sign,
    contract::{self, Bench},
    nothing,
};

/// What exists is `sluice-f`, and `sluice-f-ca`.
const NAME: &str = "sluice-f";
const LIMIT: Duration = Duration::from_secs(30);

/// A fleet and what is wanted of it.
struct Run {
    fleet: KubeFleet,
    plan: FleetPlan,
}

impl Run {
    async fn new(place: &Place, spec: &Value, replicas: u32) -> Self {
        Self::with(place, testing::settings(), spec, replicas).await
    }

    async fn with(place: &Place, settings: Settings, spec: &Value, replicas: u32) -> Self {
        let fleet = KubeFleet::start(place.operator.clone(), settings, Arc::new(|| {})).await;
        Self { fleet, plan: plan(place, spec, replicas) }
    }

    fn observe(&self) -> Observation {
        self.fleet.observe().remove(&self.plan.fleet).unwrap_or_default()
    }

    /// Turns of the loop, until something holds.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value)] // a closure
    fn until(&mut self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let start = Instant::now();
                loop {
                    self.fleet.ensure(&self.plan, &BTreeMap::new());
                    if holds(self).await {
                        return;
                    }
                    assert!(start.elapsed() < LIMIT, "{what}: {:#?}", self.observe());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
    }

    /// Everything is as applied, and nothing is due.
    #[track_caller]
    fn settle(&mut self) {
        self.until("everything is made", async |run: &Self| {
            let state = run.fleet.shared.state();
            let wanted = &state.fleets[&run.plan.fleet];
            let is_made = Part::ALL.iter().all(|part| state.live(*part, &run.plan.fleet).is_some());
            let idle = wanted.tasks.values().all(|progress| !progress.busy);
            is_made && idle && super::due::due(&run.plan.fleet, wanted, &state, Instant::now()).is_empty()
        });
    }

    fn reasons(&self) -> BTreeSet<&'static str> {
        self.observe().problems.iter().map(|problem| problem.reason).collect()
    }

    #[track_caller]
    fn until_problem(&mut self, reason: &str, says: &str) {
        self.until(reason, async |run: &Self| {
            run.observe().problems.iter().any(|problem| problem.reason == reason && problem.message.contains(says))
        });
    }
}

fn plan(place: &Place, spec: &Value, replicas: u32) -> FleetPlan {
    let mut whole =
        json!({"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}], "service": {"type": "ClusterIP"}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let manifest = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet",
        "metadata": {"name": "f", "namespace": place.namespace}, "spec": whole,
    });
    // Without owner: one that does not exist would have everything collected at once.
    testing::plan(&manifest.to_string(), replicas)
}

async fn deployment(place: &Place) -> Deployment {
    place.api::<Deployment>().get(NAME).await.unwrap()
}

fn dynamic(place: &Place, part: Part) -> Api<DynamicObject> {
    Api::namespaced_with(place.admin.clone(), &place.namespace, &part.resource())
}

/// Another than the operator changes something.
async fn edit(place: &Place, part: Part, patch: Value) {
    let name = if part == Part::ConfigMap { "sluice-f-ca" } else { NAME };
    let params = PatchParams { field_manager: Some("hand".into()), ..PatchParams::default() };
    dynamic(place, part).patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let place = Place::new("contract").await;
    let ready = contract::Ready::default();
    let _kubelet = place.node(Arc::clone(&ready)).await;
    let plan = plan(&place, &json!({"template": place.on_node()}), 0);
    let fleet = KubeFleet::start(place.operator.clone(), testing::settings(), Arc::new(|| {})).await;
    let is_settled = |fleet: &KubeFleet| fleet.shared.state().pods.values().all(|pod| pod.ready || pod.leaving);
    let bench = Bench { plan, ready, patience: Duration::from_secs(2), is_settled, ..Bench::new(fleet) };
    tokio::task::block_in_place(|| contract::check(bench));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_belong_to_the_scaler_from_the_first() {
    let place = Place::new("replicas").await;
    let mut run = Run::new(&place, &json!({"template": place.on_node()}), 3).await;
    run.settle();
    // Who has what: the scaler the replicas and nothing else, the operator all the rest.
    let made = deployment(&place).await;
    let fields = |manager: &str| {
        let entries = made.metadata.managed_fields.iter().flatten();
        let mut of_manager =
            entries.filter(|e| e.manager.as_deref() == Some(manager) && e.operation.as_deref() == Some("Apply"));
        of_manager.next().map(|entry| entry.fields_v1.clone().unwrap().0)
    };
    assert_eq!(fields("sluice-scaler"), Some(json!({"f:spec": {"f:replicas": {}}})));
    let operators = fields("sluice-operator").unwrap();
    assert!(
        operators["f:spec"]["f:template"].is_object() && operators["f:spec"]["f:replicas"].is_null(),
        "{operators}"
    );
    // It began with three: not with one that was scaled afterwards.
    let events = place.api::<Event>().list(&ListParams::default()).await.unwrap();
    let scalings: Vec<String> = events
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("ScalingReplicaSet"))
        .filter_map(|event| event.message)
        .collect();
    assert!(scalings.len() == 1 && scalings[0].contains(" 0 to 3"), "{scalings:?}");
    // By hand, by `kubectl scale`, by another applier: restored.
    edit(&place, Part::Deployment, json!({"spec": {"replicas": 7}})).await;
    run.until("restored", async |_: &Run| deployment(&place).await.spec.replicas == Some(3));
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    place.api::<Deployment>().patch_scale(NAME, &PatchParams::default(), &scale).await.unwrap();
    run.until("restored", async |_: &Run| deployment(&place).await.spec.replicas == Some(3));
    run.settle();
    assert_eq!(run.observe().replicas, 3);
    // A new operator takes over, and changes nothing.
    let before = deployment(&place).await;
    let mut next = Run::new(&place, &json!({"template": place.on_node()}), 3).await;
    assert_eq!(next.observe().replicas, 3, "known before anything is decided");
    next.settle();
    let after = deployment(&place).await;
    assert_eq!(before.metadata.generation, after.metadata.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_restored_and_what_they_add_is_kept() {
    let place = Place::new("kept").await;
    let mut run = Run::new(&place, &json!({"service": {"type": "ClusterIP", "annotations": {"a/b": "c"}}}), 0).await;
    run.settle();
    let added = json!({"metadata": {
        "annotations": {"example.com/by": "hand"}, "labels": {"example.com/by": "hand"}, "finalizers": ["example.com/hand"],
    }});
    for part in Part::ALL {
        edit(&place, part, added.clone()).await;
    }
    let spoil = [
        (Part::ServiceAccount, json!({"automountServiceAccountToken": true})),
        (Part::ConfigMap, json!({"data": {"ca.crt": "other"}})),
        (
            Part::Deployment,
            json!({"spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/instance": "x"}}}}}),
        ),
        (
            Part::Service,
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}, "metadata": {"annotations": {"a/b": "x"}}}),
        ),
        (Part::Budget, json!({"spec": {"maxUnavailable": 0}})),
        (Part::NetworkPolicy, json!({"spec": {"ingress": []}})),
    ];
    let mut before = vec![];
    for part in Part::ALL {
        before.push(dynamic(&place, part).get(&part.name(&run.plan.fleet)).await.unwrap().data);
    }
    for (part, patch) in spoil {
        edit(&place, part, patch).await;
    }
    // Labels by which it is watched, and the one by which it is known to be ours.
    edit(&place, Part::Budget, json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})).await;
    run.until("all is restored", async |run: &Run| {
        let mut same = vec![];
        for (part, before) in Part::ALL.into_iter().zip(&before) {
            let now = dynamic(&place, part).get(&part.name(&run.plan.fleet)).await.unwrap();
            let labels = now.labels().get("app.kubernetes.io/managed-by").is_some();
            same.push(labels && without_status(&now.data) == without_status(before));
        }
        same.iter().all(|same| *same)
    });
    run.settle();
    for part in Part::ALL {
        let now = dynamic(&place, part).get(&part.name(&run.plan.fleet)).await.unwrap();
        assert_eq!(now.annotations().get("example.com/by").map(String::as_str), Some("hand"), "{part:?}");
        assert_eq!(now.labels().get("example.com/by").map(String::as_str), Some("hand"), "{part:?}");
        assert_eq!(now.finalizers(), ["example.com/hand"], "{part:?}");
    }
    let service = place.api::<Service>().get(NAME).await.unwrap();
    assert_eq!(service.annotations()["a/b"], "c");
    assert!(run.observe().problems.is_empty(), "{:?}", run.observe().problems);
    // Deleted: it is made again, once someone's finalizer lets go of it.
    for part in Part::ALL {
        let (api, name) = (dynamic(&place, part), part.name(&run.plan.fleet));
        let uid = api.get(&name).await.unwrap().uid();
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        edit(&place, part, json!({"metadata": {"finalizers": null}})).await;
        run.until("made again", async |_: &Run| {
            api.get_opt(&name).await.unwrap().is_some_and(|now| now.uid() != uid && now.finalizers().is_empty())
        });
    }
    run.settle();
}

fn without_status(data: &Value) -> Value {
    let mut data = data.clone();
    data.as_object_mut().unwrap().remove("status");
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_replaced_only_when_they_must() {
    let place = Place::new("roll").await;
    let mut run = Run::new(&place, &json!({"template": place.on_node()}), 1).await;
    run.settle();
    let revisions = async || place.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len();
    run.until("a ReplicaSet", async |_: &Run| revisions().await == 1);
    let listeners = json!([
        {"name": "http", "protocol": "HTTP", "port": 80},
        {"name": "more", "protocol": "HTTP", "port": 8080},
    ]);
    run.plan = plan(&place, &json!({"template": place.on_node(), "listeners": listeners}), 1);
    run.until("the Service's ports", async |_: &Run| {
        let ports = place.api::<Service>().get(NAME).await.unwrap().spec.unwrap().ports.unwrap();
        let ports: Vec<Value> = ports.iter().map(|port| serde_json::to_value(port).unwrap()).collect();
        let expect = json!([
            {"appProtocol": "http", "name": "http", "port": 80, "protocol": "TCP", "targetPort": 10080},
            {"appProtocol": "http", "name": "more", "port": 8080, "protocol": "TCP", "targetPort": 8080},
        ]);
        json!(ports) == expect
    });
    run.settle();
    assert_eq!(revisions().await, 1);
    let mut template = place.on_node();
    template["workers"] = json!(2);
    run.plan = plan(&place, &json!({"template": template, "listeners": listeners}), 1);
    run.until("a second ReplicaSet", async |_: &Run| revisions().await == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_told() {
    let place = Place::new("refused").await;
    // Another's Service has the name, and no ConfigMap may be made.
    let theirs =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"ports": [{"port": 1}]}});
    apply(&place.api::<Service>(), theirs).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "1", "pods": "0"}},
    });
    apply(&place.api::<ResourceQuota>(), quota).await;
    let quotas = place.api::<ResourceQuota>();
    let in_force = async || quotas.get("q").await.unwrap().status.is_some_and(|status| status.used.is_some());
    let _kubelet = place.node(Arc::default()).await;
    let mut run = Run::new(&place, &json!({"template": place.on_node()}), 1).await;
    while !in_force().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The cluster puts its own into every namespace.
    place.api::<ConfigMap>().get("kube-root-ca.crt").await.unwrap();
    run.until_problem("NameOccupied", &format!("Service {}/{NAME}", place.namespace));
    run.until_problem("QuotaExceeded", &format!("ConfigMap {}/{NAME}-ca", place.namespace));
    let theirs = place.api::<Service>().get(NAME).await.unwrap();
    assert!(theirs.labels().is_empty(), "untouched: {theirs:?}");
    // What is put right is taken up by itself.
    place.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    edit_quota(&place, json!({"count/configmaps": null})).await;
    run.until_problem("PodsRefused", "exceeded quota");
    edit_quota(&place, json!({"pods": null})).await;
    run.until("no problem", async |run: &Run| run.reasons().is_empty());
    run.settle();
    // What can't be changed any more.
    let template = place.on_node();
    let balancer =
        |class: &str| json!({"template": template, "service": {"type": "LoadBalancer", "loadBalancerClass": class}});
    run.plan = plan(&place, &balancer("example.com/a"), 1);
    run.settle();
    run.plan = plan(&place, &balancer("example.com/b"), 1);
    run.until_problem("Immutable", "may not change once set");
    place.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    run.settle();
    assert!(!run.reasons().contains("Immutable"));
    // And back to one without a balancer: what only a balancer has goes with it.
    run.plan = plan(&place, &json!({"template": template}), 1);
    run.settle();
    let spec = place.api::<Service>().get(NAME).await.unwrap().spec.unwrap();
    assert_eq!(
        (spec.type_.as_deref(), spec.external_traffic_policy, spec.load_balancer_class),
        (Some("ClusterIP"), None, None)
    );
    assert_eq!(run.observe().addresses, spec.cluster_ips.unwrap());
}

async fn edit_quota(place: &Place, hard: Value) {
    let patch = Patch::Merge(json!({"spec": {"hard": hard}}));
    place.api::<ResourceQuota>().patch("q", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_told() {
    let place = Place::new("rights").await;
    let mut run = Run::new(&place, &json!({}), 0).await;
    run.settle();
    let roles = Api::<k8s_openapi::api::rbac::v1::ClusterRole>::all(place.admin.clone());
    let patch = json!([{"op": "replace", "path": "/rules/3/verbs", "value": ["list", "watch"]}]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    roles.patch(&place.namespace, &PatchParams::default(), &patch).await.unwrap();
    edit(&place, Part::NetworkPolicy, json!({"spec": {"ingress": []}})).await;
    run.until_problem("Forbidden", &format!("NetworkPolicy {}/{NAME}", place.namespace));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_pods_from_running_is_told() {
    let place = Place::new("pods").await;
    let settings = |image: &str| Settings {
        image: image.into(),
        image_pull_policy: "Never".into(),
        image_pull_secrets: vec![],
        ..testing::settings()
    };
    let small = json!({"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}});
    let mut run = Run::with(&place, settings("localhost/not-there:1"), &json!({"template": small}), 1).await;
    run.until_problem("ImagePullFailed", "localhost/not-there:1");
    // A program that takes other arguments, and says so: its last words are in the message.
    let mut run = Run::with(&place, settings("localhost/sluice-hello:test"), &json!({"template": small}), 1).await;
    run.until_problem("ProxyCrashes", "exited with code 1: hello: usage: hello serve");
    let nowhere = json!({"nodeSelector": {"test": "nowhere"}});
    run.plan = plan(&place, &json!({"template": nowhere}), 1);
    run.until_problem("Unschedulable", "node");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_of_many_leave_at_once() {
    let place = Place::new("cost").await;
    let _kubelet = place.node(Arc::default()).await;
    let mut run = Run::new(&place, &json!({"template": place.on_node()}), 6).await;
    run.until("six pods that are Ready", async |run: &Run| {
        let state = run.fleet.shared.state();
        let mut pods = state.pods_of(&run.plan.fleet);
        pods.by_ref().filter(|(_, pod)| pod.ready).count() == 6
    });
    let names: Vec<String> = run.observe().proxies.into_keys().collect();
    let connections = [50, 10, 40, 20, 60, 30];
    let signs: BTreeMap<String, Sign> = names
        .iter()
        .zip(connections)
        .map(|(name, connections)| (name.clone(), Sign { ready: true, connections, ..Sign::default() }))
        .collect();
    run.plan.replicas = 3;
    run.fleet.ensure(&run.plan, &signs);
    let stay = [&names[0], &names[2], &names[4]];
    let start = Instant::now();
    while run.observe().proxies.len() > 3 {
        assert!(start.elapsed() < LIMIT);
        run.fleet.ensure(&run.plan, &signs);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(run.observe().proxies.keys().collect::<Vec<_>>(), stay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_exists_is_never_removed() {
    let place = Place::new("owner").await;
    let definitions =
        Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(
            place.admin.clone(),
        );
    for definition in crds::definitions() {
        let name = definition.name_any();
        apply(&definitions, serde_json::to_value(&definition).unwrap()).await;
        while definitions.get(&name).await.unwrap().status.is_none_or(|status| {
            !status.conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True")
        }) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let manifest = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet",
        "metadata": {"name": "f", "namespace": place.namespace},
        "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}], "service": {"type": "ClusterIP"}},
    });
    let owners = place.api::<crds::GatewayFleet>();
    let owner = apply(&owners, manifest).await;
    let mut run = Run::new(&place, &json!({}), 0).await;
    run.plan.uid = owner.uid().unwrap();
    run.settle();
    let made = deployment(&place).await;
    let reference = &made.owner_references()[0];
    let expect = ("GatewayFleet", "f", Some(true));
    assert_eq!((reference.kind.as_str(), reference.name.as_str(), reference.controller), expect);
    // As if it had become unreadable, and what was accepted before were lost.
    let planned = run.plan.clone();
    run.plan = nothing(&planned.fleet, planned.drain);
    run.until_problem("NotRemoved", "go on running");
    assert_eq!(deployment(&place).await.uid(), made.uid());
    run.plan = planned.clone();
    run.settle();
    assert!(run.reasons().is_empty(), "{:?}", run.observe().problems);
    // Without it, everything goes; also what nobody owns any more.
    edit(&place, Part::Service, json!({"metadata": {"ownerReferences": null}})).await;
    run.settle();
    owners.delete("f", &DeleteParams::default()).await.unwrap();
    run.plan = nothing(&planned.fleet, planned.drain);
    run.until("nothing is left", async |run: &Run| !run.fleet.observe().contains_key(&run.plan.fleet));
    for part in Part::ALL {
        assert!(dynamic(&place, part).get_opt(&part.name(&planned.fleet)).await.unwrap().is_none(), "{part:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_may_be_said_is_taken_by_the_api_server() {
    let place = Place::new("golden").await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fleet");
    let mut objects = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if !path.to_string_lossy().ends_with(".in.yaml") {
            continue;
        }
        let manifest = std::fs::read_to_string(&path).unwrap();
        let mut plan = testing::plan(&manifest, 1);
        plan.fleet.namespace.clone_from(&place.namespace);
        for (part, desired) in render::render(&plan, &testing::settings(), testing::CA) {
            let params = PatchParams { dry_run: true, ..PatchParams::apply("test").validation_strict() };
            let taken =
                dynamic(&place, part).patch(&part.name(&plan.fleet), &params, &Patch::Apply(&desired.body)).await;
            taken.unwrap_or_else(|error| panic!("{} {part:?}: {error}", path.display()));
            objects += 1;
        }
    }
    assert!(objects >= 24, "{objects}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_change_reach_the_pods() {
    let place = Place::new("trust").await;
    let (sender, ca) = tokio::sync::watch::channel::<Arc<str>>(Arc::from(""));
    let woken = Arc::new(Mutex::new(0));
    let (count, settings) = (Arc::clone(&woken), Settings { ca, ..testing::settings() });
    let wake = Arc::new(move || *count.lock().unwrap() += 1);
    let client: Client = place.operator.clone();
    let mut run = Run { fleet: KubeFleet::start(client, settings, wake).await, plan: plan(&place, &json!({}), 0) };
    run.until("a Service", async |_: &Run| place.api::<Service>().get_opt(NAME).await.unwrap().is_some());
    assert!(place.api::<Deployment>().get_opt(NAME).await.unwrap().is_none(), "no proxy could know the operator");
    sender.send(Arc::from(testing::CA)).unwrap();
    run.settle();
    sender.send(Arc::from("other")).unwrap();
    run.until("the new ones", async |_: &Run| {
        let map = place.api::<ConfigMap>().get("sluice-f-ca").await.unwrap();
        map.data.unwrap()["ca.crt"] == "other"
    });
    assert!(*woken.lock().unwrap() > 0);
}
