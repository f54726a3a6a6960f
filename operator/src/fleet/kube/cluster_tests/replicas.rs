//! How many pods there are, which leave, and when they are replaced.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let space = TestNamespace::new("contract").await;
    let ready = contract::Ready::default();
    let _kubelet = space.node(Arc::clone(&ready)).await;
    let plan = plan(&space, &json!({"template": space.on_node()}), 0);
    let fleet = KubeFleet::start(space.operator.clone(), testing::settings(), Arc::new(|| {})).await;
    let is_settled = |fleet: &KubeFleet| fleet.shared.state().pods.values().all(|pod| pod.ready || pod.leaving);
    let bench = Bench { plan, ready, patience: Duration::from_secs(2), is_settled, ..Bench::new(fleet) };
    tokio::task::block_in_place(|| contract::check(bench));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_belong_to_the_scaler_from_the_first() {
    let space = TestNamespace::new("replicas").await;
    let mut run = Run::new(&space, &json!({"template": space.on_node()}), 3).await;
    run.settle();
    // Who has what: the scaler the replicas and nothing else, the operator all the rest.
    let made = deployment(&space).await;
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
    let events = space.api::<Event>().list(&ListParams::default()).await.unwrap();
    let scalings: Vec<String> = events
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("ScalingReplicaSet"))
        .filter_map(|event| event.message)
        .collect();
    assert!(scalings.len() == 1 && scalings[0].contains(" 0 to 3"), "{scalings:?}");
    // By hand, by `kubectl scale`, by another applier: restored.
    edit(&space, ChildKind::Deployment, json!({"spec": {"replicas": 7}})).await;
    run.until("restored", async |_: &Run| deployment(&space).await.spec.replicas == Some(3));
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    space.api::<Deployment>().patch_scale(NAME, &PatchParams::default(), &scale).await.unwrap();
    run.until("restored", async |_: &Run| deployment(&space).await.spec.replicas == Some(3));
    run.settle();
    assert_eq!(run.observe().replicas, 3);
    // A new operator takes over, and changes nothing.
    let before = deployment(&space).await;
    drop(run);
    let mut next = Run::new(&space, &json!({"template": space.on_node()}), 3).await;
    assert_eq!(next.observe().replicas, 3, "known before anything is decided");
    next.settle();
    let after = deployment(&space).await;
    assert_eq!(before.metadata.generation, after.metadata.generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_replaced_only_when_they_must() {
    let space = TestNamespace::new("roll").await;
    let mut run = Run::new(&space, &json!({"template": space.on_node()}), 1).await;
    run.settle();
    let revisions = async || space.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len();
    run.until("a ReplicaSet", async |_: &Run| revisions().await == 1);
    let listeners = json!([
        {"name": "http", "protocol": "HTTP", "port": 80},
        {"name": "more", "protocol": "HTTP", "port": 8080},
    ]);
    run.plan = plan(&space, &json!({"template": space.on_node(), "listeners": listeners}), 1);
    run.until("the Service's ports", async |_: &Run| {
        let ports = space.api::<Service>().get(NAME).await.unwrap().spec.unwrap().ports.unwrap();
        let ports: Vec<Value> = ports.iter().map(|port| serde_json::to_value(port).unwrap()).collect();
        let expect = json!([
            {"appProtocol": "http", "name": "http", "port": 80, "protocol": "TCP", "targetPort": 10080},
            {"appProtocol": "http", "name": "more", "port": 8080, "protocol": "TCP", "targetPort": 8080},
        ]);
        json!(ports) == expect
    });
    run.settle();
    assert_eq!(revisions().await, 1);
    let mut template = space.on_node();
    template["workers"] = json!(2);
    run.plan = plan(&space, &json!({"template": template, "listeners": listeners}), 1);
    run.until("a second ReplicaSet", async |_: &Run| revisions().await == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_of_many_leave_at_once() {
    let space = TestNamespace::new("cost").await;
    let _kubelet = space.node(Arc::default()).await;
    let mut run = Run::new(&space, &json!({"template": space.on_node()}), 6).await;
    run.until("six pods that are Ready", async |run: &Run| {
        let state = run.fleet.shared.state();
        let mut pods = state.pods_of(&run.plan.fleet);
        pods.by_ref().filter(|(_, pod)| pod.ready).count() == 6
    });
    let names: Vec<String> = run.observe().proxies.into_keys().collect();
    let connections = [50, 10, 40, 20, 60, 30];
    let reports: BTreeMap<String, ProxyReport> = names
        .iter()
        .zip(connections)
        .map(|(name, connections)| (name.clone(), ProxyReport { ready: true, connections, ..ProxyReport::default() }))
        .collect();
    run.plan.replicas = 3;
    run.fleet.ensure(&run.plan, &reports);
    let stay = [&names[0], &names[2], &names[4]];
    let start = Instant::now();
    while run.observe().proxies.len() > 3 {
        assert!(start.elapsed() < LIMIT);
        run.fleet.ensure(&run.plan, &reports);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(run.observe().proxies.keys().collect::<Vec<_>>(), stay);
}
