//! A client's connection, as its requests see it: who the client is, what it may take, what it waits for, and whether
//! it is to end.
//!
//! No connection has timers of the runtime, nor has a stream: what it waits for, and until when, stands in its [`Conn`]
//! or in a slot of `timers.rs`, and its worker looks there once a second. So a request costs no timer unless its rule has a timeout,
//! and times are exact to a second or two. (HTTP/2 has one for each connection: that of its PINGs.)

pub(crate) mod limit;
mod pace;
mod timeout;
pub(crate) mod turns;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use http::HeaderValue;

use self::{
    limit::Descriptors,
    turns::{Task, Turn},
};
pub(crate) use self::{
    limit::UpstreamPermit,
    pace::{Pace, Way},
    timeout::TimeoutKind,
};
use crate::{
    forwarded,
    memory::Holder,
    message_limits::{Http2Limits, Limits},
    timers::{Clock, StreamTimer, StreamTimers, until},
};

/// A client's connection, as its requests see it.
pub struct Conn {
    /// Number unique within the process.
    pub id: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The port it came to, as it was opened.
    pub port: u16,
    /// The port as clients know it.
    pub public_port: u16,
    /// Whether it is encrypted.
    pub tls: bool,
    client: OnceLock<HeaderValue>,
    /// The host that TLS was made for.
    server_name: OnceLock<Box<str>>,
    /// Limits of the connection's messages.
    pub(crate) limits: Arc<Limits>,
    /// Limits that only HTTP/2 has.
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
    /// Waker of the connection's task, set when that first runs.
    waker: OnceLock<Waker>,
    /// Timers of the connection's streams.
    timers: StreamTimers,
    /// Until this second what waits for room in the kernel is written wherever there may be some.
    insists: AtomicU32,
    /// Account of the memory that the connection holds.
    pub(crate) holder: Arc<Holder>,
    /// The client's share of the descriptors.
    descriptors: Descriptors,
    turn: Arc<Turn>,
}

/// The facts of a connection when it is accepted.
pub(crate) struct Admission {
    pub(crate) peer: SocketAddr,
    pub(crate) port: u16,
    pub(crate) public_port: u16,
    pub(crate) tls: bool,
    pub(crate) max_age: Duration,
    pub(crate) limits: Arc<Limits>,
    pub(crate) http2_limits: Http2Limits,
    pub(crate) holder: Arc<Holder>,
    pub(crate) descriptors: Descriptors,
    pub(crate) turn: Arc<Turn>,
}

impl Conn {
    /// The connection of a client that was just accepted.
    pub(crate) fn new(admission: Admission, clock: &Arc<Clock>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Admission { peer, port, public_port, tls, max_age, limits, http2_limits, holder, descriptors, turn } =
            admission;
        // ± 10 % so that connections made together do not end together.
        let age = max_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            peer,
            port,
            public_port,
            tls,
            client: OnceLock::new(),
            server_name: OnceLock::new(),
            limits,
            http2_limits,
            http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            recent: AtomicU32::new(0),
            counted: AtomicU64::new(0),
            retiring: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            old: clock.second().saturating_add(u32::try_from(age.as_secs()).unwrap_or(u32::MAX).max(1)),
            clock: Arc::clone(clock),
            waiting: AtomicU64::new(0),
            waker: OnceLock::new(),
            timers: StreamTimers::default(),
            insists: AtomicU32::new(0),
            holder,
            descriptors,
            turn,
        }
    }

    /// Takes the task of the connection, which is woken for what is asked of it. Called once, from that
    /// task.
    pub(crate) fn note_task(&self, cx: &Context<'_>) {
        self.waker.get_or_init(|| cx.waker().clone());
    }

    /// Takes the host that the client named in its TLS handshake.
    pub(crate) fn note_server_name(&self, name: &str) {
        self.server_name.get_or_init(|| name.to_ascii_lowercase().into());
    }

    /// The client's address as a field's value.
    pub(crate) fn client(&self) -> &HeaderValue {
        self.client.get_or_init(|| forwarded::address(self.peer.ip()))
    }

    /// The host that TLS was made for, in lower case, if the client said one.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.get().map(|name| &**name)
    }

    /// A stream's task: it takes turns with all that is done for others.
    pub(crate) fn task<F: Future<Output = ()>>(&self, task: F) -> Task<F> {
        self.turn.task(task)
    }

    /// A request takes a connection to an upstream, for as long as the answer lives; and whether it may make another
    /// one. By HTTP/1.1 it may: its connection counts for both.
    pub(crate) fn take_upstream(&self) -> (Option<UpstreamPermit>, bool) {
        if !self.is_http2() {
            return (None, true);
        }
        let (taken, may) = self.descriptors.take();
        (Some(taken), may)
    }

    /// Notes that a request came.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts a timeout of this kind, unless one of this kind runs; one of another kind ends.
    pub(crate) fn wait(&self, waiting: TimeoutKind, limits: &Limits) {
        if !self.is_waiting_for(waiting) {
            self.wait_until(waiting, until(self.clock.second(), waiting.limit(limits)));
        }
    }

    /// Has this timeout run until that second.
    pub(crate) fn wait_until(&self, waiting: TimeoutKind, until: u32) {
        self.waiting.store(u64::from(until) << 8 | waiting as u64, Ordering::Relaxed);
    }

    /// Ends the timeout that runs.
    pub(crate) fn progress(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// The timeout that is over, if one is.
    pub(crate) fn expired(&self) -> Option<TimeoutKind> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting == 0 || u64::from(self.clock.second()) < waiting >> 8 {
            return None;
        }
        self.waiting()
    }

    /// The timeout that runs, if one does.
    pub(crate) fn waiting(&self) -> Option<TimeoutKind> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        TimeoutKind::ALL.into_iter().find(|w| *w as u8 == waiting as u8)
    }

    /// Whether a timeout of this kind runs.
    pub(crate) fn is_waiting_for(&self, waiting: TimeoutKind) -> bool {
        self.waiting.load(Ordering::Relaxed) as u8 == waiting as u8
    }

    /// The second of its worker's clock.
    pub(crate) fn second(&self) -> u32 {
        self.clock.second()
    }

    /// Has a stream's timer ring at `until` at the latest: it may do so earlier.
    pub(crate) fn arm_timer(&self, timer: &mut StreamTimer, until: u32, waker: &Waker) {
        self.timers.arm(timer, self.second(), until, waker);
    }

    /// Gives a stream's timer up.
    pub(crate) fn cancel_timer(&self, timer: &mut StreamTimer) {
        self.timers.cancel(timer);
    }

    /// For a second or two, writes are tried even if there is no room, for all that is known: what `Stream::insist`
    /// is, for who has no hold of the connection itself.
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
    pub(crate) fn close(&self) {
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

    /// Notes that the client speaks HTTP/2.
    pub(crate) fn note_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// Whether a request came.
    pub(crate) fn is_used(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether it is known to speak HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Requests within the last second.
    pub(crate) fn recent(&self) -> u32 {
        self.recent.load(Ordering::Relaxed)
    }

    /// Called once a second.
    pub(crate) fn tick(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        let before = self.counted.swap(requests, Ordering::Relaxed);
        self.recent.store(u32::try_from(requests - before).unwrap_or(u32::MAX), Ordering::Relaxed);
        if self.expired().is_some() {
            self.wake();
        }
        if self.clock.second() >= self.old {
            self.retire();
        }
        self.timers.tick(self.clock.second());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}
