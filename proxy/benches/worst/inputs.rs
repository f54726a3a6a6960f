//! Heads that are meant to cost more than they weigh, each of about a given size, and all that is done with a head before
//! the first limit decides. The bench prints what they cost beside a clean one; `tests/worst.rs` holds them to it.
//!
//! The kind: work between the socket and the limiter that grows faster than what a client sends. Each input aims at one
//! step: lines and fields, `Connection`, the client's address, host, path, routing by path, by query and by header, keys of limits.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // the bench and the test use their parts, and fail by panicking

use std::{collections::BTreeMap, hint::black_box, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request};
use proxy::{
    Shared,
    client_address::ClientAddress,
    clock::clock_us,
    config::{Config, SnapshotStore},
    exchange::normalise,
    fields::Fields,
    filter::{Ctx, FilterState},
    forwarded::RequestId,
    http1::{
        self,
        lines::{Bounds, HeaderLines},
    },
    http2,
    message::RequestHead,
    message_limits::{DEFAULT, Limits},
    router::Query,
    telemetry::Telemetry,
};
use snapshot::{
    Entry, Key, Kind, Snapshot,
    proto::{
        self, Attachment, ClientIp, KeyPart, Limit, Listener, Match, PathMatch, PolicyTarget, RatePolicy, Resource,
        Route, Rule, TokenBucket, ValueMatch, WeightedCluster, key_part::Part, resource,
    },
    wire::Push,
};

/// A head of about so many bytes.
pub type Make = fn(usize) -> Vec<u8>;

/// What a browser sends: about 1 KiB.
pub fn clean() -> Vec<u8> {
    let cookie = "session=0123456789abcdef0123456789abcdef; id=17; theme=dark; ".repeat(6);
    head(
        "/api/v1/orders/17?page=2&user=someone&sort=price",
        HOST,
        &format!(
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
             Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
             Accept-Encoding: gzip, deflate, br, zstd\r\nX-User: 17\r\nX-Forwarded-For: 192.0.2.7, 198.51.100.2\r\n\
             Authorization: Bearer {}\r\nCookie: {cookie}\r\nSec-Fetch-Mode: navigate\r\nConnection: keep-alive\r\n",
            "x".repeat(200)
        ),
    )
    .into()
}

/// The host that most is served for.
pub const HOST: &str = "shop.example";

fn head(target: &str, host: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

fn path(of: &str, size: usize) -> Vec<u8> {
    head(&format!("/{}", of.repeat(size / of.len())), HOST, "").into()
}

fn query(of: &str, size: usize) -> Vec<u8> {
    head(&format!("/conditions?{}", of.repeat(size / of.len())), HOST, "").into()
}

fn field(name: &str, of: &str, size: usize) -> Vec<u8> {
    head("/", HOST, &format!("{name}: {}\r\n", of.repeat(size / of.len()))).into()
}

/// As many lines as are so many bytes together.
fn fields(target: &str, size: usize, line: fn(usize) -> String) -> Vec<u8> {
    let mut text = String::new();
    for n in 0.. {
        let line = line(n);
        if text.len() + line.len() > size {
            return head(target, HOST, &text).into();
        }
        text.push_str(&line);
    }
    vec![]
}

/// All of them. Those whose size the protocol bounds are smaller than asked for.
pub const WORST: [(&str, Make); 40] = [
    ("path of slashes", |n| path("/", n)),
    ("path of elements", |n| path("a/", n)),
    ("path along deep prefixes", |n| path("p/", n)),
    ("path of encoded letters", |n| path("%61", n)),
    ("path of other encodings", |n| path("%c3%a9", n)),
    ("path of dots", |n| path(".a/..b/", n)),
    ("path that ends in dots", |n| path("//a//.b/..", n)),
    ("target in absolute form", |n| head(&format!("http://{HOST}/{}", "a//".repeat(n / 3)), HOST, "").into()),
    ("query of &", |n| query("&", n)),
    ("query of =", |n| query("=&", n)),
    ("query of short names", |n| query("u&", n)),
    ("query of +", |n| query("+", n)),
    ("query of encoded names", |n| query("%75%73%65%71&", n)),
    ("query of names that nearly fit", |n| query("usex=1&", n)),
    ("query of one long encoded value", |n| {
        head(&format!("/conditions?user={}", "%61".repeat(n / 3)), HOST, "").into()
    }),
    ("host of labels", |n| head("/", &"a.".repeat(n.min(250) / 2), "").into()),
    ("host of labels below wildcards", |n| head("/", &format!("{}w", "w.".repeat(n.min(250) / 2)), "").into()),
    ("host that is none", |n| head("/", &"a".repeat(n), "").into()),
    ("fields with short lines", |n| fields("/", n, |i| format!("{}:\r\n", char::from(b'a' + (i % 26) as u8)))),
    ("fields with underscores", |n| fields("/", n, |_| "_:\r\n".into())),
    ("fields that nearly are others", |n| fields("/", n, |_| "x_forwarded_fox: 1\r\n".into())),
    ("fields of one name", |n| fields("/conditions", n, |_| "X-User:1\r\n".into())),
    ("fields of names in capitals", |n| fields("/conditions", n, |i| format!("X-U{i}:1\r\n"))),
    ("field of white space", |n| field("X-A", " ", n)),
    ("field of one long value", |n| field("X-A", "x", n)),
    ("field with one long name", |n| head("/", HOST, &format!("{}: 1\r\n", "x".repeat(n))).into()),
    ("Connection with many names", |n| {
        let names: Vec<String> = (0..n / 12).map(|i| format!("n{i}")).collect();
        let lines: String = names.iter().map(|name| format!("{name}: 1\r\n")).collect();
        head("/", HOST, &format!("Connection: {}\r\n{lines}", names.join(","))).into()
    }),
    ("Connection of commas", |n| field("Connection", ",", n)),
    ("TE of commas", |n| field("TE", ",", n)),
    ("X-Forwarded-For of hops", |n| field("X-Forwarded-For", "1.1.1.1,", n)),
    ("X-Forwarded-For in many lines", |n| fields("/", n, |_| "X-Forwarded-For:1\r\n".into())),
    ("X-Forwarded-For of commas", |n| field("X-Forwarded-For", ",", n)),
    ("Forwarded of hops", |n| field("Forwarded", "for=1.1.1.1,", n)),
    ("Forwarded of quotes", |n| field("Forwarded", "\"", n)),
    ("Forwarded of escaped quotes", |n| field("Forwarded", "\\\"", n)),
    ("Forwarded of backslashes", |n| field("Forwarded", "\\\\", n)),
    ("Forwarded of ;", |n| field("Forwarded", ";", n)),
    ("cookie of ;", |n| field("Cookie", ";", n)),
    ("cookie of short names", |n| field("Cookie", "i;", n)),
    ("cookies that nearly fit", |n| fields("/conditions", n, |_| "Cookie: idx=1; ie=1;\r\n".into())),
];

/// Everything between a head's bytes and the first limit's decision.
pub struct Before {
    config: Arc<Config>,
    /// By either field.
    addresses: [ClientAddress; 2],
    limits: Limits,
    lines: HeaderLines,
    fields: Fields,
}

impl Before {
    pub fn new() -> Self {
        // As much as a fleet may allow: no bound on numbers may be what holds the costs.
        let limits = Limits { fields: 1000, target_bytes: 32 << 10, ..DEFAULT };
        // As many networks as a fleet may name, the last of which has every address.
        let cidrs = (0..63).map(|n| format!("10.{n}.0.0/16")).chain(["0.0.0.0/0".into()]).collect::<Vec<_>>();
        let addresses = [0, 1].map(|header| {
            ClientAddress::from(&proto::ClientAddress { header, trusted_hops: 0, trusted_cidrs: cidrs.clone() })
        });
        Self { config: config(), addresses, limits, lines: HeaderLines::default(), fields: Fields::default() }
    }

    /// A head of HTTP/1.1; answers whether it came to a limit.
    pub fn http1(&mut self, head: &Bytes) -> bool {
        let Limits { head_bytes: bytes, fields, target_bytes: first, .. } = self.limits;
        self.lines.reset(true);
        if self.lines.read(head, Bounds { bytes, fields, first: first + 128 }).is_err() {
            return false;
        }
        let head = head.clone();
        let Ok(head) = http1::request::parse(head, &self.lines, mem::take(&mut self.fields), &self.limits) else {
            return false;
        };
        self.head(head.parts)
    }

    /// The same by HTTP/2, whose bytes became fields already.
    pub fn http2(&mut self, request: Request<()>) -> bool {
        let (parts, ()) = request.into_parts();
        self.head(http2::head::parse(parts).parts)
    }

    fn head(&mut self, mut head: RequestHead) -> bool {
        black_box(RequestId::of(&head.fields, || 1));
        let peer = [192, 0, 2, 1].into();
        let [client, _] = self.addresses.each_ref().map(|rules| black_box(rules.of(peer, &head.fields)));
        let Ok(host) = normalise::head(&mut head, DEFAULT.paths) else { return false };
        let query = Query {
            tls: false,
            host: &host.name(),
            path: &snapshot::path::matched(head.uri.path(), DEFAULT.paths),
            query: head.uri.query(),
            method: &head.method,
            fields: &head.fields,
        };
        let Ok(matched) = self.config.ports[&80].router.find(&query) else { return false };
        let started = Instant::now();
        let mut ctx = Ctx {
            client,
            tls: false,
            port: 80,
            prefix: matched.prefix,
            paths: DEFAULT.paths,
            started,
            now_us: clock_us(started),
            identity: None,
            logged: None,
            rate_limit: None,
            body: None,
            state: FilterState::default(),
        };
        let rule = Arc::clone(matched.rule);
        black_box(rule.chain.on_request(&mut head, &mut ctx));
        self.fields = head.fields;
        true
    }

    /// Nanoseconds for one head: the best of several runs, of so many milliseconds together.
    pub fn cost(&mut self, head: &[u8], ms: u64) -> f64 {
        let head = Bytes::copy_from_slice(head);
        let mut best = f64::MAX;
        for _ in 0..4 {
            let (start, mut rounds) = (Instant::now(), 0);
            while start.elapsed().as_micros() < u128::from(ms) * 250 {
                for _ in 0..4 {
                    black_box(self.http1(&head));
                }
                rounds += 4;
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(rounds));
        }
        best
    }
}

/// A fleet that asks for all that rules can ask for: prefixes within prefixes, wildcards, conditions, keys of every kind.
fn config() -> Arc<Config> {
    let entry = |kind| Entry::new(&Resource { requires: vec![], kind: Some(kind) });
    let prefix = |value: String| Some(PathMatch { kind: 0, value });
    let rule = |name: &str, matches: Vec<Match>| Rule {
        name: name.into(),
        matches,
        backends: vec![WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
        ..Rule::default()
    };
    let path_only = |value: String| Match { path: prefix(value), ..Match::default() };
    let value = |name: String| ValueMatch { name, value: "none".into(), ..ValueMatch::default() };
    let conditional = |n: usize| Match {
        path: prefix("/conditions".into()),
        headers: vec![value(format!("x-u{n}")), value("x-user".into())],
        query_params: vec![value(format!("use{n}")), value("user".into())],
        ..Match::default()
    };
    let by_header = |n: usize| Match { headers: vec![value(format!("x-v{n}"))], ..conditional(n) };
    let by_query = |n: usize| Match { headers: vec![], ..conditional(n) };
    let rules = vec![
        rule("rest", vec![path_only("/".into()), path_only("/api/v1/orders".into())]),
        rule("deep", (1..=512).map(|n| path_only("/p".repeat(n))).collect()),
        rule("conditions", (0..64).flat_map(|n| [conditional(n), by_header(n), by_query(n)]).collect()),
    ];
    let wildcards = (1..=120).map(|n| format!("*{}", ".w".repeat(n)));
    let hostnames = [HOST.into(), "*.example".into()].into_iter().chain(wildcards).collect();
    // Without hostnames: any.
    let attachments = [hostnames, vec![]].map(|hostnames| Attachment { listener: "http".into(), hostnames }).into();
    let limit = |name: &str, parts: Vec<Part>| Limit {
        name: name.into(),
        key: parts.into_iter().map(|part| KeyPart { part: Some(part) }).collect(),
        token_bucket: Some(TokenBucket { rate: 1 << 30, per_ms: 1000, burst: 1 << 30 }),
        ..Limit::default()
    };
    let limits = vec![
        limit("ip", vec![Part::ClientIp(ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 })]),
        limit("user", vec![Part::Query("user".into()), Part::Header("x-user".into())]),
        limit("id", vec![Part::Cookie("id".into())]),
    ];
    let policy = RatePolicy { targets: vec![PolicyTarget::default()], limits, unavailable: String::new() };
    let listener = Listener { name: "http".into(), port: 80, ..Listener::default() };
    let target: Snapshot = [
        (Key::listener("ns", "f", "http"), entry(resource::Kind::Listener(listener))),
        (Key::new(Kind::RatePolicy, "ns", "p"), entry(resource::Kind::RatePolicy(policy))),
        (Key::new(Kind::Route, "ns", "r"), entry(resource::Kind::Route(Route { created_ms: 0, attachments, rules }))),
    ]
    .into_iter()
    .collect();
    let shared = Shared::new(Telemetry::default());
    let mut store = SnapshotStore::new(Arc::clone(&shared));
    let delta = target.diff(&BTreeMap::new());
    let staged = store.stage(Push { epoch: 1, base: None, revision: target.revision(), delta }).unwrap();
    assert_eq!(store.finish(staged, &BTreeMap::new()).nacks, []);
    shared.config.load_full()
}

/// What HTTP/2 makes of entries of HPACK's table, referred to again and again.
pub fn references(size: usize) -> Request<()> {
    let mut request = Request::get(format!("http://{HOST}/{}", "/".repeat(4000)));
    for _ in 0..size / 4000 {
        request = request.header("cookie", HeaderValue::from_str(&"i;".repeat(2000)).unwrap());
    }
    request.body(()).unwrap()
}
