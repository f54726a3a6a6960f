//! By TLS: which hosts a connection serves, and that ends, interim responses and slowness are as without it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    sync::Mutex,
    time::{Duration, Instant},
};

use snapshot::proto::Limits;
use socket2::{Domain, Socket, Type};
use support::{
    HOST, OK, Upstream, pause, request,
    tls::{Stream, Tls},
};

fn start(upstream: &Upstream, limits: Limits) -> Tls {
    Tls::start(upstream.address, limits, &[("", &[HOST])])
}

/// All up to the connection's end.
fn rest(stream: &mut Stream) -> String {
    let mut rest = vec![];
    stream.sock.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let ended = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    ended.unwrap_or_else(|e| panic!("{e} after {rest:?}"));
    rest
}

/// Says that nothing more will be sent.
fn half_close(stream: &mut Stream) {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn a_connection_serves_the_hosts_of_the_listener_that_it_was_made_for() {
    let upstream = Upstream::answering(OK);
    let listeners = [("*.example", &["a.example", "x.a.example"][..]), ("b.example", &["b.example"])];
    let tls = Tls::start(upstream.address, Limits::default(), &listeners);
    let ask = |name: &str, host: &str| -> u16 {
        let mut stream = tls.connect(name);
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        rest(&mut stream)[9..12].parse().unwrap()
    };
    assert_eq!(ask("a.example", "a.example"), 200);
    assert_eq!(ask("a.example", "X.a.example:443"), 200);
    assert_eq!(ask("a.example", "b.example"), 421);
    assert_eq!(ask("b.example", "a.example"), 421);
    assert_eq!(ask("b.example", "b.example."), 200);
    assert_eq!(ask("b.example", "unknown"), 404);
    assert_eq!(tls.proxy.metric("sluice_failed_requests_total", &["misdirected", "downstream"]), 2.0);
}

#[test]
fn ends_are_as_without_it() {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() {
            pause(300);
            stream.write_all(OK).unwrap();
        }
    });
    let tls = start(&upstream, Limits { body_bytes: 1000, ..Limits::default() });
    for late in [false, true] {
        let mut stream = tls.connect(HOST);
        write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
        if late {
            pause(100);
        }
        half_close(&mut stream);
        assert!(rest(&mut stream).ends_with("\r\n\r\nok"), "late: {late}");
    }
    let mut stream = tls.connect(HOST);
    write!(stream, "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 8388608\r\n\r\n").unwrap();
    for _ in 0..8 << 4 {
        stream.write_all(&[b'x'; 64 << 10]).unwrap();
    }
    half_close(&mut stream);
    assert!(rest(&mut stream).starts_with("HTTP/1.1 413 "));
}

#[test]
fn interim_responses_are_as_without_it() {
    let upstream = Upstream::start(|mut stream| {
        let mut head = vec![0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        assert!(String::from_utf8_lossy(&head).contains("expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").unwrap();
        pause(50);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(OK).unwrap();
    });
    let tls = start(&upstream, Limits::default());
    let mut stream = tls.connect(HOST);
    let start = Instant::now();
    write!(stream, "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let (mut got, mut buffer) = (vec![], [0; 1024]);
    while !got.windows(4).any(|part| part == b"100 ") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        got.extend(&buffer[..count]);
    }
    assert!(start.elapsed() < Duration::from_millis(900), "not at once");
    assert!(got.starts_with(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 "));
    stream.write_all(b"body").unwrap();
    half_close(&mut stream);
    assert!(rest(&mut stream).ends_with("\r\n\r\nok"));
}

#[test]
fn a_client_that_reads_slowly_is_not_cut_off() {
    const BODY: usize = 64 << 20;
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").unwrap();
        let _ = stream.write_all(&vec![b'x'; BODY]);
    });
    let tls = start(&upstream, Limits { client_stall_timeout_ms: 1000, ..Limits::default() });
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&tls.proxy.address.into()).unwrap();
    let mut stream = tls.connect_on(HOST, socket.into());
    write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
    let (begun, mut buffer) = (Instant::now(), vec![0; 8 << 10]);
    while begun.elapsed() < Duration::from_secs(6) {
        assert!(stream.read(&mut buffer).unwrap() > 0);
        pause(100);
    }
    let failed = || tls.proxy.metric("sluice_failed_requests_total", &["downstream"]);
    assert_eq!(failed(), 0.0);
    let stopped = Instant::now();
    while failed() == 0.0 {
        assert!(stopped.elapsed() < Duration::from_secs(6), "it is still waited for");
        pause(20);
    }
}
