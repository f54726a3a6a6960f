//! A proxy as a process of its own, without an operator: what it takes of the system, and what it does when that is little.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use snapshot::proto::Limits;
use support::{
    Client, HOST, Upstream,
    frames::{frame, streams},
    pause,
    process::Process,
    request,
};

fn ask(client: &mut Client) {
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
}

fn is_served(client: &mut Client) -> bool {
    client.response(false).is_some_and(|(status, ..)| status == 200)
}

fn one_has_all() -> Limits {
    Limits { descriptors_per_client_percent: 100, ..Limits::default() }
}

/// A client of another address than the others, which all have the first of the loopback network.
fn another(to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Client::on(socket.into())
}

/// One that takes its time, so that requests at once need a connection each.
fn slow_upstream() -> Upstream {
    Upstream::start(|mut stream| {
        let mut read = vec![];
        while request(&mut stream, &mut read, &Mutex::default()).is_some() {
            pause(300);
            if stream.write_all(support::OK).is_err() {
                return;
            }
        }
    })
}

#[test]
fn connections_beyond_its_descriptors_wait() {
    let upstream = slow_upstream();
    let process = Process::start(200, upstream.address, one_has_all());
    let report = process.admin("/connections").unwrap();
    let most = report.split("\"most\":").nth(1).and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
    let most = most.unwrap_or_else(|| panic!("{report}"));
    assert!((50..=70).contains(&most), "{most} connections of 200 descriptors");

    let mut clients: Vec<Client> = (0..most).map(|_| Client::to(process.address)).collect();
    for _ in 0..2 {
        clients.iter_mut().for_each(ask);
        assert!(clients.iter_mut().all(is_served), "there is room for all of them, and their upstreams");
    }
    // The kernel takes these, the proxy does not.
    let mut waiting: Vec<Client> = (0..30).map(|_| Client::to(process.address)).collect();
    waiting.iter_mut().for_each(ask);
    pause(600);
    let served = waiting.iter().filter(|client| {
        client.stream.set_nonblocking(true).unwrap();
        let waits = client.stream.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).unwrap();
        !waits
    });
    // An accept loop that waited already takes one more.
    assert!(served.count() <= 1);
    for path in ["/readyz", "/healthz", "/metrics"] {
        assert!(process.admin(path).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")), "{path}");
    }
    assert!(process.metric("sluice_accept_pauses_total") >= 1.0);
    assert!(process.metric("process_open_fds") <= 200.0 - 32.0, "some are kept");
    clients.iter_mut().for_each(ask);
    assert!(clients.iter_mut().all(is_served), "those that are there are served on");
    clients.truncate(most - 30);
    assert!(waiting.iter_mut().all(is_served), "those that waited are served once others have gone");
    assert!(clients.iter_mut().all(|client| {
        ask(client);
        is_served(client)
    }));
}

#[test]
fn upstreams_leave_descriptors_for_probes() {
    let upstream = slow_upstream();
    let process = Process::start(130, upstream.address, one_has_all());
    let mut client = TcpStream::connect(process.address).unwrap();
    // One client, and more connections to the upstream than there are descriptors.
    client.write_all(&streams(&[], 100)).unwrap();
    let refused = "sluice_failed_requests_total{reason=\"descriptors_exhausted\",blame=\"internal\"}";
    process.until("some are answered 503", || process.series(refused).is_some_and(|count| count >= 1.0));
    assert!(process.metric("process_open_fds") <= 130.0 - 32.0, "some are kept");
    process.until("the others are served", || {
        process.metric("sluice_requests_in_flight") == 0.0
            && process.series("sluice_requests_total{route=\"ns/r\",code_class=\"2xx\"}").is_some_and(|n| n >= 30.0)
    });
}

#[test]
fn one_client_leaves_descriptors_to_others() {
    let upstream = slow_upstream();
    let process = Process::start(200, upstream.address, Limits::default());
    // More than there is room for at all; what is beyond its share is closed at once.
    let mut clients: Vec<Client> = (0..80).map(|_| Client::to(process.address)).collect();
    clients.iter_mut().for_each(ask);
    let mut other = another(process.address);
    ask(&mut other);
    assert!(is_served(&mut other), "another client has room");
    let served = clients.iter_mut().map(is_served).filter(|served| *served).count();
    assert!((25..=40).contains(&served), "{served} connections of one client");
    assert_eq!(process.metric("sluice_connections_refused_total"), 80.0 - served as f64);
    assert_eq!(process.metric("sluice_accept_pauses_total"), 0.0);
}

#[test]
fn one_client_by_http2_leaves_descriptors_to_others() {
    let upstream = slow_upstream();
    let process = Process::start(200, upstream.address, Limits::default());
    let mut client = TcpStream::connect(process.address).unwrap();
    client.write_all(&streams(&[], 100)).unwrap();
    let mut other = another(process.address);
    ask(&mut other);
    assert!(is_served(&mut other), "another client has room");
    let refused = "sluice_failed_requests_total{reason=\"client_descriptors_exhausted\",blame=\"downstream\"}";
    process.until("all are answered", || process.metric("sluice_requests_in_flight") == 0.0);
    let refused = process.metric(refused);
    assert!((20.0..=60.0).contains(&refused), "{refused} were refused");
    let reason = "sluice_failed_requests_total{reason=\"descriptors_exhausted\",blame=\"internal\"}";
    assert_eq!((process.series(reason), process.metric("sluice_accept_pauses_total")), (None, 0.0));
    // What was held is given back.
    client.write_all(&frame(6, 0, 0, b"12345678")).unwrap();
    let mut again = TcpStream::connect(process.address).unwrap();
    again.write_all(&streams(&[], 30)).unwrap();
    let served = "sluice_requests_total{route=\"ns/r\",code_class=\"2xx\"}";
    process.until("30 more are served", || {
        process.metric("sluice_requests_in_flight") == 0.0 && process.metric(served) >= 131.0 - refused
    });
}

#[test]
fn an_http2_client_that_opens_no_window_is_given_up() {
    const STREAMS: u32 = 100;
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let upstream = Upstream::start(move |mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default());
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    let limits = Limits { client_stall_timeout_ms: 2000, ..Limits::default() };
    let process = Process::start(1024, upstream.address, limits);
    let before = process.metric("process_resident_memory_bytes");
    let mut client = TcpStream::connect(process.address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0, and never a WINDOW_UPDATE.
    client.write_all(&streams(&[0, 4, 0, 0, 0, 0], STREAMS)).unwrap();
    process.until("all are under way", || open.load(Ordering::SeqCst) == STREAMS as usize);
    pause(500);
    let more = process.metric("process_resident_memory_bytes") - before;
    println!("{STREAMS} streams without window: memory +{:.1} MiB", more / f64::from(1 << 20));
    assert!(more <= f64::from(10 << 20), "memory grew by {more} bytes");
    // Each stream is reset with CANCEL (RFC 9113 section 7), and its upstream connection closed.
    let (mut reset, mut inbound, mut buffer) = (0, vec![], [0; 4096]);
    while reset < STREAMS {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection ended after {reset} resets");
        inbound.extend_from_slice(&buffer[..count]);
        while inbound.len() >= 9 {
            let end = 9 + u32::from_be_bytes([0, inbound[0], inbound[1], inbound[2]]) as usize;
            if inbound.len() < end {
                break;
            }
            if inbound[3] == 3 {
                assert_eq!(inbound[9..13], 8u32.to_be_bytes());
                reset += 1;
            }
            inbound.drain(..end);
        }
    }
    process.until("the upstreams are let go", || open.load(Ordering::SeqCst) == 0);
    assert_eq!(process.metric("sluice_requests_in_flight"), 0.0);
    // The connection goes on.
    client.write_all(&frame(6, 0, 0, b"12345678")).unwrap();
    assert!(client.read(&mut buffer).unwrap() > 0);
}
