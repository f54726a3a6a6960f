use std::{collections::BTreeMap, sync::Mutex};

use hyper::Method;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::*;
use crate::kube::testing::{Answer, api_server};

/// As much of an API server as a Secret and a TokenReview need. Whether the real one does so too is for the tests that
/// have one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    secret: Option<(Value, u64)>,
    /// What somebody else does before the next write.
    race: Option<Value>,
    writes: u64,
    forbids_create: bool,
    /// What each token is.
    tokens: BTreeMap<String, Value>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        api_server(move |asked| api.answer(&asked.method, asked.uri.path(), asked.body.clone())).0
    }

    /// A token of a pod.
    pub(crate) fn token(&self, token: &str, namespace: &str, account: &str, pod: &str) {
        let extra = json!({
            "authentication.kubernetes.io/pod-name": [pod],
            "authentication.kubernetes.io/pod-uid": ["1"],
        });
        let user = json!({"username": format!("system:serviceaccount:{namespace}:{account}"), "extra": extra});
        let status = json!({"authenticated": true, "audiences": ["sluice"], "user": user});
        self.0.lock().unwrap().tokens.insert(token.to_owned(), status);
    }

    /// The Secret holds these.
    pub(crate) fn hold(&self, authorities: &[&authority::Authority]) {
        let crt: String = authorities.iter().map(|a| x509::pem("CERTIFICATE", &a.certificate)).collect();
        let key: String = authorities.iter().map(|a| a.key.serialize_pem()).collect();
        let data = [("ca.crt", crt), ("ca.key", key)];
        let data = data.map(|(key, text)| (key.to_owned(), k8s_openapi::ByteString(text.into_bytes())));
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        self.0.lock().unwrap().secret = Some((serde_json::to_value(secret).unwrap(), 1));
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> Answer {
        let mut state = self.0.lock().unwrap();
        if path.ends_with("/tokenreviews") {
            assert_eq!(body["spec"]["audiences"], json!(["sluice"]));
            let known = state.tokens.get(body["spec"]["token"].as_str().unwrap()).cloned();
            let status = known.unwrap_or(json!({"authenticated": false, "error": "invalid bearer token"}));
            return Answer::json(201, json!({"metadata": {}, "spec": {"token": ""}, "status": status}));
        }
        assert!(path.starts_with("/api/v1/namespaces/sys/secrets"), "{path}");
        if *method != Method::GET
            && let Some(other) = state.race.take()
        {
            let version = state.secret.as_ref().map_or(0, |(_, version)| *version) + 1;
            state.secret = Some((other, version));
        }
        match (method, &state.secret) {
            (&Method::GET, None) => Answer::status(404),
            (&Method::GET, Some((secret, version))) => {
                let mut secret = secret.clone();
                secret["metadata"]["resourceVersion"] = json!(version.to_string());
                Answer::json(200, secret)
            }
            (&Method::POST, _) if state.forbids_create => Answer::status(403),
            (&Method::POST, Some(_)) => Answer::status(409),
            (&Method::PUT, Some((_, version))) if body["metadata"]["resourceVersion"] != json!(version.to_string()) => {
                Answer::status(409)
            }
            (&Method::PUT, None) => Answer::status(404),
            (&Method::POST | &Method::PUT, before) => {
                let version = before.as_ref().map_or(1, |(_, version)| version + 1);
                state.secret = Some((body.clone(), version));
                state.writes += 1;
                Answer::json(201, body)
            }
            _ => panic!("{method} {path}"),
        }
    }

    pub(crate) fn secret(&self) -> Secret {
        serde_json::from_value(self.0.lock().unwrap().secret.clone().unwrap().0).unwrap()
    }
}

/// Identity of a leader, with an authority.
pub(crate) async fn leading(api: &FakeApi) -> Identity {
    let identity = start(api.client(), "sys", "ca", "sluice-operator", crate::leader::election::sole_leader(1));
    let mut current = identity.current.clone();
    tokio::time::timeout(Duration::from_secs(10), current.wait_for(Option::is_some)).await.unwrap().unwrap();
    identity
}

fn store(api: &FakeApi) -> Store {
    Store::new(api.client(), "sys", "ca")
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[tokio::test]
async fn a_leader_makes_the_secret_and_standbys_take_it() {
    let api = FakeApi::default();
    let (lead, leading) = watch::channel(LeaderState::Standby { holder: None });
    let identity = start(api.client(), "sys", "ca", "sluice-operator", leading);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(identity.tls().is_none() && api.0.lock().unwrap().secret.is_none(), "a standby writes nothing");
    lead.send_replace(LeaderState::Leader { epoch: 1 });
    let mut bundle = identity.bundle.clone();
    let bundle = bundle.wait_for(|bundle| !bundle.is_empty()).await.unwrap().clone();
    let secret = api.secret();
    assert_eq!(secret.data.as_ref().unwrap()["ca.crt"].0, bundle.as_bytes());
    assert_eq!(secret.metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "sluice-operator");
    let (_lead, standby) = watch::channel(LeaderState::Standby { holder: None });
    let other = start(api.client(), "sys", "ca", "sluice-operator", standby);
    let mut same = other.bundle.clone();
    assert_eq!(*same.wait_for(|bundle| !bundle.is_empty()).await.unwrap(), bundle);
    assert_eq!(api.0.lock().unwrap().writes, 1);
}

#[tokio::test]
async fn of_two_that_write_one_wins() {
    // Somebody was first.
    let (api, other) = (FakeApi::default(), FakeApi::default());
    let theirs = store(&other).keep(now()).await.unwrap();
    api.0.lock().unwrap().race = Some(serde_json::to_value(other.secret()).unwrap());
    assert_eq!(store(&api).keep(now()).await.unwrap(), theirs);
    assert_eq!(api.0.lock().unwrap().writes, 0);
    // The same when one is to be added: there is one more, not two.
    let later = now() + SignedDuration::from_hours(60 * 24);
    let both = store(&other).keep(later).await.unwrap();
    assert_eq!(both.lives().len(), 2);
    api.0.lock().unwrap().race = Some(serde_json::to_value(other.secret()).unwrap());
    assert_eq!(store(&api).keep(later).await.unwrap(), both);
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_a_broken_one_left_alone() {
    let api = FakeApi::default();
    let metadata = json!({"name": "ca", "namespace": "sys", "labels": {"app.kubernetes.io/managed-by": "Helm"}});
    api.0.lock().unwrap().secret = Some((json!({"metadata": metadata}), 5));
    store(&api).keep(now()).await.unwrap();
    let secret = api.secret();
    assert_eq!(secret.metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "Helm");
    assert!(secret.data.unwrap()["ca.key"].0.starts_with(b"-----BEGIN PRIVATE KEY-----"));
    let data = json!({"ca.crt": "eA==", "ca.key": "eA=="});
    api.0.lock().unwrap().secret = Some((json!({"metadata": metadata, "data": data}), 6));
    let error = store(&api).keep(now()).await.unwrap_err().to_string();
    assert!(error.starts_with("Secret sys/ca: ca.crt: ") && error.contains("`data` to null"), "{error}");
    assert_eq!(api.0.lock().unwrap().writes, 1);
    api.0.lock().unwrap().secret = Some((json!({"metadata": metadata}), 7));
    store(&api).keep(now()).await.unwrap();
    // Neither is there one, nor may there be.
    {
        let mut state = api.0.lock().unwrap();
        (state.secret, state.forbids_create) = (None, true);
    }
    let error = store(&api).keep(now()).await.unwrap_err().to_string();
    assert!(error.starts_with("Secret sys/ca is not there, and this operator may not create it"), "{error}");
}

#[tokio::test]
async fn the_server_certificate_is_made_again_before_it_ends() {
    let authorities = store(&FakeApi::default()).keep(now()).await.unwrap();
    let (currents, current) = watch::channel(None);
    let (bundles, _bundle) = watch::channel(Arc::from(""));
    let names = server_names("sys", "sluice-operator");
    let mut made = |hours: i64| {
        take(&authorities, &names, &currents, &bundles, now() + SignedDuration::from_hours(hours)).unwrap();
        let current: Arc<Current> = current.borrow().clone().unwrap();
        current.made.duration_since(now()).as_hours()
    };
    assert_eq!([0, 15, 17, 24, 40].map(&mut made), [0, 0, 17, 17, 40]);
    assert_eq!(names, ["sluice-operator.sys.svc", "sluice-operator.sys.svc.cluster.local", "sluice-operator"]);
}
