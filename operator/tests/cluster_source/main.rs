//! The API server as source, against a real one: that of `$KUBECONFIG`, with the definitions of crds/yaml installed.
//!
//! `cargo test -p operator --features cluster --test cluster_source`. The tests make namespaces of their own; one of them
//! installs and removes the definition of ReferenceGrant.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crds::{Kind, Object};
use operator::source::{InForce, Observed};
use planner::{
    ObjectRef,
    references::{SecretPart, SecretRef},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use support::{Cable, Cluster, Follow, id};

const SOON: Duration = Duration::from_secs(5);

/// References of fleets to these.
fn certificates<const N: usize>(secrets: [ObjectRef; N]) -> BTreeSet<SecretRef> {
    let certificate = |secret| SecretRef { secret, by: Kind::GatewayFleet, part: SecretPart::Certificate };
    secrets.into_iter().map(certificate).collect()
}

fn service(port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "backend", "annotations": {"not": "kept"}},
        "spec": {"ports": [{"port": port, "appProtocol": "http"}]},
    })
}

fn slice(address: &str, port: i32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "backend-1", "labels": {"kubernetes.io/service-name": "backend"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "zone": "zone-a", "nodeName": "n"}],
    })
}

fn route(path: &str) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "r"},
        "spec": {
            "parentRefs": [{"name": "nobody"}],
            "rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "backend", "port": 80}]}],
        },
    })
}

fn secret(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind,
        "data": {"tls.crt": "YQ==", "tls.key": "Yg==", "other": "Yw=="},
    })
}

fn path_of(observed: &Observed, namespace: &str) -> Option<String> {
    let object = observed.objects.get(&id(Kind::ApiRoute, namespace, "r"))?;
    let Object::ApiRoute(route) = object.current.as_deref().ok()? else { return None };
    let value = serde_json::to_value(&route.spec).ok()?;
    value.pointer("/rules/0/matches/0/path/value").and_then(Value::as_str).map(str::to_owned)
}

/// Of a Secret that is read, which members it has and what the certificate is.
fn certificate_of(observed: &Observed, namespace: &str, name: &str) -> Option<(Vec<String>, Vec<u8>)> {
    let object = observed.objects.get(&id(Kind::Secret, namespace, name))?;
    let Object::Secret(secret) = object.current.as_deref().ok()? else { return None };
    let data = secret.data.as_ref()?;
    Some((data.keys().cloned().collect(), data.get("tls.crt")?.0.clone()))
}

#[tokio::test]
async fn of_secrets_only_what_a_fleet_refers_to_is_read() {
    Cluster::with_namespace("secrets", async |cluster, ns| {
        let mut follow = Follow::start(cluster.client.clone());
        follow.until("a first world", SOON, |_| true).await;
        for (name, kind) in [("cert", "kubernetes.io/tls"), ("own", "kubernetes.io/tls"), ("plain", "Opaque")] {
            cluster.apply(ns, &secret(name, kind)).await;
        }
        let fleet = |refers: Value| {
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": {"name": "f"},
                "spec": {"listeners": [{"name": "a", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": refers}}]},
            })
        };
        // A fleet comes with what it refers to, never before.
        cluster.apply(ns, &fleet(json!([{"name": "cert"}, {"name": "plain"}, {"name": "missing"}]))).await;
        let is_there = |observed: &Observed| observed.objects.contains_key(&id(Kind::GatewayFleet, ns, "f"));
        let world = follow.until("the fleet", SOON, is_there).await;
        let members = vec!["tls.crt".to_owned(), "tls.key".to_owned()];
        assert_eq!(certificate_of(&world, ns, "cert"), Some((members, b"a".to_vec())));
        for name in ["own", "missing"] {
            assert!(!world.objects.contains_key(&id(Kind::Secret, ns, name)), "{name}");
        }
        // It changes, and what is in force of the fleet refers to another.
        let mut renewed = secret("cert", "kubernetes.io/tls");
        renewed["data"]["tls.crt"] = json!("Yg==");
        cluster.apply(ns, &renewed).await;
        let is_new = |observed: &Observed| certificate_of(observed, ns, "cert").is_some_and(|(_, pem)| pem == b"b");
        follow.until("the new certificate", SOON, is_new).await;
        follow.in_force.send_replace(Some(InForce {
            world: 1,
            secrets: certificates([id(Kind::Secret, ns, "own")]),
            ..InForce::default()
        }));
        follow.until("the other one", SOON, |observed| certificate_of(observed, ns, "own").is_some()).await;
        // The fleet goes, and once that is planned, what it alone refers to.
        cluster.delete(ns, &fleet(json!([]))).await;
        let world = follow.until("no fleet", SOON, |observed| !is_there(observed)).await;
        assert!(certificate_of(&world, ns, "cert").is_some() && certificate_of(&world, ns, "own").is_some());
        let secrets = certificates([id(Kind::Secret, ns, "own")]);
        follow.in_force.send_replace(Some(InForce { world: world.number, secrets, ..InForce::default() }));
        cluster.delete(ns, &secret("own", "")).await;
        let gone = |observed: &Observed| certificate_of(observed, ns, "own").is_none();
        let world = follow.until("no certificate", SOON, gone).await;
        assert!(!world.objects.contains_key(&id(Kind::Secret, ns, "cert")));
    })
    .await;
}

#[tokio::test]
async fn objects_come_change_and_go() {
    Cluster::with_namespace("objects", async |cluster, ns| {
        let mut follow = Follow::start(cluster.client.clone());
        follow.until("a first world", SOON, |_| true).await;
        for object in &[service(80), route("/a"), slice("10.1.2.3", 8080)] {
            cluster.apply(ns, object).await;
        }
        let found = |observed: &Observed, kind, name: &str| observed.objects.contains_key(&id(kind, ns, name));
        let world = follow
            .until("every object", SOON, |observed| {
                found(observed, Kind::Service, "backend")
                    && found(observed, Kind::EndpointSlice, "backend-1")
                    && path_of(observed, ns).is_some()
            })
            .await;
        assert_eq!(world.cluster, Some(support::here()));
        let there = &world.objects[&id(Kind::Namespace, "", ns)];
        let Ok(Object::Namespace(namespace)) = there.current.as_deref() else { panic!("{:?}", there.current) };
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        assert_eq!(labels.get("kubernetes.io/metadata.name").map(String::as_str), Some(ns));

        // What an API server says of an object arrives with it.
        let written = cluster.read(ns, &route("/a")).await;
        let object = &world.objects[&id(Kind::ApiRoute, ns, "r")];
        let creation = object.creation.as_ref().unwrap();
        let metadata = object.current.as_ref().unwrap().metadata();
        assert_eq!(metadata.uid, written.metadata.uid);
        assert_eq!(Some(creation.uid.as_ref()), written.metadata.uid.as_deref());
        assert_eq!(Some(creation.created), written.metadata.creation_timestamp.as_ref().map(|at| at.0));
        assert_eq!((object.generation, written.metadata.generation), (1, Some(1)));

        // A change.
        cluster.apply(ns, &route("/b")).await;
        let world = follow.until("a change", SOON, |observed| path_of(observed, ns).as_deref() == Some("/b")).await;
        assert_eq!(world.objects[&id(Kind::ApiRoute, ns, "r")].generation, 2);
        cluster.apply(ns, &service(81)).await;
        let changed = |observed: &Observed| observed.objects[&id(Kind::Service, ns, "backend")].generation == 2;
        follow.until("a change of a Service", SOON, changed).await;

        // The end of one, and another of its name.
        cluster.delete(ns, &route("")).await;
        follow.until("no route", SOON, |observed| path_of(observed, ns).is_none()).await;
        cluster.apply(ns, &route("/c")).await;
        let world = follow.until("a new one", SOON, |observed| path_of(observed, ns).as_deref() == Some("/c")).await;
        let object = &world.objects[&id(Kind::ApiRoute, ns, "r")];
        assert_eq!(object.generation, 1);
        assert_ne!(Some(object.creation.as_ref().unwrap().uid.as_ref()), written.metadata.uid.as_deref());
    })
    .await;
}

#[tokio::test]
async fn what_is_not_kept_is_no_news() {
    Cluster::with_namespace("news", async |cluster, ns| {
        cluster.apply(ns, &route("/a")).await;
        cluster.apply(ns, &service(80)).await;
        let mut follow = Follow::start(cluster.client.clone());
        let before = follow.until("the route", SOON, |observed| path_of(observed, ns).is_some()).await;
        for i in 0..5 {
            cluster.patch_status(ns, &route(""), json!({"status": {"conditions": [], "observedGeneration": i}})).await;
            cluster.annotate(ns, &route(""), &i.to_string()).await;
            cluster.annotate(ns, &service(80), &i.to_string()).await;
        }
        // Others use this cluster too: there may be news, but each world differs from the one before.
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut last = before.clone();
        while let Some(next) = follow.next_before(deadline).await {
            let content = |observed: &Observed| -> Vec<_> {
                observed.objects.iter().map(|(id, o)| (id.clone(), o.content)).collect()
            };
            assert_ne!(content(&last), content(&next), "a world without news");
            last = next;
        }
        for kind in [(Kind::ApiRoute, "r"), (Kind::Service, "backend")] {
            let of = |observed: &Observed| observed.objects[&id(kind.0, ns, kind.1)].current.clone().unwrap();
            assert!(Arc::ptr_eq(&of(&before), &of(&last)), "admitted again");
        }
    })
    .await;
}

#[tokio::test]
async fn an_object_that_is_not_admitted_stops_nothing() {
    Cluster::with_namespace("broken", async |cluster, ns| {
        let mut follow = Follow::start(cluster.client.clone());
        follow.until("a first world", SOON, |_| true).await;
        // An API server does not look at the ports of a slice.
        cluster.apply(ns, &slice("10.1.2.3", 70_000)).await;
        let the_slice = id(Kind::EndpointSlice, ns, "backend-1");
        let world = follow.until("the slice", SOON, |observed| observed.objects.contains_key(&the_slice)).await;
        let violations = world.objects[&the_slice].current.as_ref().unwrap_err();
        assert_eq!(violations[0].path, "ports[0].port");
        cluster.apply(ns, &slice("10.1.2.3", 7000)).await;
        follow.until("it mended", SOON, |observed| observed.objects[&the_slice].current.is_ok()).await;
    })
    .await;
}

#[tokio::test]
async fn grants_are_read_while_there_are_any() {
    Cluster::with_namespace("grants", async |cluster, ns| {
        cluster.remove_grants().await;
        let mut follow = Follow::start(cluster.client.clone());
        follow.until("a first world, without grants", SOON, |_| true).await;
        assert!(follow.progress.borrow().synced);

        let grant = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant", "metadata": {"name": "g"},
            "spec": {"from": [{"group": "sluice.dev", "kind": "ApiRoute", "namespace": "a"}], "to": [{"group": "", "kind": "Service"}]},
        });
        let the_grant = id(Kind::ReferenceGrant, ns, "g");
        cluster.install_grants(&["v1", "v1beta1"]).await;
        cluster.create(ns, &grant).await;
        let world = follow.until("a grant", SOON, |observed| observed.objects.contains_key(&the_grant)).await;
        assert!(world.objects[&the_grant].current.is_ok(), "{:?}", world.objects[&the_grant].current);
        // Only the older version: the grant stays all the while.
        let mut gone = BTreeSet::new();
        cluster.install_grants(&["v1beta1"]).await;
        let deadline = Instant::now() + Duration::from_secs(3);
        while let Some(next) = follow.next_before(deadline).await {
            gone.insert(!next.objects.contains_key(&the_grant));
        }
        assert!(!gone.contains(&true));
        let mut older = grant.clone();
        older["apiVersion"] = json!("gateway.networking.k8s.io/v1beta1");
        older["metadata"]["name"] = json!("h");
        cluster.create(ns, &older).await;
        let two = |observed: &Observed| observed.objects.contains_key(&id(Kind::ReferenceGrant, ns, "h"));
        follow.until("a second grant", SOON, two).await;

        cluster.remove_grants().await;
        follow.until("no grant", SOON, |observed| !observed.objects.contains_key(&the_grant) && !two(observed)).await;
        assert_eq!(follow.progress.borrow().to_string(), "synced");
        // And once more.
        cluster.install_grants(&["v1", "v1beta1"]).await;
        cluster.create(ns, &grant).await;
        follow.until("a grant again", SOON, |observed| observed.objects.contains_key(&the_grant)).await;
        // Whoever begins with grants in the cluster has them in the first world.
        let mut late = Follow::start(cluster.client.clone());
        let first = late.until("a first world, with grants", SOON, |_| true).await;
        assert!(first.objects.contains_key(&the_grant));
        cluster.remove_grants().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_loses_nothing() {
    Cluster::with_namespace("cable", async |cluster, ns| {
        cluster.apply(ns, &route("/a")).await;
        let mut cable = Cable::to(&cluster.config).await;
        let mut follow = Follow::start(cable.client(&cluster.config));
        follow.until("the route", SOON, |observed| path_of(observed, ns).as_deref() == Some("/a")).await;

        cable.cut().await;
        cluster.apply(ns, &route("/b")).await;
        cluster.apply(ns, &service(80)).await;
        let deadline = Instant::now() + Duration::from_secs(3);
        assert!(follow.next_before(deadline).await.is_none(), "nothing is taken for deleted");
        let said = follow.progress.borrow().to_string();
        assert!(said.starts_with("synced, but now failing: the API server can't be reached: "), "{said}");

        cable.mend().await;
        let within = Duration::from_secs(15); // attempts are at most 10 s apart
        follow.until("what changed", within, |observed| path_of(observed, ns).as_deref() == Some("/b")).await;
        let service = |observed: &Observed| observed.objects.contains_key(&id(Kind::Service, ns, "backend"));
        follow.until("what was added", within, service).await;
        cluster.apply(ns, &route("/c")).await;
        follow.until("a change", within, |observed| path_of(observed, ns).as_deref() == Some("/c")).await;
    })
    .await;
}

/// The role of the module's documentation suffices, and without it the progress says what is missing.
#[tokio::test]
async fn what_it_needs_to_be_allowed() {
    Cluster::with_namespace("rbac", async |cluster, ns| {
        let user = format!("system:serviceaccount:{ns}:someone");
        let mut config = cluster.config.clone();
        config.auth_info.impersonate = Some(user.clone());
        let mut follow = Follow::start(kube::Client::try_from(config).unwrap());
        sleep(Duration::from_secs(2)).await;
        let said = follow.progress.borrow().to_string();
        for watch in ["apiroutes.sluice.dev", "namespaces", "endpointslices.discovery.k8s.io"] {
            assert!(said.contains(&format!("{watch}: the operator may not list them")), "{said}");
        }
        // Secrets are read by namespace, and only where a fleet refers to one.
        assert!(!said.contains("referencegrants") && !said.contains("secrets"), "{said}");

        let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
        let mut definitions = rule("apiextensions.k8s.io", &["customresourcedefinitions"]);
        definitions["resourceNames"] = json!(["consumers.sluice.dev", "referencegrants.gateway.networking.k8s.io"]);
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ns},
            "rules": [
                rule("sluice.dev", &["gatewayfleets", "apiroutes", "ratepolicies", "accesspolicies", "consumers"]),
                rule("", &["services", "secrets", "namespaces", "nodes"]),
                rule("discovery.k8s.io", &["endpointslices"]),
                rule("gateway.networking.k8s.io", &["referencegrants"]),
                definitions,
            ],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ns},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ns},
            "subjects": [{"kind": "ServiceAccount", "name": "someone", "namespace": ns}],
        });
        cluster.create("", &role).await;
        cluster.create("", &binding).await;
        follow.until("a first world", Duration::from_secs(25), |_| true).await;
        assert!(follow.progress.borrow().synced);
        let ended = |said: &str| !said.contains("may not");
        let deadline = Instant::now() + Duration::from_secs(25);
        while !ended(&follow.progress.borrow().to_string()) {
            assert!(Instant::now() < deadline, "{}", *follow.progress.borrow());
            sleep(Duration::from_millis(200)).await;
        }
        cluster.delete("", &role).await;
        cluster.delete("", &binding).await;
    })
    .await;
}

/// Not a benchmark: a change that takes long, in a cluster with nothing to do, waits for something that it should not.
#[tokio::test]
async fn a_change_arrives_at_once() {
    Cluster::with_namespace("latency", async |cluster, ns| {
        cluster.apply(ns, &route("/0")).await;
        let mut follow = Follow::start(cluster.client.clone());
        follow.until("the route", SOON, |observed| path_of(observed, ns).is_some()).await;
        let mut took = vec![];
        for i in 1..=20 {
            sleep(Duration::from_millis(100)).await;
            let path = format!("/{i}");
            let start = Instant::now();
            cluster.apply(ns, &route(&path)).await;
            follow.until("the change", SOON, |observed| path_of(observed, ns).as_ref() == Some(&path)).await;
            took.push(start.elapsed());
        }
        took.sort();
        println!("from `apply` to its world: median {:?}, longest {:?}", took[10], took[19]);
        assert!(took[10] < Duration::from_millis(200), "{took:?}");
    })
    .await;
}
