//! Identity, against a real API server: that of `$KUBECONFIG`. The operator has no permission here but those it needs.
//!
//! `cargo test -p operator --features cluster --test cluster_identity`. Each test makes a namespace of its own.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod support;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use operator::{
    identity::{self, authority::Authorities, certificate::Peer},
    leader::election::{self, LeaderState},
};
use planner::FleetRef;
use serde_json::json;
use tokio::sync::watch;
use tonic::Code;

use support::{Operator, Space, within};

const SECRET: &str = "sluice-control-ca";
const SERVICE: &str = "sluice-operator";

/// Made then, as an operator makes them.
fn made(at: Timestamp) -> Authorities {
    Authorities::default().changed(at).unwrap().unwrap()
}

fn ago(days: f64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs((days * 86400.0) as i64)
}

fn secret(authorities: Option<&Authorities>) -> Secret {
    let data = authorities.map(|a| json!({"ca.crt": a.bundle(), "ca.key": a.keys()}));
    serde_json::from_value(json!({"metadata": {"name": SECRET}, "stringData": data})).unwrap()
}

#[tokio::test]
async fn of_many_that_think_they_lead_one_makes_the_authority() {
    let space = Space::new("identity-race").await;
    let start = || identity::start(space.operator.clone(), &space.name, SECRET, SERVICE, election::sole_leader(1));
    let all: Vec<_> = (0..8).map(|_| start()).collect();
    let mut bundles = vec![];
    for identity in &all {
        let mut bundle = identity.bundle.clone();
        bundles.push(within(bundle.wait_for(|bundle| !bundle.is_empty())).await.unwrap().clone());
    }
    let secrets: Api<Secret> = Api::namespaced(space.admin.clone(), &space.name);
    let data = secrets.get(SECRET).await.unwrap().data.unwrap();
    assert!(bundles.iter().all(|bundle| bundle.as_bytes() == data["ca.crt"].0), "{bundles:?}");
    assert_eq!(Authorities::parse(&data["ca.crt"].0, &data["ca.key"].0).unwrap().lives().len(), 1);
    space.delete().await;
}

#[tokio::test]
async fn an_authority_that_grows_old_gets_another_beside_it() {
    let space = Space::new("identity-rotation").await;
    let secrets: Api<Secret> = Api::namespaced(space.admin.clone(), &space.name);
    let old = made(ago(60.5));
    secrets.create(&PostParams::default(), &secret(Some(&old))).await.unwrap();
    // A standby takes what is there, a leader adds to it.
    let (_lead, stands_by) = watch::channel(LeaderState::Standby { holder: None });
    let standby = identity::start(space.operator.clone(), &space.name, SECRET, SERVICE, stands_by);
    let mut taken = standby.bundle.clone();
    assert_eq!(**within(taken.wait_for(|bundle| !bundle.is_empty())).await.unwrap(), *old.bundle());
    let leader = identity::start(space.operator.clone(), &space.name, SECRET, SERVICE, election::sole_leader(1));
    let mut both = leader.bundle.clone();
    let both: Arc<str> = within(both.wait_for(|bundle| !bundle.is_empty())).await.unwrap().clone();
    assert!(both.starts_with(&old.bundle()) && both.matches("BEGIN CERTIFICATE").count() == 2, "{both}");
    // The standby sees it without being told.
    assert_eq!(**within(taken.wait_for(|bundle| **bundle == *both)).await.unwrap(), *both);
    // Once the second has signed for a day, the first goes.
    let (first, second) = (made(ago(63.0)), made(ago(3.0)));
    let mut replaced = secret(None);
    let (crt, key) = (first.bundle() + &second.bundle(), first.keys() + &second.keys());
    replaced.string_data = Some([("ca.crt".to_owned(), crt), ("ca.key".to_owned(), key)].into());
    secrets.replace(SECRET, &PostParams::default(), &replaced).await.unwrap();
    let leader = identity::start(space.operator.clone(), &space.name, SECRET, SERVICE, election::sole_leader(2));
    let mut one = leader.bundle.clone();
    assert_eq!(**within(one.wait_for(|bundle| !bundle.is_empty())).await.unwrap(), *second.bundle());
    space.delete().await;
}

#[tokio::test]
async fn a_secret_that_somebody_made_empty_is_filled_and_remains_theirs() {
    let space = Space::new("identity-empty").await;
    let secrets: Api<Secret> = Api::namespaced(space.admin.clone(), &space.name);
    let mut empty = secret(None);
    empty.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned())].into());
    secrets.create(&PostParams::default(), &empty).await.unwrap();
    let identity = identity::start(space.operator.clone(), &space.name, SECRET, SERVICE, election::sole_leader(1));
    within(identity.bundle.clone().wait_for(|bundle| !bundle.is_empty())).await.unwrap();
    let filled = secrets.get(SECRET).await.unwrap();
    assert_eq!(filled.metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "Helm");
    assert_eq!(filled.data.unwrap().keys().collect::<Vec<_>>(), ["ca.crt", "ca.key"]);
    space.delete().await;
}

#[tokio::test]
async fn a_pod_enrols_with_a_token_of_its_own_and_with_no_other() {
    let space = Space::new("identity-enroll").await;
    for account in ["sluice-f", "default-of-another"] {
        space.account(account).await;
        space.pod(account, account).await;
    }
    let operator = Operator::start(&space).await;
    let token = space.token("sluice-f", "sluice", Some("sluice-f")).await;
    let enrolled = operator.enroll(&token).await.unwrap();
    let fleet = FleetRef { namespace: space.name.clone(), name: "f".into() };
    let (peer, until) = Peer::of(&enrolled.chain[0]).unwrap();
    let uid = space.uid("sluice-f").await;
    assert_eq!(peer, Peer { fleet, pod: "sluice-f".into(), uid });
    let left = Timestamp::now().duration_until(until);
    assert!(SignedDuration::from_mins(59) < left && left <= SignedDuration::from_mins(60), "{left:?}");
    // With that it attaches, and is given what runs.
    assert_eq!(operator.attach(&enrolled).await.unwrap(), operator.revision);

    let refused = async |token: String, code: Code, part: &str| {
        let status = operator.enroll(&token).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(part), "{status:?}");
    };
    let unbound = space.token("sluice-f", "sluice", None).await;
    refused(unbound, Code::Unauthenticated, "is not bound to a pod").await;
    let for_api = space.token("sluice-f", "https://kubernetes.default.svc", Some("sluice-f")).await;
    refused(for_api, Code::Unauthenticated, "refuses the token").await;
    let foreign = space.token("default-of-another", "sluice", Some("default-of-another")).await;
    refused(foreign, Code::PermissionDenied, "is of no GatewayFleet").await;
    refused("nonsense".into(), Code::Unauthenticated, "refuses the token").await;
    let (head, signature) = token.rsplit_once('.').unwrap();
    refused(format!("{head}.{}", signature.chars().rev().collect::<String>()), Code::Unauthenticated, "refuses").await;

    // A pod that is gone takes its tokens with it; the API server remembers for 10 s what it said.
    let pods: Api<Pod> = Api::namespaced(space.admin.clone(), &space.name);
    pods.delete("sluice-f", &DeleteParams::default().grace_period(0)).await.unwrap();
    let gone = async {
        while operator.enroll(&token).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    within(gone).await;
    refused(token, Code::Unauthenticated, "refuses the token").await;
    space.delete().await;
}

#[tokio::test]
async fn without_permission_it_says_what_is_missing() {
    let space = Space::new("identity-forbidden").await;
    space.account("sluice-f").await;
    space.pod("sluice-f", "sluice-f").await;
    let token = space.token("sluice-f", "sluice", Some("sluice-f")).await;
    let operator = Operator::start(&space).await;
    space.forbid_reviews().await;
    let message = async {
        loop {
            match operator.enroll(&token).await {
                Err(status) if status.code() == Code::Unavailable => break status.message().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let message = within(message).await;
    assert!(message.contains("the operator needs `create` on `tokenreviews`"), "{message}");
    space.delete().await;
}
