//! What backends send and clients do not read: so much for each, and no more than there is memory for in sum, whatever both
//! speak; and what is charged for it is what it takes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::Mutex,
};

use bytes::Bytes;
use http::Response;
use snapshot::proto::{ClusterProtocol, Limits};
use socket2::{Domain, Socket, Type};
use support::{Client, HOST, OK, Upstream, content_of, frames::wide_open, free_port, pause, process::Process, request};

const MANY: usize = 300;
const MIB: f64 = 1_048_576.0;
/// What one response may hold: what is read at once and what waits to be written, or a window of HTTP/2 and what `h2` queues.
const EACH: f64 = 0.7 * MIB;

/// One that answers `/` without end, and else at once.
fn http1_upstream() -> SocketAddr {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            if asked.head.starts_with("GET / ") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
                while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
                return;
            }
            let _ = stream.write_all(OK);
        }
    });
    upstream.address
}

/// The same by HTTP/2.
async fn serve(stream: tokio::net::TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        if request.uri().path() != "/" {
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            continue;
        }
        tokio::spawn(async move {
            loop {
                body.reserve_capacity(1 << 16);
                let Some(Ok(capacity)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                let _ = body.send_data(vec![b'x'; capacity].into(), false);
            }
        });
    }
}

/// Clients that ask for so many answers together, and read nothing.
fn clients(by: &str, to: SocketAddr) -> Vec<TcpStream> {
    let connect = |bytes: Vec<u8>| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.connect(&to.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(&bytes).unwrap();
        stream
    };
    if by == "HTTP/1.1" {
        let ask = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes();
        return (0..MANY).map(|_| connect(ask.clone())).collect();
    }
    (0..MANY / 100).map(|_| connect(wide_open(100))).collect()
}

/// With so much memory; what is held when all is held that can be, and how many connections were ended for that.
fn unread(way: (&str, ClusterProtocol), memory: f64) -> (f64, f64) {
    let upstream = match way.1 {
        ClusterProtocol::Http1 => http1_upstream(),
        ClusterProtocol::H2c => support::http2_upstream(serve),
    };
    let limits = Limits { client_stall_timeout_ms: 120_000, ..Limits::default() };
    let port = free_port();
    let content = content_of(way.1, &[port], upstream, limits, |_| {});
    let process = Process::with(2000, port, &content, &["--memory", &format!("{memory}")]);
    let resident = || process.metric("process_resident_memory_bytes");
    let of = |kind| process.metric(&format!("sluice_memory_held_bytes{{kind=\"{kind}\"}}"));
    let held = || ["connections", "heads", "bodies"].map(of).iter().sum::<f64>();
    let before = resident();
    let readers = clients(way.0, process.address);
    let (mut most, mut last) = (0.0_f64, -1.0);
    // Until it grows no more.
    while most > last {
        last = most;
        for _ in 0..10 {
            most = most.max(held());
            assert!(resident() <= memory, "{way:?}: {} bytes of {memory}", resident());
            pause(100);
        }
    }
    let (grown, held) = (resident() - before, held());
    let ended = process.metric("sluice_memory_connections_ended_total");
    println!(
        "{way:?} within {:.0} MiB: {:.1} MiB held, memory +{:.1} MiB, {ended} ended",
        memory / MIB,
        held / MIB,
        grown / MIB
    );
    // Without those that were ended, whose memory comes back by and by.
    assert!(ended > 0.0 || grown <= 1.25 * held + 8.0 * MIB, "{way:?}: of {grown} bytes {held} are charged");
    // Others are served.
    let mut other = Client::to(process.address);
    other.send(format!("GET /other HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    assert_eq!(other.response(false).unwrap().0, 200);
    drop(readers);
    process.until("all is given back", || of("bodies") == 0.0);
    (most, ended)
}

const WAYS: [(&str, ClusterProtocol); 4] = [
    ("HTTP/1.1", ClusterProtocol::Http1),
    ("HTTP/2", ClusterProtocol::Http1),
    ("HTTP/1.1", ClusterProtocol::H2c),
    ("HTTP/2", ClusterProtocol::H2c),
];

#[test]
fn each_response_holds_so_much_and_no_more() {
    for way in WAYS {
        let (most, ended) = unread(way, 512.0 * MIB);
        assert!(most <= MANY as f64 * EACH, "{way:?}: {most} bytes are held");
        assert_eq!(ended, 0.0, "{way:?}");
    }
}

#[test]
fn all_of_them_hold_no_more_than_there_is() {
    for way in WAYS {
        let (most, _) = unread(way, 128.0 * MIB);
        assert!(most <= 128.0 * MIB, "{way:?}: {most} bytes are held");
    }
}
