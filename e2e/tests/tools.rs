//! The tools themselves: the load generator must tell every outcome apart, or the promises below mean nothing.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, like tests

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use e2e::{
    echo::Echo,
    harness::pause,
    load::{Plan, Report, run},
};

#[test]
fn everything_reaches_a_good_upstream() {
    let echo = Echo::start("a").unwrap();
    let mut plan = Plan::new(echo.addr, "x.example").mixed().step(500.0, Duration::from_secs(2));
    plan.ws = 3;
    plan.paths = vec!["/a".to_owned(), "/bytes/100000".to_owned(), "/stream/3/1".to_owned(), "/trailers".to_owned()];
    let report = run(plan).unwrap();
    assert_eq!((report.failures(), report.retried()), (0, 0), "{report}");
    assert_eq!(report.ok, report.requests, "{report}");
    // What was counted here is what was counted there; a WebSocket starts with a request.
    assert_eq!(report.requests + report.ws.opened, echo.requests(), "{report}");
    assert!(report.requests + report.missed >= 1000, "{report}");
    assert_eq!(report.ws.opened, 3);
    assert!(report.ws.messages >= 20, "{report}");
}

#[test]
fn uploads_are_complete_on_both_protocols() {
    let echo = Echo::start("a").unwrap();
    let mut plan = Plan::new(echo.addr, "x.example").step(0.0, Duration::from_millis(300));
    (plan.h1, plan.h2, plan.body) = (2, 1, 300_000);
    let report = run(plan).unwrap();
    assert!(report.ok > 0 && report.ok == report.requests && report.failures() == 0, "{report}");
}

/// Runs one HTTP/1.1 connection for half a second against a server made of a function for each connection.
fn against(server: fn(TcpStream), protocol: fn(&mut Plan)) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || server(stream));
        }
    });
    let mut plan = Plan::new(addr, "x.example").step(100.0, Duration::from_millis(500));
    plan.timeout = Duration::from_secs(2);
    protocol(&mut plan);
    run(plan).unwrap()
}

fn one_h1(plan: &mut Plan) {
    plan.h1 = 1;
}

fn answer_h1(stream: &mut TcpStream, head: &str) -> bool {
    let mut request = [0; 4096];
    match stream.read(&mut request) {
        Ok(length) if length > 0 => stream.write_all(head.as_bytes()).is_ok(),
        _ => false,
    }
}

#[test]
fn a_reused_connection_closed_without_a_word_is_retried_and_counted_apart() {
    // Two answers, then the third request is read and the connection closed.
    let report = against(
        |mut stream| {
            for _ in 0..2 {
                answer_h1(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
            let _ = stream.read(&mut [0; 4096]);
        },
        one_h1,
    );
    let requests = report.requests;
    assert!(requests > 10, "{report}");
    assert_eq!((report.ok, report.failures()), (requests, 0), "{report}");
    // Each retried request is the first of the two of its connection: 1, 2, (3 retried), 4, (5 retried), ...
    assert_eq!(
        (report.reused_closed, report.connections),
        (requests.div_ceil(2) - 1, requests.div_ceil(2)),
        "{report}"
    );
}

#[test]
fn connection_close_is_followed_and_idle_closes_are_noticed() {
    let report = against(
        |mut stream| {
            answer_h1(&mut stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        },
        one_h1,
    );
    let requests = report.requests;
    assert_eq!((report.ok, report.retired), (requests, requests), "{report}");
    assert_eq!((report.reused_closed, report.failures()), (0, 0), "{report}");
    let report = against(
        |mut stream| {
            answer_h1(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        },
        one_h1,
    );
    assert_eq!((report.ok, report.retired, report.failures()), (report.requests, 0, 0), "{report}");
    // A client that did not notice would meet one at each request but the first; a busy machine may close late.
    assert!(report.reused_closed < report.requests / 2, "{report}");
}

#[test]
fn broken_answers_are_failures_with_a_reason() {
    // A new connection closed without a word, an answer that breaks off, and a 503 that no upstream sent.
    let report = against(|mut stream| drop(stream.read(&mut [0; 4096])), one_h1);
    let reason = "connection closed before any byte of the answer";
    assert_eq!((report.failed, report.ok, report.reasons[reason]), (report.requests, 0, report.requests), "{report}");
    let report = against(
        |mut stream| {
            answer_h1(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok");
        },
        one_h1,
    );
    assert_eq!(
        (report.failed, report.reasons["connection closed within the answer"]),
        (report.requests, report.requests),
        "{report}"
    );
    let report =
        against(|mut stream| while answer_h1(&mut stream, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") {}, one_h1);
    assert_eq!((report.failed, report.reasons["503 from the gateway"]), (report.requests, report.requests), "{report}");
    let report = against(
        |mut stream| {
            while answer_h1(&mut stream, "HTTP/1.1 503 No\r\nx-upstream: a\r\ncontent-length: 0\r\n\r\n") {}
        },
        one_h1,
    );
    assert_eq!((report.failed, report.upstream_5xx), (0, report.requests), "{report}");
}

/// Just enough HTTP/2 to answer requests until `refuse` decides what the next one gets instead.
fn serve_h2(mut stream: TcpStream, answers: usize, refuse: impl Fn(u32) -> Vec<u8>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap(); // SETTINGS
    let mut answered = 0;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            4 if head[4] == 0 => stream.write_all(&frame(4, 1, 0, &[])).unwrap(), // SETTINGS: ACK
            1 if answered == answers => {
                stream.write_all(&refuse(id)).unwrap();
                return;
            }
            1 => {
                answered += 1;
                stream.write_all(&frame(1, 5, id, &[0x88])).unwrap(); // HEADERS, END_STREAM: 200
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn goaway(last: u32, error: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

fn one_h2(plan: &mut Plan) {
    plan.h2 = 1;
}

#[test]
fn a_stream_above_goaway_is_retried_and_counted_apart() {
    let report = against(|stream| serve_h2(stream, 2, |id| goaway(id - 2, 0)), one_h2);
    let (requests, connections) = (report.requests, report.requests.div_ceil(2));
    assert!(requests > 10, "{report}");
    assert_eq!((report.ok, report.failures()), (requests, 0), "{report}");
    assert_eq!((report.connections, report.above_goaway), (connections, connections - 1), "{report}");
    assert_eq!(report.retired, connections - 1, "{report}");
}

#[test]
fn a_stream_below_goaway_that_gets_no_answer_failed() {
    let report = against(|stream| serve_h2(stream, 1, |id| goaway(id, 0)), one_h2);
    let requests = report.requests;
    assert_eq!((report.ok, report.failed), (requests.div_ceil(2), requests / 2), "{report}");
    assert_eq!(report.above_goaway, 0, "{report}");
    let report = against(|stream| serve_h2(stream, 1, |id| goaway(id - 2, 2)), one_h2);
    assert_eq!((report.failed, report.above_goaway), (report.requests / 2, 0), "an error is no retirement: {report}");
}

fn accept_websocket(stream: &mut TcpStream) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap();
    let text = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
    let start = text.find("sec-websocket-key: ").unwrap() + 19;
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(&request[start..start + 24]);
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket";
    write!(stream, "{head}\r\nsec-websocket-accept: {accept}\r\n\r\n").unwrap();
}

#[test]
fn a_websocket_that_ends_without_a_close_failed() {
    let report = against(
        |mut stream| {
            accept_websocket(&mut stream);
            pause(Duration::from_millis(50));
        },
        |plan| plan.ws = 1,
    );
    // The last one may have been ended by the load's end.
    assert!(report.ws.opened > 1 && report.ws.failed >= report.ws.opened - 1, "{report}");
}

#[test]
fn a_websocket_closed_with_1001_is_counted_as_such() {
    let report = against(
        |mut stream| {
            accept_websocket(&mut stream);
            pause(Duration::from_millis(50));
            stream.write_all(&[0x88, 2, 0x03, 0xe9]).unwrap(); // Close 1001
            let _ = stream.read(&mut [0; 4096]);
        },
        |plan| plan.ws = 1,
    );
    assert!(report.ws.opened > 1 && report.ws.closed_1001 >= report.ws.opened - 1, "{report}");
    assert_eq!(report.failures(), 0, "{report}");
}
