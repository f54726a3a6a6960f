//! What did not change from one plan to the next is held once, whoever has the plans: the loop has one while another is made,
//! and statuses are derived of a third.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::collections::BTreeMap;

use planner::{Plan, Planner};
use snapshot::Key;

const MANIFESTS: &str = r#"
{apiVersion: sluice.dev/v1alpha1, kind: GatewayFleet, metadata: {name: default, namespace: ns},
 spec: {listeners: [{name: http, protocol: HTTP, port: 80}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: a, namespace: ns},
 spec: {rules: [{backendRefs: [{address: "127.0.0.1:9000"}]}]}}
---
{apiVersion: sluice.dev/v1alpha1, kind: ApiRoute, metadata: {name: b, namespace: ns},
 spec: {rules: [{matches: [{path: {value: /b}}], backendRefs: [{address: "127.0.0.1:9000"}]}]}}
"#;

/// Where the encodings of routes are.
fn places(plan: &Plan) -> BTreeMap<String, usize> {
    let entries = plan.fleets.values().flat_map(|fleet| fleet.snapshot.iter());
    let routes = entries.filter(|(key, _): &(&Key, _)| key.kind() == snapshot::Kind::Route);
    routes.map(|(key, entry)| (key.to_string(), entry.bytes().as_ptr().addr())).collect()
}

#[test]
fn routes_that_did_not_change() {
    let mut planner = Planner::default();
    let (first, second) = (support::world(MANIFESTS), support::world(&MANIFESTS.replace("/b", "/c")));
    let before = planner.plan(&first);
    let after = planner.plan(&second);
    let (before, after) = (places(&before), places(&after));
    assert_eq!((before.len(), before["Route/ns/a"]), (2, after["Route/ns/a"]));
    assert_ne!(before["Route/ns/b"], after["Route/ns/b"]);
}

/// A consumer, whose Secret has this key.
fn with_consumer(name: &str, key: &str) -> String {
    format!(
        r#"---
{{apiVersion: sluice.dev/v1alpha1, kind: Consumer, metadata: {{name: {name}, namespace: ns}},
 spec: {{credentials: [{{type: APIKey, secretRef: {{name: {name}}}}}]}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: ns, labels: {{sluice.dev/credential: api-key}}}},
 stringData: {{api-key: {key}}}}}
"#
    )
}

#[test]
fn consumers_that_did_not_change() {
    let mut planner = Planner::default();
    let world =
        |key: &str| support::world(&[MANIFESTS, &with_consumer("a", "first"), &with_consumer("b", key)].concat());
    let places = |plan: &Plan| {
        let consumers = plan.fleets.values().flat_map(|fleet| fleet.snapshot.of_kind(snapshot::Kind::Consumer));
        consumers.map(|(key, entry)| (key.to_string(), entry.bytes().as_ptr().addr())).collect::<BTreeMap<_, _>>()
    };
    let (first, second) = (world("second"), world("third"));
    let before = planner.plan(&first);
    let after = planner.plan(&second);
    let (before, after) = (places(&before), places(&after));
    assert_eq!((before.len(), before["Consumer/ns/a"]), (2, after["Consumer/ns/a"]));
    assert_ne!(before["Consumer/ns/b"], after["Consumer/ns/b"]);
}
