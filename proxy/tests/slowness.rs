//! Who was slow: what takes its time is measured in bytes that move, and whoever was waited for answers for it, by
//! either protocol.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use snapshot::proto::Limits;
use socket2::{Domain, Socket, Type};
use support::{Client, HOST, OK, Proxy, Upstream, answer, http2, http2_request, pause, request};

const DOWNSTREAM: &str = "blame=\"downstream\"";
const UPSTREAM: &str = "blame=\"upstream\"";

/// Whether one request failed so. It is counted a moment after its client was answered.
#[track_caller]
fn counted(proxy: &Proxy, labels: &[&str]) {
    let begun = Instant::now();
    while proxy.metric("sluice_failed_requests_total", labels) != 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(2), "{labels:?}");
        pause(10);
    }
}

/// Sends ten bytes, one each 200 ms, by either protocol; status and body of the answer.
fn upload(proxy: &Proxy, path: &str, by: &str) -> (u16, String) {
    if by == "HTTP/1.1" {
        let mut client = proxy.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n").as_bytes());
        for _ in 0..10 {
            pause(200);
            client.send(b"x");
        }
        let (status, _, body) = client.response(false).unwrap();
        return (status, String::from_utf8(body).unwrap());
    }
    proxy.runtime.block_on(async {
        let request = http2_request("POST", path).header("content-length", "10").body(()).unwrap();
        let (response, mut body) = http2(proxy).await.send_request(request, false).unwrap();
        for i in 0..10 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            // Whoever was answered before need not go on.
            let _ = body.send_data(Bytes::from_static(b"x"), i == 9);
        }
        answer(response.await.unwrap()).await
    })
}

#[test]
fn an_upload_takes_no_time_of_the_backends() {
    for by in ["HTTP/1.1", "HTTP/2"] {
        let upstream = Upstream::slow();
        let proxy = Proxy::with(upstream.address, Limits::default(), |rule| rule.backend_timeout_ms = 600);
        assert_eq!(upload(&proxy, "/", by), (200, "ok".into()), "{by}");
        // What it takes itself counts from there.
        let start = Instant::now();
        let (status, told) = upload(&proxy, "/silent", by);
        assert!(status == 504 && told.contains("did not answer in time"), "{by}: {told}");
        assert!((2400..4000).contains(&start.elapsed().as_millis()), "{by}: {:?}", start.elapsed());
        counted(&proxy, &["upstream_timeout", UPSTREAM]);
        assert_eq!(proxy.metric("sluice_failed_requests_total", &[DOWNSTREAM]), 0.0, "{by}");
    }
}

#[test]
fn the_backends_time_is_over_when_its_response_is_whole() {
    let upstream = Upstream::slow();
    let proxy = Proxy::with(upstream.address, Limits::default(), |rule| {
        (rule.backend_timeout_ms, rule.request_timeout_ms) = (500, 5000);
    });
    let start = Instant::now();
    let got = proxy.exchange(format!("GET /stalls HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    assert!(got.ends_with("half"), "{got}");
    assert!((450..1500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    counted(&proxy, &["upstream_timeout", UPSTREAM]);
}

#[test]
fn the_time_of_a_request_ran_out_on_whoever_was_waited_for() {
    for by in ["HTTP/1.1", "HTTP/2"] {
        let upstream = Upstream::slow();
        let proxy = Proxy::with(upstream.address, Limits::default(), |rule| rule.request_timeout_ms = 1000);
        let (status, told) = upload(&proxy, "/", by);
        assert!(status == 408 && told.contains("request's body did not come within the time"), "{by}: {told}");
        counted(&proxy, &["request_timeout", DOWNSTREAM]);
        let proxy = Proxy::with(upstream.address, Limits::default(), |rule| rule.request_timeout_ms = 2400);
        let (status, told) = upload(&proxy, "/silent", by);
        assert!(status == 504 && told.contains("backend did not answer within the time"), "{by}: {told}");
        counted(&proxy, &["request_timeout", UPSTREAM]);
    }
}

#[test]
fn a_backend_that_does_not_read_is_told_from_one_that_does_not_answer() {
    let upstream = Upstream::start(|stream| {
        pause(10_000);
        drop(stream);
    });
    let limits = Limits { backend_stall_timeout_ms: 1000, ..Limits::default() };
    let proxy = Proxy::with(upstream.address, limits, |_| {});
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000000\r\n\r\n").as_bytes());
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || while sender.write_all(&[b'x'; 1 << 16]).is_ok() {});
    let (status, _, body) = client.response(false).unwrap();
    let told = String::from_utf8(body).unwrap();
    assert!(status == 504 && told.contains("did not read"), "{told}");
    counted(&proxy, &["upstream_unread", UPSTREAM]);
    drop(client);
    drop(proxy);
    sending.join().unwrap();
}

/// Reads so much each 100 ms, for so long; how many bytes came until then or until the connection ended.
fn read_slowly(client: &mut Client, at_once: usize, ms: u64) -> usize {
    let (start, mut got, mut buffer) = (Instant::now(), 0, vec![0; at_once]);
    while start.elapsed() < Duration::from_millis(ms) {
        match client.stream.read(&mut buffer) {
            Ok(count @ 1..) => got += count,
            _ => break,
        }
        pause(100);
    }
    got
}

#[test]
fn a_client_that_reads_slowly_is_not_cut_off() {
    const BODY: usize = 64 << 20;
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").unwrap();
        let _ = stream.write_all(&vec![b'x'; BODY]);
    });
    let limits = Limits { client_stall_timeout_ms: 1000, ..Limits::default() };
    let proxy = Proxy::with(upstream.address, limits, |_| {});
    // A client with little room of its own, so that its pace is what the proxy sees.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut client = Client::on(socket.into());
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    let got = read_slowly(&mut client, 8 << 10, 6000);
    let failed = || proxy.metric("sluice_failed_requests_total", &[DOWNSTREAM]);
    assert_eq!(failed(), 0.0, "after {got} bytes");
    assert!(got > 100_000, "{got} bytes");
    // Until it reads nothing.
    let stopped = Instant::now();
    while failed() == 0.0 {
        assert!(stopped.elapsed() < Duration::from_secs(6), "it is still waited for");
        pause(20);
    }
    assert!(stopped.elapsed() > Duration::from_millis(900), "{:?}", stopped.elapsed());
    counted(&proxy, &["client_stalled"]);
}

#[test]
fn limits_of_requests_are_none_of_responses() {
    let check = |bytes: usize, expect: u16| {
        let field = format!("x: {}\r\n", "x".repeat(bytes));
        let upstream = Upstream::answering([&OK[..17], field.as_bytes(), &OK[17..]].concat());
        let limits = Limits { header_bytes: 2000, ..Limits::default() };
        let proxy = Proxy::with(upstream.address, limits, |_| {});
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        let (status, _, body) = client.response(false).unwrap();
        assert_eq!(status, expect, "{bytes}: {}", String::from_utf8_lossy(&body));
        if expect == 502 {
            counted(&proxy, &["upstream_head_too_large", UPSTREAM]);
        }
    };
    check(20_000, 200);
    check(70_000, 502);
}
