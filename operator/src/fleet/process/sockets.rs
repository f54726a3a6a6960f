//! The listening sockets of the fleets: each port is opened once, for as long as it is planned, and every proxy takes the
//! same sockets. A proxy that leaves so leaves nothing behind in an accept queue.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use planner::FleetRef;
use snapshot::handover;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{fleet::Problem, reason};

/// Connections that wait in each socket; the kernel's own bound (`net.core.somaxconn`, 4096 by default) applies too.
const BACKLOG: i32 = 4096;
/// A port that can't be opened is tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Held = BTreeMap<u16, Arc<Vec<OwnedFd>>>;

/// Every open port.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    held: Arc<Mutex<Held>>,
    /// The owner of each port: of two fleets that want one, the first has it.
    owners: BTreeMap<u16, FleetRef>,
    failed: BTreeMap<u16, (Instant, Problem)>,
}

impl Sockets {
    /// Takes over what a living proxy holds.
    pub(super) fn adopt(&mut self, fleet: &FleetRef, ports: Vec<handover::Port>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for port in ports {
            self.owners.entry(port.port).or_insert_with(|| fleet.clone());
            held.entry(port.port).or_insert_with(|| Arc::new(port.sockets));
        }
    }

    /// Opens what a fleet plans and does not have yet, `workers` sockets each; closes what it does not plan any more.
    pub(super) fn ensure(&mut self, fleet: &FleetRef, ports: &[u16], workers: usize, now: Instant) -> Vec<Problem> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.owners.retain(|port, owner| {
            let stays = owner != fleet || ports.contains(port);
            if !stays {
                held.remove(port);
                tracing::info!(%fleet, port, "port closed");
            }
            stays
        });
        let mut problems = vec![];
        for port in ports {
            match self.owners.get(port) {
                Some(owner) if owner == fleet => continue,
                Some(owner) => {
                    problems.push(Problem {
                        port: Some(*port),
                        reason: reason::PORT_IN_USE,
                        message: format!(
                            "port {port} is served by fleet {owner} already: give one of the two another port"
                        ),
                    });
                    continue;
                }
                None => {}
            }
            if let Some((tried, problem)) = self.failed.get(port)
                && now.duration_since(*tried) < RETRY_INTERVAL
            {
                problems.push(problem.clone());
                continue;
            }
            match open(*port, workers) {
                Ok(sockets) => {
                    tracing::info!(%fleet, port, sockets = sockets.len(), "port opened");
                    self.failed.remove(port);
                    self.owners.insert(*port, fleet.clone());
                    held.insert(*port, Arc::new(sockets));
                }
                Err(error) => {
                    let problem = problem(*port, &error);
                    if self.failed.insert(*port, (now, problem.clone())).is_none_or(|(_, former)| former != problem) {
                        tracing::warn!(%fleet, port, %error, "port can't be opened; tried again every second");
                    }
                    problems.push(problem);
                }
            }
        }
        problems
    }

    /// The ports a fleet serves.
    pub(super) fn of(&self, fleet: &FleetRef) -> Vec<u16> {
        self.owners.iter().filter(|(_, owner)| *owner == fleet).map(|(port, _)| *port).collect()
    }

    /// Hands sockets to whoever asks on a Unix socket, until the task is dropped.
    pub(super) fn serve(&self, path: &PathBuf) -> io::Result<tokio::task::JoinHandle<()>> {
        crate::push::remove_stale(path)?;
        let listener = tokio::net::UnixListener::bind(path)?;
        let held = Arc::clone(&self.held);
        Ok(tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => answer(stream, &held),
                    Err(error) => {
                        tracing::warn!(%error, "sockets can't be handed out");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }))
    }
}

fn answer(stream: tokio::net::UnixStream, held: &Mutex<Held>) {
    let held = held.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Ok(stream) = stream.into_std() else { return };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = handover::answer(stream, held.iter().map(|(port, sockets)| (*port, sockets.as_slice()))) {
            tracing::warn!(%error, "a proxy did not take its sockets");
        }
    });
}

fn problem(port: u16, error: &io::Error) -> Problem {
    let (reason, message) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            reason::PORT_IN_USE,
            format!("port {port} is used by another process: stop that one, or choose another port"),
        ),
        io::ErrorKind::PermissionDenied => (
            reason::PORT_NOT_PERMITTED,
            format!("port {port} needs a privilege that this user lacks (ports below 1024 do): choose another port"),
        ),
        _ => (reason::PORT_NOT_OPENED, format!("port {port} can't be opened: {error}")),
    };
    Problem { port: Some(port), reason, message }
}

/// Opens one `SO_REUSEPORT` group on all addresses of both families, or of IPv4 where there is no IPv6.
fn open(port: u16, count: usize) -> io::Result<Vec<OwnedFd>> {
    // Another gateway of the same user could join the group, and the kernel would spread connections over both: a socket
    // without SO_REUSEPORT can't be bound then, so it tells.
    drop(bind(port, false)?);
    let sockets = (0..count.clamp(1, handover::MAX_SOCKETS)).map(|_| {
        let socket = bind(port, true)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(OwnedFd::from(socket))
    });
    sockets.collect()
}

fn bind(port: u16, shared: bool) -> io::Result<Socket> {
    let bind = |domain, address: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&SockAddr::from(address))?;
        Ok(socket)
    };
    match bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) => {
            bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn fleet(name: &str) -> FleetRef {
        FleetRef { namespace: "ns".into(), name: name.into() }
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_port_is_opened_kept_and_closed() {
        let port = free_port();
        let (mut sockets, now) = (Sockets::default(), Instant::now());
        assert_eq!(sockets.ensure(&fleet("a"), &[port], 2, now), []);
        assert_eq!(sockets.held.lock().unwrap()[&port].len(), 2);
        let held = Arc::clone(&sockets.held.lock().unwrap()[&port]);
        assert_eq!(sockets.ensure(&fleet("a"), &[port], 4, now), []);
        assert!(Arc::ptr_eq(&held, &sockets.held.lock().unwrap()[&port]), "an open port is not touched");
        drop(held);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        assert_eq!(sockets.ensure(&fleet("b"), &[port], 1, now)[0].reason, "PortInUse");
        assert_eq!(sockets.ensure(&fleet("a"), &[], 1, now), []);
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        assert_eq!(sockets.ensure(&fleet("b"), &[port], 1, now), []);
    }

    #[test]
    fn a_busy_port_is_told_and_tried_again() {
        let other = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let (mut sockets, now) = (Sockets::default(), Instant::now());
        let problems = sockets.ensure(&fleet("a"), &[port], 1, now);
        assert!(problems[0].reason == "PortInUse" && problems[0].message.contains(&port.to_string()), "{problems:?}");
        drop(other);
        assert_eq!(sockets.ensure(&fleet("a"), &[port], 1, now), problems, "not tried again at once");
        assert_eq!(sockets.ensure(&fleet("a"), &[port], 1, now + RETRY_INTERVAL), []);
    }

    #[test]
    fn another_gateways_port_is_busy_too() {
        let port = free_port();
        let _other = open(port, 1).unwrap();
        assert_eq!(open(port, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
