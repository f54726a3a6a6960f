//! Tokens over real connections: whom a provider `JWT` lets pass, what backends are told, and what those are who are refused.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../jwt/tests/support/mod.rs"]
mod issuer;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use issuer::{ATTACKS, AUDIENCE, ISSUER, ISSUES, encode, header};
use proxy::memory::Limit;
use serde_json::{Value, json};
use snapshot::{
    Key, Kind,
    proto::{self, credential_source::Source, resource},
};
use support::{HOST, OK, Proxy, Upstream, content, entry, field, pause, request};

/// A backend that remembers the head of the last request.
fn backend() -> (Upstream, Arc<Mutex<String>>) {
    let seen = Arc::<Mutex<String>>::default();
    let record = Arc::clone(&seen);
    let upstream = Upstream::start(move |mut stream| {
        use std::io::Write;
        while let Some(asked) = request(&mut stream, &mut vec![], &Mutex::default()) {
            *record.lock().unwrap() = asked.head.to_lowercase();
            stream.write_all(OK).unwrap();
        }
    });
    (upstream, seen)
}

fn from(source: Source) -> proto::CredentialSource {
    proto::CredentialSource { source: Some(source) }
}

fn provider() -> proto::JwtProvider {
    proto::JwtProvider {
        issuer: ISSUER.into(),
        audiences: vec![AUDIENCE.into()],
        from: vec![from(Source::Header("authorization".into()))],
        claim_headers: vec![proto::ClaimHeader { claim: "sub".into(), header: "x-user".into() }],
        jwks: json!({"keys": [ISSUES.jwk("ES256"), ISSUES.jwk("RS256")]}).to_string().into(),
        ..proto::JwtProvider::default()
    }
}

fn policy(jwt: proto::JwtProvider, change: impl Fn(&mut proto::AccessPolicy)) -> proto::AccessPolicy {
    let provider = Some(proto::auth_provider::Provider::Jwt(jwt));
    let providers = vec![proto::AuthProvider { name: "staff".into(), provider }];
    let authentication = Some(proto::Authentication { providers, anonymous: false, max_failures_per_minute: 0 });
    let targets = vec![proto::PolicyTarget::default()];
    let mut policy = proto::AccessPolicy { targets, authentication, ..proto::AccessPolicy::default() };
    change(&mut policy);
    policy
}

fn guarded(backend: SocketAddr, policy: &proto::AccessPolicy) -> Proxy {
    Proxy::serving(Limit::find(None), backend, |port| {
        let mut content = content(port, backend, proto::Limits::default(), |_| {});
        content.insert(Key::new(Kind::AccessPolicy, "ns", "p"), entry(resource::Kind::AccessPolicy(policy.clone())));
        content
    })
}

/// Claims that are good now, with these in place of some.
fn claims(members: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "scope": "read"});
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.to_string()
}

fn token(members: &Value) -> String {
    ISSUES.token("ES256", &header("ES256").to_string(), &claims(members))
}

/// Status, head and body of the answer to a request with these fields.
fn ask(proxy: &Proxy, path: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut client = proxy.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n").as_bytes());
    let (status, head, body) = client.response(false).unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

fn bearer(proxy: &Proxy, token: &str) -> (u16, String, String) {
    ask(proxy, "/", &[("Authorization", &format!("Bearer {token}"))])
}

#[test]
fn a_token_passes_and_the_backend_is_told_of_its_claims_alone() {
    let (upstream, seen) = backend();
    let proxy = guarded(upstream.address, &policy(provider(), |_| {}));
    let token = token(&json!({}));
    // Verified the first time, remembered the second.
    for scheme in ["Bearer", "bearer", "BEARER "] {
        let fields = [
            ("X-User", "admin"),
            ("Authorization", &*format!("{scheme} {token}")),
            ("x_user", "admin"),
            ("x-USER", "root"),
        ];
        assert_eq!(ask(&proxy, "/", &fields).0, 200, "{scheme}");
        let head = seen.lock().unwrap().clone();
        assert_eq!(head.matches("admin").count() + head.matches("root").count(), 0, "{head}");
        assert!(head.contains("\r\nx-user: alice\r\n") && !head.contains("authorization"), "{head}");
    }
    // Another one is somebody else.
    let other = ISSUES.token("RS256", &header("RS256").to_string(), &claims(&json!({"sub": "bob"})));
    assert_eq!(bearer(&proxy, &other).0, 200);
    assert!(seen.lock().unwrap().contains("\r\nx-user: bob\r\n"));
    // What a field can't say is left out, and the client says nothing in its place.
    for sub in [json!(" admin"), json!("a\r\nx-role: admin"), json!(null), json!({"a": 1}), json!("x".repeat(5000))] {
        let token = self::token(&json!({"sub": sub}));
        let fields = [("X-User", "admin"), ("Authorization", &*format!("Bearer {token}"))];
        assert_eq!(ask(&proxy, "/", &fields).0, 200, "{sub}");
        let head = seen.lock().unwrap().clone();
        assert!(!head.contains("x-user") && !head.contains("x-role"), "{head}");
    }
}

#[test]
fn who_is_refused_is_told_how_rfc_6750_says_and_no_more() {
    let (upstream, _) = backend();
    let mut jwt = provider();
    jwt.scopes = vec!["write".into()];
    let proxy = guarded(upstream.address, &policy(jwt, |_| {}));
    let write = json!({"scope": "write"});
    assert_eq!(bearer(&proxy, &token(&write)).0, 200);
    let refused = |answer: (u16, String, String), status: u16, challenge: Option<&str>, detail: &str| {
        // The client of these tests reads heads in small letters.
        let challenge = challenge.map(str::to_lowercase);
        assert_eq!((answer.0, field(&answer.1, "www-authenticate")), (status, challenge.as_deref()), "{answer:?}");
        assert!(answer.2.contains(&format!("\"detail\":\"{detail}\"")), "{}", answer.2);
    };
    let realm = "Bearer realm=\"staff\"";
    let invalid = format!("{realm}, error=\"invalid_token\"");
    let insufficient = format!("{realm}, error=\"insufficient_scope\", scope=\"write\"");
    let missing = "This needs a credential, and the request has none.";
    refused(ask(&proxy, "/", &[]), 401, Some(realm), missing);
    refused(ask(&proxy, "/", &[("Authorization", "Basic YTpi")]), 401, Some(realm), missing);
    refused(ask(&proxy, "/", &[("Authorization", "Bearerx")]), 401, Some(realm), missing);
    refused(ask(&proxy, &format!("/?access_token={}", token(&write)), &[]), 401, Some(realm), missing);
    let wrong = "The credential that was sent is not valid (provider staff).";
    let stranger = ATTACKS.token("ES256", &header("ES256").to_string(), &claims(&write));
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims(&write)));
    for token in [&*stranger, &unsigned, "", "a.b.c", &"e".repeat(20_000)] {
        refused(bearer(&proxy, token), 401, Some(&invalid), wrong);
    }
    let claim = |members: Value| {
        let mut all = write.clone();
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        token(&all)
    };
    // Who brings a token of the issuer may know what is wrong with it.
    for (members, why) in [
        (json!({"exp": 1}), "Refused: the token has expired (provider staff)."),
        (json!({"nbf": 9_999_999_999_u64}), "Refused: the token is not yet valid (provider staff)."),
        (json!({"aud": "billing"}), "Refused: the token is for another audience (provider staff)."),
        (json!({"iss": "https://other.example"}), "Refused: the token is of another issuer (provider staff)."),
    ] {
        refused(bearer(&proxy, &claim(members)), 401, Some(&invalid), why);
    }
    let lacks = "Refused: the token lacks a scope (provider staff).";
    refused(bearer(&proxy, &token(&json!({}))), 403, Some(&insufficient), lacks);
    let two = format!("Bearer {}", token(&write));
    let answer = ask(&proxy, "/", &[("Authorization", &two), ("Authorization", &two)]);
    assert_eq!((answer.0, field(&answer.1, "www-authenticate")), (400, None));
}

#[test]
fn what_is_remembered_ends_with_the_token_and_with_the_policy() {
    let (upstream, _) = backend();
    let proxy = guarded(upstream.address, &policy(provider(), |_| {}));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (short, long) = (token(&json!({"exp": now().as_secs() + 2})), token(&json!({})));
    assert_eq!((bearer(&proxy, &short).0, bearer(&proxy, &long).0), (200, 200));
    let push = |jwt: proto::JwtProvider| proxy.access(policy(jwt, |_| {}));
    // Other keys, another audience, another issuer: each forgets it, and what it was before knows it again.
    let other_keys = json!({"keys": [ATTACKS.jwk("ES256")]}).to_string();
    for change in [
        &|jwt: &mut proto::JwtProvider| jwt.jwks = other_keys.clone().into(),
        &|jwt: &mut proto::JwtProvider| jwt.audiences = vec!["billing".into()],
        &|jwt: &mut proto::JwtProvider| jwt.issuer = "https://other.example".into(),
    ] as [&dyn Fn(&mut proto::JwtProvider); 3]
    {
        let mut changed = provider();
        change(&mut changed);
        push(changed);
        assert_eq!(bearer(&proxy, &long).0, 401);
        push(provider());
        assert_eq!(bearer(&proxy, &long).0, 200);
    }
    while now().as_secs_f64() < (now().as_secs() + 2) as f64 && bearer(&proxy, &short).0 == 200 {
        pause(50);
    }
    assert_eq!((bearer(&proxy, &short).0, bearer(&proxy, &long).0), (401, 200));
}

#[test]
fn a_token_may_stand_elsewhere_and_go_on() {
    let (upstream, seen) = backend();
    let mut jwt = provider();
    jwt.from = [Source::Header("x-token".into()), Source::Query("access_token".into()), Source::Cookie("token".into())]
        .map(from)
        .into();
    let token = token(&json!({}));
    let places: [(String, Vec<(&str, String)>); 3] = [
        ("/".into(), vec![("X-Token", token.clone())]),
        (format!("/?a=1&access_token={token}"), vec![]),
        ("/".into(), vec![("Cookie", format!("a=1; token={token}"))]),
    ];
    for forward in [false, true] {
        jwt.forward = forward;
        let proxy = guarded(upstream.address, &policy(jwt.clone(), |_| {}));
        for (path, fields) in &places {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(ask(&proxy, path, &fields).0, 200);
            assert_eq!(seen.lock().unwrap().contains(&token.to_lowercase()), forward);
        }
    }
}

#[test]
fn an_audit_counts_and_changes_nothing() {
    let (upstream, seen) = backend();
    let proxy = guarded(upstream.address, &policy(provider(), |policy| policy.audit = true));
    for value in [format!("Bearer {}", token(&json!({}))), "Bearer wrong".into()] {
        assert_eq!(ask(&proxy, "/", &[("Authorization", &value), ("X-User", "admin")]).0, 200);
        let head = seen.lock().unwrap().clone();
        assert!(head.contains(&format!("\r\nauthorization: {}\r\n", value.to_lowercase())), "{head}");
        assert!(head.contains("\r\nx-user: admin\r\n") && !head.contains("alice"), "{head}");
    }
}

#[test]
fn who_makes_tokens_up_is_slowed_and_who_is_late_is_not() {
    let (upstream, _) = backend();
    let proxy = guarded(
        upstream.address,
        &policy(provider(), |policy| {
            policy.authentication.as_mut().unwrap().max_failures_per_minute = 2;
        }),
    );
    for _ in 0..5 {
        assert_eq!(bearer(&proxy, &token(&json!({"exp": 1}))).0, 401);
    }
    let stranger = ATTACKS.token("ES256", &header("ES256").to_string(), &claims(&json!({})));
    let statuses = [(); 4].map(|()| bearer(&proxy, &stranger).0);
    assert_eq!(statuses, [401, 401, 429, 429]);
    // Unseen, a good one from there waits as well.
    assert_eq!(bearer(&proxy, &token(&json!({}))).0, 429);
}
