//! What clients hold: it is given back whatever ends a request, and who holds most is ended when it gets scarce.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proxy::memory::Limit;
use snapshot::proto::Limits;
use socket2::{Domain, SockRef, Socket, Type};
use support::{Client, HOST, OK, Proxy, Upstream, frames::wide_open, http2_request, pause};

/// Waits until all that clients hold is a metric's value.
#[track_caller]
fn held(proxy: &Proxy, what: &str, kind: &str, expect: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        let held = proxy.metric("sluice_memory_held_bytes", &[kind]);
        if expect(held) {
            return;
        }
        let all = ["connections", "heads", "bodies", "websockets"]
            .map(|kind| proxy.metric("sluice_memory_held_bytes", &[kind]));
        assert!(begun.elapsed() < Duration::from_secs(15), "{what}: {held} bytes of {kind:?} are held, of all {all:?}");
        pause(10);
    }
}

/// An upstream that says nothing on `/silent`, stops within its answer on `/stalls`, closes on `/broken`, sends without end
/// on `/endless`, switches protocols on `/ws`, and is well otherwise. It reads what it is sent, but for `/stuck`.
fn upstream() -> Upstream {
    Upstream::start(|mut stream| {
        let mut read = vec![];
        while let Some(at) = {
            let mut buffer = [0; 4096];
            while !read.windows(4).any(|w| w == b"\r\n\r\n") {
                match stream.read(&mut buffer).unwrap_or_default() {
                    0 => return,
                    count => read.extend(&buffer[..count]),
                }
            }
            read.windows(4).position(|w| w == b"\r\n\r\n")
        } {
            let head = String::from_utf8_lossy(&read.drain(..at + 4).collect::<Vec<_>>()).into_owned();
            match head.split(' ').nth(1).unwrap() {
                "/stuck" => loop {
                    pause(1000);
                },
                "/silent" => {}
                "/stalls" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap(),
                "/broken" => return drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")),
                "/endless" => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                    while stream.write_all(&[b'x'; 10_000]).is_ok() {}
                    return;
                }
                "/ws" => stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .unwrap(),
                _ => stream.write_all(OK).unwrap(),
            }
        }
    })
}

#[test]
fn whatever_ends_a_request_gives_its_memory_back() {
    const BODIES: &str = "kind=\"bodies\"";
    const HEADS: &str = "kind=\"heads\"";
    let upstream = upstream();
    let proxy = Proxy::start(upstream.address);
    let post = |path| format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
    let get = |path| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    let cases: Vec<(&str, Vec<u8>, &str, f64)> = vec![
        (
            "a head without an end",
            [get("/").as_bytes(), b"GET / HTTP/1.1\r\nx: ", &[b'x'; 50_000]].concat(),
            HEADS,
            50e3,
        ),
        ("a request without an answer", get("/silent").into_bytes(), HEADS, 10e3),
        ("a body that does not come", post("/").into_bytes(), HEADS, 10e3),
        ("a body that nobody takes", [post("/stuck").into_bytes(), vec![b'x'; 900_000]].concat(), BODIES, 16e3),
        ("an answer that stalls", get("/stalls").into_bytes(), HEADS, 10e3),
        ("an answer that is not read", get("/endless").into_bytes(), BODIES, 32e3),
        (
            "a WebSocket",
            get("/ws").replace("\r\n\r\n", &format!("\r\n{upgrade}\r\n\r\n")).into_bytes(),
            "websockets",
            32e3,
        ),
    ];
    for (what, bytes, kind, least) in cases {
        let mut client = proxy.connect();
        client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        client.send(&bytes);
        held(&proxy, what, kind, |held| held >= least);
        // A reset: one that has only closed its side may be waiting for its answer.
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        held(&proxy, what, "", |held| held == 0.0);
    }
    // What is well, or ends by itself.
    for path in ["/", "/broken", "/bad%2fpath"] {
        let mut client = proxy.connect();
        client.send(get(path).as_bytes());
        let _ = client.stream.read(&mut [0; 4096]).unwrap();
        held(&proxy, path, HEADS, |held| held == 0.0);
        held(&proxy, path, BODIES, |held| held == 0.0);
    }
    held(&proxy, "all of it", "", |held| held == 0.0);
}

#[test]
fn streams_give_their_memory_back() {
    const BODIES: &str = "kind=\"bodies\"";
    let upstream = upstream();
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        for (method, path, kind, least) in [("GET", "/silent", "heads", 4e3), ("POST", "/stuck", BODIES, 60e3)] {
            for resets in [true, false] {
                let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
                let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                let connection = tokio::spawn(connection);
                let mut sender = sender.ready().await.unwrap();
                let request = http2_request(method, path).header("cookie", "a".repeat(1000)).body(()).unwrap();
                let (response, mut body) = sender.send_request(request, method == "GET").unwrap();
                if method == "POST" {
                    body.reserve_capacity(16 << 20);
                    body.send_data(Bytes::from(vec![b'x'; 16 << 20]), false).unwrap();
                }
                // Nobody reads what it comes to.
                let answer = tokio::spawn(response);
                let name = format!("{path}, {}", if resets { "reset" } else { "cut off" });
                tokio::task::block_in_place(|| held(&proxy, &name, kind, |held| held >= least));
                if resets {
                    body.send_reset(h2::Reason::CANCEL);
                } else {
                    connection.abort();
                }
                tokio::task::block_in_place(|| held(&proxy, &name, BODIES, |held| held == 0.0));
                tokio::task::block_in_place(|| held(&proxy, &name, "heads", |held| held == 0.0));
                connection.abort();
                answer.abort();
            }
        }
    });
    held(&proxy, "all of it", "", |held| held == 0.0);
}

#[test]
fn those_that_hold_most_are_ended_and_others_are_served() {
    const MANY: usize = 800;
    let upstream = Upstream::answering(OK);
    let proxy = Proxy::within(Limit::of_process(64 << 20), upstream.address, Limits::default(), |_| {});
    let mut honest = proxy.connect();
    let ok = |client: &mut Client| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert_eq!(client.response(false).unwrap().0, 200);
    };
    ok(&mut honest);
    let head = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 60_000]].concat();
    let budget = proxy.metric("sluice_memory_budget_bytes", &[]);
    let mut most = 0.0_f64;
    let hostile: Vec<Client> = (0..MANY)
        .map(|i| {
            let mut client = proxy.connect();
            client.send(&head);
            if i % 50 == 0 {
                ok(&mut honest);
                ok(&mut proxy.connect());
                most = most.max(proxy.metric("sluice_memory_held_bytes", &[]));
            }
            client
        })
        .collect();
    let ended = proxy.metric("sluice_memory_connections_ended_total", &[]);
    assert!(most <= budget + 1e6 && ended > 0.0 && ended < MANY as f64, "{most} of {budget} held, {ended} ended");
    let begun = Instant::now();
    while proxy.metric("sluice_failed_requests_total", &["memory_exhausted"]) < ended {
        assert!(begun.elapsed() < Duration::from_secs(5), "not each of {ended} that were ended was recorded");
        pause(10);
    }
    drop(hostile);
    held(&proxy, "what they held", "heads", |held| held == 0.0);
    ok(&mut honest);
}

#[test]
fn interim_heads_that_nobody_reads_are_charged() {
    const STREAMS: u32 = 100;
    let link = "x".repeat(8000);
    let upstream = Upstream::start(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        for _ in 0..15 {
            let _ = write!(stream, "HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n");
        }
        // The answer never comes.
        let _ = stream.read(&mut [0; 4096]);
    });
    let proxy = Proxy::start(upstream.address);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut clients: Vec<TcpStream> = vec![socket.into()];
    clients[0].write_all(&wide_open(STREAMS)).unwrap();
    // What the kernel takes is not ours: with what is queued beyond it there are 32 KiB and one head of each.
    held(&proxy, "what is queued", "kind=\"bodies\"", |held| held >= 500e3);
    pause(500);
    let held_now = proxy.metric("sluice_memory_held_bytes", &["kind=\"bodies\""]);
    assert!(held_now <= f64::from(STREAMS) * 48e3, "{held_now} bytes of heads that can be done without");
    clients.clear();
    held(&proxy, "when its client has gone", "", |held| held == 0.0);
}
