//! How connections end, on both sides: a client that has said all it will say, one that is answered before it has, and
//! an upstream of which nobody knows what it will still send.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::Write,
    net::Shutdown,
    sync::{Mutex, mpsc},
    time::Duration,
};

use snapshot::proto::Limits;
use socket2::SockRef;
use support::{Client, HOST, OK, Proxy, Upstream, pause, request};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// An upstream that thinks before it answers.
fn thoughtful() -> Upstream {
    Upstream::start(|mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() {
            pause(300);
            stream.write_all(OK).unwrap();
        }
    })
}

#[test]
fn a_client_that_has_closed_its_side_is_answered() {
    let upstream = thoughtful();
    let proxy = Proxy::start(upstream.address);
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nab");
    let chunked = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    let old = format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
    let elsewhere = "GET / HTTP/1.1\r\nHost: other\r\n\r\n".to_owned();
    for (sent, status, answers) in [
        (get("/"), " 200 ", 1),
        (get("/") + &get("/a") + &get("/b"), " 200 ", 3),
        (post, " 200 ", 1),
        (chunked, " 200 ", 1),
        (old, " 200 ", 1),
        (elsewhere, " 404 ", 1),
    ] {
        for late in [false, true] {
            let mut client = proxy.connect();
            client.send(sent.as_bytes());
            if late {
                pause(100);
            }
            client.stream.shutdown(Shutdown::Write).unwrap();
            let got = client.rest();
            assert_eq!(got.matches(status).count(), answers, "{sent:?}, late: {late}: {got:?}");
        }
    }
    // What is not whole is no request, and nobody's answer.
    for cut in ["GET / HT", "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\na"] {
        let mut client = proxy.connect();
        client.send(cut.as_bytes());
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest(), "", "{cut:?}");
    }
}

#[test]
fn a_client_that_has_gone_is_not_waited_for() {
    for half_closed in [false, true] {
        let (told, heard) = mpsc::channel();
        let told = Mutex::new(told);
        let upstream = Upstream::start(move |mut stream| {
            let mut read = vec![];
            request(&mut stream, &mut read, &Mutex::default()).unwrap();
            told.lock().unwrap().send("asked").unwrap();
            assert!(request(&mut stream, &mut read, &Mutex::default()).is_none());
            told.lock().unwrap().send("closed").unwrap();
        });
        let proxy = Proxy::start(upstream.address);
        let mut client = proxy.connect();
        client.send(get("/").as_bytes());
        let next = || heard.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(next(), "asked");
        if half_closed {
            client.stream.shutdown(Shutdown::Write).unwrap();
            pause(100);
        }
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(next(), "closed", "half-closed before: {half_closed}");
    }
}

/// Sends a body of 24 MiB, and looks for the answer then, as many clients do.
fn upload(client: &mut Client, head: &str, chunked: bool) -> String {
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n\r\n").as_bytes());
    for _ in 0..24 << 4 {
        let block = [b'x'; 64 << 10];
        if chunked {
            client.send(b"10000\r\n");
        }
        client.send(&block);
        if chunked {
            client.send(b"\r\n");
        }
    }
    if chunked {
        client.send(b"0\r\n\r\n");
    }
    client.stream.shutdown(Shutdown::Write).unwrap();
    client.rest()
}

#[test]
fn an_early_answer_reaches_whoever_goes_on_sending() {
    let lengthy = ("Content-Length: 25165824", false);
    let chunked = ("Transfer-Encoding: chunked", true);
    // Of the proxy itself.
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let proxy = Proxy::with(Upstream::answering(OK).address, limits, |_| {});
    for (head, in_chunks) in [lengthy, chunked] {
        let got = upload(&mut proxy.connect(), head, in_chunks);
        assert!(got.starts_with("HTTP/1.1 413 ") && got.ends_with("}\n"), "{head}: {got}");
    }
    // Of an upstream that reads no body.
    let upstream = Upstream::start(|mut stream| {
        let mut head = [0; 512];
        let _ = std::io::Read::read(&mut stream, &mut head).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large").unwrap();
    });
    let proxy = Proxy::start(upstream.address);
    for (head, in_chunks) in [lengthy, chunked] {
        let got = upload(&mut proxy.connect(), head, in_chunks);
        assert!(got.starts_with("HTTP/1.1 413 ") && got.ends_with("too large"), "{head}: {got}");
    }
}

#[test]
fn sizes_of_chunks_may_be_padded_by_upstreams_only() {
    let chunks = "5  \r\nhello\r\n00000005\t\r\n, you\r\n0   \r\n\r\n";
    let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    let proxy = Proxy::start(upstream.address);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(get("/").as_bytes());
        assert_eq!(client.response(false).unwrap().2, b"hello, you");
    }
    assert_eq!(upstream.connections(), 1);
    let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let got = proxy.exchange(post.as_bytes());
    assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
}

#[test]
fn an_upstream_that_may_still_send_something_is_not_kept() {
    let check = |answer: &'static str, method: &str, connections: u16| {
        let upstream = Upstream::answering(answer);
        let proxy = Proxy::start(upstream.address);
        let mut client = proxy.connect();
        for _ in 0..2 {
            client.send(get("/").replace("GET", method).as_bytes());
            while client.response(method == "HEAD").unwrap().0 < 200 {}
        }
        assert_eq!(upstream.connections(), connections, "{method} {answer:?}");
    };
    // The body that they speak of may be on its way.
    check("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", 2);
    check("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", 2);
    check(
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "GET",
        2,
    );
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n", "GET", 2);
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HEAD", 2);
    // Here they may speak of one that is not there.
    check("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", 1);
    check("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", 1);
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", 1);
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 1);
}
