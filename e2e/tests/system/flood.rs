//! Clients that mean no good: floods of HTTP/2 frames, clients that never finish, each bounded, and others served on.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, free_port,
        manifests::{Fleet, HOST, route},
        metric, pause, rss,
    },
    load::{Load, Plan, Report},
};

use crate::{at, long, serves};

/// More frames than any budget allows at once.
const MANY: u32 = 200_000;
/// HTTP/2's error code for a client that asks for too much (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 11;
/// What a frame that is wrong in itself may be answered with at once.
const PROTOCOL_ERROR: u32 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What became of a flood.
#[derive(Debug)]
struct Outcome {
    /// Frames that were written before the connection took no more.
    written: u32,
    goaway: Option<u32>,
    /// RST_STREAM and GOAWAY frames are answers too; the connection ended.
    closed: bool,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// `GET /` or `POST /` in HPACK: static entries, and the authority as a literal.
fn head(method: u8) -> Vec<u8> {
    [&[method, 0x86, 0x84, 0x41, HOST.len() as u8], HOST.as_bytes()].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// A connection with the preface sent.
fn connect(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    stream
}

/// Sends `each(n)` for n = 0, 1, … until the connection ends, or [`MANY`] were sent and it stayed for 3 s.
fn flood(to: SocketAddr, first: &[u8], each: impl Fn(u32) -> Vec<u8>) -> Outcome {
    let mut stream = connect(to);
    stream.write_all(first).unwrap();
    let mut outcome = Outcome { written: 0, goaway: None, closed: false };
    let (mut inbound, mut buf) = (vec![], vec![0; 64 << 10]);
    let mut quiet = Instant::now();
    while !outcome.closed && quiet.elapsed() < Duration::from_secs(3) {
        if outcome.written < MANY && outcome.goaway.is_none() {
            let batch: Vec<u8> = (0..100).flat_map(|i| each(outcome.written + i)).collect();
            match stream.write_all(&batch) {
                Ok(()) => (outcome.written, quiet) = (outcome.written + 100, Instant::now()),
                Err(_) => outcome.closed = true,
            }
        }
        loop {
            match stream.read(&mut buf) {
                Ok(0) => outcome.closed = true,
                Ok(n) => {
                    inbound.extend_from_slice(&buf[..n]);
                    continue;
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => outcome.closed = true,
            }
            break;
        }
        while inbound.len() >= 9 {
            let length = u32::from_be_bytes([0, inbound[0], inbound[1], inbound[2]]) as usize;
            if inbound.len() < 9 + length {
                break;
            }
            // The first GOAWAY may be a graceful one: the last one's code counts.
            if inbound[3] == 7 {
                outcome.goaway = Some(u32::from_be_bytes([inbound[13], inbound[14], inbound[15], inbound[16]]));
            }
            inbound.drain(..9 + length);
        }
    }
    outcome
}

/// A gateway with one proxy that serves `/` from an echo.
fn gateway() -> (Echo, u16, Gateway) {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::single(port).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    (echo, port, gateway)
}

/// Others that use the gateway meanwhile.
fn others(port: u16, time: Duration) -> Load {
    let mut plan = Plan::new(at(port), HOST).step(300.0, time);
    plan.h1 = 16;
    Load::start(plan).unwrap()
}

#[test]
fn each_flood_of_frames_is_ended() {
    let (_echo, port, gateway) = gateway();
    let proxy = gateway.ready_proxies().remove(0);
    let to = at(port);
    let ids = |n: u32| 2 * n + 1;
    let open = frame(1, END_HEADERS, 1, &head(POST));
    let endless = frame(1, 0, 1, &head(GET));
    type Each = Box<dyn Fn(u32) -> Vec<u8>>;
    let floods: Vec<(&str, &[u8], Each)> = vec![
        ("PING", &[], Box::new(|n| frame(6, 0, 0, &u64::from(n).to_be_bytes()))),
        ("SETTINGS", &[], Box::new(|_| frame(4, 0, 0, &[]))),
        ("PRIORITY", &[], Box::new(move |n| frame(2, 0, ids(n), &[0, 0, 0, 0, 1]))),
        ("WINDOW_UPDATE", &open, Box::new(|_| frame(8, 0, 1, &[0, 0, 0, 1]))),
        ("empty DATA", &open, Box::new(|_| frame(0, 0, 1, &[]))),
        ("CONTINUATION", &endless, Box::new(|_| frame(9, 0, 1, &[]))),
        ("unknown frames", &[], Box::new(|_| frame(200, 0, 0, &[]))),
        (
            "rapid reset",
            &[],
            Box::new(move |n| {
                let get = frame(1, END_HEADERS | END_STREAM, ids(n), &head(GET));
                [get, frame(3, 0, ids(n), &[0, 0, 0, 8])].concat()
            }),
        ),
        (
            // A window of 0 more is a stream error: the client makes us send the reset (CVE-2025-8671).
            "resets that we are made to send",
            &[],
            Box::new(move |n| {
                let get = frame(1, END_HEADERS | END_STREAM, ids(n), &head(GET));
                [get, frame(8, 0, ids(n), &[0, 0, 0, 0])].concat()
            }),
        ),
    ];
    let before = rss(proxy.pid).unwrap();
    let load = others(port, Duration::from_secs(120));
    for (name, first, each) in floods {
        let outcome = flood(to, first, each);
        let more = rss(proxy.pid).unwrap().saturating_sub(before);
        println!("{name}: {outcome:?}, memory +{:.1} MiB", more as f64 / f64::from(1 << 20));
        assert!(outcome.closed, "{name}: {outcome:?}");
        let codes = [None, Some(ENHANCE_YOUR_CALM), Some(PROTOCOL_ERROR)];
        assert!(codes.contains(&outcome.goaway), "{name}: {outcome:?}");
        assert!(outcome.written < MANY, "{name}: {outcome:?}");
        assert!(more <= 10 << 20, "{name}: memory grew by {more} bytes");
    }
    let report = load.stop().unwrap();
    println!("others meanwhile: {} requests, p99 {} ms", report.requests, report.latency.p99);
    assert_eq!(report.failures(), 0, "{report}");
    let ended = metric(proxy.admin, "sluice_http2_floods_total", &[]).unwrap();
    assert!(ended >= 6.0, "{ended} floods were counted");
}

#[test]
fn heads_beyond_what_is_allowed_do_not_pile_up() {
    let (_echo, port, gateway) = gateway();
    let proxy = gateway.ready_proxies().remove(0);
    let before = rss(proxy.pid).unwrap();
    // An entry of 4 KiB put into the table once, then referred to again and again: 100 × 4 KiB from 100 bytes.
    let name = [&[0x40, 1, b'x', 0x7f][..], &[0x80 + 65, 0x1e], &[b'v'; 4000]].concat();
    let bomb = [head(GET), name, vec![0xbe; 10_000]].concat();
    let outcome = flood(at(port), &[], |n| frame(1, END_HEADERS | END_STREAM, 2 * n + 1, &bomb));
    let more = rss(proxy.pid).unwrap().saturating_sub(before);
    println!("{outcome:?}, memory +{:.1} MiB", more as f64 / f64::from(1 << 20));
    assert!(more <= 10 << 20, "memory grew by {more} bytes");
    serves(port, "/");
}

#[test]
fn slow_clients_do_not_slow_others() {
    const SLOW: usize = 1000;
    let (_echo, port, gateway) = gateway();
    // An upstream of their own: what is measured is the proxy.
    let other = Echo::start("b").unwrap();
    gateway.write("bytes.yaml", &route("bytes", "/bytes", other.addr)).unwrap();
    gateway.write("upload.yaml", &route("upload", "/upload", other.addr)).unwrap();
    serves(port, "/bytes/1");
    serves(port, "/upload");
    let proxy = gateway.ready_proxies().remove(0);
    let time = Duration::from_secs(if long() { 10 } else { 3 });
    let median = |of: &dyn Fn() -> Report| {
        let mut reports: Vec<Report> = (0..if long() { 3 } else { 1 }).map(|_| of()).collect();
        reports.sort_by(|a, b| a.latency.p99.total_cmp(&b.latency.p99));
        reports.swap_remove(reports.len() / 2)
    };
    let undisturbed = median(&|| others(port, time).join().unwrap());
    let before = rss(proxy.pid).unwrap();
    // A third has sent half a head, a third a head without its body, a third reads nothing of a long answer.
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|i| {
            let mut stream = TcpStream::connect(at(port)).unwrap();
            let text = match i % 3 {
                0 => format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx-"),
                1 => format!("POST /upload HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000\r\n\r\nx"),
                _ => format!("GET /bytes/100000000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
            };
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Until what buffers take has been sent.
    pause(Duration::from_secs(5));
    let more = rss(proxy.pid).unwrap().saturating_sub(before);
    let disturbed = median(&|| others(port, time).join().unwrap());
    let (calm, busy) = (undisturbed.latency.p99, disturbed.latency.p99);
    println!(
        "p99 {calm} ms alone, {busy} ms beside {SLOW} slow clients; memory +{:.1} MiB",
        more as f64 / f64::from(1 << 20)
    );
    assert_eq!(disturbed.failures(), 0, "{disturbed}");
    let allowed = if long() { 2.0 * calm.max(1.0) } else { 20.0 * calm.max(1.0) };
    assert!(busy <= allowed, "p99 {busy} ms instead of {calm} ms");
    drop(slow);
}
