//! Requests to an upstream that speaks HTTP/2, frame by frame: what it has not processed is sent again, what is more than
//! may be is an error and no shorter message, and how a stream ends is told as it is.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use support::{HOST, Proxy, Upstream, answer, http2, http2_request, pause};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// `:status: 200`, by index; and two that have no body.
const STATUS_200: u8 = 0x88;
const STATUS_204: u8 = 0x89;
const STATUS_304: u8 = 0x8b;

/// One connection to the upstream.
struct Wire {
    stream: TcpStream,
    /// Bodies by their streams, while they come.
    bodies: BTreeMap<u32, Vec<u8>>,
}

/// What the proxy did.
#[derive(Debug, PartialEq)]
enum Seen {
    /// It began a stream.
    Begun(u32),
    /// It sent so much of its body.
    Data(u32, usize),
    /// It ended one, with this body.
    Whole(u32, Vec<u8>),
    /// It reset one.
    Reset(u32, u32),
}

impl Wire {
    /// Takes a connection on, and allows so many streams.
    fn new(stream: TcpStream, streams: u32) -> Self {
        Self::with(stream, &[(MAX_CONCURRENT_STREAMS, streams)])
    }

    /// The same with these settings.
    fn with(mut stream: TcpStream, settings: &[(u16, u32)]) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).unwrap();
        let mut wire = Self { stream, bodies: BTreeMap::new() };
        let setting = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        wire.send(4, 0, 0, &settings.iter().flat_map(setting).collect::<Vec<_>>());
        wire
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat();
        let _ = self.stream.write_all(&frame);
    }

    /// The next thing that it does; settings and pings are answered meanwhile. `None`: the connection has ended.
    fn next(&mut self) -> Option<Seen> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).ok()?;
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).ok()?;
            let id = u32::from_be_bytes(id);
            let end = flags & 1 == 1;
            match kind {
                0 => {
                    let body = self.bodies.entry(id).or_default();
                    body.extend(&payload);
                    return Some(if end {
                        Seen::Whole(id, self.bodies.remove(&id).unwrap_or_default())
                    } else {
                        Seen::Data(id, payload.len())
                    });
                }
                1 => return Some(if end { Seen::Whole(id, vec![]) } else { Seen::Begun(id) }),
                3 => return Some(Seen::Reset(id, u32::from_be_bytes(payload.try_into().unwrap()))),
                4 if !end => self.send(4, 1, 0, &[]),
                6 if !end => self.send(6, 1, 0, &payload),
                _ => {}
            }
        }
    }

    /// The next request, when it is whole.
    fn request(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            if let Seen::Whole(id, body) = self.next()? {
                return Some((id, body));
            }
        }
    }

    fn reset(&mut self, id: u32, code: u32) {
        self.send(3, 0, id, &code.to_be_bytes());
    }

    /// It processes no stream beyond that one.
    fn go_away(&mut self, last: u32) {
        self.send(7, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
    }

    fn ok(&mut self, id: u32) {
        self.send(1, 4, id, &[STATUS_200]);
        self.send(0, 1, id, b"ok");
    }

    /// A block of header fields, in as many frames as it takes.
    fn block(&mut self, id: u32, end: bool, block: &[u8]) {
        let mut parts = block.chunks(16 << 10).peekable();
        let mut kind = 1;
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { 4 } else { 0 } | u8::from(end && kind == 1);
            self.send(kind, flags, id, part);
            kind = 9;
        }
    }
}

/// A literal field that no table keeps (RFC 7541 section 6.2.2).
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).unwrap()];
    field.extend(name.as_bytes());
    // An integer with a prefix of 7 bits.
    match value.len() {
        short @ 0..127 => field.push(short as u8),
        long => {
            field.push(127);
            let mut rest = long - 127;
            while rest > 127 {
                field.push((rest & 127) as u8 | 128);
                rest >>= 7;
            }
            field.push(rest as u8);
        }
    }
    field.extend(value);
    field
}

/// What the upstream saw, over all its connections.
type Log = Arc<Mutex<Vec<(u32, Vec<u8>)>>>;

/// An upstream that treats its nth request, and the body that came of it, as is said.
fn upstream(treat: impl Fn(&mut Wire, usize, u32, &[u8]) + Send + Sync + 'static) -> (Upstream, Log) {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let upstream = Upstream::start(move |stream| {
        let mut wire = Wire::new(stream, 100);
        while let Some((id, body)) = wire.request() {
            let mut seen = seen.lock().unwrap();
            seen.push((id, body.clone()));
            let n = seen.len();
            drop(seen);
            treat(&mut wire, n, id, &body);
        }
    });
    (upstream, log)
}

/// How a request by HTTP/2 ended: its status, or the code that its stream was reset with.
async fn ask(proxy: &Proxy, method: &str, body: &'static [u8]) -> Result<(u16, String), Reason> {
    let mut sender = http2(proxy).await;
    let request = http2_request(method, "/").body(()).unwrap();
    let (response, mut upload) = sender.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        upload.send_data(Bytes::from_static(body), true).unwrap();
    }
    let response = response.await.map_err(|e| e.reason().unwrap())?;
    Ok(answer(response).await)
}

/// The same by HTTP/1.1.
fn ask_http1(proxy: &Proxy, method: &str, body: &str) -> String {
    let length = body.len();
    proxy.exchange(
        format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .as_bytes(),
    )
}

/// A way to say that a request was not processed, and its name.
type Way = (&'static str, fn(&mut Wire, u32));

fn ways() -> [Way; 2] {
    [("REFUSED_STREAM", |wire, id| wire.reset(id, REFUSED_STREAM)), ("GOAWAY", |wire, _| wire.go_away(0))]
}

#[test]
fn what_was_not_processed_is_sent_again_whatever_its_method() {
    for (way, refuse) in ways() {
        for method in ["GET", "POST", "PATCH"] {
            let (upstream, log) = upstream(move |wire, n, id, _| if n == 1 { refuse(wire, id) } else { wire.ok(id) });
            let proxy = Proxy::to_http2(upstream.address);
            let body = if method == "GET" { "" } else { "hello" };
            let answer = proxy.runtime.block_on(ask(&proxy, method, body.as_bytes()));
            assert_eq!(answer, Ok((200, "ok".into())), "{method} {way}");
            let bodies: Vec<_> = log.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
            assert_eq!(bodies, [body.as_bytes(), body.as_bytes()], "{method} {way}");
            log.lock().unwrap().clear();
            let answer = ask_http1(&proxy, method, body);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {way}: {answer}");
        }
    }
}

#[test]
fn an_upstream_that_never_processes_it_is_said_so() {
    for (way, refuse) in ways() {
        let (upstream, log) = upstream(move |wire, _, id, _| refuse(wire, id));
        let proxy = Proxy::to_http2(upstream.address);
        let answer = proxy.runtime.block_on(ask(&proxy, "POST", b"hello"));
        assert_eq!(answer, Err(Reason::REFUSED_STREAM), "{way}");
        assert_eq!(log.lock().unwrap().len(), 3, "{way}: bounded");
        let answer = ask_http1(&proxy, "POST", "hello");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("may be sent again"), "{way}: {answer}");
    }
}

/// More of a body than is kept can't be sent again: the client can.
#[test]
fn of_a_large_body_the_client_is_told() {
    let asked = Upstream::start(|stream| {
        let mut wire = Wire::new(stream, 100);
        let mut sum = 0;
        while let Some(seen) = wire.next() {
            if let Seen::Data(id, bytes) = seen {
                sum += bytes;
                wire.send(8, 0, 0, &(bytes as u32).to_be_bytes());
                wire.send(8, 0, id, &(bytes as u32).to_be_bytes());
                if sum > 100 << 10 {
                    wire.reset(id, REFUSED_STREAM);
                    sum = 0;
                }
            }
        }
    });
    let proxy = Proxy::to_http2(asked.address);
    static LARGE: [u8; 200 << 10] = [b'x'; 200 << 10];
    let answer = proxy.runtime.block_on(ask(&proxy, "PUT", &LARGE));
    assert_eq!(answer, Err(Reason::REFUSED_STREAM));
    assert_eq!(asked.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn how_a_stream_ends_is_told_as_it_is() {
    for (code, told) in [
        (CANCEL, Reason::CANCEL),
        (NO_ERROR, Reason::NO_ERROR),
        (INTERNAL_ERROR, Reason::INTERNAL_ERROR),
        (ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
        // What is the proxy's and the upstream's is none of the client's.
        (FLOW_CONTROL_ERROR, Reason::INTERNAL_ERROR),
    ] {
        let (upstream, log) = upstream(move |wire, _, id, _| wire.reset(id, code));
        let proxy = Proxy::to_http2(upstream.address);
        assert_eq!(proxy.runtime.block_on(ask(&proxy, "GET", b"")), Err(told), "before a response");
        let answer = ask_http1(&proxy, "GET", "");
        let status = if code == ENHANCE_YOUR_CALM { "HTTP/1.1 503" } else { "HTTP/1.1 502" };
        assert!(answer.starts_with(status), "{answer}");
        assert_eq!(log.lock().unwrap().len(), 2, "{code}: each was sent once");

        let (upstream, _log) = upstream_that_breaks_off(code);
        let proxy = Proxy::to_http2(upstream.address);
        let reset = proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let (response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
            // What has not left when a stream is reset may stay behind.
            let mut body = response.await.map_err(|error| error.reason())?.into_body();
            while let Some(data) = body.data().await {
                data.map_err(|error| error.reason())?;
            }
            Ok(())
        });
        assert_eq!(reset, Err(Some(told)), "within a response");
        let answer = ask_http1(&proxy, "GET", "");
        assert!(answer.contains("chunked") && !answer.ends_with("0\r\n\r\n"), "no clean end: {answer}");
    }
}

fn upstream_that_breaks_off(code: u32) -> (Upstream, Log) {
    upstream(move |wire, _, id, _| {
        wire.send(1, 4, id, &[STATUS_200]);
        wire.send(0, 0, id, b"begun");
        wire.reset(id, code);
    })
}

/// A whole response is one, though the upstream does not want the rest of the request (RFC 9113 section 8.1).
#[test]
fn a_response_before_the_request_is_whole_is_whole() {
    let upstream = Upstream::start(|stream| {
        let mut wire = Wire::new(stream, 100);
        while let Some(seen) = wire.next() {
            if let Seen::Begun(id) = seen {
                wire.ok(id);
                wire.reset(id, NO_ERROR);
            }
        }
    });
    let proxy = Proxy::to_http2(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let request = http2_request("POST", "/").body(()).unwrap();
        let (response, _upload) = sender.send_request(request, false).unwrap();
        assert_eq!(answer(response.await.unwrap()).await, (200, "ok".into()));
    });
}

/// A field of a head or of trailers that comes in this many bytes, several times.
fn fields(count: usize, bytes: usize) -> Vec<u8> {
    (0..count).flat_map(|n| literal(&format!("x-{n}"), &vec![b'v'; bytes])).collect()
}

#[test]
fn trailers_over_the_limit_are_an_error_and_no_shorter_trailers() {
    // 16 KiB is allowed; h2 reads up to 84 KiB, and cuts off what is beyond.
    for (count, bytes, whole) in [
        (15, 1000, true),
        (1, 16_000, true),
        (17, 1000, false),
        (60, 1000, false),
        (1, 30_000, false),
        (1, 80_000, false),
        (1, 200_000, false),
        (90, 3000, false),
    ] {
        let (upstream, _log) = upstream(move |wire, _, id, _| {
            wire.send(1, 4, id, &[STATUS_200]);
            wire.send(0, 0, id, b"ok");
            let trailers = [fields(count, bytes), literal("grpc-status", b"0")].concat();
            wire.block(id, true, &trailers);
        });
        let proxy = Proxy::to_http2(upstream.address);
        let trailers: Result<Option<HeaderMap>, Reason> = proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let request = http2_request("POST", "/").header("te", "trailers").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let reason = |error: h2::Error| error.reason().unwrap();
            let mut body = response.await.map_err(reason)?.into_body();
            while let Some(data) = body.data().await {
                data.map_err(reason)?;
            }
            body.trailers().await.map_err(reason)
        });
        match trailers {
            Ok(Some(trailers)) => {
                assert!(whole && trailers.len() == count + 1, "{count} of {bytes}: {} came", trailers.len());
                assert_eq!(trailers["grpc-status"], "0");
            }
            Ok(None) => panic!("{count} of {bytes}: a clean end without trailers"),
            Err(reason) => assert!(!whole && reason == Reason::INTERNAL_ERROR, "{count} of {bytes}: {reason}"),
        }
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n");
        let answer = proxy.exchange(request.as_bytes());
        assert_eq!(answer.ends_with("grpc-status: 0\r\n\r\n"), whole, "{count} of {bytes}: by HTTP/1.1");
        assert_eq!(
            answer.contains("0\r\n\r\n") || answer.contains("0\r\nx-"),
            whole,
            "{count} of {bytes}: no clean end"
        );
    }
}

#[test]
fn heads_over_the_limit_are_an_error_and_asked_for_once() {
    // 64 KiB and 128 fields are allowed; hyper's own client took 16 KiB.
    for (count, bytes, whole) in [
        (1, 20_000, true),
        (1, 60_000, true),
        (120, 100, true),
        (1, 66_000, false),
        (1, 120_000, false),
        (130, 10, false),
    ] {
        let (upstream, log) = upstream(move |wire, _, id, _| {
            let head = [vec![STATUS_200], fields(count, bytes)].concat();
            wire.block(id, true, &head);
        });
        let proxy = Proxy::to_http2(upstream.address);
        // A connection that was used before: what fails on it might be tried again.
        for n in 1..=2 {
            let answer = ask_http1(&proxy, "GET", "");
            let status = if whole { "HTTP/1.1 200" } else { "HTTP/1.1 502" };
            assert!(answer.starts_with(status), "{count} of {bytes}: {}", &answer[..200]);
            assert_eq!(log.lock().unwrap().len(), n, "{count} of {bytes}");
        }
    }
}

/// What comes behind a response that has no body is nobody's: by HTTP/1.1 it would be taken for the next response.
#[test]
fn what_has_no_body_has_none_whatever_comes_behind_it() {
    const FORGED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for (method, status, data) in [
        ("HEAD", STATUS_200, &b""[..]),
        ("GET", STATUS_204, b""),
        ("GET", STATUS_304, b""),
        ("GET", STATUS_204, FORGED),
        ("GET", STATUS_304, FORGED),
    ] {
        let (upstream, _log) = upstream(move |wire, n, id, _| match n {
            1 => {
                let length = literal("content-length", data.len().to_string().as_bytes());
                let head = if data.is_empty() { vec![status] } else { [vec![status], length].concat() };
                wire.send(1, 4, id, &head);
                wire.send(0, 1, id, data);
            }
            _ => wire.ok(id),
        });
        let proxy = Proxy::to_http2(upstream.address);
        let requests = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n");
        let answers = proxy.exchange(format!("{requests}Connection: close\r\n\r\n").as_bytes());
        let (first, second) = answers.split_once("\r\n\r\n").unwrap();
        assert!(!first.contains("chunked"), "{method} {status:x}: {answers}");
        assert!(
            second.starts_with("HTTP/1.1 200 OK\r\n") && second.ends_with("ok\r\n0\r\n\r\n"),
            "{status:x}: {answers}"
        );
    }
}

/// A second upstream that answers before it has read what the first was sent gets all of it.
#[test]
fn what_is_sent_again_is_whole_when_the_response_comes_first() {
    const PIECES: usize = 9;
    let asked = Arc::<Mutex<u32>>::default();
    let (told, received) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |stream| {
        let nth = {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            *asked
        };
        let window = if nth == 1 { 65_535 } else { 1 };
        let mut wire = Wire::with(stream, &[(MAX_CONCURRENT_STREAMS, 100), (INITIAL_WINDOW_SIZE, window)]);
        // Those that come together go on together.
        let mut pieces = 0;
        while let Some(seen) = wire.next() {
            match seen {
                Seen::Begun(id) if nth == 2 => {
                    wire.send(1, 4, id, &[STATUS_200]);
                    pause(200);
                    wire.send(8, 0, id, &1_000_000_u32.to_be_bytes());
                }
                Seen::Data(_, bytes) if nth == 1 => {
                    pieces += bytes / "piece 1;".len();
                    if pieces == PIECES {
                        wire.go_away(0);
                    }
                }
                Seen::Whole(id, body) => {
                    told.send(body).unwrap();
                    wire.send(0, 1, id, b"ok");
                }
                _ => {}
            }
        }
    });
    let proxy = Proxy::to_http2(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let request = http2_request("POST", "/").body(()).unwrap();
        let (response, mut upload) = sender.send_request(request, false).unwrap();
        for n in 1..=PIECES {
            upload.send_data(Bytes::from(format!("piece {n};")), false).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let response = response.await.unwrap();
        upload.send_data(Bytes::from_static(b"last"), true).unwrap();
        assert_eq!(answer(response).await, (200, "ok".into()));
    });
    let whole: String = (1..=PIECES).map(|n| format!("piece {n};")).collect::<String>() + "last";
    assert_eq!(String::from_utf8(received.recv().unwrap()).unwrap(), whole);
}

/// Frames are counted by many: pieces of a body that came together are no more of them than it takes.
#[test]
fn small_pieces_that_came_together_go_on_together() {
    const CHUNKS: usize = 2000;
    let (told, received) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |stream| {
        let mut wire = Wire::new(stream, 100);
        let mut frames = 1;
        while let Some(seen) = wire.next() {
            match seen {
                Seen::Data(..) => frames += 1,
                Seen::Whole(id, body) => {
                    told.send((frames, body.len())).unwrap();
                    wire.ok(id);
                }
                _ => {}
            }
        }
    });
    let proxy = Proxy::to_http2(upstream.address);
    let chunks = "1\r\na\r\n".repeat(CHUNKS);
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    let answer = proxy.exchange(format!("{head}{chunks}0\r\n\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (frames, bytes) = received.recv().unwrap();
    assert!(bytes == CHUNKS && frames < CHUNKS / 10, "{bytes} bytes in {frames} frames");
    // And the other way.
    let proxy = Proxy::start(
        Upstream::answering(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).address,
    );
    let (frames, bytes) = proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let (response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let (mut frames, mut bytes) = (0, 0);
        while let Some(data) = body.data().await {
            (frames, bytes) = (frames + 1, bytes + data.unwrap().len());
        }
        (frames, bytes)
    });
    assert!(bytes == CHUNKS && frames < CHUNKS / 10, "{bytes} bytes in {frames} frames");
}

/// What concerns the upstream's connection is no client's business, and what is no field is no response's.
#[test]
fn fields_of_a_response_are_what_they_are_by_http1() {
    let (upstream, _log) = upstream(|wire, n, id, _| {
        let fields = match n {
            1 => [literal("proxy-authenticate", b"Basic"), literal("x-a", b"b")].concat(),
            _ => literal("\"x\"", b"b"),
        };
        wire.block(id, true, &[vec![STATUS_200], fields].concat());
    });
    let proxy = Proxy::to_http2(upstream.address);
    let answer = ask_http1(&proxy, "GET", "");
    assert!(answer.contains("\r\nx-a: b\r\n") && !answer.contains("proxy-authenticate"), "{answer}");
    let answer = ask_http1(&proxy, "GET", "");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// Heads may be larger than trailers: one that is says nothing of the trailers of its stream.
#[test]
fn a_large_head_goes_with_small_trailers() {
    let (upstream, _log) = upstream(move |wire, _, id, _| {
        wire.block(id, false, &[vec![STATUS_200], fields(1, 40_000)].concat());
        wire.send(0, 0, id, b"ok");
        wire.block(id, true, &literal("grpc-status", b"0"));
    });
    let proxy = Proxy::to_http2(upstream.address);
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n");
    let answer = proxy.exchange(request.as_bytes());
    assert!(answer.ends_with("grpc-status: 0\r\n\r\n"), "{}", &answer[answer.len() - 100..]);
}

/// An upstream that takes two streams at a time gets the others on further connections.
#[test]
fn few_streams_make_further_connections() {
    const EACH: u64 = 400;
    let upstream = Upstream::start(|stream| {
        let mut wire = Wire::new(stream, 2);
        let mut open = 0;
        while let Some((id, _)) = wire.request() {
            open += 1;
            assert!(open <= 2, "more streams than are allowed");
            if open == 2 {
                pause(EACH);
                wire.ok(id - 2);
                wire.ok(id);
                open = 0;
            }
        }
    });
    let proxy = Proxy::to_http2(upstream.address);
    let began = Instant::now();
    let answers = proxy.runtime.block_on(async {
        let asks = (0..8).map(|_| ask(&proxy, "GET", b""));
        futures::future::join_all(asks).await
    });
    assert!(answers.iter().all(|answer| *answer == Ok((200, "ok".into()))), "{answers:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(EACH * 3), "{took:?}: some waited for others");
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 4);
}
