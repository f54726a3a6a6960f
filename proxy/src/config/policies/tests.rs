use snapshot::{Entry, proto::Resource};

use super::*;

fn target(route: &str, rule: &str) -> PolicyTarget {
    PolicyTarget { route: route.into(), rule: rule.into() }
}

fn entry(kind: resource::Kind) -> Entry {
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

fn route(name: &str) -> Key {
    Key::new(Kind::Route, "ns", name)
}

fn rate(targets: Vec<PolicyTarget>) -> Entry {
    entry(resource::Kind::RatePolicy(RatePolicy { targets, ..RatePolicy::default() }))
}

fn access(targets: Vec<PolicyTarget>, overrides: bool) -> Entry {
    entry(resource::Kind::AccessPolicy(AccessPolicy { targets, overrides, ..AccessPolicy::default() }))
}

#[test]
fn the_most_specific_target_of_each_policy() {
    let policy = |name: &str| Key::new(Kind::RatePolicy, "ns", name);
    let snapshot = Snapshot::from_iter([
        (policy("a"), rate(vec![target("", "")])),
        (policy("b"), rate(vec![target("Route/ns/r", ""), target("", ""), target("Route/ns/r", "x")])),
        (policy("c"), rate(vec![target("Route/ns/r", "x")])),
        (policy("d"), rate(vec![target("Route/ns/other", "")])),
    ]);
    let policies = Policies::new(&snapshot);
    let of = |name: &str, rule: &str| -> Vec<_> {
        let route = route(name);
        let found = policies.rate.of(&route, rule).map(|(k, _, _, t)| (k.name().to_owned(), t.clone()));
        found.collect()
    };
    assert_eq!(
        of("r", "x"),
        [
            ("a".into(), target("", "")),
            ("b".into(), target("Route/ns/r", "x")),
            ("c".into(), target("Route/ns/r", "x"))
        ]
    );
    assert_eq!(of("r", "y"), [("a".into(), target("", "")), ("b".into(), target("Route/ns/r", ""))]);
    assert_eq!(of("z", "x"), [("a".into(), target("", "")), ("b".into(), target("", ""))]);
    let fingerprint = |name: &str| policies.fingerprint(&route(name));
    assert_eq!(fingerprint("z"), fingerprint("y"));
    assert_ne!(fingerprint("z"), fingerprint("r"));
    assert_ne!(fingerprint("z"), fingerprint("other"));
}

#[test]
fn the_most_specific_access_policy_alone_and_what_overrides() {
    let policy = |name: &str| Key::new(Kind::AccessPolicy, "ns", name);
    let holding = |policies: Vec<(Key, Entry)>, name: &str, rule: &str| -> Vec<String> {
        let (policies, route) = (Policies::new(&policies.into_iter().collect()), route(name));
        policies.access.holding(&route, rule).iter().map(|(key, ..)| key.name().to_owned()).collect()
    };
    let all = |overrides| {
        vec![
            (policy("fleet"), access(vec![target("", "")], overrides)),
            (policy("a-route"), access(vec![target("Route/ns/r", "")], false)),
            (policy("a-rule"), access(vec![target("Route/ns/r", "x")], false)),
        ]
    };
    for (name, rule, alone, both) in [
        ("r", "x", "a-rule", &["fleet", "a-rule"][..]),
        ("r", "y", "a-route", &["fleet", "a-route"]),
        ("z", "x", "fleet", &["fleet"]),
    ] {
        assert_eq!(holding(all(false), name, rule), [alone]);
        assert_eq!(holding(all(true), name, rule), both);
    }
    // One that only counts holds in nobody's place.
    let counts =
        |targets| entry(resource::Kind::AccessPolicy(AccessPolicy { targets, audit: true, ..AccessPolicy::default() }));
    let mut audited = all(false);
    audited[2].1 = counts(vec![target("Route/ns/r", "x")]);
    audited.push((policy("b-rule"), counts(vec![target("Route/ns/r", "")])));
    assert_eq!(holding(audited, "r", "x"), ["a-route", "a-rule"]);
    // One policy on fleet and rule is one.
    let both = vec![(policy("p"), access(vec![target("", ""), target("Route/ns/r", "x")], true))];
    assert_eq!(holding(both, "r", "x"), ["p"]);
    assert_eq!(holding(vec![], "r", "x"), [""; 0]);
}

#[test]
fn what_cannot_be_honoured_closes_where_it_holds() {
    let closed = |targets| snapshot::closed(&access(targets, false), "why".into()).unwrap();
    let policy = |name: &str| Key::new(Kind::AccessPolicy, "ns", name);
    let snapshot = Snapshot::from_iter([
        (policy("fleet"), closed(vec![target("", "")])),
        (policy("route"), access(vec![target("Route/ns/r", "")], false)),
    ]);
    let policies = Policies::new(&snapshot);
    assert_eq!(policies.refusal(&route("r"), "x"), None);
    assert_eq!(policies.refusal(&route("z"), "x").as_deref(), Some("AccessPolicy/ns/fleet: why"));
}
