use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{
    check,
    proto::{ExternalAuth, Listener, Match, PolicyTarget, RatePolicy, Resource, Route, WeightedCluster},
};

/// A resource of each kind that refers to others, with every reference that it can have.
fn planted() -> Vec<(Key, resource::Kind)> {
    let backend = |cluster: &str| WeightedCluster { cluster: cluster.into(), weight: 1 };
    let auth = |cluster: &str| Filter {
        filter: Some(filter::Filter::ExternalAuth(ExternalAuth {
            cluster: cluster.into(),
            timeout_ms: 1,
            ..ExternalAuth::default()
        })),
    };
    let rule = |clusters: &[&str]| Rule {
        matches: vec![Match::default()],
        filters: vec![auth("Cluster/a/auth/1")],
        backends: clusters.iter().map(|cluster| backend(cluster)).collect(),
        ..Rule::default()
    };
    let route =
        Route { rules: vec![rule(&["Cluster/a/b/1"]), rule(&["Cluster/a/c/1", "Cluster/a/d/1"])], ..Route::default() };
    let certificates = vec!["Certificate/a/b".to_owned(), "Certificate/a/c".to_owned()];
    let listener = Listener { name: "l".into(), port: 1, tls: true, certificates, ..Listener::default() };
    let target = |route: &str| PolicyTarget { route: route.into(), rule: String::new() };
    let policy = RatePolicy { targets: vec![target(""), target("Route/a/b")], ..RatePolicy::default() };
    vec![
        (Key::new(Kind::Route, "a", "r"), resource::Kind::Route(route)),
        (Key::listener("a", "f", "l"), resource::Kind::Listener(listener)),
        (Key::new(Kind::RatePolicy, "a", "p"), resource::Kind::RatePolicy(policy)),
    ]
}

/// Every text of a resource that is a key.
fn keys(value: &Value, found: &mut BTreeSet<Key>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Key>()),
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Value::Object(members) => members.values().for_each(|member| keys(member, found)),
        _ => {}
    }
}

#[test]
fn whatever_looks_like_a_key_is_a_reference() {
    for (key, content) in planted() {
        let mut expect = BTreeSet::new();
        keys(&serde_json::to_value(&content).unwrap(), &mut expect);
        assert_eq!(refs(&content).filter_map(|reference| reference.target()).collect::<BTreeSet<_>>(), expect, "{key}");
        assert!(!expect.is_empty());
    }
}

#[test]
fn each_is_checked_at_its_field() {
    let fields = [
        (Kind::Route, "rules[1].backendRefs[1]"),
        (Kind::Listener, "tls.certificateRefs"),
        (Kind::RatePolicy, "targetRefs[1]"),
    ];
    for ((key, mut content), (kind, field)) in planted().into_iter().zip(fields) {
        assert_eq!(key.kind(), kind);
        assert_eq!(refs(&content).last().unwrap().field.to_string(), field);
        let check = |content| check::resource(&key, &Resource { requires: vec![], kind: Some(content) });
        assert_eq!(check(content.clone()), Ok(()));
        match &mut content {
            resource::Kind::Route(route) => route.rules[1].backends[1].cluster = "Fleet/a/b".into(),
            resource::Kind::Listener(listener) => listener.certificates[1] = "odd".into(),
            resource::Kind::RatePolicy(policy) => policy.targets[1].route = "Cluster/a/b/1".into(),
            _ => unreachable!(),
        }
        let unfit = check(content).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.reason), (field, check::reason::WRONG_REFERENCE));
    }
}

#[test]
fn a_policy_needs_no_route() {
    let needs = |content: &resource::Kind| needed(content).map(|key| key.to_string()).collect::<Vec<_>>();
    let planted: Vec<_> = planted().iter().map(|(_, content)| needs(content)).collect();
    let clusters = ["a/auth", "a/b", "a/auth", "a/c", "a/d"].map(|name| format!("Cluster/{name}/1"));
    assert_eq!(planted[0], clusters);
    assert_eq!(planted[1], ["Certificate/a/b", "Certificate/a/c"]);
    assert!(planted[2].is_empty());
}
