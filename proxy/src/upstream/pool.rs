//! Connections to upstreams: a pool for each worker, so that none is shared between threads.
//!
//! HTTP/1.1: idle connections in a stack, the last used first, so that those in excess age out. Whether the upstream
//! has closed one shows without a system call: the runtime has heard of it. HTTP/2: one connection for each endpoint
//! and worker, its streams multiplexed, and further ones when it has as many streams as the endpoint takes.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use foldhash::fast::RandomState;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::{
    endpoint::{Endpoint, Protocol},
    http2::Connection,
    in_flight::{Stream, UnderWay},
};
use crate::{fd_limit, message_limits::Limits, sockopt::keepalive};

/// Longest wait for a connection to be made: a SYN lost once is sent again after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection is closed at this age in seconds: shorter than the idle timeout of common servers (nginx: 75 s),
/// so that the proxy closes first.
const IDLE_TIMEOUT_SECONDS: u32 = 55;
/// Beyond a few, an idle connection is closed at this age in seconds: it was needed at a peak.
const EXCESS_TIMEOUT_SECONDS: u32 = 10;
const MIN_IDLE: usize = 8;
/// Most HTTP/2 connections for each endpoint and worker. When all have as many streams as the endpoint takes, requests
/// wait on the one with the fewest.
const MAX_SHARED: usize = 32;
/// Most idle connections for each endpoint and worker.
const MAX_IDLE: usize = 512;
/// An upstream that reads nothing for this long, with bytes waiting, is given up.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that the kernel takes from an upstream while its client does not read. Left alone it grows to many MiB for
/// each.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

/// The upstream connections of one worker.
#[derive(Default)]
pub struct Pool {
    by_endpoint: Mutex<HashMap<u64, Connections, RandomState>>,
    /// Second of the worker's clock at the last [`Pool::reap`].
    second: AtomicU32,
}

struct Connections {
    endpoint: Weak<Endpoint>,
    /// Idle connections, with the second from which on each is so.
    idle: Vec<(TcpStream, u32)>,
    shared: Vec<Connection>,
    /// Lock under which an HTTP/2 connection is made, one at a time: those who wait share it.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Connections {
    fn to(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Arc::downgrade(endpoint), idle: vec![], shared: vec![], connecting: Arc::default() }
    }
}

/// A connection's way back to its pool. While it lives the request counts as under way to its endpoint.
pub(crate) struct Checkout {
    pool: Arc<Pool>,
    under_way: UnderWay,
    /// Whether the connection was kept from an earlier request: the upstream may have closed it meanwhile.
    pub(crate) reused: bool,
}

/// A connection for one request.
pub(crate) enum PooledConnection {
    /// HTTP/1.1: it belongs to the request until it is given back.
    Http1(TcpStream, Checkout),
    /// HTTP/2: a stream of one that is shared, and whether it was kept.
    Http2(Connection, Stream, bool),
}

/// The policy by which a kept connection is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReusePolicy {
    /// Use any; one that broke can be replaced.
    Any,
    /// Use a connection that has just been looked at: the request can't be sent twice.
    Checked,
    /// Use none of them: for a second try after a kept one broke.
    New,
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable.
    #[error("connect: {0}")]
    Io(#[from] std::io::Error),
    /// No descriptor is left, but for what must always work.
    #[error("connect: out of descriptors")]
    Exhausted,
    /// No answer in time.
    #[error("connect: no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    /// The protocol's handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] h2::Error),
}

impl Pool {
    /// A kept connection, if one is ready.
    pub(crate) fn checkout_kept(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        reuse: ReusePolicy,
    ) -> Option<PooledConnection> {
        Some(match endpoint.protocol {
            Protocol::Http1 => {
                let io = self.idle(endpoint, reuse)?;
                PooledConnection::Http1(io, self.checkout_of(UnderWay::new(endpoint), true))
            }
            Protocol::H2c => {
                let connection = self.open(endpoint, reuse)?;
                let stream = Stream::new(connection.streams(), UnderWay::new(endpoint));
                PooledConnection::Http2(connection, stream, true)
            }
        })
    }

    /// A new one, or one that somebody else makes meanwhile.
    pub(crate) async fn checkout_new(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        limits: &Limits,
    ) -> Result<PooledConnection, ConnectError> {
        // Counted before the wait, so that others see it when they balance.
        let under_way = UnderWay::new(endpoint);
        match endpoint.protocol {
            Protocol::Http1 => {
                Ok(PooledConnection::Http1(self.connect(endpoint).await?, self.checkout_of(under_way, false)))
            }
            Protocol::H2c => self.stream(endpoint, limits, under_way).await,
        }
    }

    fn checkout_of(self: &Arc<Self>, under_way: UnderWay, reused: bool) -> Checkout {
        Checkout { pool: Arc::clone(self), under_way, reused }
    }

    /// Closes connections that were idle for too long, and those to endpoints that no cluster names any more. Called
    /// once a second, with the second of the worker's clock.
    pub fn reap(&self, second: u32) {
        self.second.store(second, Ordering::Relaxed);
        self.lock().retain(|_, connections| {
            // The oldest come first: what was not needed for a while is more than a few.
            let mut left = connections.idle.len();
            connections.idle.retain(|(io, since)| {
                let limit = if left > MIN_IDLE { EXCESS_TIMEOUT_SECONDS } else { IDLE_TIMEOUT_SECONDS };
                let kept = is_quiet(io) && second.saturating_sub(*since) < limit;
                left -= usize::from(!kept);
                kept
            });
            // Those beyond the first go once their streams have ended.
            let mut first = true;
            connections
                .shared
                .retain_mut(|connection| connection.is_open() && (std::mem::take(&mut first) || connection.load() > 0));
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

    fn idle(&self, endpoint: &Endpoint, reuse: ReusePolicy) -> Option<TcpStream> {
        if reuse == ReusePolicy::New {
            return None;
        }
        let mut by_endpoint = self.lock();
        let idle = &mut by_endpoint.get_mut(&endpoint.id)?.idle;
        loop {
            let (io, _) = idle.pop()?;
            if is_quiet(&io) && (reuse == ReusePolicy::Any || is_silent(&io)) {
                return Some(io);
            }
        }
    }

    /// Closes what is idle: descriptors are scarce, and somebody needs them now.
    pub(crate) fn give_up_idle(&self) {
        self.lock().values_mut().for_each(|connections| connections.idle.clear());
    }

    async fn stream(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        limits: &Limits,
        under_way: UnderWay,
    ) -> Result<PooledConnection, ConnectError> {
        let connecting = self.with(endpoint, |connections| Arc::clone(&connections.connecting));
        // Until it is known how many streams the one that is made takes.
        let settling = tokio::time::timeout(CONNECT_TIMEOUT, connecting.lock_owned());
        let settling = settling.await.map_err(|_| ConnectError::Timeout)?;
        // One that broke is not open any more: whatever is, will do.
        if let Some(connection) = self.open(endpoint, ReusePolicy::Any) {
            let stream = Stream::new(connection.streams(), under_way);
            return Ok(PooledConnection::Http2(connection, stream, true));
        }
        let connection = Connection::make(self.connect(endpoint).await?, limits, settling).await?;
        let stream = Stream::new(connection.streams(), under_way);
        self.with(endpoint, |connections| connections.shared.push(connection.clone()));
        Ok(PooledConnection::Http2(connection, stream, false))
    }

    /// A new connection; those that are idle give way to it.
    async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
        match connect(endpoint).await {
            Err(ConnectError::Exhausted) => {
                self.give_up_idle();
                connect(endpoint).await
            }
            connected => connected,
        }
    }

    /// An HTTP/2 connection for a further stream.
    fn open(&self, endpoint: &Endpoint, reuse: ReusePolicy) -> Option<Connection> {
        if reuse == ReusePolicy::New {
            return None;
        }
        let mut by_endpoint = self.lock();
        let shared = &mut by_endpoint.get_mut(&endpoint.id)?.shared;
        shared.retain_mut(Connection::is_open);
        let with_room = shared.iter().find(|connection| connection.has_room());
        let least = || shared.iter().min_by_key(|connection| connection.load()).filter(|_| shared.len() >= MAX_SHARED);
        with_room.or_else(least).cloned()
    }

    fn with<T>(&self, endpoint: &Arc<Endpoint>, f: impl FnOnce(&mut Connections) -> T) -> T {
        f(self.lock().entry(endpoint.id).or_insert_with(|| Connections::to(endpoint)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Connections, RandomState>> {
        self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkout {
    /// The response was read to its end: the connection can serve another request.
    pub(crate) fn give_back(&self, io: TcpStream) {
        self.pool.with(&self.under_way.0, |connections| {
            if connections.idle.len() < MAX_IDLE {
                connections.idle.push((io, self.pool.second.load(Ordering::Relaxed)));
            }
        });
    }
}

/// Whether the runtime has heard of nothing: neither of the upstream's end, nor of bytes that nobody asked for.
fn is_quiet(io: &TcpStream) -> bool {
    io.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Whether the kernel has heard of nothing.
fn is_silent(io: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    SockRef::from(io).peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
    let new = if endpoint.address.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
    let socket = match new() {
        Ok(socket) if fd_limit::is_kept(&socket) => return Err(ConnectError::Exhausted),
        Err(e) if fd_limit::is_exhausted(&e) => return Err(ConnectError::Exhausted),
        socket => socket?,
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(endpoint.address))
        .await
        .map_err(|_| ConnectError::Timeout)??;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_tcp_user_timeout(Some(UNREAD_TIMEOUT))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(stream)
}
