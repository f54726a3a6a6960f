//! A worker as its tasks see it: its upstream pool and its connections. `server/worker.rs` starts its thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::{
    connection::{Conn, limit::ConnectionLimit, turns::Turns},
    memory::Account,
    services::Calls,
    shared::Shared,
    timers::Clock,
    upstream::Pool,
};

/// The phases in which a proxy leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The proxy serves; it does not leave.
    #[default]
    Serving,
    /// Connections are retired as they are used; sockets that others share are accepted from no more.
    Retiring,
    /// Idle connections are closed, WebSockets with code 1001.
    Closing,
}

/// Connections by their number, which is ours: nobody else has a say in how they hash.
pub(crate) type Conns = HashMap<u64, Arc<Conn>, RandomState>;

/// State that the tasks of one worker share.
pub struct Worker {
    /// State that all workers share.
    pub shared: Arc<Shared>,
    /// Connections to upstreams.
    pub pool: Arc<Pool>,
    /// Calls of services that requests wait for.
    pub(crate) calls: Arc<Calls>,
    /// Phase of the proxy.
    pub phase: watch::Sender<Phase>,
    /// Seconds since it began.
    pub(crate) clock: Arc<Clock>,
    /// Whether other processes accept from the same sockets.
    pub(crate) shares_sockets: bool,
    /// Client connections of all workers.
    pub(crate) connection_limit: Arc<ConnectionLimit>,
    /// Account of the memory that the worker's clients hold.
    pub(crate) account: Arc<Account>,
    /// Order in which clients take turns.
    pub(crate) turns: Arc<Turns>,
    conns: Mutex<Conns>,
}

impl Worker {
    /// A worker without connections yet.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        connection_limit: &Arc<ConnectionLimit>,
        phase: &watch::Sender<Phase>,
        shares_sockets: bool,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            pool: Arc::default(),
            calls: Arc::default(),
            phase: phase.clone(),
            clock: Arc::default(),
            shares_sockets,
            connection_limit: Arc::clone(connection_limit),
            account: shared.memory.account(),
            turns: Arc::default(),
            conns: Mutex::default(),
        }
    }

    /// Numbers of the worker's open connections.
    pub(crate) fn report(&self) -> serde_json::Value {
        let conns = self.conns();
        let http2 = conns.values().filter(|c| c.is_http2()).count();
        let requests: u64 = conns.values().map(|c| u64::from(c.recent())).sum();
        serde_json::json!({
            "clients": conns.len(),
            "http2": http2,
            "requestsLastSecond": requests,
            "upstreamsKept": self.pool.len(),
        })
    }

    /// Client connections of this worker, WebSockets not among them.
    pub(crate) fn conns(&self) -> MutexGuard<'_, Conns> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
