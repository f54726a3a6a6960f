//! Leading, against a real API server: that of `$KUBECONFIG`, with the definitions of crds/yaml installed.
//!
//! `cargo test -p operator --features cluster --test cluster_lead`. Each test makes a namespace of its own.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod fleet;
mod memory;
mod statuses;
mod support;

use std::time::Duration;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use operator::leader::{election::LeaderState, fencing, lease};
use serde_json::json;
use tokio::time::{Instant, sleep};

use support::{Contender, Space, until};

/// What users are promised.
const TAKEOVER: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_dead_leader_is_replaced_in_time_and_there_are_never_two() {
    Space::with("killed", async |space| {
        let (a, b) = (Contender::start(space, "a"), Contender::start(space, "b"));
        let watch = support::never_two(vec![a.validity.clone(), b.validity.clone()]);
        until("one leads", || a.epoch().is_some() || b.epoch().is_some()).await;
        let (leader, other) = if a.epoch().is_some() { (a, b) } else { (b, a) };
        let epoch = leader.epoch().unwrap();
        until(
            "the other knows where it is",
            || matches!(&*other.lead.borrow(), LeaderState::Standby { holder: Some(at) } if *at == leader.address),
        )
        .await;

        // Longer than a lease lasts: it is renewed.
        sleep(lease::LEASE_DURATION + Duration::from_secs(2)).await;
        assert_eq!((leader.epoch(), other.epoch()), (Some(epoch), None));

        leader.task.abort();
        let killed = Instant::now();
        until("the other leads", || other.epoch().is_some()).await;
        let took = killed.elapsed();
        println!("takeover after {took:?}");
        assert!(took <= TAKEOVER, "{took:?}");
        assert_eq!(other.epoch(), Some(epoch + 1));
        assert!(!leader.validity.holds());
        watch.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_given_up_is_taken_at_once() {
    Space::with("released", async |space| {
        let a = Contender::start(space, "a");
        until("a leads", || a.epoch().is_some()).await;
        let b = Contender::start(space, "b");
        let watch = support::never_two(vec![a.validity.clone(), b.validity.clone()]);
        sleep(Duration::from_secs(1)).await;
        a.ends.send_replace(true);
        let told = Instant::now();
        a.task.await.unwrap().expect("ends well");
        assert!(!a.validity.holds());
        until("b leads", || b.epoch().is_some()).await;
        let took = told.elapsed();
        println!("takeover after {took:?}");
        assert!(took <= Duration::from_secs(3), "{took:?}");
        watch.finish().await;
    })
    .await;
}

#[tokio::test]
async fn who_loses_the_lease_ends_and_writes_nothing_more() {
    Space::with("lost", async |space| {
        let a = Contender::start(space, "a");
        until("a leads", || a.epoch().is_some()).await;
        let fenced = fencing::client(space.config.clone(), a.validity.clone()).unwrap();
        let api: Api<ConfigMap> = Api::namespaced(fenced, &space.name);
        let note = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &note("one")).await.expect("a leads");

        let leases: Api<Lease> = Api::namespaced(space.client.clone(), &space.name);
        let stolen = json!({"spec": {"holderIdentity": "thief"}});
        leases.patch("sluice-operator", &PatchParams::default(), &Patch::Merge(stolen)).await.unwrap();
        let at = Instant::now();
        let error = a.task.await.unwrap().expect_err("it lost").to_string();
        println!("lost after {:?}: {error}", at.elapsed());
        assert!(at.elapsed() <= lease::RENEW_INTERVAL + Duration::from_secs(2));
        assert!(error.contains("another took the lease"), "{error}");

        assert!(!a.validity.holds(), "it ends with the lease, not when it would have");
        let error = api.create(&PostParams::default(), &note("two")).await.unwrap_err();
        assert!(fencing::is_not_leading(&error), "{error}");
        assert!(api.get_opt("two").await.unwrap().is_none(), "reading is free");
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_someone_deletes_comes_back() {
    Space::with("deleted", async |space| {
        let a = Contender::start(space, "a");
        until("a leads", || a.epoch().is_some()).await;
        let epoch = a.epoch();
        let leases: Api<Lease> = Api::namespaced(space.client.clone(), &space.name);
        leases.delete("sluice-operator", &DeleteParams::default()).await.unwrap();
        sleep(2 * lease::RENEW_INTERVAL).await;
        assert!(leases.get_opt("sluice-operator").await.unwrap().is_some());
        assert_eq!(a.epoch(), epoch);
        assert!(a.validity.holds());
    })
    .await;
}

#[tokio::test]
async fn an_empty_lease_of_a_chart_is_taken() {
    Space::with("empty", async |space| {
        let leases: Api<Lease> = Api::namespaced(space.client.clone(), &space.name);
        let labels = json!({"app.kubernetes.io/managed-by": "Helm"});
        let empty = serde_json::from_value(json!({"metadata": {"name": "sluice-operator", "labels": labels}})).unwrap();
        leases.create(&PostParams::default(), &empty).await.unwrap();
        let a = Contender::start(space, "a");
        until("a leads", || a.epoch().is_some()).await;
        let lease = leases.get("sluice-operator").await.unwrap();
        assert!(lease.metadata.labels.is_some(), "what others wrote on it stays");
        assert_eq!(lease.metadata.annotations.unwrap()[lease::ADDRESS], a.address);
    })
    .await;
}
