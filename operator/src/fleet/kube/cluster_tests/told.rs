//! What can not be done is told, with the object and the fix.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_is_told() {
    let space = TestNamespace::new("refused").await;
    // Another's Service has the name, and no ConfigMap may be made.
    let theirs =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": {"ports": [{"port": 1}]}});
    apply(&space.api::<Service>(), theirs).await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"count/configmaps": "1", "pods": "0"}},
    });
    apply(&space.api::<ResourceQuota>(), quota).await;
    let quotas = space.api::<ResourceQuota>();
    let in_force = async || quotas.get("q").await.unwrap().status.is_some_and(|status| status.used.is_some());
    let _kubelet = space.node(Arc::default()).await;
    let mut run = Run::new(&space, &json!({"template": space.on_node()}), 1).await;
    while !in_force().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The cluster puts its own into every namespace.
    space.api::<ConfigMap>().get("kube-root-ca.crt").await.unwrap();
    run.until_problem("NameOccupied", &format!("Service {}/{NAME}", space.namespace));
    run.until_problem("QuotaExceeded", &format!("ConfigMap {}/{NAME}-ca", space.namespace));
    let theirs = space.api::<Service>().get(NAME).await.unwrap();
    assert!(theirs.labels().is_empty(), "untouched: {theirs:?}");
    // What is put right is taken up by itself.
    space.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    edit_quota(&space, json!({"count/configmaps": null})).await;
    run.until_problem("PodsRefused", "exceeded quota");
    edit_quota(&space, json!({"pods": null})).await;
    run.until("no problem", async |run: &Run| run.reasons().is_empty());
    run.settle();
    // What can't be changed any more.
    let template = space.on_node();
    let balancer =
        |class: &str| json!({"template": template, "service": {"type": "LoadBalancer", "loadBalancerClass": class}});
    run.plan = plan(&space, &balancer("example.com/a"), 1);
    run.settle();
    run.plan = plan(&space, &balancer("example.com/b"), 1);
    run.until_problem("Immutable", "may not change once set");
    space.api::<Service>().delete(NAME, &DeleteParams::default()).await.unwrap();
    run.settle();
    assert!(!run.reasons().contains("Immutable"));
    // And back to one without a balancer: what only a balancer has goes with it.
    run.plan = plan(&space, &json!({"template": template}), 1);
    run.settle();
    let spec = space.api::<Service>().get(NAME).await.unwrap().spec.unwrap();
    assert_eq!(
        (spec.type_.as_deref(), spec.external_traffic_policy, spec.load_balancer_class),
        (Some("ClusterIP"), None, None)
    );
    assert_eq!(run.observe().addresses, spec.cluster_ips.unwrap());
}

async fn edit_quota(space: &TestNamespace, hard: Value) {
    let patch = Patch::Merge(json!({"spec": {"hard": hard}}));
    space.api::<ResourceQuota>().patch("q", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_told() {
    let space = TestNamespace::new("rights").await;
    let mut run = Run::new(&space, &json!({}), 0).await;
    run.settle();
    let roles = Api::<k8s_openapi::api::rbac::v1::ClusterRole>::all(space.admin.clone());
    let patch = json!([{"op": "replace", "path": "/rules/3/verbs", "value": ["list", "watch"]}]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    roles.patch(&space.namespace, &PatchParams::default(), &patch).await.unwrap();
    edit(&space, ChildKind::NetworkPolicy, json!({"spec": {"ingress": []}})).await;
    run.until_problem("Forbidden", &format!("NetworkPolicy {}/{NAME}", space.namespace));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_pods_from_running_is_told() {
    let space = TestNamespace::new("pods").await;
    let settings = |image: &str| Settings {
        image: image.into(),
        image_pull_policy: "Never".into(),
        image_pull_secrets: vec![],
        ..testing::settings()
    };
    let small = json!({"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}});
    let mut run = Run::with(&space, settings("localhost/not-there:1"), &json!({"template": small}), 1).await;
    run.until_problem("ImagePullFailed", "localhost/not-there:1");
    // Two operators would contend for the fleet.
    drop(run);
    // An image that is there, of a program that takes other arguments and says so: its last words are in the message.
    let dns = Api::<Deployment>::namespaced(space.admin.clone(), "kube-system").get("coredns").await.unwrap();
    let image = dns.spec.template.spec.unwrap().containers[0].image.clone().unwrap();
    let mut run = Run::with(&space, settings(&image), &json!({"template": small}), 1).await;
    run.until_problem("ProxyCrashes", "-keep");
    let nowhere = json!({"nodeSelector": {"test": "nowhere"}});
    run.plan = plan(&space, &json!({"template": nowhere}), 1);
    run.until_problem("Unschedulable", "node");
}
