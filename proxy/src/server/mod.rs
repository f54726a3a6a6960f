//! Listeners, worker threads, client connections, drain.
//!
//! ```text
//!  Server ── sockets by port (socket.rs): taken from the operator or the keeper, or bound here
//!    └ Worker × n (worker.rs): a thread with its own runtime, upstream pool and connections
//!        ├ accept loop for each port (accept.rs), while there is room (connection/limit.rs)
//!        ├ connection tasks (connection.rs): TLS, HTTP/1.1 | HTTP/2, retirement; clients take turns
//!        │   (connection/turns.rs); what they wait for, and how fast that moves (connection/timeout.rs, pace.rs)
//!        └ housekeeping.rs: rates, rebalancing, idle upstream connections
//! ```

mod accept;
mod connection;
mod housekeeping;
mod socket;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use socket2::Socket;
use tokio::{sync::watch, time::Instant};

use self::socket::Open;
pub use self::socket::SocketSource;
use crate::{
    connection::limit::ConnectionLimit,
    fd_limit,
    shared::{Drain, Shared},
    worker::Phase,
};

/// Time that a connection which was accepted just before the ports closed has to send its request.
const LAST_ACCEPTED_GRACE: Duration = Duration::from_millis(500);

/// The options of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Worker threads.
    pub workers: usize,
    /// Where listening sockets come from.
    pub sockets: SocketSource,
    /// Where to hand our own sockets to a new operator.
    pub handover: Option<PathBuf>,
}

/// The sockets and the threads that serve them.
pub struct Server {
    shared: Arc<Shared>,
    options: ServerOptions,
    ports: Arc<Mutex<BTreeMap<u16, Open>>>,
    /// No port is served any more.
    closed: AtomicBool,
    workers: Vec<worker::Handle>,
    connection_limit: Arc<ConnectionLimit>,
    phase: watch::Sender<Phase>,
}

impl Server {
    /// Starts the worker threads; no port is open yet.
    pub fn start(shared: Arc<Shared>, options: ServerOptions) -> io::Result<Arc<Self>> {
        let phase = watch::Sender::new(Phase::Serving);
        let count = options.workers.max(1);
        let connection_limit = Arc::new(ConnectionLimit::new(fd_limit::limit(), count));
        let start = |index| worker::start(index, &shared, &connection_limit, &phase, options.sockets.is_shared());
        let workers = (0..count).map(start).collect::<io::Result<Vec<_>>>()?;
        let (reported, counted): (Vec<_>, _) =
            (workers.iter().map(|w| w.worker.clone()).collect(), connection_limit.clone());
        // Set by the first server of a process; there is one.
        let _ = shared.connections_report.set(Box::new(move || {
            let workers: Vec<_> = reported.iter().map(|w| w.report()).collect();
            serde_json::json!({"open": counted.open(), "most": counted.most(), "workers": workers})
        }));
        let ports = Arc::new(Mutex::new(BTreeMap::new()));
        if let Some(path) = &options.handover {
            socket::serve_handover(path, ports.clone())?;
        }
        Ok(Arc::new(Self { shared, options, ports, closed: AtomicBool::new(false), workers, connection_limit, phase }))
    }

    /// Opens the ports that are not open yet, and answers which could not be. Open ones are not touched. Nothing is
    /// accepted before [`Server::serve`]: a connection has to find the configuration of its port.
    pub async fn open(&self, ports: &BTreeSet<u16>) -> BTreeMap<u16, io::Error> {
        let mut failed = BTreeMap::new();
        for port in ports {
            if self.lock().contains_key(port) {
                continue;
            }
            let (source, workers, number) = (self.options.sockets.clone(), self.workers.len(), *port);
            let opened = tokio::task::spawn_blocking(move || source.open(number, workers)).await;
            let opened = opened.map_err(io::Error::other).flatten().and_then(|sockets| self.distribute(sockets));
            match opened {
                Ok(open) => drop(self.lock().insert(number, open)),
                Err(e) => {
                    self.options.sockets.forget(number);
                    failed.insert(number, e);
                }
            }
        }
        failed
    }

    /// Accepts from these ports, and closes every other. Connections that were accepted live on.
    pub fn serve(&self, ports: &BTreeSet<u16>) {
        let mut open = self.lock();
        // Under the lock, so that a port opened while the proxy leaves is closed again.
        let none = BTreeSet::new();
        let ports = if self.closed.load(Ordering::Relaxed) { &none } else { ports };
        for (port, open) in open.iter_mut().filter(|(port, _)| ports.contains(port)) {
            open.waiting.drain(..).for_each(|(worker, socket)| self.workers[worker].listen(*port, socket));
        }
        let closed: Vec<u16> = open.keys().filter(|port| !ports.contains(port)).copied().collect();
        for port in closed {
            // First: whoever holds a socket that nobody accepts from keeps clients waiting.
            self.options.sockets.forget(port);
            open.remove(&port);
            self.workers.iter().for_each(|w| w.close(port));
        }
        self.options.sockets.forget_left();
        // Each is there twice: for a worker, and to be handed over.
        self.connection_limit.note_listening(open.values().map(|open| 2 * open.sockets.len()).sum());
    }

    /// Closes the ports that a process before this one left with the keeper, and that were not opened since.
    pub fn forget_left(&self) {
        self.options.sockets.forget_left();
    }

    /// Client connections and WebSockets that are open.
    pub fn connections(&self) -> usize {
        self.connection_limit.open()
    }

    /// Waits for `shared.drain`, then leaves: connections are retired as they are used; after `minDrain` what is idle
    /// is closed; what still runs at the timeout is cut by the process' end.
    pub async fn drained(&self) {
        let mut drain = self.shared.drain.subscribe();
        if drain.wait_for(|d| *d == Drain::Draining).await.is_err() {
            return;
        }
        // Who leaves opens nothing any more.
        self.forget_left();
        let settings = self.shared.config.load().settings.clone();
        let start = Instant::now();
        let deadline = start + settings.drain_timeout.max(settings.min_drain);
        self.phase.send_replace(Phase::Retiring);
        let shared = self.options.sockets.is_shared();
        if shared {
            // Other processes accept from the same sockets: what waits there is theirs now.
            self.stop_accepting().await;
        }
        self.empty(start + settings.min_drain, shared).await;
        if !shared {
            self.stop_accepting().await;
            // What was accepted last gets the time to send its request.
            self.empty(Instant::now() + LAST_ACCEPTED_GRACE, true).await;
        }
        self.phase.send_replace(Phase::Closing);
        self.empty(deadline, true).await;
    }

    async fn stop_accepting(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.serve(&BTreeSet::new());
        for worker in &self.workers {
            worker.settled().await;
        }
    }

    /// Waits until `deadline`; with `early`, only as long as there are connections.
    async fn empty(&self, deadline: Instant, early: bool) {
        while Instant::now() < deadline && !(early && self.connections() == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Worker i accepts from socket i: with fewer workers from several, with more several from one.
    fn distribute(&self, sockets: Vec<Socket>) -> io::Result<Open> {
        let (n, workers) = (sockets.len(), self.workers.len());
        let waiting = (0..n.max(workers)).map(|i| Ok((i % workers, sockets[i % n].try_clone()?)));
        Ok(Open { waiting: waiting.collect::<io::Result<_>>()?, sockets: Arc::new(sockets) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Open>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
