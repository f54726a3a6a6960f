use hyper::Method;

use super::*;
use crate::kube::testing::{Answer, api_server};

fn configmap(text: Option<&str>) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some("defaults".into()),
        namespace: Some("sys".into()),
        uid: Some("u-1".into()),
        ..ObjectMeta::default()
    };
    let data = text.map(|text| [(KEY.to_owned(), text.to_owned())].into());
    ConfigMap { metadata, data, ..ConfigMap::default() }
}

#[track_caller]
fn check(text: Option<&str>, expect: Result<&str, &str>) {
    match (fleet(&configmap(text)), expect) {
        (Ok(got), Ok(expect)) => assert_eq!(got["metadata"].to_string(), expect),
        (Err(got), Err(expect)) => assert!(got.to_string().contains(expect), "{got}"),
        (got, expect) => panic!("{got:?} instead of {expect:?}"),
    }
}

const GOOD: &str = "apiVersion: sluice.dev/v1alpha1\nkind: GatewayFleet\nmetadata: {name: default}\n\
    spec: {listeners: [{name: http, protocol: HTTP, port: 80}]}\n";

/// Applies a manifest where this fleet is already: what the API server was asked, and what came of it.
async fn applied(manifest: &str, there: Option<Value>) -> (Vec<(Method, Value)>, Result<(), Failure>) {
    applied_amid(manifest, there, None).await
}

/// The same where the fleet is changed to `then` between the first look and the write.
async fn applied_amid(
    manifest: &str,
    there: Option<Value>,
    mut then: Option<Value>,
) -> (Vec<(Method, Value)>, Result<(), Failure>) {
    let mut there = there;
    let (client, mut requests) = api_server(move |asked| {
        if asked.method == Method::PATCH && then.is_some() {
            there = then.take();
            return Answer::status(409);
        }
        match (&asked.method, &there) {
            (&Method::GET, None) => Answer::status(404),
            (_, there) => Answer::json(200, there.clone().unwrap_or_else(|| owned("ConfigMap", "defaults", "u-1"))),
        }
    });
    let done = apply(&client, &configmap(Some(manifest))).await;
    let requests = std::iter::from_fn(|| requests.try_recv().ok()).map(|asked| (asked.method, asked.body));
    (requests.collect(), done)
}

fn methods(requests: Vec<(Method, Value)>) -> Vec<Method> {
    requests.into_iter().map(|(method, _)| method).collect()
}

#[tokio::test]
async fn who_scales_the_fleet_is_not_overruled() {
    let manifest = GOOD.replace("spec: {", "spec: {scaling: {mode: External, replicas: 3}, ");
    let replicas = json!({"f:spec": {"f:scaling": {"f:replicas": {}}}});
    let managed = |subresource: Option<&str>, fields: &Value| {
        let mut there = owned("ConfigMap", "defaults", "u-1");
        there["metadata"]["managedFields"] = json!([{"manager": "m", "subresource": subresource, "fieldsV1": fields}]);
        Some(there)
    };
    let cases = [
        (None, Some(3)),
        (managed(None, &replicas), Some(3)),
        (managed(Some("status"), &json!({"f:status": {}})), Some(3)),
        (managed(Some("scale"), &replicas), None),
    ];
    for (there, expect) in cases {
        let (requests, done) = applied(&manifest, there).await;
        assert!(done.is_ok(), "{done:?}");
        let scaling = &requests[1].1["spec"]["scaling"];
        assert_eq!((scaling["replicas"].as_u64(), &scaling["mode"]), (expect, &json!("External")));
    }
}

/// Whoever scales it between the look and the write, too.
#[tokio::test]
async fn what_changes_meanwhile_is_looked_at_again() {
    let manifest = GOOD.replace("spec: {", "spec: {scaling: {mode: External, replicas: 3}, ");
    let of = |version: &str, scaled: bool| {
        let mut there = owned("ConfigMap", "defaults", "u-1");
        there["metadata"]["resourceVersion"] = version.into();
        if scaled {
            let fields = json!({"f:spec": {"f:scaling": {"f:replicas": {}}}});
            there["metadata"]["managedFields"] = json!([{"manager": "m", "subresource": "scale", "fieldsV1": fields}]);
        }
        Some(there)
    };
    let (requests, done) = applied_amid(&manifest, of("1", false), of("2", true)).await;
    assert!(done.is_ok(), "{done:?}");
    let writes: Vec<_> = requests.iter().filter(|(method, _)| *method == Method::PATCH).map(|(_, body)| body).collect();
    let said =
        |body: &Value| (body["metadata"]["resourceVersion"].clone(), body["spec"]["scaling"]["replicas"].as_u64());
    assert_eq!(writes.into_iter().map(said).collect::<Vec<_>>(), [(json!("1"), Some(3)), (json!("2"), None)]);
}

fn owned(kind: &str, name: &str, uid: &str) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true});
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "default", "namespace": "sys", "uid": "f-1", "ownerReferences": [owner]},
    })
}

#[tokio::test]
async fn a_fleet_of_somebody_else_is_left_alone() {
    let mut users = owned("ConfigMap", "defaults", "u-1");
    users["metadata"]["ownerReferences"] = json!([]);
    for strangers in [users, owned("ConfigMap", "others", "u-2"), owned("Deployment", "defaults", "u-3")] {
        let (requests, done) = applied(GOOD, Some(strangers)).await;
        let Err(Failure::Manifest(DefaultFleetError::Occupied(name))) = done else { panic!("{done:?}") };
        assert_eq!((methods(requests), name.as_str()), (vec![Method::GET], "sys/default"));
    }
    let applies = vec![Method::GET, Method::PATCH];
    for ours in [None, Some(owned("ConfigMap", "defaults", "u-1")), Some(owned("ConfigMap", "defaults", "u-0"))] {
        let (requests, done) = applied(GOOD, ours).await;
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(methods(requests), applies);
    }
}

#[test]
fn the_configmap_owns_the_fleet() {
    check(
        Some(GOOD),
        Ok(
            r#"{"name":"default","namespace":"sys","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"defaults","uid":"u-1","controller":true}],"annotations":{"sluice.dev/defined-by":"ConfigMap sys/defaults"}}"#,
        ),
    );
    check(None, Err("no key fleet.yaml"));
    check(Some(" "), Err("no key fleet.yaml"));
    check(Some("{"), Err("is no YAML"));
    check(Some("- a"), Err("is no GatewayFleet"));
    check(Some(&GOOD.replace("GatewayFleet", "ApiRoute")), Err("is no GatewayFleet"));
    check(Some(&GOOD.replace("name: default", "name: a, namespace: b")), Err("\"b\": leave it out"));
    check(Some(&GOOD.replace("port: 80", "port: 0")), Err("spec.listeners[0].port"));
    check(Some(&GOOD.replace("port: 80", "prot: 80")), Err("prot"));
}

/// When an API server is asked to take the manifest that refuses it so often, in seconds.
async fn attempts(refusals: usize) -> Vec<u64> {
    let (began, attempts) = (tokio::time::Instant::now(), Arc::new(std::sync::Mutex::new(vec![])));
    let noted = Arc::clone(&attempts);
    let (client, _asked) = api_server(move |asked| {
        let of = asked.uri.path().rsplit('/').next().unwrap();
        // What each watch says of what is there would be another reason to try.
        if of == "gatewayfleets" || asked.uri.query().is_some_and(|query| query.contains("watch=")) {
            return Answer::Silence;
        }
        match (&asked.method, of) {
            (&Method::GET, "configmaps") => {
                let metadata = json!({"resourceVersion": "1"});
                let items = [configmap(Some(GOOD))];
                Answer::json(200, json!({"kind": "L", "apiVersion": "v1", "metadata": metadata, "items": items}))
            }
            (&Method::GET, _) => Answer::status(404),
            _ => {
                let mut noted = noted.lock().unwrap();
                noted.push(began.elapsed().as_secs());
                match noted.len() > refusals {
                    true => Answer::json(200, owned("ConfigMap", "defaults", "u-1")),
                    false => Answer::status(403),
                }
            }
        }
    });
    let (state, mut told) = watch::channel(State::default());
    let follow = Follow { namespace: "sys".into(), name: "defaults".into(), events: EventRecorder::nowhere(), state };
    let following = tokio::spawn(follow.run(client, crate::leader::election::sole_leader(1)));
    told.wait_for(|state| *state == State::AsDefined).await.unwrap();
    following.abort();
    attempts.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_soon_tried_again() {
    assert_eq!(attempts(3).await, [0, 2, 6, 14]);
}
