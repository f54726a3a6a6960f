//! What the fleet's `limits` say holds for each client, by HTTP/1.1 and by HTTP/2.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    future::poll_fn,
    io::{Read, Write},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use snapshot::proto::Limits;
use support::{Client, HOST, OK, Proxy, Upstream, answer, http2, http2_request, pause, request};
use tokio::time::timeout;

fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n").into()
}

fn small() -> Limits {
    Limits { header_bytes: 2000, header_fields: 10, target_bytes: 100, body_bytes: 50, ..Limits::default() }
}

/// The status of an answer; whatever the proxy refuses is told as RFC 9457 has it.
fn status(client: &mut Client) -> u16 {
    let (status, head, body) = client.response(false).unwrap();
    if status != 200 {
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["status"], problem["requestId"].is_string()), (&status.into(), true));
    }
    status
}

#[test]
fn what_is_beyond_them_is_refused() {
    let proxy = Proxy::with(Upstream::answering(OK).address, small(), |_| {});
    let check = |sent: &[u8], expect: u16| {
        let mut client = proxy.connect();
        client.send(sent);
        assert_eq!(status(&mut client), expect, "{}", String::from_utf8_lossy(sent));
    };
    check(&get(&format!("/{}", "x".repeat(99)), ""), 200);
    check(&get(&format!("/{}", "x".repeat(100)), ""), 414);
    check(format!("{} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "X".repeat(300)).as_bytes(), 501);
    check(&get("/", &"a: b\r\n".repeat(9)), 200);
    check(&get("/", &"a: b\r\n".repeat(10)), 431);
    check(&get("/", &format!("a: {}\r\n", "x".repeat(1900))), 200);
    check(&get("/", &format!("a: {}\r\n", "x".repeat(2000))), 431);
    let post = |framing: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{body}");
    check(post("Content-Length: 50", &"x".repeat(50)).as_bytes(), 200);
    check(post("Content-Length: 51", &"x".repeat(51)).as_bytes(), 413);
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length));
    check(post("Transfer-Encoding: chunked", &chunk(50)).as_bytes(), 200);
    check(post("Transfer-Encoding: chunked", &chunk(51)).as_bytes(), 413);
    for reason in ["target_too_long", "head_too_large", "body_too_large"] {
        let refused = proxy.metric("sluice_failed_requests_total", &[reason, "downstream"]);
        assert!(refused >= 1.0, "{reason}");
    }
}

#[test]
fn a_change_is_for_connections_that_come_after_it() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let (mut before, long) = (proxy.connect(), get(&format!("/{}", "x".repeat(200)), ""));
    before.send(&long);
    assert_eq!(status(&mut before), 200);
    proxy.change(small());
    before.send(&long);
    assert_eq!(status(&mut before), 200);
    let mut after = proxy.connect();
    after.send(&long);
    assert_eq!(status(&mut after), 414);
}

#[test]
fn a_client_has_so_many_connections() {
    let limits = Limits { connections_per_client: 2, ..Limits::default() };
    let proxy = Proxy::with(Upstream::answering(OK).address, limits, |_| {});
    let served = |client: &mut Client| {
        client.send(&get("/", ""));
        client.response(false).is_some_and(|(status, ..)| status == 200)
    };
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    assert!(served(&mut first) && served(&mut second));
    // Closed at once, without a byte.
    assert_eq!(proxy.connect().rest(), "");
    assert_eq!(proxy.metric("sluice_connections_refused_total", &[]), 1.0);
    assert!(served(&mut first));
    drop(second);
    let end = Instant::now() + Duration::from_secs(3);
    while proxy.server.connections() > 1 {
        assert!(Instant::now() < end);
        pause(10);
    }
    assert!(served(&mut proxy.connect()));
    proxy.change(Limits::default());
    let mut more: Vec<Client> = (0..5).map(|_| proxy.connect()).collect();
    assert!(more.iter_mut().all(served));
}

/// A WebSocket to an upstream that echoes, its head read.
fn websocket(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
    client.send(&get("/", upgrade));
    assert_eq!(client.response(false).unwrap().0, 101);
    client
}

#[test]
fn websockets_have_their_times() {
    let (sender, ends) = mpsc::channel();
    let upstream = Upstream::start(move |mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(head).unwrap();
        let mut all = vec![];
        let _ = stream.read_to_end(&mut all);
        sender.send(all).unwrap();
    });
    let limits = Limits { websocket_idle_timeout_ms: 1000, websocket_max_age_ms: 3000, ..Limits::default() };
    let proxy = Proxy::with(upstream.address, limits, |_| {});
    // Each is told 1001 between two frames, and its upstream too.
    let (close, masked) = (String::from_utf8_lossy(&[0x88, 2, 3, 0xe9]), [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]);
    let start = Instant::now();
    let mut silent = websocket(&proxy);
    let told = silent.stream.peek(&mut [0]).unwrap();
    assert!(told > 0 && (0.9..2.5).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    // Until it hangs up, or had the time to.
    assert_eq!(silent.rest(), close);
    drop(silent);
    assert_eq!(ends.recv_timeout(Duration::from_secs(5)).unwrap(), masked);
    let start = Instant::now();
    let mut lively = websocket(&proxy);
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    while start.elapsed().as_secs() < 10 {
        lively.send(&ping);
        pause(200);
        // It hangs up once it was told.
        lively.stream.set_nonblocking(true).unwrap();
        let told = lively.stream.peek(&mut [0]).is_ok();
        lively.stream.set_nonblocking(false).unwrap();
        if told {
            break;
        }
    }
    assert!((2.6..5.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert_eq!(lively.rest(), close);
    drop(lively);
    let sent = ends.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(sent.ends_with(&masked) && sent.starts_with(&ping), "{sent:?}");
    let end = Instant::now() + Duration::from_secs(3);
    while proxy.server.connections() > 0 {
        assert!(Instant::now() < end);
        pause(10);
    }
    let ended = |limit| proxy.metric("sluice_websockets_ended_total", &[limit]);
    assert_eq!((ended("idle"), ended("age")), (1.0, 1.0));
}

#[test]
fn an_upstream_that_breaks_off_resets_the_stream() {
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        // Until that has arrived: what is reset is not delivered any more.
        pause(300);
    });
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let (response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "half");
        assert_eq!(body.data().await.unwrap().unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
    });
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["upstream_broke", "upstream"]), 1.0);
}

#[test]
fn they_hold_for_http2() {
    let proxy = Proxy::with(Upstream::answering(OK).address, small(), |_| {});
    let check = async |request: http::request::Builder, body: &[&str], expect: u16| {
        let mut sender = http2(&proxy).await;
        let (response, mut stream) = sender.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
        for (i, part) in body.iter().enumerate() {
            // What was refused is asked for no more.
            let _ = stream.send_data(Bytes::copy_from_slice(part.as_bytes()), i + 1 == body.len());
        }
        let (status, text) = answer(timeout(Duration::from_secs(5), response).await.unwrap().unwrap()).await;
        assert_eq!(status, expect, "{text}");
        assert!(status == 200 || text.contains("\"requestId\""), "{text}");
    };
    proxy.runtime.block_on(async {
        check(http2_request("GET", &format!("/{}", "x".repeat(99))), &[], 200).await;
        check(http2_request("GET", &format!("/{}", "x".repeat(100))), &[], 414).await;
        check(http2_request(&"X".repeat(300), "/"), &[], 501).await;
        let fields = |n: usize| (0..n).fold(http2_request("GET", "/"), |r, i| r.header(format!("a{i}"), "b"));
        check(fields(10), &[], 200).await;
        check(fields(11), &[], 431).await;
        check(http2_request("GET", "/").header("a", "x".repeat(1900)), &[], 200).await;
        check(http2_request("GET", "/").header("a", "x".repeat(2000)), &[], 431).await;
        let (part, over) = ("x".repeat(25), "x".repeat(26));
        check(http2_request("POST", "/"), &[&part, &part], 200).await;
        check(http2_request("POST", "/"), &[&part, &over], 413).await;
        check(http2_request("POST", "/").header("content-length", "51"), &[&part, &over], 413).await;
        // A head beyond what is read at all is answered by the codec.
        let mut sender = http2(&proxy).await;
        let huge = http2_request("GET", "/").header("a", "x".repeat(4000)).body(()).unwrap();
        assert_eq!(sender.send_request(huge, true).unwrap().0.await.unwrap().status(), 431);
    });
}

#[test]
fn http2_streams_are_as_many_as_allowed_and_wait_no_longer_than_that() {
    let upstream = Upstream::slow();
    let limits = Limits {
        http2_concurrent_streams: 7,
        idle_timeout_ms: 2000,
        client_stall_timeout_ms: 1000,
        backend_stall_timeout_ms: 1000,
        ..Limits::default()
    };
    let proxy = Proxy::with(upstream.address, limits, |_| {});
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let start = Instant::now();
        let (silent, _) = sender.send_request(http2_request("GET", "/silent").body(()).unwrap(), true).unwrap();
        let (stalls, _) = sender.send_request(http2_request("GET", "/stalls").body(()).unwrap(), true).unwrap();
        // A body that never comes.
        let (body, _open) = sender.send_request(http2_request("POST", "/").body(()).unwrap(), false).unwrap();
        let (status, text) = answer(silent.await.unwrap()).await;
        assert_eq!((status, text.contains("upstream_timeout") || text.contains("in time")), (504, true), "{text}");
        let (status, text) = answer(body.await.unwrap()).await;
        assert_eq!(status, 408, "{text}");
        let mut broken = stalls.await.unwrap().into_body();
        assert_eq!(broken.data().await.unwrap().unwrap(), "half");
        assert!(broken.data().await.unwrap().is_err());
        assert!((0.9..4.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
        assert_eq!(sender.current_max_send_streams(), 7);
        // Idle, it is told to go.
        let end = timeout(Duration::from_secs(6), async {
            while poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        end.await.unwrap();
    });
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["body_timeout", "downstream"]), 1.0);
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["upstream_timeout", "upstream"]), 1.0);
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["upstream_stalled", "upstream"]), 1.0);
    assert_eq!(proxy.metric("sluice_requests_in_flight", &[]), 0.0);
}
