//! HTTP/1.1 between a client and an upstream that both do as they like.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use snapshot::proto::Limits;
use support::{Client, HOST, OK, Proxy, Upstream, field, pause, request};

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into()
}

/// An upstream whose first request is answered so, and its connection then closed; later ones are answered well.
fn first(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                answer(&mut stream);
                // As a server that goes on: what the proxy makes of its answer must not hang on the connection's end.
                pause(50);
            } else if stream.write_all(OK).is_err() {
                return;
            }
        }
    })
}

#[test]
fn an_upstream_that_misbehaves_is_not_passed_on() {
    let long = "x".repeat(100 << 10);
    let many = "a: b\r\n".repeat(200);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
    let cases: Vec<(&str, String)> = vec![
        (
            "a length beside chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok".into()),
        ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok".into()),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into()),
        ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        ("a giant field", format!("HTTP/1.1 200 OK\r\na: {long}\r\n\r\n")),
        ("very many fields", format!("HTTP/1.1 200 OK\r\n{many}\r\n")),
        ("interim responses without end", interim),
        ("lines that end in LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".into()),
        ("a folded field", "HTTP/1.1 200 OK\r\na: b\r\n c\r\nContent-Length: 2\r\n\r\nok".into()),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok".into()),
        ("a NUL", "HTTP/1.1 200 OK\r\na: \0\r\nContent-Length: 2\r\n\r\nok".into()),
        ("another protocol", "SSH-2.0-OpenSSH_9.9\r\n\r\n".into()),
        ("a status that is none", "HTTP/1.1 2OO OK\r\n\r\n".into()),
        (
            "an upgrade nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".into(),
        ),
    ];
    for (what, answer) in cases {
        let upstream = first(move |stream| drop(stream.write_all(answer.as_bytes())));
        let proxy = Proxy::start(upstream.address);
        let mut client = proxy.connect();
        client.send(&get("/"));
        // Those that are not too many pass.
        let mut answers = std::iter::from_fn(|| client.response(false));
        let (status, head, body) = answers.find(|(status, ..)| *status >= 200).unwrap();
        assert_eq!(status, 502, "{what}: {head}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["requestId"], field(&head, "x-request-id").unwrap(), "{what}");
        // Another connection, and the client's goes on.
        client.send(&get("/"));
        assert_eq!(client.response(false).unwrap().0, 200, "{what}");
        assert_eq!(upstream.connections(), 2, "{what}");
        assert_eq!(proxy.metric("sluice_failed_requests_total", &["blame=\"upstream\""]), 1.0, "{what}");
    }
}

#[test]
fn a_body_that_breaks_off_is_no_whole_one() {
    let cases = [
        ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
        ("what is no chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n"),
        ("a long chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfs\r\n0\r\n\r\n"),
    ];
    for (what, answer) in cases {
        for version in ["1.1", "1.0"] {
            let upstream = first(move |stream| {
                stream.write_all(answer.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
            });
            let proxy = Proxy::start(upstream.address);
            let mut client = proxy.connect();
            client.send(format!("GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n").as_bytes());
            let got = client.rest();
            assert!(got.starts_with("HTTP/1.1 200"), "{what}: {got}");
            if got.contains("transfer-encoding: chunked") {
                assert!(!got.ends_with("0\r\n\r\n"), "{what}: {got}");
            } else if !got.contains("content-length: 10") {
                assert!(got.ends_with("RESET"), "{what}, HTTP/{version}: {got}");
            }
            assert_eq!(client_status(&proxy), 200, "{what}");
            assert_eq!(upstream.connections(), 2, "{what}");
            assert_eq!(proxy.metric("sluice_failed_requests_total", &["upstream_broke"]), 1.0, "{what}");
        }
    }
}

fn client_status(proxy: &Proxy) -> u16 {
    let mut client = proxy.connect();
    client.send(&get("/"));
    client.response(false).unwrap().0
}

#[test]
fn bodies_keep_their_framing_or_get_one_that_the_client_knows() {
    let check = |answer: &'static str, request: &str, expect: &[&str], body: &str| {
        let upstream = first(move |stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            if !answer.contains("Content-Length") && !answer.contains("chunked") {
                stream.shutdown(Shutdown::Both).unwrap();
            }
        });
        let proxy = Proxy::start(upstream.address);
        let mut client = proxy.connect();
        client.send(format!("{request}\r\nHost: {HOST}\r\nTE: trailers\r\n\r\n").as_bytes());
        let (_, head, got) = client.response(request.starts_with("HEAD")).unwrap();
        for part in expect {
            let found = match part.strip_prefix('!') {
                Some(part) => !head.contains(part),
                None => head.contains(part),
            };
            assert!(found, "{answer:?} {request}: {part} in {head}");
        }
        assert_eq!(String::from_utf8(got).unwrap(), body, "{answer:?}");
        if expect.contains(&"connection: close") {
            assert_eq!(client.rest(), "", "{answer:?}");
        } else {
            client.send(&get("/"));
            assert_eq!(client.response(false).unwrap().0, 200, "{answer:?}");
        }
    };
    let (v1, v0, head) = ("GET / HTTP/1.1", "GET / HTTP/1.0", "HEAD / HTTP/1.1");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nX-T: 1\r\n\r\n";
    check(chunks, v1, &["transfer-encoding: chunked", "!content-length"], "abc");
    check(chunks, v0, &["!transfer-encoding", "!content-length", "connection: close"], "abc");
    check("HTTP/1.1 200 OK\r\n\r\nabc", v1, &["transfer-encoding: chunked"], "abc");
    check("HTTP/1.1 200 OK\r\n\r\nabc", v0, &["connection: close"], "abc");
    check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", v1, &["content-length: 3", "!connection"], "abc");
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close, x-a\r\nX-A: 1\r\n\r\nabc",
        v1,
        &["!connection", "!x-a"],
        "abc",
    );
    check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", head, &["content-length: 3"], "");
    check("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", v1, &["http/1.1 304", "content-length: 3"], "");
    check("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", v1, &["http/1.1 204", "!content-length"], "");
}

#[test]
fn bytes_behind_a_response_are_nobodys() {
    let upstream = first(|stream| {
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            )
            .unwrap();
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(&get("/"));
        assert_eq!(client.response(false).unwrap().2, b"ok");
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn an_upload_that_is_answered_early_keeps_its_answer() {
    for close in [true, false] {
        let upstream = Upstream::start(move |mut stream| {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large").unwrap();
            if !close {
                pause(2_000);
            }
            // With bytes unread: a reset.
        });
        let proxy = Proxy::start(upstream.address);
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 50000000\r\n\r\n").as_bytes());
        let mut sender = client.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let block = [b'x'; 1 << 16];
            // The proxy takes no more at some point.
            while sender.write_all(&block).is_ok() {}
        });
        let (status, head, body) = client.response(false).unwrap();
        assert_eq!((status, &body[..]), (413, &b"too large"[..]), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        let _ = client.stream.shutdown(Shutdown::Both);
        sending.join().unwrap();
    }
}

#[test]
fn both_ways_at_once() {
    // An upstream that sends back each byte as it comes.
    let upstream = Upstream::start(|mut stream| {
        let mut read: Vec<u8> = vec![];
        let mut buffer = [0; 1024];
        while !read.windows(4).any(|w| w == b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            read.extend(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for _ in 0..3 {
            let count = stream.read(&mut buffer).unwrap();
            let echo = format!("{count:x}\r\n{}\r\n", String::from_utf8_lossy(&buffer[..count]));
            stream.write_all(echo.as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\n").as_bytes());
    let mut buffer = [0; 1024];
    let mut got = String::new();
    for part in ["", "a", "b", "c"] {
        client.send(part.as_bytes());
        let expect = if part.is_empty() { "\r\n\r\n".into() } else { format!("1\r\n{part}\r\n") };
        while !got.contains(&expect) {
            let count = client.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{got}");
            got += str::from_utf8(&buffer[..count]).unwrap();
        }
    }
    assert!((got + &client.rest()).ends_with("1\r\nc\r\n0\r\n\r\n"));
}

#[test]
fn a_client_that_waits_is_told_to_continue() {
    let upstream = Upstream::answering(OK);
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    client.send(
        format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.response(false).unwrap().0, 100);
    client.send(b"ab");
    assert_eq!(client.response(false).unwrap().0, 200);
    // Refused before the body was asked for: no 100, and the connection ends.
    client.send(b"PUT / HTTP/1.1\r\nHost: other\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    let (status, head, _) = client.response(false).unwrap();
    assert!(status == 404 && head.contains("connection: close"), "{head}");
    assert_eq!(client.rest(), "");
}

#[test]
fn an_answer_of_the_proxys_own_leaves_the_connection_usable() {
    let upstream = Upstream::answering(OK);
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: other\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response(false).unwrap().0, 404);
    client.send(b"HEAD / HTTP/1.1\r\nHost: other\r\n\r\n");
    let (status, head, _) = client.response(true).unwrap();
    assert!(status == 404 && field(&head, "content-length").unwrap() != "0", "{head}");
    client.send(&get("/"));
    assert_eq!(client.response(false).unwrap().0, 200);
    // A body too long to be dropped ends it, and the answer is not lost.
    client.send(b"POST / HTTP/1.1\r\nHost: other\r\nContent-Length: 100000000\r\n\r\n");
    client.send(&[b'x'; 100_000]);
    let (status, head, _) = client.response(false).unwrap();
    assert!(status == 404 && head.contains("connection: close"), "{head}");
}

#[test]
fn what_is_refused_is_told_why() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let answer = proxy.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 400") && head.contains("connection: close"), "{head}");
    assert_eq!(field(&head, "content-type"), Some("application/problem+json"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["status"], &body["requestId"]), (&400.into(), &field(&head, "x-request-id").unwrap().into()));
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["malformed_request", "downstream"]), 1.0);
}

fn impatient() -> Limits {
    Limits {
        header_timeout_ms: 1000,
        idle_timeout_ms: 2000,
        client_stall_timeout_ms: 1000,
        backend_stall_timeout_ms: 1000,
        ..Limits::default()
    }
}

#[test]
fn who_is_too_slow_is_not_waited_for() {
    let upstream = Upstream::slow();
    let proxy = Proxy::with(upstream.address, impatient(), |_| {});
    let check = |send: &str, expect: &str, at_least: f64| {
        let start = Instant::now();
        let got = proxy.exchange(send.as_bytes());
        let took = start.elapsed().as_secs_f64();
        assert!(got.contains(expect) && (expect.is_empty() == got.is_empty()), "{send:?}: {got}");
        assert!((at_least..at_least + 2.5).contains(&took), "{send:?}: {took} s");
    };
    check("", "", 1.9);
    check("GET / HTTP/1.1\r\nHo", "HTTP/1.1 408", 0.9);
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhalf");
    check(&post, "HTTP/1.1 408", 0.9);
    let of = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n");
    check(&of("/silent", "Connection: close\r\n"), "HTTP/1.1 504", 0.9);
    check(&of("/stalls", ""), "half", 0.9);
    // Kept, and then idle.
    check(&of("/", ""), "HTTP/1.1 200", 1.9);
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["downstream"]), 2.0);
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["upstream"]), 2.0);
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let (gone, closed) = mpsc::channel();
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
        gone.lock().unwrap().send(()).unwrap();
    });
    let proxy = Proxy::with(upstream.address, impatient(), |_| {});
    let mut client = proxy.connect();
    client.send(&get("/"));
    closed.recv_timeout(Duration::from_secs(10)).unwrap();
    // The upstream hears of it a moment before it is counted.
    let end = Instant::now() + Duration::from_secs(2);
    while proxy.metric("sluice_failed_requests_total", &["client_stalled"]) < 1.0 {
        assert!(Instant::now() < end);
        pause(10);
    }
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_request() {
    // Each connection serves one request, says nothing of it, and closes when the next one comes.
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        request(&mut stream, &mut read, &Mutex::default()).unwrap();
        stream.write_all(OK).unwrap();
        let _ = stream.read(&mut [0; 10]);
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.send(&get("/"));
        assert_eq!(client.response(false).unwrap().0, 200);
    }
    // Each connection is closed behind its response: what must not be sent twice is sent on none of them.
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        request(&mut stream, &mut read, &Mutex::default()).unwrap();
        stream.write_all(OK).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read(&mut [0; 10]);
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    for i in 0..20 {
        client.send(format!("POST /{i} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx").as_bytes());
        assert_eq!(client.response(false).unwrap().0, 200);
        pause(2);
    }
}

#[test]
fn a_thousand_requests_at_once_are_answered_in_order() {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            let path = asked.head.split(' ').nth(1).unwrap();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).as_bytes())
                .unwrap();
        }
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    let all: Vec<u8> = (0..1000).flat_map(|i| get(&format!("/{i}"))).collect();
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&all).unwrap());
    for i in 0..1000 {
        assert_eq!(client.response(false).unwrap().2, format!("/{i}").as_bytes());
    }
    sending.join().unwrap();
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn one_that_leaves_finishes_what_it_began() {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() {
            pause(400);
            stream.write_all(OK).unwrap();
        }
    });
    let proxy = Proxy::start(upstream.address);
    let (mut idle, mut used, mut busy) = (proxy.connect(), proxy.connect(), proxy.connect());
    used.send(&get("/"));
    assert_eq!(used.response(false).unwrap().0, 200);
    busy.send(&get("/"));
    pause(100);
    proxy.drain();
    pause(50);
    // Still accepted for minDrain, and told to go.
    let mut late = proxy.connect();
    late.send(&get("/"));
    for client in [&mut busy, &mut late] {
        let (status, head, _) = client.response(false).unwrap();
        assert!(status == 200 && head.contains("connection: close"), "{head}");
        assert_eq!(client.rest(), "");
    }
    assert_eq!((idle.rest(), used.rest()), (String::new(), String::new()));
    let end = Instant::now() + Duration::from_secs(3);
    while proxy.server.connections() > 0 {
        assert!(Instant::now() < end, "{} connections are left", proxy.server.connections());
        pause(10);
    }
}

#[test]
fn a_websocket_is_handed_over_with_what_was_sent_along() {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        let asked = request(&mut stream, &mut read, &Mutex::default()).unwrap();
        assert!(asked.head.contains("upgrade: websocket"), "{}", asked.head);
        // The first frame comes with the head.
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\n\x81\x02hi";
        stream.write_all(head).unwrap();
        let mut frame = [0; 7];
        stream.read_exact(&mut frame).unwrap();
        stream.write_all(&[&[0x81, 1], &frame[6..]].concat()).unwrap();
    });
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x";
    let mut bytes = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}\r\n\r\n").into_bytes();
    bytes.extend([0x81, 0x81, 0, 0, 0, 0, b'y']);
    client.send(&bytes);
    let (status, head, _) = client.response(false).unwrap();
    assert!(status == 101 && head.contains("x-a: 1") && head.contains("upgrade: websocket"), "{head}");
    assert_eq!(client.rest(), String::from_utf8_lossy(b"\x81\x02hi\x81\x01y"));
}

#[test]
fn time_limits_of_the_rule_hold() {
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let proxy = Proxy::with(upstream.address, Limits::default(), |rule| rule.request_timeout_ms = 300);
    let start = Instant::now();
    assert!(proxy.exchange(&get("/")).ends_with("half"));
    assert!((0.29..2.0).contains(&start.elapsed().as_secs_f64()));
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["request_timeout"]), 1.0);
    let silent =
        Upstream::start(|mut stream| drop(stream.read(&mut [0; 4096]).and_then(|_| stream.read(&mut [0; 10]))));
    let silent = Arc::new(silent);
    let proxy = Proxy::with(silent.address, Limits::default(), |rule| rule.backend_timeout_ms = 300);
    let mut client: Client = proxy.connect();
    client.send(&get("/"));
    assert_eq!(client.response(false).unwrap().0, 504);
}
