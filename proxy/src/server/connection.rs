//! One client connection: TLS, HTTP/1.1 or HTTP/2, and its end.
//!
//! A connection is *retired* when it should end without a request lost: HTTP/1.1 learns by `Connection: close` on the
//! next response, HTTP/2 by GOAWAY in two steps (RFC 9113 section 6.8). It is *closed* when it is idle and the proxy
//! leaves.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Version};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, sync::Notify};
use tokio_rustls::TlsAcceptor;

use super::{Live, Phase, Worker};
use crate::exchange;

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An HTTP/1.1 connection may be idle, or take for the next request's head, this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Most header fields of a request.
const MAX_HEADERS: usize = 100;
/// Largest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// A client's connection, as its requests see it.
pub struct Conn {
    /// Number unique within the process.
    pub id: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The port it came to, as it was opened.
    pub port: u16,
    /// The same as clients know it.
    pub public_port: u16,
    /// Whether it is encrypted.
    pub tls: bool,
    http2: AtomicBool,
    requests: AtomicU64,
    /// Requests within the last second, and the count at its end.
    recent: AtomicU32,
    counted: AtomicU64,
    retiring: AtomicBool,
    wake: Notify,
}

impl Conn {
    fn new(peer: SocketAddr, (port, public_port): (u16, u16), tls: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            peer,
            port,
            public_port,
            tls,
            http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            recent: AtomicU32::new(0),
            counted: AtomicU64::new(0),
            retiring: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// A request came.
    pub(crate) fn note_request(&self, version: Version) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 && !self.http2.swap(true, Ordering::Relaxed) && self.is_retiring() {
            // It was retired before it was known to be HTTP/2.
            self.wake.notify_one();
        }
    }

    /// Asks the connection to end without a request lost.
    pub(super) fn retire(&self) {
        if !self.retiring.swap(true, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Whether it was asked to end.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    /// Whether a request came.
    fn is_used(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether it is known to speak HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Requests within the last second.
    pub(super) fn recent(&self) -> u32 {
        self.recent.load(Ordering::Relaxed)
    }

    /// Called once a second.
    pub(super) fn tick(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        let before = self.counted.swap(requests, Ordering::Relaxed);
        self.recent.store(u32::try_from(requests - before).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn run(worker: Arc<Worker>, live: Live, stream: TcpStream, peer: SocketAddr, port: u16) {
    let _live = live;
    let (public, tls) = match worker.shared.config.load().ports.get(&port) {
        Some(config) => (config.port, config.tls.clone()),
        // The port was removed while the connection waited.
        None => return,
    };
    let conn = Arc::new(Conn::new(peer, (port, public), tls.is_some()));
    let _registered = Registered::new(&worker, &conn);
    match tls {
        None => serve(&worker, &conn, TokioIo::new(stream)).await,
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => serve(&worker, &conn, TokioIo::new(stream)).await,
                Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        }
    }
}

async fn serve<I>(worker: &Arc<Worker>, conn: &Arc<Conn>, io: I)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, conn) = (worker.clone(), conn.clone());
        async move { Ok::<_, Infallible>(exchange::serve(worker, conn, request).await) }
    });
    let builder = protocols();
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut phase = worker.phase.subscribe();
    let mut age = pin!(tokio::time::sleep(max_age(worker)));
    let mut aged = false;
    let mut closing = false;
    let mut silent = pin!(tokio::time::sleep(IDLE_TIMEOUT));
    loop {
        let now = *phase.borrow_and_update();
        if now > Phase::Serving {
            conn.retire();
        }
        if now == Phase::Closing && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        tokio::select! {
            // First what the client sent: an idle connection is closed only when there is nothing to read.
            biased;
            result = connection.as_mut() => {
                if let Err(e) = result {
                    tracing::debug!(peer = %conn.peer, error = %e, "connection broke off");
                }
                return;
            }
            () = conn.wake.notified() => {
                // HTTP/1.1 is told by its next response.
                if conn.is_http2() {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = age.as_mut(), if !aged => {
                aged = true;
                conn.retire();
            }
            // Before its first request a connection belongs to no protocol, whose timer could end it.
            () = silent.as_mut(), if !conn.is_used() && !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = phase.changed() => {}
        }
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        // A client that is gone without a FIN is noticed within 40 s.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// The fleet's `connection.maxAge`, ± 10 % so that connections made together do not end together.
fn max_age(worker: &Worker) -> Duration {
    worker.shared.config.load().settings.connection_max_age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Lists a connection for as long as it lives.
struct Registered {
    worker: Arc<Worker>,
    id: u64,
}

impl Registered {
    fn new(worker: &Arc<Worker>, conn: &Arc<Conn>) -> Self {
        worker.shared.telemetry.connected();
        worker.conns().insert(conn.id, conn.clone());
        Self { worker: worker.clone(), id: conn.id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.conns().remove(&self.id);
        self.worker.shared.telemetry.disconnected();
    }
}
