//! Connections to upstreams: a pool for each worker, so that none is shared between threads.
//!
//! HTTP/1.1: idle connections in a stack, the last used first, so that those in excess age out. HTTP/2: one connection
//! for each endpoint and worker, its streams multiplexed, and further ones when its streams are used up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Endpoint, Protocol};
use crate::{body::RequestBody, server::keepalive};

/// Longest wait for a connection to be made: a SYN lost once is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is closed at this age: shorter than the idle timeout of common servers (nginx: 75 s), so that the
/// proxy closes first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);
/// Most streams of one HTTP/2 connection; beyond, another one is made. RFC 9113 section 6.5.2 asks servers to allow as
/// many; at one that allows fewer, the rest waits.
const MAX_STREAMS: usize = 100;
/// Most idle connections for each endpoint and worker.
const MAX_IDLE: usize = 512;

/// One worker's connections.
#[derive(Default)]
pub struct Pool {
    by_endpoint: Mutex<HashMap<u64, Connections>>,
}

struct Connections {
    endpoint: Weak<Endpoint>,
    idle: Vec<(http1::SendRequest<RequestBody>, Instant)>,
    shared: Vec<(http2::SendRequest<RequestBody>, Streams)>,
    /// One HTTP/2 connection is made at a time: those who wait share it.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Connections {
    fn to(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Arc::downgrade(endpoint), idle: vec![], shared: vec![], connecting: Arc::default() }
    }
}

/// Where a lease's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// Made for this request.
    New,
    /// Kept from an earlier one: the upstream may have closed it meanwhile.
    Reused,
}

/// A connection for one request. While it lives the request counts as under way to its endpoint.
pub struct Lease {
    pool: Arc<Pool>,
    under_way: UnderWay,
    connection: Connection,
    /// Whether the connection was reused.
    pub connecting: Connecting,
}

enum Connection {
    Http1(http1::SendRequest<RequestBody>),
    /// The stream counts against its connection's limit.
    Http2(http2::SendRequest<RequestBody>, #[expect(dead_code, reason = "held for its end")] Stream),
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing was sent: here is the request again.
    Unsent(Box<Request<RequestBody>>),
    /// It broke off when the request may have arrived.
    Broken(hyper::Error),
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, out of descriptors.
    #[error("connect: {0}")]
    Io(#[from] std::io::Error),
    /// No answer in time.
    #[error("connect: no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    /// The protocol's handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] hyper::Error),
}

impl Pool {
    /// A kept connection if one is ready, else a new one.
    pub async fn lease(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Result<Lease, ConnectError> {
        // Counted before the wait, so that others see it when they balance.
        let under_way = UnderWay::new(endpoint);
        let (connection, connecting) = match (self.kept(endpoint), endpoint.protocol) {
            (Some(kept), _) => (kept, Connecting::Reused),
            (None, Protocol::Http1) => (self.connect(endpoint).await?, Connecting::New),
            (None, Protocol::H2c) => {
                let connecting = self.with(endpoint, |connections| connections.connecting.clone());
                let _one = connecting.lock().await;
                match self.kept(endpoint) {
                    Some(kept) => (kept, Connecting::Reused),
                    None => (self.connect(endpoint).await?, Connecting::New),
                }
            }
        };
        Ok(Lease { pool: self.clone(), under_way, connection, connecting })
    }

    /// A new connection, whatever is kept: for a second try after a kept one broke.
    pub async fn fresh(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Result<Lease, ConnectError> {
        let under_way = UnderWay::new(endpoint);
        let connection = self.connect(endpoint).await?;
        Ok(Lease { pool: self.clone(), under_way, connection, connecting: Connecting::New })
    }

    /// Closes connections that were idle for too long, and those to endpoints that no cluster names any more.
    pub fn reap(&self) {
        let now = Instant::now();
        self.lock().retain(|_, connections| {
            connections.idle.retain(|(sender, since)| !sender.is_closed() && now - *since < IDLE_TIMEOUT);
            // Those beyond the first go once their streams have ended.
            let mut first = true;
            connections.shared.retain(|(sender, streams)| {
                let kept = std::mem::take(&mut first) || streams.count() > 0;
                kept && !sender.is_closed()
            });
            let named = connections.endpoint.strong_count() > 0;
            named && !(connections.shared.is_empty() && connections.idle.is_empty())
        });
    }

    /// Idle HTTP/1.1 and open HTTP/2 connections.
    pub fn len(&self) -> usize {
        self.lock().values().map(|c| c.idle.len() + c.shared.len()).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kept(&self, endpoint: &Endpoint) -> Option<Connection> {
        let mut by_endpoint = self.lock();
        let connections = by_endpoint.get_mut(&endpoint.id)?;
        match endpoint.protocol {
            Protocol::H2c => {
                connections.shared.retain(|(sender, _)| !sender.is_closed());
                let room = |(_, streams): &&(_, Streams)| streams.count() < MAX_STREAMS;
                let (sender, streams) = connections.shared.iter().find(room)?;
                Some(Connection::Http2(sender.clone(), streams.one()))
            }
            Protocol::Http1 => {
                // One just given back may not be ready yet (its task has to run once); the one below it is.
                let ready = connections.idle.iter().rposition(|(sender, _)| sender.is_ready())?;
                let (sender, _) = connections.idle.remove(ready);
                connections.idle.retain(|(sender, _)| !sender.is_closed());
                Some(Connection::Http1(sender))
            }
        }
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>) -> Result<Connection, ConnectError> {
        let connect = TcpStream::connect(endpoint.address);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| ConnectError::Timeout)??;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
        let io = TokioIo::new(stream);
        match endpoint.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::Builder::new().max_headers(128).handshake(io).await?;
                tokio::spawn(async move {
                    // Its end reaches whoever holds the sender; there is nobody else to tell.
                    let _ = connection.with_upgrades().await;
                });
                Ok(Connection::Http1(sender))
            }
            Protocol::H2c => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new()).initial_stream_window_size(1 << 20);
                builder.initial_connection_window_size(4 << 20);
                // An upstream that is gone without a FIN is noticed within 30 s.
                builder.keep_alive_interval(Duration::from_secs(20)).keep_alive_timeout(Duration::from_secs(10));
                let (sender, connection) = builder.handshake(io).await?;
                tokio::spawn(async move {
                    let _ = connection.await;
                });
                let streams = Streams::default();
                let one = streams.one();
                self.with(endpoint, |connections| connections.shared.push((sender.clone(), streams)));
                Ok(Connection::Http2(sender, one))
            }
        }
    }

    fn with<T>(&self, endpoint: &Arc<Endpoint>, f: impl FnOnce(&mut Connections) -> T) -> T {
        f(self.lock().entry(endpoint.id).or_insert_with(|| Connections::to(endpoint)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Connections>> {
        self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Sends a request and waits for the response's head.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        let sent = match &mut self.connection {
            Connection::Http1(sender) => sender.try_send_request(request).await,
            Connection::Http2(sender, _) => {
                if let Err(e) = sender.ready().await {
                    tracing::debug!(error = %e, "upstream connection closed");
                    return Err(SendError::Unsent(Box::new(request)));
                }
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut e| match e.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Broken(e.into_error()),
        })
    }

    /// Where the request goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.under_way.0
    }

    /// The response was read to its end: the connection can serve another request.
    pub fn give_back(self) {
        // An HTTP/2 connection is shared, and was never taken out of the pool.
        let Connection::Http1(sender) = self.connection else { return };
        if sender.is_closed() {
            return;
        }
        self.pool.with(&self.under_way.0, |connections| {
            if connections.idle.len() < MAX_IDLE {
                connections.idle.push((sender, Instant::now()));
            }
        });
    }
}

/// Streams of one HTTP/2 connection.
#[derive(Default)]
struct Streams(Arc<AtomicUsize>);

/// One of them.
struct Stream(Arc<AtomicUsize>);

impl Streams {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one(&self) -> Stream {
        self.0.fetch_add(1, Ordering::Relaxed);
        Stream(self.0.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as under way.
struct UnderWay(Arc<Endpoint>);

impl UnderWay {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
