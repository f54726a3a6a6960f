//! Bodies that hardly move: who falls behind the least rate is dealt with as if nothing moved, whoever that is and by
//! whatever protocol; and who keeps to it is waited for without end.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use h2::Reason;
use http::Response;
use proxy::memory::Limit;
use snapshot::proto::{ClusterProtocol, Limits, Rule};
use socket2::{Domain, Socket, Type};
use support::{HOST, OK, Proxy, Upstream, answer, frames::wide_open, http2, http2_request, pause, request};

const DOWNSTREAM: &str = "blame=\"downstream\"";
const UPSTREAM: &str = "blame=\"upstream\"";
/// How often something moves.
const EVERY: Duration = Duration::from_millis(100);

/// 1000 bytes a second, and a second or two to be behind.
fn limits() -> Limits {
    Limits {
        client_stall_timeout_ms: 1000,
        backend_stall_timeout_ms: 1000,
        min_body_bytes_per_second: Some(1000),
        ..Limits::default()
    }
}

#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        pause(20);
    }
}

#[track_caller]
fn counted(proxy: &Proxy, labels: &[&str]) {
    until(&format!("{labels:?}"), || proxy.metric("sluice_failed_requests_total", labels) >= 1.0);
}

/// Sends pieces of so many bytes, each 100 ms, until it is answered; status and body, and how long it took.
fn upload(proxy: &Proxy, by: &str, content_type: &str, pieces: usize, size: usize) -> (u16, String, Duration) {
    let (start, piece) = (Instant::now(), vec![b'x'; size]);
    if by == "HTTP/1.1" {
        let mut client = proxy.connect();
        let length = pieces * size;
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        for _ in 0..pieces {
            client.stream.set_read_timeout(Some(EVERY)).unwrap();
            if client.stream.peek(&mut [0]).is_ok() {
                break;
            }
            client.send(&piece);
        }
        client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (status, _, body) = client.response(false).unwrap();
        return (status, String::from_utf8(body).unwrap(), start.elapsed());
    }
    proxy.runtime.block_on(async {
        let request = http2_request("POST", "/").header("content-type", content_type).body(()).unwrap();
        let (mut response, mut body) = http2(proxy).await.send_request(request, false).unwrap();
        for i in 0..pieces {
            if let Ok(response) = tokio::time::timeout(EVERY, &mut response).await {
                let (status, told) = answer(response.unwrap()).await;
                return (status, told, start.elapsed());
            }
            body.send_data(piece.clone().into(), i + 1 == pieces).unwrap();
        }
        let (status, told) = answer(response.await.unwrap()).await;
        (status, told, start.elapsed())
    })
}

/// An upstream that answers what it has read; how many connections to it have ended.
fn reading() -> (Upstream, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() && stream.write_all(OK).is_ok() {}
        counted.fetch_add(1, SeqCst);
    });
    (upstream, ended)
}

#[test]
fn a_client_that_trickles_its_body_is_told_so() {
    for by in ["HTTP/1.1", "HTTP/2"] {
        let (upstream, ended) = reading();
        let proxy = Proxy::with(upstream.address, limits(), |_| {});
        let (status, told, took) = upload(&proxy, by, "text/plain", 200, 1);
        assert!(status == 408 && told.contains("body did not come in time"), "{by}: {status} {told}");
        assert!((900..10_000).contains(&took.as_millis()), "{by}: {took:?}");
        counted(&proxy, &["body_timeout", DOWNSTREAM]);
        until("the upstream is let go", || ended.load(SeqCst) == 1);
    }
}

#[test]
fn a_client_that_keeps_to_the_rate_is_waited_for() {
    for by in ["HTTP/1.1", "HTTP/2"] {
        let proxy = Proxy::with(reading().0.address, limits(), |_| {});
        let (status, told, took) = upload(&proxy, by, "text/plain", 60, 200);
        assert!(status == 200 && took.as_secs() >= 5, "{by}: {status} {told} after {took:?}");
        assert_eq!(proxy.metric("sluice_failed_requests_total", &[]), 0.0);
    }
}

/// An upstream by HTTP/2 that sends so many bytes of this media type, each 100 ms, until it is reset.
fn http2_upstream(content_type: &'static str, size: usize, ended: Arc<AtomicUsize>) -> SocketAddr {
    support::http2_upstream(move |stream| {
        let ended = Arc::clone(&ended);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let ended = Arc::clone(&ended);
                tokio::spawn(async move {
                    let response = Response::builder().header("content-type", content_type).body(()).unwrap();
                    let mut body = respond.send_response(response, false).unwrap();
                    while body.send_data(vec![b'x'; size].into(), false).is_ok() {
                        tokio::time::sleep(EVERY).await;
                    }
                    ended.fetch_add(1, SeqCst);
                });
            }
        }
    })
}

/// The same by HTTP/1.1, until the connection is closed.
fn http1_upstream(content_type: &'static str, size: usize, ended: Arc<AtomicUsize>) -> SocketAddr {
    let upstream = Upstream::start(move |mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let piece = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let mut sent = stream.write_all(head.as_bytes());
        while sent.is_ok() {
            pause(100);
            sent = stream.write_all(piece.as_bytes());
        }
        ended.fetch_add(1, SeqCst);
    });
    upstream.address
}

/// What is answered to a client that speaks this, for so long at most: how it ended, if it did.
fn download(by: &str, proxy: &Proxy, ms: u64) -> Option<String> {
    let start = Instant::now();
    let goes_on = || start.elapsed() < Duration::from_millis(ms);
    if by == "HTTP/1.1" {
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        let (mut got, mut buffer) = (vec![], [0; 4096]);
        while goes_on() {
            match client.stream.read(&mut buffer) {
                Ok(count @ 1..) => got.extend(&buffer[..count]),
                _ => return Some(if got.ends_with(b"\r\n0\r\n\r\n") { "whole" } else { "cut" }.into()),
            }
        }
        return None;
    }
    proxy.runtime.block_on(async {
        let request = http2_request("GET", "/").body(()).unwrap();
        let (response, _) = http2(proxy).await.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        while goes_on() {
            match body.data().await {
                Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
                Some(Err(e)) if e.reason() == Some(Reason::INTERNAL_ERROR) => return Some("cut".into()),
                other => return Some(format!("{other:?}")),
            }
        }
        None
    })
}

/// Has an upstream trickle, by either protocol to either; `check` has how it ended, and how many upstreams were let go.
fn trickled(
    content_type: &'static str,
    size: usize,
    limits: Limits,
    change: impl Fn(&mut Rule) + Sync,
    check: impl Fn(&str, &Proxy, Option<String>, &AtomicUsize) + Sync,
) {
    let one = |way: (&str, ClusterProtocol)| {
        let ended = Arc::<AtomicUsize>::default();
        let upstream = match way.1 {
            ClusterProtocol::Http1 => http1_upstream(content_type, size, Arc::clone(&ended)),
            ClusterProtocol::H2c => http2_upstream(content_type, size, Arc::clone(&ended)),
        };
        let proxy = Proxy::to(way.1, upstream, limits, &change);
        let got = download(way.0, &proxy, 4000);
        check(&format!("{way:?}"), &proxy, got, &ended);
    };
    let one = &one;
    std::thread::scope(|scope| {
        for client in ["HTTP/1.1", "HTTP/2"] {
            for upstream in [ClusterProtocol::Http1, ClusterProtocol::H2c] {
                scope.spawn(move || one((client, upstream)));
            }
        }
    });
}

#[test]
fn a_response_that_trickles_is_broken_off() {
    trickled(
        "text/plain",
        1,
        limits(),
        |_| {},
        |way, proxy, got, ended| {
            assert_eq!(got.as_deref(), Some("cut"), "{way}");
            counted(proxy, &["upstream_stalled", UPSTREAM]);
            until("the upstream is let go", || ended.load(SeqCst) == 1);
        },
    );
}

#[test]
fn a_response_that_keeps_to_the_rate_goes_on() {
    trickled("text/plain", 200, limits(), |_| {}, |way, _, got, _| assert_eq!(got, None, "{way}"));
}

#[test]
fn streams_may_be_slow() {
    let goes_on = |way: &str, _: &Proxy, got, _: &AtomicUsize| assert_eq!(got, None, "{way}");
    for content_type in ["text/event-stream", "application/grpc+proto"] {
        trickled(content_type, 1, limits(), |_| {}, goes_on);
    }
    trickled("text/plain", 1, limits(), |rule| rule.streams = true, goes_on);
    trickled("text/plain", 1, Limits { min_body_bytes_per_second: Some(0), ..limits() }, |_| {}, goes_on);
    let proxy = Proxy::with(reading().0.address, limits(), |_| {});
    let (status, told, _) = upload(&proxy, "HTTP/2", "application/grpc", 50, 1);
    assert_eq!(status, 200, "{told}");
}

#[test]
fn websockets_may_be_slow() {
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default());
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        // A ping without a payload.
        while stream.write_all(&[0x89, 0]).is_ok() {
            pause(100);
        }
    });
    let proxy = Proxy::with(upstream.address, limits(), |_| {});
    let mut client = proxy.connect();
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}\r\n\r\n").as_bytes());
    assert_eq!(client.response(true).unwrap().0, 101);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        assert!(client.stream.read(&mut [0; 64]).unwrap() > 0, "closed after {:?}", start.elapsed());
    }
}

/// A client with little room of its own, so that its pace is what the proxy sees; it asks for so many endless answers.
fn reader(proxy: &Proxy, by: &str, streams: u32) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let asks = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes();
    client.write_all(&if by == "HTTP/1.1" { asks } else { wide_open(streams) }).unwrap();
    client
}

fn endless() -> Upstream {
    Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default());
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    })
}

/// Reads so much each 100 ms, for so long or until it is cut off, as far as the proxy knows.
fn read_slowly(proxy: &Proxy, client: &mut TcpStream, at_once: usize, ms: u64) -> usize {
    let (start, mut got, mut buffer) = (Instant::now(), 0, vec![0; at_once]);
    while start.elapsed() < Duration::from_millis(ms) {
        if proxy.metric("sluice_failed_requests_total", &[DOWNSTREAM]) > 0.0 {
            break;
        }
        match client.read(&mut buffer) {
            Ok(count @ 1..) => got += count,
            _ => break,
        }
        std::thread::park_timeout(EVERY);
    }
    got
}

#[test]
fn a_client_that_reads_at_a_trickle_is_cut_off() {
    for by in ["HTTP/1.1", "HTTP/2"] {
        let upstream = endless();
        let limits = Limits { min_body_bytes_per_second: Some(1_000_000), ..limits() };
        let proxy = Proxy::with(upstream.address, limits, |_| {});
        let mut client = reader(&proxy, by, 1);
        let start = Instant::now();
        let got = read_slowly(&proxy, &mut client, 4 << 10, 15_000);
        assert!(start.elapsed() < Duration::from_secs(12), "{by}: it reads on, {got} bytes");
        counted(&proxy, &["client_stalled", DOWNSTREAM]);
    }
}

#[test]
fn a_client_that_reads_slowly_by_http2_is_not_cut_off() {
    for (streams, least) in [(1, Some(0)), (20, None)] {
        let upstream = endless();
        let limits = Limits { min_body_bytes_per_second: least, ..limits() };
        let proxy = Proxy::within(Limit::find(None), upstream.address, limits, |_| {});
        let mut client = reader(&proxy, "HTTP/2", streams);
        let got = read_slowly(&proxy, &mut client, 8 << 10, 8000);
        let failed = || proxy.metric("sluice_failed_requests_total", &[DOWNSTREAM]);
        assert!(failed() == 0.0 && got > 300_000, "{streams}: {} cut off after {got} bytes", failed());
        // Until it reads nothing.
        let stopped = Instant::now();
        until("all are cut off", || failed() == f64::from(streams));
        assert!(stopped.elapsed() > Duration::from_millis(900), "{:?}", stopped.elapsed());
        counted(&proxy, &["client_stalled"]);
    }
}
