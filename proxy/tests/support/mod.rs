//! A proxy within the test's process, and upstreams that do exactly what a test says.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)] // each test file uses its part, and fails by panicking

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use proxy::{
    Shared,
    config::Applier,
    memory::Limit,
    server::{Server, ServerOptions, SocketSource},
    shared::Drain,
    telemetry::Telemetry,
};
use snapshot::{
    Entry, Key, Kind, Snapshot,
    proto::{self, ClusterProtocol, Resource, resource},
    wire::Push,
};

/// The host that everything is served for.
pub const HOST: &str = "shop.example";

pub mod frames;
pub mod process;
pub mod tls;

/// A proxy with one route to one upstream.
pub struct Proxy {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    pub server: Arc<Server>,
    pub runtime: tokio::runtime::Runtime,
    applier: Applier<Server>,
    upstream: SocketAddr,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, proto::Limits::default(), |_| {})
    }

    /// With the fleet's `limits`; `change` has its way with the route's rule.
    pub fn with(upstream: SocketAddr, limits: proto::Limits, change: impl Fn(&mut proto::Rule)) -> Self {
        Self::within(Limit::find(None), upstream, limits, change)
    }

    /// One whose upstream speaks HTTP/2.
    pub fn to_http2(upstream: SocketAddr) -> Self {
        Self::speaking(ClusterProtocol::H2c, Limit::find(None), upstream, proto::Limits::default(), |_| {})
    }

    /// One whose upstream speaks that.
    pub fn to(
        protocol: ClusterProtocol,
        upstream: SocketAddr,
        limits: proto::Limits,
        change: impl Fn(&mut proto::Rule),
    ) -> Self {
        Self::speaking(protocol, Limit::find(None), upstream, limits, change)
    }

    /// The same, with so much memory.
    pub fn within(
        memory: Limit,
        upstream: SocketAddr,
        limits: proto::Limits,
        change: impl Fn(&mut proto::Rule),
    ) -> Self {
        Self::speaking(ClusterProtocol::Http1, memory, upstream, limits, change)
    }

    fn speaking(
        protocol: ClusterProtocol,
        memory: Limit,
        upstream: SocketAddr,
        limits: proto::Limits,
        change: impl Fn(&mut proto::Rule),
    ) -> Self {
        Self::serving(memory, upstream, |port| content_of(protocol, &[port], upstream, limits, &change))
    }

    /// One that serves what is said, on a port that is found.
    pub fn serving(memory: Limit, upstream: SocketAddr, content: impl Fn(u16) -> Snapshot) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Shared::within(Telemetry::default(), memory);
        let options = ServerOptions { workers: 1, sockets: SocketSource::Bind, handover: None };
        let server = Server::start(Arc::clone(&shared), options).unwrap();
        let (shared_of, server_of) = (Arc::clone(&shared), Arc::clone(&server));
        let (port, applier) = runtime.block_on(async move {
            let applier = Applier::start(Arc::clone(&shared_of), server_of, None);
            for _ in 0..50 {
                let port = free_port();
                let pushed = applier.apply(push(&content(port))).await;
                if pushed.unwrap().nacks.is_empty() {
                    return (port, applier);
                }
            }
            panic!("no free port");
        });
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), shared, server, runtime, applier, upstream }
    }

    /// The fleet's limits change.
    pub fn change(&self, limits: proto::Limits) {
        let target = content(self.address.port(), self.upstream, limits, |_| {});
        let status = self.runtime.block_on(self.applier.apply(push(&target))).unwrap();
        assert!(status.nacks.is_empty(), "{:?}", status.nacks);
    }

    /// A rate limit of every route, in place of the one there was.
    pub fn limit(&self, limit: proto::Limit) {
        let targets = vec![proto::PolicyTarget::default()];
        let policy = proto::RatePolicy { targets, limits: vec![limit], unavailable: String::new() };
        let policy = Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::RatePolicy(policy)) });
        self.push(vec![(Key::new(Kind::RatePolicy, "ns", "p"), policy)], &[]);
    }

    /// Resources besides the route, in place of those there were, of which these are refused for these reasons.
    pub fn push(&self, resources: Vec<(Key, Entry)>, refused: &[(&Key, &str)]) {
        let mut target = content(self.address.port(), self.upstream, proto::Limits::default(), |_| {});
        resources.into_iter().for_each(|(key, entry)| target.insert(key, entry));
        let status = self.runtime.block_on(self.applier.apply(push(&target))).unwrap();
        let nacks: Vec<_> = status.nacks.iter().map(|nack| (nack.key.as_str(), nack.reason.as_str())).collect();
        assert_eq!(nacks, refused.iter().map(|(key, reason)| (key.as_str(), *reason)).collect::<Vec<_>>());
    }

    /// An access policy of every route, in place of the one there was.
    pub fn access(&self, policy: proto::AccessPolicy) {
        let mut target = content(self.address.port(), self.upstream, proto::Limits::default(), |_| {});
        target.insert(Key::new(Kind::AccessPolicy, "ns", "p"), entry(resource::Kind::AccessPolicy(policy)));
        let status = self.runtime.block_on(self.applier.apply(push(&target))).unwrap();
        assert!(status.nacks.is_empty(), "{:?}", status.nacks);
    }

    pub fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// Sends bytes on a connection of their own and reads to its end.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.rest()
    }

    /// Begins to leave.
    pub fn drain(&self) {
        self.shared.drain.send_replace(Drain::Draining);
        let server = Arc::clone(&self.server);
        self.runtime.spawn(async move { server.drained().await });
    }

    /// A metric's value, summed over series with all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = proxy::telemetry::metrics(&self.shared);
        let series = text.lines().filter_map(|line| line.rsplit_once(' '));
        let series = series.filter(|(s, _)| s.split('{').next() == Some(name) && labels.iter().all(|l| s.contains(l)));
        series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }
}

fn push(target: &Snapshot) -> Push {
    let delta = target.diff(&BTreeMap::new());
    Push { epoch: 1, base: None, revision: target.revision(), delta }
}

/// A resource, as a snapshot has it.
pub fn entry(kind: resource::Kind) -> Entry {
    Entry::new(&Resource { requires: vec![], kind: Some(kind) })
}

/// One listener, one route to one upstream.
pub fn content(port: u16, upstream: SocketAddr, limits: proto::Limits, change: impl Fn(&mut proto::Rule)) -> Snapshot {
    content_on(&[port], upstream, limits, change)
}

/// The same with several listeners.
pub fn content_on(
    ports: &[u16],
    upstream: SocketAddr,
    limits: proto::Limits,
    change: impl Fn(&mut proto::Rule),
) -> Snapshot {
    content_of(ClusterProtocol::Http1, ports, upstream, limits, change)
}

pub fn content_of(
    protocol: ClusterProtocol,
    ports: &[u16],
    upstream: SocketAddr,
    limits: proto::Limits,
    change: impl Fn(&mut proto::Rule),
) -> Snapshot {
    let name = |port: &u16| format!("http-{port}");
    let listener = |port: &u16| {
        let listener = proto::Listener { name: name(port), port: u32::from(*port), ..Default::default() };
        (Key::listener("ns", "f", &listener.name), entry(resource::Kind::Listener(listener)))
    };
    let mut rule = proto::Rule {
        name: "all".into(),
        matches: vec![proto::Match {
            path: Some(proto::PathMatch { kind: proto::PathKind::Prefix as i32, value: "/".into() }),
            ..Default::default()
        }],
        backends: vec![proto::WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
        ..Default::default()
    };
    change(&mut rule);
    let attachment = |port| proto::Attachment { listener: name(port), hostnames: vec![HOST.into()] };
    let attachments = ports.iter().map(attachment).collect();
    let fleet = proto::Fleet {
        min_drain_ms: 100,
        drain_timeout_ms: 5000,
        connection_max_age_ms: 600_000,
        limits: Some(limits),
        ..Default::default()
    };
    let endpoint = proto::Endpoint { address: upstream.to_string(), ..Default::default() };
    [
        (Key::new(Kind::Fleet, "ns", "f"), entry(resource::Kind::Fleet(fleet))),
        (
            Key::new(Kind::Route, "ns", "r"),
            entry(resource::Kind::Route(proto::Route { created_ms: 0, attachments, rules: vec![rule] })),
        ),
        (
            Key::cluster("ns", "c", "80"),
            entry(resource::Kind::Cluster(proto::Cluster { protocol: protocol.into(), endpoints: vec![endpoint] })),
        ),
    ]
    .into_iter()
    .chain(ports.iter().map(listener))
    .collect()
}

/// A port that was free a moment ago, below those that connections take.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 11_000 + (std::process::id() % 80) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 8_000;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A client that sends what it is told to.
pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: vec![] }
    }

    /// The proxy may have closed the connection; that shows when its answer is read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next response: status, head in small letters, body. `None`: the connection ended before it began.
    pub fn response(&mut self, head_only: bool) -> Option<(u16, String, Vec<u8>)> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.read.is_empty(), "a head broke off: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap().to_lowercase();
        let status: u16 = head[9..12].parse().unwrap();
        if head_only || matches!(status, 100..200 | 204 | 304) {
            return Some((status, head, vec![]));
        }
        let body = if let Some(length) = field(&head, "content-length") {
            let length: usize = length.parse().unwrap();
            while self.read.len() < length && self.fill() {}
            assert!(self.read.len() >= length, "a body broke off: {head}");
            self.read.drain(..length).collect()
        } else if field(&head, "transfer-encoding").is_some() {
            self.chunks()
        } else {
            while self.fill() {}
            std::mem::take(&mut self.read)
        };
        Some((status, head, body))
    }

    /// All up to the connection's end; what is broken off by a reset ends with `RESET`.
    pub fn rest(&mut self) -> String {
        let mut buffer = [0; 4096];
        let end = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break "",
                Ok(count) => self.read.extend(&buffer[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break "RESET",
                Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&self.read)),
            }
        };
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned() + end
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = vec![];
        loop {
            let line = loop {
                if let Some(at) = self.read.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                assert!(self.fill(), "chunks broke off");
            };
            let size = usize::from_str_radix(str::from_utf8(&self.read[..line]).unwrap(), 16).unwrap();
            if size == 0 {
                // Trailers.
                while !self.read.windows(4).any(|w| w == b"\r\n\r\n") {
                    assert!(self.fill(), "trailers broke off");
                }
                let end = self.read.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                self.read.drain(..end);
                return body;
            }
            while self.read.len() < line + 2 + size + 2 {
                assert!(self.fill(), "a chunk broke off");
            }
            body.extend(&self.read[line + 2..line + 2 + size]);
            self.read.drain(..line + 2 + size + 2);
        }
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer).unwrap_or_default();
        self.read.extend(&buffer[..count]);
        count > 0
    }
}

/// Sleeps: tests are plain threads.
#[allow(clippy::disallowed_methods)]
pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// A field of a head in small letters.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// An upstream whose every connection is served by a function on a thread of its own.
pub struct Upstream {
    pub address: SocketAddr,
    /// How many connections there were.
    pub connections: Arc<AtomicU16>,
}

/// An answer without more.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Upstream {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicU16>::default();
        let (serve, counted) = (Arc::new(serve), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
                stream.set_nodelay(true).unwrap();
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, connections }
    }

    /// One that answers each request with the same bytes.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |mut stream| {
            while let Some(Request { .. }) = request(&mut stream, &mut vec![], &Mutex::default()) {
                if stream.write_all(&response).is_err() {
                    return;
                }
            }
        })
    }

    /// One that says nothing on `/silent`, stops within its answer on `/stalls`, and is well otherwise.
    pub fn slow() -> Self {
        Self::start(|mut stream| {
            let mut read = vec![];
            while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
                let answer: &[u8] = match asked.head.split(' ').nth(1).unwrap() {
                    "/silent" => b"",
                    "/stalls" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
                    _ => OK,
                };
                stream.write_all(answer).unwrap();
            }
        })
    }

    pub fn connections(&self) -> u16 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A request as an upstream understands it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

/// Reads one request, strictly, and records its bytes. `None`: the connection ended before, or within, it.
pub fn request(stream: &mut TcpStream, read: &mut Vec<u8>, record: &Mutex<Vec<u8>>) -> Option<Request> {
    let mut fill = |read: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap_or_default();
        read.extend(&buffer[..count]);
        record.lock().unwrap().extend(&buffer[..count]);
        (count > 0).then_some(())
    };
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        fill(read)?;
    };
    let head = String::from_utf8_lossy(&read.drain(..end).collect::<Vec<_>>()).into_owned();
    if let Some(length) = field(&head, "content-length") {
        let length: usize = length.parse().unwrap();
        while read.len() < length {
            fill(read)?;
        }
        return Some(Request { head, body: read.drain(..length).collect() });
    }
    let mut body = vec![];
    if field(&head, "transfer-encoding").is_some() {
        loop {
            let line = loop {
                if let Some(at) = read.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                fill(read)?;
            };
            let size = usize::from_str_radix(str::from_utf8(&read[..line]).unwrap(), 16).unwrap();
            if size == 0 {
                while !read.windows(4).any(|w| w == b"\r\n\r\n") {
                    fill(read)?;
                }
                let end = read.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                read.drain(..end);
                break;
            }
            while read.len() < line + 2 + size + 2 {
                fill(read)?;
            }
            body.extend(&read[line + 2..line + 2 + size]);
            read.drain(..line + 2 + size + 2);
        }
    }
    Some(Request { head, body })
}

/// An upstream that speaks HTTP/2, on a thread of its own: each connection is served so.
pub fn http2_upstream<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

/// A connection that speaks HTTP/2.
pub async fn http2(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

pub fn http2_request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(format!("http://{HOST}{path}"))
}

/// Status and, of what is no 200, the body.
pub async fn answer(response: http::Response<h2::RecvStream>) -> (u16, String) {
    let (head, mut body) = response.into_parts();
    let mut text = String::new();
    while let Some(data) = body.data().await {
        text += str::from_utf8(&data.unwrap()).unwrap();
    }
    (head.status.as_u16(), text)
}
