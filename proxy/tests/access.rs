//! Access policies: over real connections, pushed to a running proxy.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use snapshot::{
    Entry, Key, Kind,
    credential::Digest,
    proto::{self, credential_source::Source, resource},
};
use support::{HOST, OK, Proxy, Upstream, entry, field, request};

fn consumer(name: &str, keys: &[&str]) -> (Key, Entry) {
    let credential = |key: &&str| proto::Credential { kind: 0, digest: Digest::of_api_key(key.as_bytes()).to_bytes() };
    let credentials = keys.iter().map(credential).collect();
    let consumer = proto::Consumer { labels: vec![], credentials };
    (Key::new(Kind::Consumer, "ns", name), entry(resource::Kind::Consumer(consumer)))
}

fn by_key(from: Vec<Source>) -> proto::AccessPolicy {
    let from = from.into_iter().map(|source| proto::CredentialSource { source: Some(source) }).collect();
    let provider = proto::auth_provider::Provider::ApiKey(proto::ApiKeyProvider { from, forward: false });
    let providers = vec![proto::AuthProvider { name: "keys".into(), provider: Some(provider) }];
    let authentication = Some(proto::Authentication { providers, ..Default::default() });
    proto::AccessPolicy { targets: vec![proto::PolicyTarget::default()], authentication, ..Default::default() }
}

fn policy(policy: proto::AccessPolicy) -> (Key, Entry) {
    (Key::new(Kind::AccessPolicy, "ns", "p"), entry(resource::Kind::AccessPolicy(policy)))
}

fn header() -> Vec<Source> {
    vec![Source::Header("x-api-key".into())]
}

fn asked(target: &str, key: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("X-API-Key: {key}\r\n") };
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{key}Connection: close\r\n\r\n")
}

fn status(proxy: &Proxy, target: &str, key: &str) -> u16 {
    proxy.exchange(asked(target, key).as_bytes()).split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn keys_and_answers() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    proxy.push(vec![policy(by_key(header())), consumer("acme", &["k1"])], &[]);
    assert_eq!(status(&proxy, "/", "k1"), 200);
    let missing = proxy.exchange(asked("/", "").as_bytes());
    assert!(missing.starts_with("HTTP/1.1 401"), "{missing}");
    assert_eq!(field(&missing, "www-authenticate"), Some("APIKey realm=\"keys\""));
    assert_eq!(field(&missing, "content-type"), Some("application/problem+json"));
    let invalid = proxy.exchange(asked("/", "nope").as_bytes());
    assert!(invalid.ends_with(
        "{\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,\"detail\":\"The credential that was sent is not valid \
         (provider keys).\"}\n"
    ), "{invalid}");
    let count = |outcome: &str| {
        let labels = ["policy=\"ns/p\"", "mode=\"Enforce\"", &format!("outcome=\"{outcome}\"")];
        proxy.metric("sluice_access_decisions_total", &labels)
    };
    assert_eq!(["allowed", "missing", "invalid", "denied"].map(count), [1.0, 1.0, 1.0, 0.0]);
}

/// What backends get has no key in it, in whichever place and spelling it came.
#[test]
fn keys_end_at_the_proxy() {
    let seen = Arc::new(Mutex::new(vec![]));
    let upstream = Upstream::start({
        let seen = Arc::clone(&seen);
        move |mut stream| {
            let (mut read, record) = (vec![], Mutex::new(vec![]));
            while let Some(asked) = request(&mut stream, &mut read, &record) {
                seen.lock().unwrap().push(asked.head);
                std::io::Write::write_all(&mut stream, OK).unwrap();
            }
        }
    });
    let proxy = Proxy::start(upstream.address);
    let places = vec![Source::Header("x-api-key".into()), Source::Query("key".into()), Source::Cookie("key".into())];
    proxy.push(vec![policy(by_key(places)), consumer("acme", &["s3cret"])], &[]);
    for head in [
        "GET /a?b=1&key=s3cret&k%65y=s3cret HTTP/1.1\r\nX-Api-Key: s3cret\r\nX_API_KEY: s3cret\r\nCookie: a=1; key=s3cret\r\n",
        "GET /a?key=s3cret HTTP/1.1\r\nCookie: key=s3cret\r\nCookie: a=1;key=s3cret\r\n",
        "GET /a HTTP/1.1\r\nCookie: key=s3cret\r\n",
    ] {
        let answer = proxy.exchange(format!("{head}Host: {HOST}\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|head| !head.contains("s3cret")), "{seen:?}");
    assert!(seen[0].starts_with("GET /a?b=1 ") && field(&seen[0], "cookie") == Some("a=1"), "{}", seen[0]);
    assert!(seen[1].starts_with("GET /a ") && field(&seen[1], "cookie") == Some("a=1"), "{}", seen[1]);
    assert!(field(&seen[2], "cookie").is_none(), "{}", seen[2]);
}

/// A rule that is about a path is about each spelling of it.
#[test]
fn no_spelling_of_a_path_passes() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let rule = |name: &str, action: proto::AccessAction, paths: &[&str]| proto::AccessRule {
        name: name.into(),
        action: action.into(),
        paths: paths.iter().map(|value| proto::PathMatch { kind: 0, value: (*value).into() }).collect(),
        ..Default::default()
    };
    let rules =
        vec![rule("admin", proto::AccessAction::Deny, &["/admin"]), rule("others", proto::AccessAction::Allow, &[])];
    let targets = vec![proto::PolicyTarget::default()];
    proxy.push(vec![policy(proto::AccessPolicy { targets, rules, ..Default::default() })], &[]);
    for target in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin",
        "/./admin",
        "/x/../admin",
        "//admin",
        "/admin;a=b",
        "/admin;/x",
        "/%2e/admin",
        "/x/%2E%2e/admin?y",
        "http://shop.example/admin",
    ] {
        assert_eq!(status(&proxy, target, ""), 403, "{target}");
    }
    for target in ["/administration", "/x/admin", "/Admin", "/?/admin"] {
        assert_eq!(status(&proxy, target, ""), 200, "{target}");
    }
}

#[test]
fn a_key_is_revoked_by_a_push_on_a_connection_that_stays() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let mut client = proxy.connect();
    let mut ask = |key: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {key}\r\n\r\n").as_bytes());
        client.response(false).unwrap().0
    };
    proxy.push(vec![policy(by_key(header())), consumer("acme", &["old"])], &[]);
    assert_eq!((ask("old"), ask("new")), (200, 401));
    proxy.push(vec![policy(by_key(header())), consumer("acme", &["old", "new"])], &[]);
    assert_eq!((ask("old"), ask("new")), (200, 200));
    proxy.push(vec![policy(by_key(header())), consumer("acme", &["new"])], &[]);
    assert_eq!((ask("old"), ask("new")), (401, 200));
    proxy.push(vec![policy(by_key(header()))], &[]);
    assert_eq!(ask("new"), 401);
    proxy.push(vec![], &[]);
    assert_eq!(ask("new"), 200, "no policy, no question");
}

/// A policy of a later version: this proxy knows nothing of how it guards, so what it guards is closed.
#[test]
fn what_is_not_understood_closes() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let mut later = by_key(header());
    later.authentication.as_mut().unwrap().providers[0].provider = None;
    let (key, later) = policy(later);
    proxy.push(vec![(key.clone(), later.clone()), consumer("acme", &["k1"])], &[(&key, "UnknownProvider")]);
    assert_eq!((status(&proxy, "/", "k1"), status(&proxy, "/", "")), (500, 500));
    let garbage = Entry::encoded(Bytes::from_static(b"\xff\xff"));
    proxy.push(vec![policy(by_key(header())), consumer("acme", &["k1"])], &[]);
    assert_eq!(status(&proxy, "/", "k1"), 200);
    // What was understood before runs on.
    proxy.push(vec![(key.clone(), later), consumer("acme", &["k1"])], &[(&key, "UnknownProvider")]);
    assert_eq!((status(&proxy, "/", "k1"), status(&proxy, "/", "no")), (200, 401));
    proxy.push(vec![], &[]);
    assert_eq!(status(&proxy, "/", ""), 200);
    proxy.push(vec![(key.clone(), garbage)], &[(&key, "Undecodable")]);
    assert_eq!(status(&proxy, "/", ""), 500);
}

/// Limits come behind access: who is refused takes nothing of them, and each consumer has its own.
#[test]
fn limits_by_consumer() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let part = proto::key_part::Part::Consumer(proto::ConsumerKey {});
    let limit = proto::Limit {
        name: "each".into(),
        key: vec![proto::KeyPart { part: Some(part) }],
        token_bucket: Some(proto::TokenBucket { rate: 2, per_ms: 3_600_000, burst: 2 }),
        ..Default::default()
    };
    let targets = vec![proto::PolicyTarget::default()];
    let limits = proto::RatePolicy { targets, limits: vec![limit], unavailable: String::new() };
    let limits = (Key::new(Kind::RatePolicy, "ns", "l"), entry(resource::Kind::RatePolicy(limits)));
    proxy.push(vec![policy(by_key(header())), limits, consumer("a", &["k1", "k2"]), consumer("b", &["k3"])], &[]);
    let ask = |key: &str| status(&proxy, "/", key);
    assert_eq!((ask("no"), ask("no"), ask("no")), (401, 401, 401));
    // Two keys of one consumer are one.
    assert_eq!((ask("k1"), ask("k2"), ask("k1")), (200, 200, 429));
    assert_eq!((ask("k3"), ask("k3"), ask("k3")), (200, 200, 429));
}
