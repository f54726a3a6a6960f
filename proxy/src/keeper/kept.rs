//! A proxy's side of its keeper.

use std::{
    collections::BTreeMap,
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
};

use rustix::process::{Signal, set_parent_process_death_signal};
use snapshot::handover::{self, Port};

/// The socket to the keeper, and what a process before this one left with it.
#[derive(Debug)]
pub struct Kept {
    keeper: Mutex<UnixStream>,
    /// Sockets by port from which nobody accepts yet.
    left: Mutex<BTreeMap<u16, Vec<OwnedFd>>>,
}

impl Kept {
    /// Takes over what there is from the keeper, at stdin. To be called by the process' first thread: from then on the
    /// process dies with its keeper.
    pub fn take_over() -> io::Result<Self> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A keeper that died before that ends this: its end of the socket is closed.
        Self::over(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    pub(super) fn over(keeper: UnixStream) -> io::Result<Self> {
        keeper.set_read_timeout(Some(handover::TIMEOUT))?;
        keeper.set_write_timeout(Some(handover::TIMEOUT))?;
        handover::send::<OwnedFd>(&keeper, 0, &[])?;
        let mut left = BTreeMap::new();
        loop {
            match handover::receive(&keeper) {
                Ok(Port { port: 0, .. }) => break,
                Ok(Port { port, sockets }) => drop(left.insert(port, sockets)),
                // There are not enough descriptors for that port.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => tracing::warn!("{e}"),
                Err(e) => return Err(e),
            }
        }
        Ok(Self { keeper: Mutex::new(keeper), left: Mutex::new(left) })
    }

    /// The sockets of a port that a process before this one left.
    pub(crate) fn take(&self, port: u16) -> Option<Vec<OwnedFd>> {
        self.left().remove(&port)
    }

    /// Has copies of a port's sockets kept. Without them a crash closes the port, as it would without keeper.
    pub(crate) fn keep<F: AsFd>(&self, port: u16, sockets: &[F]) {
        match self.ask(port, sockets) {
            Ok(kept) if kept == port => {}
            Ok(_) => tracing::warn!(port, "the keeper has no room: a crash would close this port"),
            Err(error) => tracing::warn!(port, %error, "the keeper does not answer: a crash would close this port"),
        }
    }

    /// Has a port's sockets kept no more; afterwards this process is the only one that holds them.
    pub(crate) fn forget(&self, port: u16) {
        if let Err(error) = self.ask::<OwnedFd>(port, &[]) {
            tracing::warn!(port, %error, "the keeper does not answer");
        }
    }

    /// Closes whatever was left and not taken: nobody would accept what waits there.
    pub(crate) fn forget_left(&self) {
        let left = std::mem::take(&mut *self.left());
        left.keys().for_each(|port| self.forget(*port));
    }

    fn ask<F: AsFd>(&self, port: u16, sockets: &[F]) -> io::Result<u16> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = handover::send(&keeper, port, sockets).and_then(|()| handover::receive(&keeper));
        // A late answer would be taken for that of the next request; a keeper without proxy lets go of all.
        asked.map(|answer| answer.port).inspect_err(|_| drop(keeper.shutdown(Shutdown::Both)))
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Vec<OwnedFd>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{super::held_sockets::HeldSockets, *};

    /// A keeper that answers until its proxy ends the connection, then gives back what it holds.
    fn keeper(mut store: HeldSockets) -> (UnixStream, std::thread::JoinHandle<HeldSockets>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            while store.answer(&ours).is_ok() {}
            store
        });
        (theirs, thread)
    }

    #[test]
    fn what_was_kept_is_left_to_the_next_and_what_was_forgotten_is_closed() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let [a, b, c] = [bind(), bind(), bind()];
        let [at_a, at_b, at_c] = [&a, &b, &c].map(|socket| socket.local_addr().unwrap());
        let (socket, thread) = keeper(HeldSockets::default());
        let first = Kept::over(socket).unwrap();
        assert!(first.take(at_a.port()).is_none());
        first.keep(at_a.port(), &[&a, &a]);
        first.keep(at_b.port(), &[&b]);
        first.keep(at_c.port(), &[&c]);
        first.forget(at_b.port());
        drop((first, a, b, c));
        let store = thread.join().unwrap();
        assert_eq!(store.ports(), 2);
        let connect = |address| TcpStream::connect(address).map(drop);
        assert_eq!(connect(at_b).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        connect(at_a).unwrap();

        let (socket, thread) = keeper(store);
        let second = Kept::over(socket).unwrap();
        let mut sockets = second.take(at_a.port()).unwrap();
        assert_eq!(sockets.len(), 2);
        TcpListener::from(sockets.remove(0)).accept().unwrap();
        assert!(second.take(at_a.port()).is_none(), "taken once");
        second.forget_left();
        assert_eq!(connect(at_c).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        connect(at_a).unwrap();
        drop((second, sockets));
        assert_eq!(thread.join().unwrap().ports(), 1);
    }
}
