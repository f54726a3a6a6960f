//! One worker, as its tasks see it: its upstream pool and its connections. Its thread is started by `server/worker.rs`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::{
    connection::{Conn, limit::ConnectionLimit, turns::Turns},
    memory::Account,
    shared::Shared,
    timers::Clock,
    upstream::Pool,
};

/// How far this proxy has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    #[default]
    Serving,
    /// Connections are retired as they are used; sockets that others share are accepted from no more.
    Retiring,
    /// What is idle is closed; WebSockets are told 1001.
    Closing,
}

/// Connections by their number, which is ours: nobody else has a say in how they hash.
pub(crate) type Conns = HashMap<u64, Arc<Conn>, RandomState>;

/// What the tasks of one worker share.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to upstreams.
    pub pool: Arc<Pool>,
    /// How far the proxy has left.
    pub phase: watch::Sender<Phase>,
    /// Seconds since it began.
    pub(crate) clock: Arc<Clock>,
    /// Whether other processes accept from the same sockets.
    pub(crate) shares_sockets: bool,
    /// Client connections of all workers.
    pub(crate) connection_limit: Arc<ConnectionLimit>,
    /// What its clients hold of the process' memory.
    pub(crate) account: Arc<Account>,
    /// Whose work comes next.
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
            phase: phase.clone(),
            clock: Arc::default(),
            shares_sockets,
            connection_limit: Arc::clone(connection_limit),
            account: shared.memory.account(),
            turns: Arc::default(),
            conns: Mutex::default(),
        }
    }

    /// Its open connections, in numbers.
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
