//! What HTTP says of requests and answers beyond their syntax, by either protocol: whom a request is for, what is no
//! path, and how the proxy itself answers whom.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use http::Response;
use proxy::memory::Limit;
use snapshot::{
    Key, Kind, Snapshot,
    proto::{self, ClusterProtocol, resource},
};
use support::{HOST, OK, Proxy, Upstream, content, content_of, entry, field, http2, http2_request, request};

type Log = Arc<Mutex<Vec<String>>>;

/// An upstream, and the heads that came to it, in small letters.
fn recording() -> (Upstream, Log) {
    let heads = Log::default();
    let seen = Arc::clone(&heads);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            seen.lock().unwrap().push(asked.head.to_lowercase());
            stream.write_all(OK).unwrap();
        }
    });
    (upstream, heads)
}

/// The same by HTTP/2, with method, authority and path for a head.
fn recording_http2() -> (Upstream, Log) {
    let heads = Log::default();
    let seen = Arc::clone(&heads);
    let upstream = Upstream::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (uri, method) = (request.uri(), request.method());
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                seen.lock().unwrap().push(format!("{method} {authority} {}", uri.path_and_query().unwrap()));
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
    });
    (upstream, heads)
}

/// Adds a route for any host, with the rules of the other one.
fn for_any_host(content: &mut Snapshot) {
    let key = Key::new(Kind::Route, "ns", "r");
    let Some(resource::Kind::Route(mut route)) = content.entry(&key).unwrap().decode().unwrap().kind else { panic!() };
    route.attachments[0].hostnames.clear();
    content.insert(Key::new(Kind::Route, "ns", "any"), entry(resource::Kind::Route(route)));
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

#[test]
fn an_upgrade_that_is_required_is_named() {
    let answer =
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: foo/2, bar\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    let proxy = Proxy::start(Upstream::answering(answer).address);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        let (status, head, _) = client.response(false).unwrap();
        assert_eq!((status, field(&head, "upgrade")), (426, Some("foo/2, bar")), "{head}");
        assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    }
    // HTTP/2 has no upgrade.
    proxy.runtime.block_on(async {
        let (response, _) =
            http2(&proxy).await.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("upgrade")), (426, None));
    });
    // Of others it is no business.
    let answer = "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    let proxy = Proxy::start(Upstream::answering(answer).address);
    let got = proxy.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes()).to_lowercase();
    assert!(!got.contains("upgrade"), "{got}");
}

#[test]
fn options_of_the_server_as_a_whole() {
    let options = async |proxy: &Proxy| {
        let request = http::Request::builder().method("OPTIONS").uri(star()).body(()).unwrap();
        let (response, _) = http2(proxy).await.send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    let ask = |proxy: &Proxy, method: &str, host: &str| {
        status(&proxy.exchange(format!("{method} * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()))
    };
    let (upstream, heads) = recording();
    let proxy = Proxy::start(upstream.address);
    assert_eq!((ask(&proxy, "OPTIONS", HOST), proxy.runtime.block_on(options(&proxy))), (200, 200));
    assert_eq!((ask(&proxy, "OPTIONS", "other"), ask(&proxy, "GET", HOST)), (404, 400));
    let heads = heads.lock().unwrap().clone();
    let start = format!("options * http/1.1\r\nhost: {HOST}\r\n");
    assert!(
        heads.len() == 2 && heads.iter().all(|head| head.starts_with(&start[..20]) && head.contains(HOST)),
        "{heads:?}"
    );
    let (upstream, heads) = recording_http2();
    let proxy = Proxy::to_http2(upstream.address);
    assert_eq!((ask(&proxy, "OPTIONS", HOST), proxy.runtime.block_on(options(&proxy))), (200, 200));
    assert_eq!(heads.lock().unwrap()[..], [format!("OPTIONS {HOST} *"), format!("OPTIONS {HOST} *")]);
    // In absolute form, a target without a path is as much (RFC 9112 section 3.2.4).
    for (target, expect) in [("", "*"), (":8080", "*"), ("/", "/"), ("?a", "/?a"), ("/*", "/*")] {
        let proxy = Proxy::to_http2(upstream.address);
        let asked = format!("OPTIONS http://{HOST}{target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&proxy.exchange(asked.as_bytes())), 200, "{target}");
        let head = heads.lock().unwrap().pop().unwrap();
        assert!(head.ends_with(&format!(" {expect}")), "{target}: {head}");
    }
    // A rewritten path is none of its business, and a route of another path does not take it.
    let (upstream, heads) = recording();
    let proxy = Proxy::with(upstream.address, proto::Limits::default(), |rule| {
        let path = proto::path_rewrite::Rewrite::ReplacePrefixMatch("/v2".into());
        let rewrite =
            proto::UrlRewrite { hostname: String::new(), path: Some(proto::PathRewrite { rewrite: Some(path) }) };
        rule.filters.push(proto::Filter { filter: Some(proto::filter::Filter::UrlRewrite(rewrite)) });
    });
    assert_eq!(ask(&proxy, "OPTIONS", HOST), 200);
    assert!(heads.lock().unwrap()[0].starts_with("options * http/1.1\r\n"));
    let proxy = Proxy::with(upstream.address, proto::Limits::default(), |rule| {
        rule.matches[0].path.as_mut().unwrap().value = "/a".into();
    });
    assert_eq!(ask(&proxy, "OPTIONS", HOST), 404);
}

/// `*` at the host.
fn star() -> http::Uri {
    http::Uri::builder().scheme("http").authority(HOST).path_and_query("*").build().unwrap()
}

#[test]
fn a_request_of_http10_may_name_no_host() {
    for protocol in [ClusterProtocol::Http1, ClusterProtocol::H2c] {
        let (upstream, heads) = if protocol == ClusterProtocol::Http1 { recording() } else { recording_http2() };
        let address = upstream.address;
        let content = |port| content_of(protocol, &[port], address, proto::Limits::default(), |_| {});
        let asked = b"GET /x HTTP/1.0\r\nX-Forwarded-Host: evil\r\n\r\n";
        // No route is for any host.
        let proxy = Proxy::serving(Limit::find(None), address, content);
        assert_eq!(status(&proxy.exchange(asked)), 404);
        assert_eq!(status(&proxy.exchange(b"GET /x HTTP/1.1\r\n\r\n")), 400);
        let proxy = Proxy::serving(Limit::find(None), address, |port| {
            let mut content = content(port);
            for_any_host(&mut content);
            content
        });
        assert_eq!(status(&proxy.exchange(asked)), 200);
        // What is named has to be one, and HTTP/1.1 always names one.
        assert_eq!(status(&proxy.exchange(b"GET /x HTTP/1.0\r\nHost: a b\r\n\r\n")), 400);
        assert_eq!(status(&proxy.exchange(b"GET /x HTTP/1.1\r\n\r\n")), 400);
        let head = heads.lock().unwrap()[0].clone();
        // The upstream is named, since somebody has to be.
        match protocol {
            ClusterProtocol::Http1 => {
                assert_eq!(field(&head, "host"), Some(&*address.to_string()), "{head}");
                assert!(!head.contains("evil") && !head.contains("x-forwarded-host"), "{head}");
            }
            ClusterProtocol::H2c => assert_eq!(head, format!("GET {address} /x")),
        }
    }
}

#[test]
fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let (upstream, heads) = recording();
    let proxy = Proxy::start(upstream.address);
    let ask = |target: &str, host: &str, version: &str| {
        let host = if host.is_empty() { String::new() } else { format!("Host: {host}\r\n") };
        status(&proxy.exchange(format!("GET {target} HTTP/{version}\r\n{host}Connection: close\r\n\r\n").as_bytes()))
    };
    let shop = format!("http://{HOST}/x");
    for (host, version) in [(HOST, "1.1"), ("other", "1.1"), ("other", "1.0"), ("a:b", "1.1"), ("", "1.0")] {
        assert_eq!(ask(&shop, host, version), 200, "{host} {version}");
    }
    assert_eq!(ask("http://other/x", HOST, "1.1"), 404);
    assert_eq!(ask(&shop, "", "1.1"), 400);
    assert_eq!(ask(&shop, &format!("{HOST}\r\nHost: {HOST}"), "1.1"), 400);
    let heads = heads.lock().unwrap().clone();
    for head in &heads {
        assert!(head.starts_with("get /x http/1.1\r\n"), "{head}");
        assert_eq!((head.matches("\r\nhost: ").count(), field(head, "host")), (1, Some(HOST)), "{head}");
        assert_eq!(field(head, "x-forwarded-host"), Some(HOST), "{head}");
    }
    assert_eq!(heads.len(), 5);
    // By HTTP/2 both are the client's word (RFC 9113 section 8.3.1).
    proxy.runtime.block_on(async {
        let request = http2_request("GET", "/").header("host", "other").body(()).unwrap();
        let (response, _) = http2(&proxy).await.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 400);
    });
}

/// A proxy, the host and path that are asked for, further fields; the code and the message that come of it.
type Case<'a> = (&'a Proxy, &'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a str);

/// A fleet whose one rule lets one request pass in a day.
fn limited(port: u16, upstream: &Upstream) -> Snapshot {
    let mut content = content(port, upstream.address, proto::Limits::default(), |_| {});
    let limit = proto::Limit {
        name: "daily".into(),
        token_bucket: Some(proto::TokenBucket { rate: 1, per_ms: 86_400_000, burst: 1 }),
        ..Default::default()
    };
    let targets = vec![proto::PolicyTarget { route: "Route/ns/r".into(), rule: String::new() }];
    let policy = proto::RatePolicy { targets, limits: vec![limit], unavailable: String::new() };
    content.insert(Key::new(Kind::RatePolicy, "ns", "p"), entry(resource::Kind::RatePolicy(policy)));
    content
}

#[test]
fn whoever_speaks_grpc_is_answered_in_it() {
    // Nobody listens there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = Proxy::start(nobody);
    let small = proto::Limits { header_bytes: 2000, body_bytes: 50, ..Default::default() };
    let refusing = Proxy::with(Upstream::answering(OK).address, small, |_| {});
    let broken = Proxy::with(nobody, proto::Limits::default(), |rule| rule.unavailable = "x".into());
    let slow = Proxy::with(Upstream::slow().address, proto::Limits::default(), |rule| rule.backend_timeout_ms = 200);
    let upstream = Upstream::answering(OK);
    let limited = Proxy::serving(Limit::find(None), upstream.address, |port| self::limited(port, &upstream));
    assert_eq!(status(&limited.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes())), 200);
    let long = "x".repeat(3000);
    let cases: [Case<'_>; 8] = [
        (&unreachable, HOST, "/", &[], 14, "Bad Gateway (connect_failed)"),
        (&refusing, "other", "/", &[], 12, "Not Found (no_route)"),
        (&refusing, HOST, "/%zz", &[], 13, "Bad Request (bad_path)"),
        (&refusing, HOST, "/", &[("content-length", "51")], 8, "Payload Too Large (body_too_large)"),
        (&refusing, HOST, "/", &[("x", &long)], 8, "Request Header Fields Too Large (head_too_large)"),
        (&broken, HOST, "/", &[], 2, "Internal Server Error (rule_unavailable)"),
        (&slow, HOST, "/silent", &[], 14, "Gateway Timeout (upstream_timeout)"),
        (&limited, HOST, "/", &[], 14, "Too Many Requests (rate_limited)"),
    ];
    for (proxy, host, path, fields, code, message) in cases {
        proxy.runtime.block_on(async {
            let request = http::Request::builder().method("POST").uri(format!("http://{host}{path}"));
            let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
            let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let (response, _) = http2(proxy).await.send_request(request.body(()).unwrap(), fields.is_empty()).unwrap();
            let (head, body) = response.await.unwrap().into_parts();
            let of = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((head.status.as_u16(), of("content-type")), (200, Some("application/grpc")), "{message}");
            assert_eq!((of("grpc-status"), of("grpc-message")), (Some(&*code.to_string()), Some(message)));
            assert!(body.is_end_stream() && of("x-request-id").is_some(), "{message}");
            assert_eq!(of("ratelimit").is_some(), message.contains("rate_limited"), "{message}");
            assert_eq!(of("retry-after").is_some(), message.contains("rate_limited"), "{message}");
        });
        let mut client = proxy.connect();
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/grpc\r\n{lines}\r\n");
        client.send(head.as_bytes());
        let (status, head, body) = client.response(false).unwrap();
        assert_eq!((status, field(&head, "grpc-status"), body.len()), (200, Some(&*code.to_string()), 0), "{head}");
        assert_eq!(field(&head, "grpc-message"), Some(&*message.to_lowercase()), "{head}");
        assert_eq!(head.contains("\r\nratelimit: "), message.contains("rate_limited"), "{head}");
    }
    // What metrics say is what happened.
    assert_eq!(unreachable.metric("sluice_failed_requests_total", &["connect_failed", "upstream"]), 2.0);
    // Others are told in HTTP.
    let web =
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/grpc-web\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&unreachable.exchange(web.as_bytes())), 502);
}
