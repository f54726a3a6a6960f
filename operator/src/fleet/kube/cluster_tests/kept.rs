//! Objects are kept as they should be, for as long as there is a fleet.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_restored_and_what_they_add_is_kept() {
    let space = TestNamespace::new("kept").await;
    let mut run = Run::new(&space, &json!({"service": {"type": "ClusterIP", "annotations": {"a/b": "c"}}}), 0).await;
    run.settle();
    let added = json!({"metadata": {
        "annotations": {"example.com/by": "hand"}, "labels": {"example.com/by": "hand"}, "finalizers": ["example.com/hand"],
    }});
    for child in ChildKind::ALL {
        edit(&space, child, added.clone()).await;
    }
    let spoil = [
        (ChildKind::ServiceAccount, json!({"automountServiceAccountToken": true})),
        (ChildKind::ConfigMap, json!({"data": {"ca.crt": "other"}})),
        (
            ChildKind::Deployment,
            json!({"spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/instance": "x"}}}}}),
        ),
        (
            ChildKind::Service,
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}, "metadata": {"annotations": {"a/b": "x"}}}),
        ),
        (ChildKind::Budget, json!({"spec": {"maxUnavailable": 0}})),
        (ChildKind::NetworkPolicy, json!({"spec": {"ingress": []}})),
    ];
    let mut before = vec![];
    for child in ChildKind::ALL {
        before.push(dynamic(&space, child).get(&child.name(&run.plan.fleet)).await.unwrap().data);
    }
    for (child, patch) in spoil {
        edit(&space, child, patch).await;
    }
    // Labels by which it is watched, and the one by which it is known to be ours.
    edit(&space, ChildKind::Budget, json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})).await;
    run.until("all is restored", async |run: &Run| {
        let mut same = vec![];
        for (child, before) in ChildKind::ALL.into_iter().zip(&before) {
            let now = dynamic(&space, child).get(&child.name(&run.plan.fleet)).await.unwrap();
            let labels = now.labels().get("app.kubernetes.io/managed-by").is_some();
            same.push(labels && without_status(&now.data) == without_status(before));
        }
        same.iter().all(|same| *same)
    });
    run.settle();
    for child in ChildKind::ALL {
        let now = dynamic(&space, child).get(&child.name(&run.plan.fleet)).await.unwrap();
        assert_eq!(now.annotations().get("example.com/by").map(String::as_str), Some("hand"), "{child:?}");
        assert_eq!(now.labels().get("example.com/by").map(String::as_str), Some("hand"), "{child:?}");
        assert_eq!(now.finalizers(), ["example.com/hand"], "{child:?}");
    }
    let service = space.api::<Service>().get(NAME).await.unwrap();
    assert_eq!(service.annotations()["a/b"], "c");
    assert!(run.observe().problems.is_empty(), "{:?}", run.observe().problems);
    // Deleted: it is made again, once someone's finalizer lets go of it.
    for child in ChildKind::ALL {
        let (api, name) = (dynamic(&space, child), child.name(&run.plan.fleet));
        let uid = api.get(&name).await.unwrap().uid();
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        edit(&space, child, json!({"metadata": {"finalizers": null}})).await;
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
async fn a_fleet_that_exists_is_never_removed() {
    let space = TestNamespace::new("owner").await;
    let definitions =
        Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(
            space.admin.clone(),
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
        "metadata": {"name": "f", "namespace": space.namespace},
        "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}], "service": {"type": "ClusterIP"}},
    });
    let owners = space.api::<crds::GatewayFleet>();
    let owner = apply(&owners, manifest).await;
    let mut run = Run::new(&space, &json!({}), 0).await;
    run.plan.uid = owner.uid().unwrap();
    run.settle();
    let made = deployment(&space).await;
    let reference = &made.owner_references()[0];
    let expect = ("GatewayFleet", "f", Some(true));
    assert_eq!((reference.kind.as_str(), reference.name.as_str(), reference.controller), expect);
    // As if it had become unreadable, and what was accepted before were lost.
    let planned = run.plan.clone();
    run.plan = nothing(&planned.fleet, planned.drain);
    run.until_problem("NotRemoved", "go on running");
    assert_eq!(deployment(&space).await.uid(), made.uid());
    run.plan = planned.clone();
    run.settle();
    assert!(run.reasons().is_empty(), "{:?}", run.observe().problems);
    // Without it, everything goes; also what nobody owns any more.
    edit(&space, ChildKind::Service, json!({"metadata": {"ownerReferences": null}})).await;
    run.settle();
    owners.delete("f", &DeleteParams::default()).await.unwrap();
    run.plan = nothing(&planned.fleet, planned.drain);
    run.until("nothing is left", async |run: &Run| !run.fleet.observe().contains_key(&run.plan.fleet));
    for child in ChildKind::ALL {
        assert!(dynamic(&space, child).get_opt(&child.name(&planned.fleet)).await.unwrap().is_none(), "{child:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_may_be_said_is_taken_by_the_api_server() {
    let space = TestNamespace::new("golden").await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fleet");
    let mut objects = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if !path.to_string_lossy().ends_with(".in.yaml") {
            continue;
        }
        let manifest = std::fs::read_to_string(&path).unwrap();
        let mut plan = testing::plan(&manifest, 1);
        plan.fleet.namespace.clone_from(&space.namespace);
        for (child, desired) in render::render(&plan, &testing::settings(), testing::CA) {
            let params = PatchParams { dry_run: true, ..PatchParams::apply("test").validation_strict() };
            let taken =
                dynamic(&space, child).patch(&child.name(&plan.fleet), &params, &Patch::Apply(&desired.body)).await;
            taken.unwrap_or_else(|error| panic!("{} {child:?}: {error}", path.display()));
            objects += 1;
        }
    }
    assert!(objects >= 24, "{objects}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_change_reach_the_pods() {
    let space = TestNamespace::new("trust").await;
    let (sender, ca) = tokio::sync::watch::channel::<Arc<str>>(Arc::from(""));
    let woken = Arc::new(Mutex::new(0));
    let (count, settings) = (Arc::clone(&woken), Settings { ca, ..testing::settings() });
    let wake = Arc::new(move || *count.lock().unwrap() += 1);
    let client: Client = space.operator.clone();
    let mut run = Run { fleet: KubeFleet::start(client, settings, wake).await, plan: plan(&space, &json!({}), 0) };
    run.until("a Service", async |_: &Run| space.api::<Service>().get_opt(NAME).await.unwrap().is_some());
    assert!(space.api::<Deployment>().get_opt(NAME).await.unwrap().is_none(), "no proxy could know the operator");
    sender.send(Arc::from(testing::CA)).unwrap();
    run.settle();
    sender.send(Arc::from("other")).unwrap();
    run.until("the new ones", async |_: &Run| {
        let map = space.api::<ConfigMap>().get("sluice-f-ca").await.unwrap();
        map.data.unwrap()["ca.crt"] == "other"
    });
    assert!(*woken.lock().unwrap() > 0);
}
