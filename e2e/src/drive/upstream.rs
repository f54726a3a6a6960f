//! The upstream: answers each request, which has no body, with the same bytes.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::Context as _;
use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};

use super::UPSTREAM;

/// The first token is the listener's.
const LISTENER: usize = 0;

pub(super) struct Upstream {
    listener: TcpListener,
    answer: Vec<u8>,
    connections: HashMap<usize, Connection>,
    next: usize,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// The bytes that were seen of the end of a head, `\r\n\r\n`: it may be split between two reads.
    seen: usize,
    /// Answers that are still to be written, and what was written of the first.
    owed: usize,
    written: usize,
}

impl Upstream {
    pub(super) fn listen(address: SocketAddr, bytes: usize, registry: &Registry) -> anyhow::Result<Self> {
        let mut listener = TcpListener::bind(address).with_context(|| format!("--listen {address}"))?;
        registry.register(&mut listener, Token(UPSTREAM + LISTENER), Interest::READABLE)?;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\n\r\n");
        let mut answer = head.into_bytes();
        answer.resize(answer.len() + bytes, b'x');
        Ok(Self { listener, answer, connections: HashMap::new(), next: LISTENER + 1, buffer: vec![0; 64 << 10] })
    }

    pub(super) fn ready(&mut self, token: usize, registry: &Registry) -> anyhow::Result<()> {
        if token == LISTENER {
            return self.accept(registry);
        }
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        if !connection.serve(&self.answer, &mut self.buffer) {
            self.connections.remove(&token);
        }
        Ok(())
    }

    fn accept(&mut self, registry: &Registry) -> anyhow::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nodelay(true)?;
            let token = self.next;
            self.next += 1;
            registry.register(&mut stream, Token(UPSTREAM + token), Interest::READABLE | Interest::WRITABLE)?;
            self.connections.insert(token, Connection { stream, seen: 0, owed: 0, written: 0 });
        }
    }
}

impl Connection {
    /// Reads and answers; false when the connection is over.
    fn serve(&mut self, answer: &[u8], buffer: &mut [u8]) -> bool {
        loop {
            if !self.write(answer) {
                return false;
            }
            match self.stream.read(buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.owed += heads(&mut self.seen, &buffer[..n]);
                    if !self.write(answer) {
                        return false;
                    }
                    // Less than there was room for: there is no more. What comes later is announced.
                    if n < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    fn write(&mut self, answer: &[u8]) -> bool {
        while self.owed > 0 {
            match self.stream.write(&answer[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.written == answer.len() {
                (self.written, self.owed) = (0, self.owed - 1);
            }
        }
        true
    }
}

/// The number of heads that end in these bytes.
fn heads(seen: &mut usize, bytes: &[u8]) -> usize {
    const END: &[u8; 4] = b"\r\n\r\n";
    let mut count = 0;
    for byte in bytes {
        *seen = match *byte {
            byte if byte == END[*seen] => *seen + 1,
            b'\r' => 1,
            _ => 0,
        };
        if *seen == END.len() {
            (*seen, count) = (0, count + 1);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_however_they_are_split() {
        let bytes = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        for split in 0..bytes.len() {
            let mut seen = 0;
            let count = heads(&mut seen, &bytes[..split]) + heads(&mut seen, &bytes[split..]);
            assert_eq!(count, 2, "{split}");
        }
    }
}
