//! One client connection: TLS, HTTP/1.1 or HTTP/2, and its end.
//!
//! A connection is *retired* when it should end without a request lost: HTTP/1.1 learns by `Connection: close` on the
//! next response, HTTP/2 by GOAWAY in two steps (RFC 9113 section 6.8). It is *closed* when it is idle and the proxy
//! leaves.
//!
//! No connection has timers of its own, nor has a stream: what it waits for, and until when, stands in its [`Conn`], and its
//! worker looks there once a second. So a request costs no timer unless its rule has a timeout, and times are exact to a
//! second or two. (HTTP/2 has one for each connection: that of its PINGs.)

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use http::HeaderValue;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    Phase, Worker,
    room::{self, Descriptors, Live, Taken},
    turns::{Task, Turn},
    waits::Waits,
};
use crate::{
    config::{Http2Limits, Settings},
    exchange::{self, headers},
    http1::{
        limits::Limits,
        serve::{self, Ended},
        stream::{Accepted, Stream},
    },
    http2,
    memory::{Charge, Holder, Kind},
    websocket,
};

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection takes by itself, in bytes: its task, and what is known of it.
const OF_CONNECTION: usize = 6 << 10;
/// The same of TLS: keys, and what it reads whole records into.
const OF_TLS: usize = 24 << 10;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Waiting {
    /// The TLS handshake.
    Handshake = 1,
    /// A request, or nothing.
    Idle,
    /// The rest of a head.
    Head,
    /// More of a request's body.
    Body,
    /// The client to read.
    ClientToRead,
    /// The upstream to read.
    UpstreamToRead,
    /// The upstream's response.
    UpstreamToAnswer,
    /// More of a response's body.
    UpstreamToSend,
}

impl Waiting {
    const ALL: [Waiting; 8] = [
        Waiting::Handshake,
        Waiting::Idle,
        Waiting::Head,
        Waiting::Body,
        Waiting::ClientToRead,
        Waiting::UpstreamToRead,
        Waiting::UpstreamToAnswer,
        Waiting::UpstreamToSend,
    ];

    /// Whether it is the client that takes its time.
    pub(crate) fn is_for_client(self) -> bool {
        self as u8 <= Waiting::ClientToRead as u8
    }

    /// How long it is waited for.
    pub(crate) fn limit(self, limits: &Limits) -> Duration {
        match self {
            Waiting::Handshake => HANDSHAKE_TIMEOUT,
            Waiting::Idle => limits.idle_time,
            Waiting::Head => limits.head_time,
            Waiting::Body | Waiting::ClientToRead => limits.client_stall,
            Waiting::UpstreamToRead | Waiting::UpstreamToAnswer | Waiting::UpstreamToSend => limits.upstream_stall,
        }
    }
}

/// Seconds of a worker's life, for what need not be more exact: its ticks, counted. A late one makes what is waited for
/// later, never earlier.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU32);

impl Clock {
    pub(super) fn second(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, second: u32) {
        self.0.store(second, Ordering::Relaxed);
    }
}

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
    client: OnceLock<HeaderValue>,
    /// The host that TLS was made for.
    server_name: OnceLock<Box<str>>,
    /// What it may ask for.
    pub(crate) limits: Arc<Limits>,
    /// The same of what is HTTP/2's own.
    pub(crate) http2_limits: Http2Limits,
    http2: AtomicBool,
    requests: AtomicU64,
    /// Requests within the last second, and the count at its end.
    recent: AtomicU32,
    counted: AtomicU64,
    retiring: AtomicBool,
    closing: AtomicBool,
    /// The second at which it is retired for its age.
    old: u32,
    clock: Arc<Clock>,
    /// The second at which waiting ends, and what is waited for; 0: nothing.
    waiting: AtomicU64,
    /// Its task's, set when that first runs.
    waker: OnceLock<Waker>,
    /// Those of its streams.
    waits: Waits,
    /// Until this second what waits for room in the kernel is written wherever there may be some.
    insists: AtomicU32,
    /// What it holds of memory.
    pub(crate) holder: Arc<Holder>,
    /// What its client may hold.
    descriptors: Descriptors,
    turn: Arc<Turn>,
}

impl Conn {
    fn new(
        worker: &Worker,
        holder: &Arc<Holder>,
        settings: &Settings,
        (peer, descriptors, turn): (SocketAddr, Descriptors, Arc<Turn>),
        (port, public_port): (u16, u16),
        tls: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // ± 10 % so that connections made together do not end together.
        let age = settings.connection_max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let phase = *worker.phase.borrow();
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            peer,
            port,
            public_port,
            tls,
            client: OnceLock::new(),
            server_name: OnceLock::new(),
            limits: Arc::clone(&settings.limits),
            http2_limits: settings.http2,
            http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            recent: AtomicU32::new(0),
            counted: AtomicU64::new(0),
            retiring: AtomicBool::new(phase > Phase::Serving),
            closing: AtomicBool::new(phase == Phase::Closing),
            old: worker.clock.second().saturating_add(u32::try_from(age.as_secs()).unwrap_or(u32::MAX).max(1)),
            clock: Arc::clone(&worker.clock),
            waiting: AtomicU64::new(0),
            waker: OnceLock::new(),
            waits: Waits::default(),
            insists: AtomicU32::new(0),
            holder: Arc::clone(holder),
            descriptors,
            turn,
        }
    }

    /// The client's address as a field's value.
    pub(crate) fn client(&self) -> &HeaderValue {
        self.client.get_or_init(|| headers::address(self.peer.ip()))
    }

    /// The host that TLS was made for, in lower case, if the client said one.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.get().map(|name| &**name)
    }

    /// A stream's task: it takes turns with all that is done for others.
    pub(crate) fn task<F: Future<Output = ()>>(&self, task: F) -> Task<F> {
        self.turn.task(task)
    }

    /// A request takes a connection to an upstream, for as long as the answer lives; and whether it may make another one. By
    /// HTTP/1.1 it may: its connection counts for both.
    pub(crate) fn take_upstream(&self) -> (Option<Taken>, bool) {
        if !self.is_http2() {
            return (None, true);
        }
        let (taken, may) = self.descriptors.take();
        (Some(taken), may)
    }

    /// A request came.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on, this is waited for; unless it was already.
    pub(crate) fn wait(&self, waiting: Waiting, limits: &Limits) {
        if !self.is_waiting_for(waiting) {
            self.wait_until(waiting, until(self.clock.second(), waiting.limit(limits)));
        }
    }

    /// The same until that second.
    pub(crate) fn wait_until(&self, waiting: Waiting, until: u32) {
        self.waiting.store(u64::from(until) << 8 | waiting as u64, Ordering::Relaxed);
    }

    /// What was waited for came, or is waited for no more.
    pub(crate) fn progress(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// What was waited for too long.
    pub(crate) fn expired(&self) -> Option<Waiting> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting == 0 || u64::from(self.clock.second()) < waiting >> 8 {
            return None;
        }
        self.waiting()
    }

    /// What is waited for.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        Waiting::ALL.into_iter().find(|w| *w as u8 == waiting as u8)
    }

    /// Whether this is what it waits for.
    fn is_waiting_for(&self, waiting: Waiting) -> bool {
        self.waiting.load(Ordering::Relaxed) as u8 == waiting as u8
    }

    /// The second of its worker's clock.
    pub(crate) fn second(&self) -> u32 {
        self.clock.second()
    }

    /// Has a stream woken; in the place that it has, if it has one. Answers its place.
    pub(crate) fn wake_at(&self, place: Option<usize>, until: u32, waker: &Waker) -> usize {
        self.waits.set(place, until, waker)
    }

    /// Gives a stream's place up.
    pub(crate) fn wake_no_more(&self, place: usize) {
        self.waits.remove(place);
    }

    /// For a second or two, writes are tried even if there is no room, for all that is known: what [`Stream::insist`] is,
    /// for who has no hold of the connection itself.
    pub(crate) fn insist(&self) {
        self.insists.store(self.second().saturating_add(2), Ordering::Relaxed);
        self.wake();
    }

    /// Whether they are.
    pub(crate) fn insists(&self) -> bool {
        self.second() < self.insists.load(Ordering::Relaxed)
    }

    /// Asks the connection to end without a request lost.
    pub(crate) fn retire(&self) {
        if !self.retiring.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Asks the connection to end once it is idle.
    pub(super) fn close(&self) {
        self.retiring.store(true, Ordering::Relaxed);
        self.closing.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether it was asked to end.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retiring.load(Ordering::Relaxed)
    }

    /// Whether it ends once it is idle.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// It speaks HTTP/2.
    pub(crate) fn note_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// Whether a request came.
    pub(crate) fn is_used(&self) -> bool {
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
        if self.expired().is_some() {
            self.wake();
        }
        if self.clock.second() >= self.old {
            self.retire();
        }
        self.waits.tick(self.clock.second());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// The second at which waiting ends. Never too early: one that was begun counts whole, and the one under way not at all.
pub(super) fn until(since: u32, limit: Duration) -> u32 {
    let seconds = u32::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    since.saturating_add(seconds).saturating_add(1)
}

/// Serves one accepted connection to its end.
pub(super) async fn run(
    worker: Arc<Worker>,
    live: Live,
    turn: Arc<Turn>,
    stream: TcpStream,
    (peer, port): (SocketAddr, u16),
) {
    let entered = worker.account.enter(room::client(peer.ip()));
    let holder = &entered.holder;
    let (conn, tls) = {
        let config = worker.shared.config.load();
        // The port was removed while the connection waited.
        let Some(at) = config.ports.get(&port) else { return };
        let client = (peer, live.descriptors(), turn);
        let conn = Conn::new(&worker, holder, &config.settings, client, (port, at.port), at.tls.is_some());
        (Arc::new(conn), at.tls.clone())
    };
    let registered = Registered::new(&worker, &conn);
    let mut held = Charge::new(holder, Kind::Connections);
    held.set(OF_CONNECTION + if tls.is_some() { OF_TLS } else { 0 });
    let stream = Accepted::new(stream, Arc::clone(&conn));
    poll_fn(|cx| {
        holder.note_task(cx);
        Poll::Ready(conn.waker.get_or_init(|| cx.waker().clone()).will_wake(cx.waker()))
    })
    .await;
    // Boxed, here and below: each is made where it stays, instead of being copied from hand to hand until its task runs,
    // and a connection holds what it speaks, not what it might have spoken.
    let serving: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match tls {
        None => Box::pin(serve(&worker, &conn, registered, stream)),
        Some(config) => Box::pin(secured(&worker, &conn, registered, stream, config)),
    };
    tokio::select! {
        biased;
        // What is under way ends with the future, and says why.
        () = holder.ended() => {
            if conn.is_waiting_for(Waiting::Head) {
                exchange::ended_for_memory(&worker, &conn);
            }
        }
        () = serving => {}
    }
}

async fn secured(
    worker: &Arc<Worker>,
    conn: &Arc<Conn>,
    registered: Registered,
    stream: Accepted,
    config: Arc<ServerConfig>,
) {
    conn.wait(Waiting::Handshake, &conn.limits);
    let mut handshake = TlsAcceptor::from(config).accept(stream);
    let stream = poll_fn(|cx| match conn.expired() {
        Some(_) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
        None => Pin::new(&mut handshake).poll(cx),
    });
    let stream = stream.await;
    if let Ok(stream) = &stream
        && let Some(name) = stream.get_ref().1.server_name()
    {
        conn.server_name.get_or_init(|| name.to_ascii_lowercase().into());
    }
    match stream {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            Box::pin(http2::serve(worker, conn, stream)).await;
        }
        Ok(stream) => Box::pin(serve(worker, conn, registered, stream)).await,
        Err(e) => tracing::debug!(peer = %conn.peer, error = %e, "TLS handshake failed"),
    }
}

async fn serve<S: Stream>(worker: &Arc<Worker>, conn: &Arc<Conn>, registered: Registered, io: S) {
    match serve::serve(worker, conn, io).await {
        Ended::Closed => {}
        Ended::Http2(io) => Box::pin(http2::serve(worker, conn, io)).await,
        Ended::WebSocket(ends) => {
            drop(registered);
            let mut held = Charge::new(&conn.holder, Kind::WebSockets);
            held.set(websocket::HELD);
            Box::pin(websocket::relay(worker, conn, *ends)).await;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_given_less_time_than_allowed() {
        let ends = [1, 999, 1000, 1001].map(|ms| until(7, Duration::from_millis(ms)));
        assert_eq!(ends, [9, 9, 9, 10]);
        assert_eq!(until(7, Duration::MAX), u32::MAX);
    }
}
