//! The client's connections: each has one request under way.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use httparse::Status;
use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::{Args, Report, schedule::Schedule, tls};

pub(super) struct Clients {
    target: SocketAddr,
    request: Vec<u8>,
    status: u16,
    new: bool,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connections: Vec<Option<Connection>>,
    /// Slots with nothing under way.
    idle: Vec<usize>,
    buffer: Vec<u8>,
    latencies: Histogram<u64>,
    errors: u64,
    last_error: String,
}

struct Connection {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    /// The time at which the request under way was due; `None`: there is none.
    since: Option<Instant>,
    written: usize,
    /// The beginning of an answer whose head is not complete.
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is read.
    body: Option<usize>,
}

impl Clients {
    pub(super) fn new(target: SocketAddr, args: &Args) -> anyhow::Result<Self> {
        let close = if args.new { "connection: close\r\n" } else { "" };
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: drive\r\n{close}\r\n", args.path, args.host);
        let tls = match &args.ca {
            Some(ca) => Some((tls(ca)?, ServerName::try_from(args.host.clone())?)),
            None => None,
        };
        Ok(Self {
            target,
            request: request.into_bytes(),
            status: args.status,
            new: args.new,
            tls,
            connections: (0..args.connections).map(|_| None).collect(),
            idle: (0..args.connections).collect(),
            buffer: vec![0; 128 << 10],
            latencies: Histogram::new(3)?,
            errors: 0,
            last_error: String::new(),
        })
    }

    /// Begins to count.
    pub(super) fn reset(&mut self) {
        self.latencies.reset();
        self.errors = 0;
    }

    pub(super) fn report(&self, time: Duration) -> Report {
        Report {
            requests: self.latencies.len(),
            errors: self.errors,
            seconds: time.as_secs_f64(),
            p50_us: self.latencies.value_at_quantile(0.5) / 1000,
            p99_us: self.latencies.value_at_quantile(0.99) / 1000,
        }
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    pub(super) fn last_error(&self) -> String {
        format!("nothing but errors: {}", self.last_error)
    }

    /// Sends what is due on the connections that are idle.
    pub(super) fn send_due(
        &mut self,
        schedule: &mut Schedule,
        now: Instant,
        registry: &Registry,
    ) -> anyhow::Result<()> {
        while let Some(slot) = self.idle.pop() {
            let Some(due) = schedule.take(now) else {
                self.idle.push(slot);
                break;
            };
            self.send(slot, due, registry)?;
        }
        Ok(())
    }

    fn send(&mut self, slot: usize, due: Instant, registry: &Registry) -> anyhow::Result<()> {
        if self.connections[slot].is_none() {
            let mut stream = TcpStream::connect(self.target).with_context(|| format!("--target {}", self.target))?;
            stream.set_nodelay(true)?;
            registry.register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
            let tls = match &self.tls {
                Some((config, name)) => Some(ClientConnection::new(Arc::clone(config), name.clone())?),
                None => None,
            };
            let connection = Connection { stream, tls, since: Some(due), written: 0, head: vec![], body: None };
            // It is written to when it is connected.
            self.connections[slot] = Some(connection);
            return Ok(());
        }
        if let Some(connection) = &mut self.connections[slot] {
            (connection.since, connection.written) = (Some(due), 0);
            if let Err(error) = connection.write(&self.request) {
                self.broken(slot, &error.to_string());
            }
        }
        Ok(())
    }

    /// Something happened on a connection.
    pub(super) fn ready(&mut self, slot: usize, schedule: &mut Schedule, registry: &Registry) -> anyhow::Result<()> {
        let Some(connection) = &mut self.connections[slot] else { return Ok(()) };
        match connection.turn(&self.request, &mut self.buffer) {
            Ok(None) => Ok(()),
            Ok(Some((status, since))) => {
                let now = Instant::now();
                if status == self.status {
                    // Only what is above 2^63 ns is refused.
                    let _ = self.latencies.record((now - since).as_nanos() as u64);
                } else {
                    self.errors += 1;
                    self.last_error = format!("status {status} instead of {}", self.status);
                }
                if self.new {
                    self.connections[slot] = None;
                }
                match schedule.take(now) {
                    Some(due) => self.send(slot, due, registry),
                    None => {
                        self.idle.push(slot);
                        Ok(())
                    }
                }
            }
            Err(error) => {
                self.broken(slot, &error.to_string());
                Ok(())
            }
        }
    }

    fn broken(&mut self, slot: usize, why: &str) {
        let under_way = self.connections[slot].take().is_some_and(|connection| connection.since.is_some());
        if under_way {
            self.errors += 1;
            self.last_error = why.to_owned();
            self.idle.push(slot);
        }
    }
}

impl Connection {
    /// Writes and reads what can be; an answer that is complete: its status, and when its request was due.
    fn turn(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<Option<(u16, Instant)>> {
        if self.written < request.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.write(request)?;
        }
        let mut done = None;
        loop {
            let n = match self.read(buffer) {
                // The answer is complete: the server may close.
                Ok(0) if done.is_some() => return Ok(done),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if let Some(status) = self.take(&buffer[..n])? {
                done = self.since.take().map(|since| (status, since));
            }
            // Less than there was room for: there is no more. What comes later is announced.
            if self.tls.is_none() && n < buffer.len() {
                break;
            }
        }
        // The handshake may have brought it to where the request can be written.
        if self.tls.as_ref().is_some_and(|tls| tls.wants_write()) || self.written < request.len() {
            self.write(request)?;
        }
        Ok(done)
    }

    fn write(&mut self, request: &[u8]) -> io::Result<()> {
        if self.since.is_none() {
            return Ok(());
        }
        let Some(tls) = &mut self.tls else {
            while self.written < request.len() {
                match self.stream.write(&request[self.written..]) {
                    Ok(n) => self.written += n,
                    // NotConnected: the connection is being made.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        };
        if !tls.is_handshaking() && self.written < request.len() {
            self.written += tls.writer().write(&request[self.written..])?;
        }
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Takes bytes of an answer; its status once it is complete.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<Option<u16>> {
        let mut status = 0;
        if self.body.is_none() {
            self.head.extend_from_slice(bytes);
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            let Status::Complete(length) = response.parse(&self.head).map_err(io::Error::other)? else {
                return Ok(None);
            };
            status = response.code.unwrap_or_default();
            let length_field = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let body = length_field.and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok());
            self.body = Some(body.ok_or_else(|| io::Error::other("an answer without Content-Length"))?);
            let come = self.head.len() - length;
            bytes = &bytes[bytes.len() - come..];
            self.head.clear();
            self.head.extend_from_slice(&status.to_be_bytes());
        }
        if status == 0 {
            status = u16::from_be_bytes([self.head[0], self.head[1]]);
        }
        let left = self.body.unwrap_or_default().checked_sub(bytes.len());
        let left = left.ok_or_else(|| io::Error::other("more body than Content-Length says"))?;
        self.body = Some(left);
        if left > 0 {
            return Ok(None);
        }
        self.body = None;
        self.head.clear();
        Ok(Some(status))
    }
}
