//! What a client holds without using it: a WebSocket that says nothing, or that never ends, is ended as the fleet says, with a
//! Close frame; one that is used is left alone. What one client holds of all descriptors is held by `proxy/tests/process.rs`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port,
        manifests::{Fleet, HOST, route},
        metric, pause,
    },
};

use crate::{at, serves};

/// A Ping as clients send it, masked with zeros.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// What answers it.
const PONG: [u8; 2] = [0x8a, 0];
/// Close with code 1001.
const GOING_AWAY: [u8; 4] = [0x88, 2, 3, 0xe9];

fn websocket(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(at(port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    write!(stream, "GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n").unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_websocket_ends_when_it_is_silent_or_old() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let mut fleet = Fleet::single(port);
    fleet.more = "  limits: {webSocket: {idleTimeout: 2s, maxAge: 6s}}\n".into();
    let gateway = Gateway::start(&[("fleet.yaml", fleet.yaml()), ("all.yaml", route("all", "/", echo.addr))]).unwrap();
    serves(port, "/");
    let admin = gateway.ready_proxies().remove(0).admin;

    let (began, mut silent) = (Instant::now(), websocket(port));
    assert_eq!(read(&mut silent), GOING_AWAY);
    let after = began.elapsed();
    println!("silent: told 1001 after {after:.1?} (goal: 2 s to 3 s)");
    assert!((2.0..5.0).contains(&after.as_secs_f64()), "{after:?}");
    drop(silent);

    // Pings keep it, up to its age.
    let (began, mut busy) = (Instant::now(), websocket(port));
    let after = loop {
        busy.write_all(&PING).unwrap();
        let answer: [u8; 2] = read(&mut busy);
        if answer != PONG {
            assert_eq!([answer, read(&mut busy)].concat(), GOING_AWAY);
            break began.elapsed();
        }
        pause(Duration::from_millis(500));
    };
    println!("with a Ping each 500 ms: told 1001 after {after:.1?} (goal: 6 s, give or take 10 %)");
    assert!((5.4..9.0).contains(&after.as_secs_f64()), "{after:?}");
    drop(busy);
    for limit in ["idle", "age"] {
        let ended = || metric(admin, "sluice_websockets_ended_total", &[limit]).ok().filter(|ended| *ended >= 1.0);
        let ended = eventually(&format!("{limit}: it is counted"), Duration::from_secs(5), ended).unwrap();
        assert_eq!(ended, 1.0, "{limit}");
    }
}
