//! What the keeper holds: a copy of each listening socket of its proxy.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use snapshot::handover::{self, Port};

/// Most ports, each with at most [`handover::MAX_SOCKETS`] sockets: four times as many as a fleet has listeners.
const MAX_PORTS: usize = 256;

/// Sockets by port.
#[derive(Default)]
pub(super) struct HeldSockets {
    held: BTreeMap<u16, Vec<OwnedFd>>,
}

impl HeldSockets {
    /// Answers one request of the proxy, which is waiting for it:
    ///
    /// | request | what is done | answer |
    /// |---|---|---|
    /// | port 0 | | a frame for each port that is held, then port 0 |
    /// | a port with sockets | they are held | the port; 0: they are not held, there is no room |
    /// | a port without | it is held no more | the port |
    ///
    /// An error: the proxy has ended the connection, or says what is none of these.
    pub(super) fn answer(&mut self, socket: &UnixStream) -> io::Result<()> {
        let answer = match handover::receive(socket) {
            Ok(Port { port: 0, .. }) => {
                for (port, sockets) in &self.held {
                    handover::send(socket, *port, sockets)?;
                }
                0
            }
            Ok(Port { port, sockets }) => match sockets.is_empty() {
                true => {
                    self.held.remove(&port);
                    port
                }
                false => self.hold(port, sockets),
            },
            // They did not all come: there are no descriptors left.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => 0,
            Err(e) => return Err(e),
        };
        match handover::send::<OwnedFd>(socket, answer, &[]) {
            // It died meanwhile; what it said before counts.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }

    fn hold(&mut self, port: u16, sockets: Vec<OwnedFd>) -> u16 {
        if self.held.len() >= MAX_PORTS && !self.held.contains_key(&port) {
            return 0;
        }
        self.held.insert(port, sockets);
        port
    }

    /// The number of ports that the store holds.
    pub(super) fn ports(&self) -> usize {
        self.held.len()
    }

    /// Holds nothing any more.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }
}
