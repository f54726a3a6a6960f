//! Listening sockets: taken from whoever holds them on this machine, or bound here.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use snapshot::handover;
use socket2::{Domain, Socket, Type};

use crate::{keeper::Kept, sockopt::keepalive};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG_CONNECTIONS: i32 = 4096;

/// Bytes that may wait in the kernel to be sent to one client.
const MAX_UNSENT_BYTES: u32 = 256 << 10;

/// Where listening sockets come from.
#[derive(Clone, Debug)]
pub enum SocketSource {
    /// From the operator, by `snapshot::handover` at this path: all proxies of the machine share them.
    Handover(PathBuf),
    /// Bound by this process, one for each worker.
    Bind,
    /// Bound by this process, and the keeper holds copies: what a process before this one left is taken.
    Kept(Arc<Kept>),
}

/// A port that is open.
pub(super) struct Open {
    pub(super) sockets: Arc<Vec<Socket>>,
    /// For each worker, by index, what it will accept from once there is a configuration for the port.
    pub(super) waiting: Vec<(usize, Socket)>,
}

impl SocketSource {
    /// The sockets of a port.
    pub(super) fn open(&self, port: u16, workers: usize) -> io::Result<Vec<Socket>> {
        let sockets = self.take(port, workers)?;
        sockets.iter().try_for_each(prepare)?;
        Ok(sockets)
    }

    fn take(&self, port: u16, workers: usize) -> io::Result<Vec<Socket>> {
        match self {
            SocketSource::Bind => (0..workers).map(|_| bind(port)).collect(),
            SocketSource::Kept(kept) => match kept.take(port) {
                Some(left) => Ok(left.into_iter().map(Socket::from).collect()),
                None => {
                    let sockets = (0..workers).map(|_| bind(port)).collect::<io::Result<Vec<_>>>()?;
                    kept.keep(port, &sockets);
                    Ok(sockets)
                }
            },
            SocketSource::Handover(path) => {
                let ports = handover::request(path, Some(port))?;
                let sockets: Vec<_> = ports.into_iter().flat_map(|p| p.sockets).map(Socket::from).collect();
                if sockets.is_empty() {
                    return Err(io::Error::other(format!("the operator holds no socket for port {port}")));
                }
                Ok(sockets)
            }
        }
    }

    /// A port is about to be closed: afterwards this process alone holds its sockets, if others do not accept from
    /// them.
    pub(super) fn forget(&self, port: u16) {
        if let SocketSource::Kept(kept) = self {
            kept.forget(port);
        }
    }

    /// Whatever a process before this one left, and was not taken, is closed.
    pub(super) fn forget_left(&self) {
        if let SocketSource::Kept(kept) = self {
            kept.forget_left();
        }
    }

    /// Whether other processes accept from the same sockets.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, SocketSource::Handover(_))
    }
}

/// Sets what accepted connections inherit from their listener (tcp(7)).
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    // What is written and not yet sent is memory of ours; what is under way is bounded by the client's window.
    socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    // A client that reads nothing for this long, with bytes waiting, is given up.
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))
}

/// Dual-stack where the machine has IPv6.
fn bind(port: u16) -> io::Result<Socket> {
    let open = |domain, address: SocketAddr| {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
        bound => bound,
    }
}

/// Hands our sockets to whoever asks at `path`, which lies in a folder of this user alone.
pub(super) fn serve_handover(path: &Path, ports: Arc<Mutex<BTreeMap<u16, Open>>>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::thread::Builder::new().name("handover".into()).spawn(move || {
        for stream in listener.incoming() {
            // The lock is not held while a peer takes its time.
            let held = ports.lock().unwrap_or_else(PoisonError::into_inner);
            let held: Vec<_> = held.iter().map(|(port, open)| (*port, Arc::clone(&open.sockets))).collect();
            let sockets = held.iter().map(|(port, sockets)| (*port, sockets.as_slice()));
            if let Err(e) = stream.and_then(|stream| handover::answer(stream, sockets)) {
                // Also when descriptors run out: the next try has to wait for some to close.
                std::thread::park_timeout(Duration::from_millis(50));
                tracing::warn!(error = %e, "handing over sockets failed");
            }
        }
    })?;
    Ok(())
}
