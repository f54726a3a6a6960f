//! A plain blocking HTTP/1.1 client: a new connection for each request.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case; the last of equal names.
    pub headers: BTreeMap<String, String>,
    /// The body, chunks put together.
    pub body: String,
}

impl Answer {
    /// A header field, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON, `Null` if it is no JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// GET.
pub fn get(addr: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    send(addr, "GET", host, path, &[])
}

/// A request without a body.
pub fn send(
    addr: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT).with_context(|| format!("connect {addr}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("read the answer of {addr} to {path}"))?;
    parse(&bytes).with_context(|| format!("the answer of {addr} to {path}"))
}

fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { anyhow::bail!("its head is incomplete") };
    let status = response.code.context("no status")?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: BTreeMap<_, _> =
        response.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect();
    let mut body = &bytes[length..];
    let mut joined = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let Ok(httparse::Status::Complete((skip, size))) = httparse::parse_chunk_size(body) else {
                anyhow::bail!("its body breaks off");
            };
            let size = usize::try_from(size)?;
            if size == 0 {
                break;
            }
            joined.extend_from_slice(body.get(skip..skip + size).context("its body breaks off")?);
            body = body.get(skip + size + 2..).context("its body breaks off")?;
        }
        body = &joined;
    } else if let Some(length) = headers.get("content-length") {
        anyhow::ensure!(body.len() == length.parse::<usize>()?, "its body has {} of {length} bytes", body.len());
    }
    Ok(Answer { status, headers, body: text(body) })
}
