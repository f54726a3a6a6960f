//! One worker: a thread with its own runtime, listeners, connections and upstream pool. Workers share only what
//! `Shared` holds.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use socket2::Socket;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{Conn, Phase, accept, balance, connection::Clock, room::Room, turns::Turns};
use crate::{memory::Account, shared::Shared, upstream::Pool};

/// Connections by their number, which is ours: nobody else has a say in how they hash.
pub(super) type Conns = HashMap<u64, Arc<Conn>, RandomState>;

/// What the tasks of one worker share.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to upstreams.
    pub pool: Arc<Pool>,
    /// How far the proxy has left.
    pub phase: watch::Sender<Phase>,
    /// Seconds since it began.
    pub(super) clock: Arc<Clock>,
    /// Whether other processes accept from the same sockets.
    pub(super) shares_sockets: bool,
    /// Client connections of all workers.
    pub(super) room: Arc<Room>,
    /// What its clients hold of the process' memory.
    pub(super) account: Arc<Account>,
    /// Whose work comes next.
    pub(super) turns: Arc<Turns>,
    conns: Mutex<Conns>,
}

impl Worker {
    /// Its open connections, in numbers.
    pub(super) fn report(&self) -> serde_json::Value {
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
    pub(super) fn conns(&self) -> MutexGuard<'_, Conns> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to a worker's thread.
pub(super) struct Handle {
    pub(super) worker: Arc<Worker>,
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Listen(u16, Socket),
    Close(u16),
    /// Answers once the commands before it are carried out.
    Barrier(oneshot::Sender<()>),
}

impl Handle {
    /// Accepts from a socket.
    pub(super) fn listen(&self, port: u16, socket: Socket) {
        // A worker's thread ends with the process only.
        let _ = self.commands.send(Command::Listen(port, socket));
    }

    /// Accepts from a port's sockets no more.
    pub(super) fn close(&self, port: u16) {
        // A worker that has ended accepts nothing.
        let _ = self.commands.send(Command::Close(port));
    }
}

impl Handle {
    /// Waits until all that was asked of the worker is done.
    pub(super) async fn settled(&self) {
        let (sender, receiver) = oneshot::channel();
        // A worker that has ended has nothing left to do.
        if self.commands.send(Command::Barrier(sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}

/// Starts a worker's thread.
pub(super) fn start(
    index: usize,
    shared: &Arc<Shared>,
    room: &Arc<Room>,
    phase: &watch::Sender<Phase>,
    shares_sockets: bool,
) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(Worker {
        shared: Arc::clone(shared),
        pool: Arc::default(),
        phase: phase.clone(),
        clock: Arc::default(),
        shares_sockets,
        room: Arc::clone(room),
        account: shared.memory.account(),
        turns: Arc::default(),
        conns: Mutex::default(),
    });
    let running = worker.clone();
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(run(running, receiver)))?;
    Ok(Handle { worker, commands })
}

async fn run(worker: Arc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    tokio::spawn(balance::housekeeping(worker.clone()));
    tokio::spawn(worker.account.clone().keep());
    tokio::spawn(Arc::clone(&worker.turns).call());
    let mut loops: HashMap<u16, Vec<AbortHandle>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(port, socket) => match TcpListener::from_std(socket.into()) {
                Ok(listener) => {
                    let task = tokio::spawn(accept::accept(worker.clone(), listener, port));
                    loops.entry(port).or_default().push(task.abort_handle());
                }
                Err(e) => tracing::error!(port, error = %e, "can't accept from the socket"),
            },
            // Aborting drops the listener; accept loops hold nothing between two turns that could be lost.
            Command::Barrier(sender) => drop(sender.send(())),
            Command::Close(port) => loops.remove(&port).unwrap_or_default().iter().for_each(AbortHandle::abort),
        }
    }
}
