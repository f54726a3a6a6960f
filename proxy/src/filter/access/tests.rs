use http::{Request, StatusCode};
use snapshot::{
    Hash, Key, Kind,
    credential::Digest,
    proto::{
        AccessAction, AccessPolicy, AccessRule, ApiKeyProvider, AuthProvider, Authentication, CredentialSource, Label,
        PathKind, PathMatch, auth_provider, credential_source::Source as Place,
    },
};

use super::*;
use crate::{
    consumers::{Consumer, Consumers},
    filter::testing::ctx,
};

fn by_key(from: Vec<Place>, forward: bool) -> Authentication {
    let from = from.into_iter().map(|source| CredentialSource { source: Some(source) }).collect();
    let provider = auth_provider::Provider::ApiKey(ApiKeyProvider { from, forward });
    let providers = vec![AuthProvider { name: "keys".into(), provider: Some(provider) }];
    Authentication { providers, ..Authentication::default() }
}

fn header() -> Vec<Place> {
    vec![Place::Header("x-api-key".into())]
}

fn keys() -> AccessPolicy {
    AccessPolicy { authentication: Some(by_key(header(), false)), ..AccessPolicy::default() }
}

fn rule(action: AccessAction) -> AccessRule {
    AccessRule { name: format!("{action:?}").to_lowercase(), action: action.into(), ..AccessRule::default() }
}

fn consumer(namespace: &str, name: &str, tier: &str, key: &str) -> Arc<Consumer> {
    Arc::new(Consumer {
        namespace: namespace.into(),
        name: name.into(),
        labels: [("group".into(), "a".into()), ("tier".into(), tier.into())].into(),
        digests: [Digest::of_api_key(key.as_bytes())].into(),
    })
}

fn consumers() -> Arc<Consumers> {
    let all = [
        consumer("shop", "acme", "gold", "k1"),
        consumer("shop", "busy", "silver", "k2"),
        consumer("edge", "acme", "gold", "k3"),
    ];
    Arc::new(all.into_iter().collect())
}

/// Policies by namespace and name, compiled as for one rule.
fn filter_of(state: &AccessPolicies, policies: &[(&str, AccessPolicy)]) -> Box<dyn Filter> {
    let target = snapshot::proto::PolicyTarget::default();
    let keys: Vec<Key> = policies
        .iter()
        .map(|(of, _)| of.split_once('/').unwrap())
        .map(|(namespace, name)| Key::new(Kind::AccessPolicy, namespace, name))
        .collect();
    let hash = |policy: &AccessPolicy| Hash::of(format!("{policy:?}").as_bytes());
    let applying = keys.iter().zip(policies).map(|(key, (_, policy))| (key, hash(policy), policy, &target));
    state.compile(&applying.collect::<Vec<_>>()).unwrap().unwrap()
}

fn state() -> AccessPolicies {
    let state = AccessPolicies::default();
    state.know(consumers());
    state
}

fn request(text: &str, fields: &[(&str, &str)]) -> RequestHead {
    let (method, uri) = text.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    RequestHead::from(request.body(()).unwrap().into_parts().0)
}

/// The status and the word of a refusal, or the consumer of what passes.
fn ask(filter: &dyn Filter, head: &mut RequestHead, ctx: &mut Ctx) -> Result<Option<String>, (u16, &'static str)> {
    match filter.on_request(head, ctx) {
        Flow::Continue => Ok(ctx.identity.as_ref().map(|c| format!("{}/{}", c.namespace, c.name))),
        Flow::Reply(reply) => {
            assert!(reply.head.fields.get("content-type") == Some(b"application/problem+json"));
            let is_challenged = reply.head.fields.get("www-authenticate") == Some(b"APIKey realm=\"keys\"");
            assert_eq!(reply.head.status == StatusCode::UNAUTHORIZED, is_challenged);
            Err((reply.head.status.as_u16(), reply.reason))
        }
        Flow::Wait(_) => panic!("nobody to wait for"),
    }
}

fn answer(policy: &AccessPolicy, text: &str, fields: &[(&str, &str)]) -> Result<Option<String>, (u16, &'static str)> {
    ask(&*filter_of(&state(), &[("shop/p", policy.clone())]), &mut request(text, fields), &mut ctx())
}

fn known(name: &str) -> Result<Option<String>, (u16, &'static str)> {
    Ok(Some(name.to_owned()))
}

const INVALID: Result<Option<String>, (u16, &str)> = Err((401, "credential_invalid"));
const MISSING: Result<Option<String>, (u16, &str)> = Err((401, "credential_missing"));
const DENIED: Result<Option<String>, (u16, &str)> = Err((403, "access_denied"));

#[test]
fn who_calls() {
    let policy = keys();
    assert_eq!(answer(&policy, "GET /", &[("X-API-Key", "k1")]), known("shop/acme"));
    assert_eq!(answer(&policy, "GET /", &[("X-API-Key", "k2")]), known("shop/busy"));
    for wrong in ["", "k", "k1 x", "K1", "k3", &"k".repeat(5000)] {
        assert_eq!(answer(&policy, "GET /", &[("X-API-Key", wrong)]), INVALID, "{wrong}");
    }
    for without in [&[][..], &[("X_API_Key", "k1")], &[("Authorization", "k1")]] {
        assert_eq!(answer(&policy, "GET /?x-api-key=k1", without), MISSING);
    }
    let twice = [("X-API-Key", "k1"), ("x-api-key", "k1")];
    assert_eq!(answer(&policy, "GET /", &twice), Err((400, "several_credentials")));
    let anonymous = Authentication { anonymous: true, ..by_key(header(), false) };
    let policy = AccessPolicy { authentication: Some(anonymous), ..policy };
    assert_eq!(answer(&policy, "GET /", &[]), Ok(None));
    assert_eq!(answer(&policy, "GET /", &[("X-API-Key", "no")]), INVALID);
}

#[test]
fn the_first_place_and_provider_that_have_a_credential_decide() {
    let mut authentication = by_key(vec![Place::Query("key".into()), Place::Cookie("key".into())], false);
    let second = AuthProvider { name: "others".into(), ..by_key(header(), true).providers.remove(0) };
    authentication.providers.push(second);
    let policy = AccessPolicy { authentication: Some(authentication), ..AccessPolicy::default() };
    let filter = filter_of(&state(), &[("shop/p", policy)]);
    for (uri, fields, expect) in [
        ("GET /?key=%6b1", &[("cookie", "key=no")][..], Ok("shop/acme")),
        ("GET /?key=no", &[("cookie", "key=k1"), ("x-api-key", "k1")], Err("credential_invalid")),
        ("GET /", &[("cookie", "a=1; key=k2"), ("x-api-key", "no")], Ok("shop/busy")),
        ("GET /", &[("x-api-key", "k1")], Ok("shop/acme")),
    ] {
        let (mut head, mut ctx) = (request(uri, fields), ctx());
        match (filter.on_request(&mut head, &mut ctx), expect) {
            (Flow::Continue, Ok(name)) => {
                let found = ctx.identity.unwrap();
                assert_eq!(format!("{}/{}", found.namespace, found.name), name);
                // What the provider that decided forwards stays; what nobody verified goes.
                assert_eq!(head.fields.get("x-api-key").is_some(), fields[0].0 == "x-api-key");
                assert_eq!(head.uri.query(), None);
                assert!(head.fields.get("cookie").is_none_or(|cookie| cookie == b"a=1"));
            }
            (Flow::Reply(reply), Err(reason)) => {
                assert_eq!(reply.reason, reason);
                assert_eq!(
                    reply.head.fields.get("www-authenticate"),
                    Some(&b"APIKey realm=\"keys\", APIKey realm=\"others\""[..])
                );
            }
            _ => panic!("{uri} {fields:?}"),
        }
    }
}

/// Whatever becomes of it, and whether the backend gets it.
#[test]
fn the_log_has_no_credential() {
    for (forward, audit, key) in [(false, false, "k1"), (true, false, "k1"), (false, true, "k1"), (false, false, "no")]
    {
        let authentication = Some(by_key(vec![Place::Query("key".into())], forward));
        let filter =
            filter_of(&state(), &[("shop/p", AccessPolicy { authentication, audit, ..AccessPolicy::default() })]);
        let (mut head, mut ctx) = (request(&format!("GET /a?b=1&k%65y={key}"), &[]), ctx());
        drop(ask(&*filter, &mut head, &mut ctx));
        assert_eq!(ctx.logged.unwrap().to_string(), "/a?b=1");
        let whole = format!("b=1&k%65y={key}");
        assert_eq!(head.uri.query(), Some(if key == "no" || forward || audit { whole.as_str() } else { "b=1" }));
    }
    let mut ctx = ctx();
    drop(ask(&*filter_of(&state(), &[("shop/p", keys())]), &mut request("GET /a?key=k1", &[]), &mut ctx));
    assert_eq!(ctx.logged, None);
}

#[test]
fn what_callers_may_do() {
    let with = |rules: Vec<AccessRule>| AccessPolicy { rules, ..keys() };
    let allow = || rule(AccessAction::Allow);
    let check = |policy: &AccessPolicy, text: &str, key: &str, is_allowed: bool| {
        let answer = answer(policy, text, &[("x-api-key", key)]);
        assert_eq!(answer.is_ok(), is_allowed, "{text} {key} {answer:?}");
        assert!(is_allowed || answer == DENIED);
    };
    let policy = with(vec![AccessRule { consumers: vec!["acme".into()], ..allow() }]);
    check(&policy, "GET /", "k1", true);
    check(&policy, "GET /", "k2", false);
    let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
    let policy = with(vec![AccessRule { labels: vec![label("group", "a"), label("tier", "gold")], ..allow() }]);
    check(&policy, "GET /", "k1", true);
    check(&policy, "GET /", "k2", false);
    let policy = with(vec![AccessRule { labels: vec![label("team", "a")], ..allow() }]);
    check(&policy, "GET /", "k1", false);
    let policy = with(vec![AccessRule { methods: vec!["GET".into(), "put".into()], ..allow() }]);
    for (text, is_allowed) in [("GET /", true), ("get /", false), ("put /", true), ("PUT /", false)] {
        check(&policy, text, "k1", is_allowed);
    }
    let path = |kind: PathKind, value: &str| PathMatch { kind: kind.into(), value: value.into() };
    let paths = vec![path(PathKind::Exact, "/a"), path(PathKind::Prefix, "/b/")];
    let policy = with(vec![AccessRule { paths, ..allow() }]);
    for (text, is_allowed) in [
        ("GET /a?x", true),
        ("GET /a/", false),
        // As routes see it: without parameters of segments.
        ("GET /a;x=1", true),
        ("GET /b", true),
        ("GET /b/c", true),
        ("GET /b;v=1/c", true),
        ("GET /bc", false),
    ] {
        check(&policy, text, "k1", is_allowed);
    }
    let from = |cidr: &str| with(vec![AccessRule { cidrs: vec![cidr.into()], ..allow() }]);
    check(&from("192.0.2.0/24"), "GET /", "k1", true);
    check(&from("192.0.3.0/24"), "GET /", "k1", false);
    // The first that fits decides; all that is given must hold; what fits none is denied.
    let deny = AccessRule { consumers: vec!["busy".into()], methods: vec!["POST".into()], ..rule(AccessAction::Deny) };
    let policy = with(vec![deny.clone(), allow()]);
    for (text, key, is_allowed) in
        [("POST /", "k2", false), ("post /", "k2", false), ("POST /", "k1", true), ("GET /", "k2", true)]
    {
        check(&policy, text, key, is_allowed);
    }
    check(&with(vec![deny]), "GET /", "k2", false);
    // Nobody has no name and no label.
    let anonymous = Some(Authentication { anonymous: true, ..by_key(header(), false) });
    let policy = AccessPolicy {
        authentication: anonymous,
        ..with(vec![AccessRule { consumers: vec!["acme".into()], ..allow() }])
    };
    assert_eq!(answer(&policy, "GET /", &[]), DENIED);
    let by_address = AccessPolicy { authentication: None, ..from("192.0.2.0/24") };
    assert_eq!(answer(&by_address, "GET /", &[("x-api-key", "no")]), Ok(None));
}

/// A backend may read another one than was verified.
#[test]
fn what_is_forwarded_is_the_only_one() {
    let places = || vec![Place::Query("key".into()), Place::Cookie("key".into()), Place::Header("x-api-key".into())];
    let of = |forward| AccessPolicy { authentication: Some(by_key(places(), forward)), ..AccessPolicy::default() };
    let several = Err((400, "several_credentials"));
    for (text, fields, forwarded) in [
        ("GET /?key=k1&a=1&%6bey=no", &[][..], several.clone()),
        ("GET /?key=k1", &[("cookie", "key=no")], several.clone()),
        ("GET /", &[("cookie", "key=k1; key=no")], several.clone()),
        ("GET /", &[("cookie", "key=k1"), ("cookie", "key =no")], several),
        ("GET /?key=k1&a=1", &[("cookie", "a=1")], known("shop/acme")),
    ] {
        assert_eq!(answer(&of(true), text, fields), forwarded, "{text}");
        assert_eq!(answer(&of(false), text, fields), known("shop/acme"), "{text}");
    }
    // Nobody is known by what can't be read as a credential.
    let anonymous = Authentication { anonymous: true, ..by_key(vec![Place::Cookie("key".into())], true) };
    let filter = filter_of(&state(), &[("shop/p", AccessPolicy { authentication: Some(anonymous), ..of(true) })]);
    let mut head = request("GET /", &[("cookie", "key =no; a=1")]);
    assert_eq!(ask(&*filter, &mut head, &mut ctx()), Ok(None));
    assert_eq!(head.fields.get("cookie"), Some(&b"a=1"[..]));
}

/// Each of two policies knows the consumers of its own namespace, from the request as it came.
#[test]
fn both_must_pass() {
    let other = AccessPolicy { authentication: Some(by_key(vec![Place::Query("edge".into())], false)), ..keys() };
    let gold = AccessRule { consumers: vec!["acme".into()], ..rule(AccessAction::Allow) };
    let own = AccessPolicy { rules: vec![gold], ..keys() };
    let filter = filter_of(&state(), &[("edge/fleet", other), ("shop/route", own.clone())]);
    let ask =
        |uri: &str, key: &str| ask(&*filter, &mut request(uri, &[("x-api-key", key)]), &mut ctx()).map_err(|e| e.1);
    // The fleet's says for whom limits take the caller.
    assert_eq!(ask("GET /?edge=k3", "k1"), Ok(Some("edge/acme".into())));
    assert_eq!(ask("GET /?edge=k3", "k2"), Err("access_denied"));
    assert_eq!(ask("GET /?edge=k1", "k1"), Err("credential_invalid"));
    assert_eq!(ask("GET /", "k1"), Err("credential_missing"));
    // The same place: what the first one takes out, the second one still sees.
    let same = filter_of(&state(), &[("shop/fleet", keys()), ("shop/route", own)]);
    let mut head = request("GET /", &[("x-api-key", "k1")]);
    assert!(matches!(same.on_request(&mut head, &mut ctx()), Flow::Continue));
    assert_eq!(head.fields.get("x-api-key"), None);
}

#[test]
fn an_audit_decides_and_counts_and_lets_pass() {
    let state = state();
    let denies = AccessRule { methods: vec!["POST".into()], ..rule(AccessAction::Allow) };
    let audited = AccessPolicy { audit: true, rules: vec![denies], ..keys() };
    let filter = filter_of(&state, &[("shop/p", audited)]);
    for (text, fields, expect) in [
        ("POST /", &[("x-api-key", "k1")][..], Some("shop/acme")),
        ("GET /", &[("x-api-key", "k1")], Some("shop/acme")),
        ("GET /", &[("x-api-key", "no")], None),
        ("GET /", &[], None),
    ] {
        let mut head = request(text, fields);
        assert_eq!(ask(&*filter, &mut head, &mut ctx()), Ok(expect.map(str::to_owned)));
        assert_eq!(head.fields.len(), fields.len(), "nothing is taken out");
    }
    let decisions: Vec<_> =
        state.decisions().into_iter().map(|(of, outcome, n)| (of.provider, of.audit, outcome, n)).collect();
    let keys = || Some("keys".to_owned());
    assert_eq!(
        decisions,
        [
            (None, true, "missing", 1),
            (keys(), true, "allowed", 1),
            (keys(), true, "denied", 1),
            (keys(), true, "invalid", 1)
        ]
    );
    assert_eq!(state.policy_counts().into_values().collect::<Vec<_>>(), [(4, 3)]);
}

#[test]
fn who_guesses_is_slowed_down() {
    let state = state();
    let limited = |most: u32| AccessPolicy {
        authentication: Some(Authentication { max_failures_per_minute: most, ..by_key(header(), false) }),
        ..keys()
    };
    let filter = filter_of(&state, &[("shop/p", limited(3))]);
    let ask = |filter: &dyn Filter, client: &str, key: &str, now_s: u64| {
        let (mut head, mut ctx) = (request("GET /", &[("x-api-key", key)]), ctx());
        (ctx.client, ctx.now_us) = (client.parse().unwrap(), now_s * 1_000_000);
        ask(filter, &mut head, &mut ctx).map(drop).map_err(|(status, _)| status)
    };
    for _ in 0..5 {
        assert_eq!(ask(&*filter, "192.0.2.1", "k1", 1), Ok(()), "right ones are not counted");
    }
    for _ in 0..3 {
        assert_eq!(ask(&*filter, "192.0.2.1", "no", 1), Err(401));
    }
    assert_eq!(ask(&*filter, "192.0.2.1", "k1", 1), Err(429), "nor is it told whether it would be right");
    assert_eq!(ask(&*filter, "192.0.2.2", "k1", 1), Ok(()));
    // A push of the same does not begin anew.
    let mut changed = limited(3);
    changed.rules.push(rule(AccessAction::Allow));
    let pushed = filter_of(&state, &[("shop/p", changed)]);
    assert_eq!(ask(&*pushed, "192.0.2.1", "no", 2), Err(429));
    assert_eq!(ask(&*pushed, "192.0.2.1", "k1", 30), Ok(()), "one more each 20 s");
    // A /64 of IPv6 is one client.
    (0..3).for_each(|i| assert_eq!(ask(&*pushed, &format!("2001:db8::{i}"), "no", 30), Err(401)));
    assert_eq!(ask(&*pushed, "2001:db8::ffff", "k1", 30), Err(429));
    assert_eq!(ask(&*pushed, "2001:db8:0:1::", "k1", 30), Ok(()));
    let off = filter_of(&state, &[("shop/off", limited(0))]);
    (0..100).for_each(|_| assert_eq!(ask(&*off, "192.0.2.9", "no", 30), Err(401)));
}

#[test]
fn who_is_known_changes_without_a_push_of_the_policy() {
    let state = state();
    let filter = filter_of(&state, &[("shop/p", keys())]);
    let ask = || ask(&*filter, &mut request("GET /", &[("x-api-key", "k1")]), &mut ctx());
    assert_eq!(ask(), known("shop/acme"));
    state.know(Arc::new([consumer("shop", "acme", "gold", "k9")].into_iter().collect()));
    assert_eq!(ask(), INVALID);
    state.know(consumers());
    assert_eq!(ask(), known("shop/acme"));
    state.forget_unused();
    assert_eq!(state.policy_counts().into_values().collect::<Vec<_>>(), [(3, 1)], "the rule has it");
    drop(filter);
    state.forget_unused();
    // Its counters go with the policy, which the first call gave up.
    state.forget_unused();
    assert!(state.policy_counts().is_empty());
}
