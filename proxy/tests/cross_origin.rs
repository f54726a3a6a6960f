//! Requests of pages of other origins, through the whole proxy: preflights never reach a backend or a limit, whatever
//! answers says who may read it, and what would change something comes from a page that may.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use proxy::memory::Limit;
use snapshot::{
    Key, Kind,
    proto::{self, filter::Filter, resource},
};
use support::{HOST, Proxy, Request, Upstream, content, entry, field, http2, http2_request, request};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.example\r\nContent-Length: 2\r\n\r\nok";

/// A backend that allows what it should not, and what it is asked.
fn backend() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(Request { head, .. }) = request(&mut stream, &mut read, &Mutex::default()) {
            log.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            stream.write_all(ANSWER).unwrap();
        }
    });
    (upstream, asked)
}

fn cors() -> proto::Cors {
    proto::Cors {
        allow_origins: vec!["https://*.shop.example".into()],
        allow_methods: vec!["PUT".into()],
        allow_credentials: true,
        max_age_seconds: 600,
        ..proto::Cors::default()
    }
}

/// A proxy whose rule is for PUT, with these filters; everything else goes to the backend by another one.
fn serving(upstream: &Upstream, filters: &[Filter], limit: bool) -> Proxy {
    with_rules(upstream, filters, &[], limit)
}

/// The same, with filters of that other rule.
fn with_rules(upstream: &Upstream, filters: &[Filter], of_others: &[Filter], limit: bool) -> Proxy {
    Proxy::serving(Limit::find(None), upstream.address, |port| {
        let mut content = content(port, upstream.address, proto::Limits::default(), |_| {});
        let matching = |method: &str| proto::Match {
            path: Some(proto::PathMatch { kind: 0, value: "/".into() }),
            method: method.into(),
            ..Default::default()
        };
        let listed = |filters: &[Filter]| {
            filters.iter().map(|filter| proto::Filter { filter: Some(filter.clone()) }).collect::<Vec<_>>()
        };
        let rule = |name: &str, method: &str, filters: Vec<proto::Filter>| proto::Rule {
            name: name.into(),
            matches: vec![matching(method)],
            filters,
            backends: vec![proto::WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
            ..proto::Rule::default()
        };
        let rules = vec![rule("put", "PUT", listed(filters)), rule("others", "", listed(of_others))];
        let attachment = proto::Attachment { listener: format!("http-{port}"), hostnames: vec![HOST.into()] };
        let route = proto::Route { created_ms: 0, attachments: vec![attachment], rules };
        content.insert(Key::new(Kind::Route, "ns", "r"), entry(resource::Kind::Route(route)));
        if limit {
            let token_bucket = Some(proto::TokenBucket { rate: 1, per_ms: 3_600_000, burst: 1 });
            let limits = vec![proto::Limit { name: "a".into(), token_bucket, ..proto::Limit::default() }];
            let targets = vec![proto::PolicyTarget::default()];
            let policy = proto::RatePolicy { targets, limits, unavailable: String::new() };
            content.insert(Key::new(Kind::RatePolicy, "ns", "p"), entry(resource::Kind::RatePolicy(policy)));
        }
        content
    })
}

/// Status and head of a request's answer.
fn ask(proxy: &Proxy, method: &str, fields: &str) -> (u16, String) {
    let mut client = proxy.connect();
    client.send(format!("{method} /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n{fields}\r\n").as_bytes());
    let (status, head, _) = client.response(false).unwrap();
    (status, head)
}

const OWN: &str = "Origin: https://www.shop.example\r\n";
const EVIL: &str = "Origin: https://evil.example\r\n";
const ASKS: &str = "Access-Control-Request-Method: PUT\r\n";

#[test]
fn preflights_are_answered_for_the_method_that_they_ask_about_before_any_limit() {
    let (upstream, asked) = backend();
    let proxy = serving(&upstream, &[Filter::Cors(cors())], true);
    for _ in 0..5 {
        let (status, head) = ask(&proxy, "OPTIONS", &format!("{OWN}{ASKS}"));
        assert_eq!((status, field(&head, "content-length")), (204, None), "{head}");
        for (name, value) in [
            ("access-control-allow-origin", "https://www.shop.example"),
            ("access-control-allow-methods", "put"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
            ("vary", "origin"),
        ] {
            assert_eq!(field(&head, name), Some(value), "{head}");
        }
        let (status, head) = ask(&proxy, "OPTIONS", &format!("{EVIL}{ASKS}"));
        assert_eq!((status, field(&head, "access-control-allow-origin")), (403, None), "{head}");
    }
    assert!(asked.lock().unwrap().is_empty());
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let preflight = http2_request("OPTIONS", "/a").header("origin", "https://www.shop.example");
        let preflight = preflight.header("access-control-request-method", "PUT").body(()).unwrap();
        let response = sender.send_request(preflight, true).unwrap().0.await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["vary"]),
            (204.try_into().unwrap(), &"origin".parse().unwrap())
        );
    });
    // Of a method whose rule has no such filter, and what is no preflight, the backend says something itself.
    let (status, head) = ask(&proxy, "OPTIONS", &format!("{OWN}Access-Control-Request-Method: DELETE\r\n"));
    assert_eq!((status, field(&head, "access-control-allow-origin")), (200, Some("https://evil.example")), "{head}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// A rule for all other methods, which OPTIONS is one of, does not say who may send the method of this one.
#[test]
fn a_preflight_is_answered_by_no_other_rule() {
    let (upstream, asked) = backend();
    let all = proto::Cors { allow_methods: vec!["*".into()], ..cors() };
    let proxy = with_rules(&upstream, &[], &[Filter::Cors(all)], false);
    let (status, head) = ask(&proxy, "OPTIONS", &format!("{OWN}{ASKS}"));
    assert_eq!((status, field(&head, "access-control-allow-methods")), (200, None), "{head}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    let (status, _) = ask(&proxy, "OPTIONS", &format!("{OWN}Access-Control-Request-Method: DELETE\r\n"));
    assert_eq!(status, 204);
}

#[test]
fn whatever_answers_says_who_may_read_it() {
    let (upstream, asked) = backend();
    let proxy = serving(&upstream, &[Filter::Cors(cors())], true);
    for expect in [200, 429] {
        let (status, head) = ask(&proxy, "PUT", OWN);
        assert_eq!(status, expect);
        let told: Vec<_> = head.lines().filter(|line| line.starts_with("access-control-allow-origin")).collect();
        assert_eq!(told, ["access-control-allow-origin: https://www.shop.example"], "{head}");
        assert_eq!(field(&head, "vary"), Some("origin"));
    }
    let (_, head) = ask(&proxy, "PUT", EVIL);
    assert!(!head.contains("access-control") && field(&head, "vary") == Some("origin"), "{head}");
    assert_eq!(*asked.lock().unwrap(), ["PUT /a HTTP/1.1"]);
}

#[test]
fn what_changes_something_comes_from_a_page_that_may() {
    let (upstream, asked) = backend();
    let csrf = proto::Csrf { additional_origins: vec!["https://www.shop.example".into()] };
    let proxy = serving(&upstream, &[Filter::Csrf(csrf), Filter::Cors(cors())], false);
    for (fields, expect) in [
        (format!("Origin: http://{HOST}\r\n"), 200),
        (format!("Referer: http://{HOST}/form\r\n"), 200),
        (OWN.into(), 200),
        ("Sec-Fetch-Site: same-origin\r\n".into(), 200),
        (String::new(), 403),
        (EVIL.into(), 403),
        (format!("{EVIL}Sec-Fetch-Site: cross-site\r\nReferer: http://{HOST}/\r\n"), 403),
        (format!("{OWN}{EVIL}"), 403),
        ("Origin: https://a.shop.example\r\nSec-Fetch-Site: same-site\r\n".into(), 403),
    ] {
        assert_eq!(ask(&proxy, "PUT", &fields).0, expect, "{fields}");
    }
    assert_eq!(asked.lock().unwrap().len(), 4);
    // The page may read why.
    let (_, head) = ask(&proxy, "PUT", "Origin: https://a.shop.example\r\n");
    assert_eq!(field(&head, "access-control-allow-origin"), Some("https://a.shop.example"), "{head}");
}
