//! The thread of one worker, with its own runtime and listeners. Workers share only what `Shared` holds.

use std::{collections::HashMap, io, sync::Arc};

use socket2::Socket;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};

use super::{accept, housekeeping::housekeeping};
use crate::{
    connection::limit::ConnectionLimit,
    shared::Shared,
    worker::{Phase, Worker},
};

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
    connection_limit: &Arc<ConnectionLimit>,
    phase: &watch::Sender<Phase>,
    shares_sockets: bool,
) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Arc::new(Worker::new(shared, connection_limit, phase, shares_sockets));
    let running = worker.clone();
    std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(run(running, receiver)))?;
    Ok(Handle { worker, commands })
}

async fn run(worker: Arc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    tokio::spawn(housekeeping(worker.clone()));
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
