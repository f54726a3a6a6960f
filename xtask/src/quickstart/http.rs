//! Just enough HTTP to ask this machine's own programs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;

const TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of an answer: more than any asked for here.
const MAX_BYTES: u64 = 16 << 20;

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a GET over HTTP/1.0, so that the answer ends where the connection does.
pub(super) fn request(addr: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("answer without an end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("answer without a status")?;
    Ok(Answer { status, body: body.to_owned() })
}
