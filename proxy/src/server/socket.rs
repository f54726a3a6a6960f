//! Listening sockets: taken from whoever holds them on this machine, or bound here.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use snapshot::handover;
use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where listening sockets come from.
#[derive(Clone, Debug)]
pub enum SocketSource {
    /// From the operator, by `snapshot::handover` at this path: all proxies of the machine share them.
    Handover(PathBuf),
    /// Bound by this process, one for each worker.
    Bind,
}

impl SocketSource {
    /// The sockets of a port.
    pub(super) fn open(&self, port: u16, workers: usize) -> io::Result<Vec<Socket>> {
        match self {
            SocketSource::Bind => (0..workers).map(|_| bind(port)).collect(),
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

    /// Whether other processes accept from the same sockets.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, SocketSource::Handover(_))
    }
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
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(e) if e.kind() != io::ErrorKind::AddrInUse => open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
        bound => bound,
    }
}

/// Hands our sockets to whoever asks at `path`, which lies in a folder of this user alone.
pub(super) fn serve_handover(path: &Path, ports: Arc<Mutex<BTreeMap<u16, Vec<Socket>>>>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::thread::Builder::new().name("handover".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let held = ports.lock().unwrap_or_else(PoisonError::into_inner);
            let answered = handover::answer(stream, held.iter().map(|(port, sockets)| (*port, sockets.as_slice())));
            if let Err(e) = answered {
                tracing::warn!(error = %e, "handing over sockets failed");
            }
        }
    })?;
    Ok(())
}
