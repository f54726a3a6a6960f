//! Memory goes back to the system when those who needed it have gone.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use snapshot::proto::Limits;
use support::{
    HOST, OK, Upstream, content, free_port, pause,
    process::Process,
    tls::{self, certificate, secured},
};

const MIB: f64 = 1_048_576.0;
/// So many clients, and how soon what they took has gone back.
fn goal() -> (usize, Duration) {
    let is_long = std::env::var_os("SLUICE_LONG").is_some();
    if is_long { (5000, Duration::from_secs(12)) } else { (1000, Duration::from_secs(60)) }
}

fn limits() -> Limits {
    Limits { descriptors_per_client_percent: 100, idle_timeout_ms: 600_000, ..Limits::default() }
}

/// What the process uses before, while those that `come` are there, and when they have gone.
#[track_caller]
fn peak<T>(what: &str, process: &Process, come: impl Fn() -> T) {
    // Not by the admin port: whoever asks there has the allocator do something.
    let resident = || {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * rustix::param::page_size() as f64
    };
    let (many, within) = goal();
    // What is made once, with the first of them, stays.
    drop((0..20).map(|_| come()).collect::<Vec<_>>());
    process.until("the first have gone", || process.metric("sluice_memory_held_bytes{kind=\"connections\"}") == 0.0);
    let before = resident();
    let there: Vec<_> = (0..many).map(|_| come()).collect();
    pause(500);
    let most = resident();
    drop(there);
    let gone = Instant::now();
    let bound = before * 1.25 + 8.0 * MIB;
    let mib = |bytes: f64| bytes / MIB;
    assert!(most > bound + 4.0 * MIB, "{what}: no peak, {:.1} MiB, then {:.1}", mib(before), mib(most));
    while resident() > bound {
        assert!(
            gone.elapsed() < within,
            "{what}: {:.1} MiB before, {:.1} at the peak, {:.1} after {within:?}",
            mib(before),
            mib(most),
            mib(resident())
        );
        pause(200);
    }
    let took = gone.elapsed();
    println!(
        "{what}: {:.1} MiB before, {:.1} at the peak, {:.1} after {took:?}",
        mib(before),
        mib(most),
        mib(resident())
    );
}

#[test]
fn tls_connections_leave_nothing_behind() {
    let upstream = Upstream::answering(OK);
    let (certificate, config) = certificate(vec![HOST.into()]);
    let port = free_port();
    let content = secured(port, upstream.address, limits(), &[(HOST, &[HOST])], &certificate);
    let process = Process::with(12_000, port, &content, &[]);
    peak("TLS connections", &process, || {
        let mut stream = tls::client(&config, HOST, TcpStream::connect(process.address).unwrap());
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream
    });
}

#[test]
fn slow_clients_leave_nothing_behind() {
    let upstream = Upstream::answering(OK);
    let port = free_port();
    let process = Process::with(12_000, port, &content(port, upstream.address, limits(), |_| {}), &[]);
    let head = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 50_000]].concat();
    peak("heads without an end", &process, || {
        let mut stream = TcpStream::connect(process.address).unwrap();
        stream.write_all(&head).unwrap();
        stream
    });
}
