//! What a request and a push cost in the parts that know nothing of sockets: `cargo bench -p proxy --profile e2e`, with
//! `-- memory` (or another group of `main`) for that alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, fmt::Write, hint::black_box, mem, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use limits::{Limiter, Table, TokenBucket};
use prost::Message;
use proxy::{
    Shared,
    clock::clock_us,
    config::Store,
    fields::Fields,
    filter::{Ctx, FilterState, Outcome},
    forwarded::{Forwarded, RequestId},
    http1::{
        self, encode,
        lines::{Bounds, HeaderLines},
        request::Wants,
    },
    message::RequestHead,
    message_limits,
    router::Query,
    telemetry::{self, RequestRecord, Telemetry},
};
use snapshot::{
    Entry, Key, Kind, Snapshot,
    proto::{
        Attachment, ClientIp, Cluster, Endpoint, KeyPart, Limit, Listener, Match, OperatorMessage, PathMatch,
        PolicyTarget, RatePolicy, Resource, Route, Rule, WeightedCluster, key_part, resource,
    },
    wire::{self, Assembly, Push},
};

fn main() {
    // `cargo test --benches` runs this too; there it only has to compile.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let groups = ["memory", "limits", "heads", "requests-1", "requests-100", "requests-10000", "expressions", "pushes"];
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| groups.contains(&arg.as_str())).collect();
    let runs = |group: &str| asked.is_empty() || asked.iter().any(|asked| asked == group);
    // First, while the heap is small.
    if runs("memory") {
        memory(10_000);
    }
    if runs("limits") {
        limits();
    }
    if runs("heads") {
        heads();
    }
    for routes in [1, 100, 10_000] {
        if runs(&format!("requests-{routes}")) {
            requests(routes);
        }
    }
    if runs("expressions") {
        expressions();
    }
    if runs("pushes") {
        pushes(10_000);
    }
}

fn measure(what: &str, mut work: impl FnMut(u64)) {
    const ROUNDS: u64 = 300_000;
    (0..ROUNDS / 10).for_each(&mut work);
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..ROUNDS).for_each(&mut work);
        best = best.min(start.elapsed().as_nanos() as f64 / ROUNDS as f64);
    }
    println!("{what:<60} {best:>9.0} ns");
}

fn limits() {
    let table = Table::new(1 << 20);
    let limiter = Limiter::new(TokenBucket::new(1_000_000, 1000, 1_000_000), 0);
    measure("limit: one bucket", |i| {
        black_box(limiter.take(&table, None, 1_000_000 + i));
    });
    for keys in [100, 100_000, 900_000] {
        measure(&format!("limit: one of {keys} keys, hashed"), |i| {
            let mut key = table.key(limiter.namespace());
            key.part(&(i.wrapping_mul(0x9e37_79b9) % keys).to_le_bytes());
            black_box(limiter.take(&table, Some(key.finish()), 1_000_000 + i));
        });
    }
    let mut limiter = Arc::new(Limiter::new(TokenBucket::new(1, 3_600_000, 10), 0));
    for i in 0..1_000_000u64 {
        let mut key = table.key(limiter.namespace());
        key.part(&i.to_le_bytes());
        limiter.take(&table, Some(key.finish()), 2_000_000_000);
    }
    for rate in [100, 1, 100] {
        let start = Instant::now();
        let changed = Arc::new(limiter.successor(TokenBucket::new(rate, 3_600_000, 10)));
        Limiter::supersede(&table, &[(limiter, Arc::clone(&changed))], 2_000_000_000);
        limiter = changed;
        println!(
            "{:<60} {:>9.0} us",
            format!("limit: a change with {} keys", table.len()),
            start.elapsed().as_micros()
        );
    }
}

/// Heads of HTTP/1.1 as a browser's and a service's. The map of fields is used again, as connections do.
fn heads() {
    let asked = Bytes::from_static(
        b"GET /api/v1/orders/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
          Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\n\r\n",
    );
    let answered = Bytes::from_static(
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 128\r\n\
          Cache-Control: no-store\r\nETag: \"0123456789\"\r\n\r\n",
    );
    let limits = message_limits::DEFAULT;
    let bounds = Bounds { bytes: limits.head_bytes, fields: limits.fields, first: limits.target_bytes };
    let (mut lines, mut fields) = (HeaderLines::default(), Fields::default());
    measure("http1: lines of a request's head with 6 fields", |_| {
        lines.reset(true);
        black_box(lines.read(&asked, bounds)).unwrap();
    });
    let request = |lines: &HeaderLines, fields| http1::request::parse(asked.clone(), lines, fields, &limits).unwrap();
    measure("http1: what the request's head means", |_| {
        fields = black_box(request(&lines, mem::take(&mut fields))).parts.fields;
    });
    let head = request(&lines, Fields::default());
    let request_id = &RequestId::Made([b'0'; 32]);
    let client = HeaderValue::from_static("127.0.0.1");
    let forwarded = Forwarded { request_id, client: &client, tls: false, host: b"shop.example" };
    let own = encode::OwnFields { request_id, rate_limit: None, at: Instant::now() };
    let mut out = Vec::with_capacity(4 << 10);
    measure("http1: the request's head for the upstream", |_| {
        out.clear();
        encode::request(&mut out, black_box(&head.parts), forwarded, head.body, Wants::default());
        black_box(&out);
    });
    measure("http1: lines of a response's head with 5 fields", |_| {
        lines.reset(true);
        black_box(lines.read(&answered, bounds)).unwrap();
    });
    measure("http1: what the response's head means", |_| {
        let head = http1::response::parse(answered.clone(), &lines, mem::take(&mut fields), &Method::GET).unwrap();
        fields = black_box(head).parts.fields;
    });
    let head = http1::response::parse(answered, &lines, Fields::default(), &Method::GET).unwrap();
    measure("http1: the response's head for the client", |_| {
        out.clear();
        let (version, after) = (http::Version::HTTP_11, encode::After::Keep);
        encode::response(&mut out, black_box(&head.parts), own, head.body, &Method::GET, version, after);
        black_box(&out);
    });
}

fn entry(kind: resource::Kind) -> Entry {
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

fn route(number: usize, path: &str) -> (Key, Entry) {
    let rule = |name: &str, path: String| Rule {
        name: name.into(),
        matches: vec![Match { path: Some(PathMatch { kind: 0, value: path }), ..Match::default() }],
        backends: vec![WeightedCluster { cluster: format!("Cluster/ns/c{}/80", number % 1000), weight: 1 }],
        ..Rule::default()
    };
    let hostnames = vec![format!("h{}.example", number % 1000)];
    let attachments = vec![Attachment { listener: "http".into(), hostnames }];
    let rules = vec![rule("a", format!("{path}/{number}")), rule("b", format!("{path}/{number}/deep/path"))];
    let name = format!("r{number}");
    (Key::new(Kind::Route, "ns", &name), entry(resource::Kind::Route(Route { created_ms: 0, attachments, rules })))
}

fn content(routes: usize) -> Snapshot {
    let listener = Listener { name: "http".into(), port: 80, ..Listener::default() };
    let ip = key_part::Part::ClientIp(ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 });
    let token_bucket = Some(snapshot::proto::TokenBucket { rate: 1 << 30, per_ms: 1000, burst: 1 << 30 });
    let key = vec![KeyPart { part: Some(ip) }];
    let limit = Limit { name: "l".into(), key, token_bucket, ..Limit::default() };
    let policy = RatePolicy { targets: vec![PolicyTarget::default()], limits: vec![limit], unavailable: String::new() };
    let mut snapshot: Snapshot = (0..routes).map(|n| route(n, "/api/v1")).collect();
    snapshot.insert(Key::listener("ns", "f", "http"), entry(resource::Kind::Listener(listener)));
    snapshot.insert(Key::new(Kind::RatePolicy, "ns", "p"), entry(resource::Kind::RatePolicy(policy)));
    for n in 0..1000 {
        snapshot.insert(Key::cluster("ns", &format!("c{n}"), "80"), entry(resource::Kind::Cluster(cluster(n))));
    }
    snapshot
}

fn cluster(n: usize) -> Cluster {
    let endpoint = |i| Endpoint { address: format!("10.{}.{}.{i}:80", n / 250, n % 250), ..Endpoint::default() };
    Cluster { protocol: 0, endpoints: (0..10).map(endpoint).collect() }
}

fn push(store: &mut Store, target: &Snapshot) -> f64 {
    let delta = target.diff(&store.held().held());
    let base = (!store.held().is_empty()).then(|| store.held().revision());
    let push = Push { epoch: 1, base, revision: target.revision(), delta };
    let start = Instant::now();
    let staged = store.stage(push).unwrap();
    let status = store.finish(staged, &BTreeMap::new());
    assert!(status.nacks.is_empty(), "{:?}", status.nacks);
    start.elapsed().as_secs_f64() * 1000.0
}

/// What the routes of one host take, as they come over the wire.
fn memory(routes: usize) {
    let target = one_host(routes);
    let messages = wire::push(1, None, target.revision(), &target.diff(&BTreeMap::new()));
    let messages: Vec<Vec<u8>> = messages.iter().map(Message::encode_to_vec).collect();
    let size = target.size() >> 10;
    drop(target);
    let mut store = Store::new(Shared::new(Telemetry::default()));
    let before = pss_kib();
    let mut assembly = Assembly::default();
    for message in &messages {
        let message = OperatorMessage::decode(Bytes::copy_from_slice(message)).unwrap();
        let Some(push) = assembly.accept(message.message.unwrap()).unwrap() else { continue };
        let start = Instant::now();
        let staged = store.stage(push).unwrap();
        assert!(store.finish(staged, &BTreeMap::new()).nacks.is_empty());
        println!("push: {routes} routes of one host {:>31.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    }
    println!("memory: {routes} routes of {size} KiB encoded take {} KiB PSS more", pss_kib() - before);
    let mut target = store.held().clone();
    let (key, changed) = host_route(7, "/other");
    target.insert(key, changed);
    println!("push: one of {routes} routes of one host {:>26.1} ms", push(&mut store, &target));
    println!("memory: then {} KiB PSS more", pss_kib() - before);
}

/// As `cargo xtask bench` has them in S9.
fn one_host(routes: usize) -> Snapshot {
    let listener = Listener { name: "http".into(), port: 80, ..Listener::default() };
    let mut snapshot: Snapshot = (0..routes).map(|n| host_route(n, &format!("/r{n:05}"))).collect();
    snapshot.insert(Key::listener("ns", "f", "http"), entry(resource::Kind::Listener(listener)));
    snapshot.insert(Key::cluster("ns", "c", "80"), entry(resource::Kind::Cluster(cluster(0))));
    snapshot
}

fn host_route(number: usize, path: &str) -> (Key, Entry) {
    let rule = Rule {
        name: "all".into(),
        matches: vec![Match { path: Some(PathMatch { kind: 0, value: path.into() }), ..Match::default() }],
        backends: vec![WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
        ..Rule::default()
    };
    let attachments = vec![Attachment { listener: "http".into(), hostnames: vec!["bench.example".into()] }];
    let route = Route { created_ms: 0, attachments, rules: vec![rule] };
    (Key::new(Kind::Route, "ns", &format!("r{number:05}")), entry(resource::Kind::Route(route)))
}

fn pss_kib() -> i64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn requests(routes: usize) {
    let shared = Shared::new(Telemetry::default());
    push(&mut Store::new(Arc::clone(&shared)), &content(routes));
    let config = shared.config.load_full();
    let fields = Fields::default();
    // A request's host and path are in the cache, as if they had just been read.
    let (mut host, mut path) = (String::new(), String::new());
    let mut ask = |i: u64, find: &dyn Fn(&str, &str)| {
        let number = i.wrapping_mul(0x9e37_79b9) as usize % routes;
        host.clear();
        path.clear();
        write!(host, "h{}.example", number % 1000).unwrap();
        write!(path, "/api/v1/{number}/deep/x").unwrap();
        find(&host, &path);
    };
    measure("(making a host and a path up)", |i| {
        ask(i, &|host, path| {
            black_box((host, path));
        });
    });
    measure(&format!("route: one of {routes} routes, made up"), |i| {
        ask(i, &|host, path| {
            let q = Query { tls: false, host, path, query: None, method: &Method::GET, fields: &fields };
            assert!(black_box(config.ports[&80].router.find(&q)).is_ok());
        });
    });
    let q =
        Query { tls: false, host: "h0.example", path: "/api/v1/0", query: None, method: &Method::GET, fields: &fields };
    let rule = Arc::clone(config.ports[&80].router.find(&q).unwrap().rule);
    if routes > 1 {
        return;
    }
    let mut head = RequestHead::from(Request::new(()).into_parts().0);
    measure("chain with one limit by client address, its fields not written", |i| {
        let mut ctx = Ctx {
            client: (i as u32 % 10_000).to_be_bytes().into(),
            tls: false,
            port: 80,
            prefix: 0,
            paths: snapshot::path::Rules::default(),
            started: Instant::now(),
            now_us: clock_us(Instant::now()),
            identity: None,
            logged: None,
            rate_limit: None,
            body: None,
            state: FilterState::default(),
        };
        assert!(matches!(rule.chain.on_request(&mut head, &mut ctx), Outcome::Passed));
        black_box(ctx);
    });
    let record = RequestRecord {
        ended: Instant::now(),
        rule: Some(rule.served_by()),
        consumer: None,
        client: b"192.0.2.1",
        client_port: 7,
        method: &Method::GET,
        target: "/",
        host: b"h",
        version: http::Version::HTTP_11,
        status: 200,
        request_id: b"id",
        duration: std::time::Duration::from_micros(1_300),
        upstream: Some(std::time::Duration::from_micros(1_000)),
        external: None,
        added: std::time::Duration::from_micros(300),
        upstream_address: None,
        bytes_in: 0,
        bytes_out: 0,
        reason: None,
        error_source: None,
    };
    measure("telemetry of one request, not logged", |_| {
        shared.telemetry.opened();
        shared.telemetry.closed(black_box(&record));
    });
}

/// What routes are, how many there are, each of them, and the path that is asked for.
type Case<'a> = (&'a str, usize, &'a dyn Fn(usize) -> (Key, Entry), &'a str);

/// Routes by expressions: of what people have, and the worst that can be asked of the worst.
fn expressions() {
    let regex = |n: usize, value: String| {
        let (key, _) = host_route(n, "/");
        let path = PathMatch { kind: snapshot::proto::PathKind::Regex.into(), value };
        let rule = Rule {
            name: "all".into(),
            matches: vec![Match { path: Some(path), ..Match::default() }],
            backends: vec![WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
            ..Rule::default()
        };
        let attachments = vec![Attachment { listener: "http".into(), hostnames: vec!["bench.example".into()] }];
        (key, entry(resource::Kind::Route(Route { created_ms: 0, attachments, rules: vec![rule] })))
    };
    let usual = |n: usize| regex(n, format!("/service-{n}/orders/[0-9]+(/.*)?"));
    let worst = |n: usize| regex(n, format!("(/[a-c]|/[x-z]/a)*/{n}"));
    let long = "/a/b/x/a".repeat(1000);
    let cases: [Case<'_>; 5] = [
        ("usual", 1, &usual, "/service-0/orders/17"),
        ("usual", 1000, &usual, "/service-500/orders/17"),
        ("usual, none of which matches,", 1000, &usual, "/something/else/17"),
        ("that look at all of a short path,", 1000, &worst, "/a/b/x/a/1"),
        ("that look at all of 8 KB,", 1000, &worst, &long),
    ];
    for (what, count, route, path) in cases {
        let shared = Shared::new(Telemetry::default());
        let mut target: Snapshot = (0..count).map(route).collect();
        let listener = Listener { name: "http".into(), port: 80, ..Listener::default() };
        target.insert(Key::listener("ns", "f", "http"), entry(resource::Kind::Listener(listener)));
        target.insert(Key::cluster("ns", "c", "80"), entry(resource::Kind::Cluster(cluster(0))));
        println!("push: {count} expressions {what} {:>20.1} ms", push(&mut Store::new(Arc::clone(&shared)), &target));
        let config = shared.config.load_full();
        let fields = Fields::default();
        let q = Query { tls: false, host: "bench.example", path, query: None, method: &Method::GET, fields: &fields };
        let mut best = f64::MAX;
        for _ in 0..1000 {
            let start = Instant::now();
            let _ = black_box(config.ports[&80].router.find(&q));
            best = best.min(start.elapsed().as_nanos() as f64);
        }
        println!("{:<60} {best:>9.0} ns", format!("route: {count} expressions {what} once"));
    }
}

fn pushes(routes: usize) {
    let shared = Shared::new(Telemetry::default());
    let mut store = Store::new(Arc::clone(&shared));
    let mut target = content(routes);
    println!("push: {routes} routes, 10,000 endpoints, from nothing {:>20.1} ms", push(&mut store, &target));
    let (key, changed) = route(7, "/other");
    target.insert(key, changed);
    println!("push: one route of {routes} changed {:>31.1} ms", push(&mut store, &target));
    target.insert(Key::cluster("ns", "c7", "80"), entry(resource::Kind::Cluster(cluster(9))));
    println!("push: one cluster of 1000 changed {:>31.1} ms", push(&mut store, &target));
    let start = Instant::now();
    let text = telemetry::metrics(&shared);
    println!("metrics: {} bytes in {:.1} ms", text.len(), start.elapsed().as_secs_f64() * 1000.0);
}
