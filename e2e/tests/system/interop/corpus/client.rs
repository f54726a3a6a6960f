//! A client that sends a case's request, well-formed or not, and tells what came back.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{
    Fields,
    case::{CODES, Request, When},
    h1wire::{Framing, Reader},
    h2wire::Rewriting,
};

/// How long after its head a body is sent that nobody asked for: the proxy has read the head by then.
const LATER: Duration = Duration::from_millis(30);

/// The field that says which request of all this is.
pub(super) const RUN: &str = "x-run";

/// What came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Got {
    /// A status, `broken` behind it when the body broke off; `reset`, `closed`.
    pub(super) verdict: String,
    /// HTTP/2's word for how it broke.
    pub(super) code: Option<String>,
    /// Interim responses: their statuses and fields.
    pub(super) hints: Vec<(String, Fields)>,
    /// Names in lower case.
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
}

impl Got {
    fn only(verdict: &str) -> Self {
        Self { verdict: verdict.to_owned(), ..Self::default() }
    }
}

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// By HTTP/1.1. `run`: which request of all this is, so that the upstream can tell.
pub(super) async fn http1(io: Box<dyn Io>, request: &Request, run: u64) -> Got {
    let (head, body) = written(request, run);
    let mut reader = Reader::new(io);
    // The proxy may have answered, and closed the connection, before it was sent all of it: that shows below.
    let _ = reader.io.write_all(&head).await;
    match request.when {
        When::WithHead => drop(reader.io.write_all(&body).await),
        When::Later => {
            let _ = reader.io.flush().await;
            tokio::time::sleep(LATER).await;
            let _ = reader.io.write_all(&body).await;
        }
        When::Asked => {}
    }
    let _ = reader.io.flush().await;
    let mut got = Got::only("closed");
    let mut sent = request.when != When::Asked;
    let head = loop {
        let Some(head) = reader.head().await else { return got };
        let status = head.first.get(9..12).unwrap_or_default().to_owned();
        if !status.starts_with('1') || status == "101" {
            got.verdict = status;
            break head;
        }
        if status == "100" && !sent {
            sent = true;
            let _ = reader.io.write_all(&body).await;
            let _ = reader.io.flush().await;
        }
        got.hints.push((status, head.fields));
    };
    let bodiless = request.asks_head() || matches!(&*got.verdict, "101" | "204" | "304");
    let otherwise = Framing::UntilClose;
    let framing = if bodiless { Framing::Length(0) } else { head.framing(otherwise) };
    let body = reader.body(framing).await;
    if !body.whole {
        got.verdict += " broken";
    }
    (got.fields, got.body, got.trailers) = (head.fields, body.bytes, body.trailers);
    got
}

impl Request {
    fn asks_head(&self) -> bool {
        self.method == b"HEAD" || self.h1.as_ref().is_some_and(|raw| raw.starts_with(b"HEAD "))
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Whether a length is to be told that the case does not.
    fn tells_length(&self) -> bool {
        self.body.is_some() && !self.chunked && self.trailers.is_empty() && !self.has("content-length")
    }
}

/// Head and body as bytes.
fn written(request: &Request, run: u64) -> (Vec<u8>, Vec<u8>) {
    let run = run.to_string();
    if let Some(raw) = &request.h1 {
        let mut raw = raw.clone();
        if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
            raw.splice(end + 2..end + 2, format!("{RUN}: {run}\r\n").into_bytes());
        }
        return (raw, vec![]);
    }
    let mut head = [&request.method, &b" "[..], &request.target, b" HTTP/1.1\r\n"].concat();
    let mut field = |name: &[u8], value: &[u8]| head.extend([name, b": ", value, b"\r\n"].concat());
    field(RUN.as_bytes(), run.as_bytes());
    if let Some(authority) = &request.authority {
        field(b"Host", authority);
    }
    request.fields.iter().for_each(|(name, value)| field(name, value));
    if request.takes_trailers {
        field(b"TE", b"trailers");
        field(b"Connection", b"TE");
    }
    let body = request.body.clone().unwrap_or_default();
    let mut out = vec![];
    if request.tells_length() {
        field(b"Content-Length", body.len().to_string().as_bytes());
        out = body;
    } else if request.chunked || !request.trailers.is_empty() {
        field(b"Transfer-Encoding", b"chunked");
        if !body.is_empty() {
            out.extend([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat());
        }
        out.extend(b"0\r\n");
        request.trailers.iter().for_each(|(name, value)| out.extend([&name[..], b": ", value, b"\r\n"].concat()));
        out.extend(b"\r\n");
    } else {
        out = body;
    }
    head.extend(b"\r\n");
    (head, out)
}

/// The fields of HTTP/2, pseudo-header fields first.
fn listed(request: &Request, tls: bool, run: u64) -> Fields {
    let field = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let run = field(RUN, run.to_string().as_bytes());
    if !request.h2.is_empty() {
        return request.h2.iter().cloned().chain([run]).collect();
    }
    let scheme = request.scheme.as_deref().unwrap_or(if tls { "https" } else { "http" });
    let mut fields = vec![field(":method", &request.method), field(":scheme", scheme.as_bytes())];
    fields.extend(request.authority.iter().map(|authority| field(":authority", authority)));
    fields.extend([field(":path", &request.target), run]);
    // RFC 9113 section 8.2.1: in lower case.
    fields.extend(request.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
    if request.takes_trailers {
        fields.push(field("te", b"trailers"));
    }
    if request.tells_length() {
        let length = request.body.as_ref().map_or(0, Vec::len);
        fields.push(field("content-length", length.to_string().as_bytes()));
    }
    fields
}

/// By HTTP/2.
pub(super) async fn http2(io: Box<dyn Io>, request: &Request, tls: bool, run: u64) -> Got {
    let trailers = request.trailers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let blocks = VecDeque::from([listed(request, tls, run), trailers]);
    let io = Rewriting::new(io, Arc::new(Mutex::new(blocks)));
    let Ok((sender, connection)) = h2::client::handshake(io).await else { return Got::only("closed") };
    let connection = tokio::spawn(connection);
    let got = match sender.ready().await {
        Ok(sender) => stream(sender, request).await.unwrap_or_else(|got| got),
        Err(error) => ended(Got::default(), &error),
    };
    connection.abort();
    got
}

async fn stream(mut sender: h2::client::SendRequest<Bytes>, request: &Request) -> Result<Got, Got> {
    let bodied = request.body.is_some() || !request.trailers.is_empty();
    // The head that is sent is another; of this one `h2` has to know whether the response has a body.
    let method = if request.asks_head() { "HEAD" } else { "GET" };
    let head = http::Request::builder().method(method).uri("http://h/").body(()).unwrap();
    let (mut response, mut upload) = sender.send_request(head, !bodied).map_err(|e| ended(Got::default(), &e))?;
    let mut got = Got::default();
    match request.when {
        _ if !bodied => {}
        When::WithHead => send(&mut upload, request),
        When::Later => {
            tokio::time::sleep(LATER).await;
            send(&mut upload, request);
        }
        When::Asked => {}
    }
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim.map_err(|error| ended(got.clone(), &error))?;
        got.hints.push((interim.status().as_str().to_owned(), pairs(interim.headers())));
        if interim.status().as_u16() == 100 && request.when == When::Asked {
            send(&mut upload, request);
        }
    }
    let (head, mut body) = response.await.map_err(|error| ended(got.clone(), &error))?.into_parts();
    head.status.as_str().clone_into(&mut got.verdict);
    got.fields = pairs(&head.headers);
    if let Err(error) = drained(&mut body, &mut got).await {
        got.verdict += " broken";
        got.code = code(&error);
    }
    Ok(got)
}

fn send(upload: &mut SendStream<Bytes>, request: &Request) {
    // The stream may have been ended meanwhile: that shows in the response.
    let last = request.trailers.is_empty();
    let _ = upload.send_data(request.body.clone().unwrap_or_default().into(), last);
    if !last {
        // Those that are sent are others.
        let _ = upload.send_trailers(HeaderMap::new());
    }
}

async fn drained(body: &mut RecvStream, got: &mut Got) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        got.body.extend(&data);
    }
    got.trailers = body.trailers().await?.as_ref().map(pairs).unwrap_or_default();
    Ok(())
}

pub(super) fn pairs(headers: &HeaderMap) -> Fields {
    headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect()
}

/// How a stream ended that has no response.
fn ended(got: Got, error: &h2::Error) -> Got {
    let verdict = match () {
        // What the proxy sends has to be well-formed.
        () if error.is_library() => format!("the proxy's response is malformed: {error}"),
        () if error.is_reset() => "reset".to_owned(),
        // By GOAWAY or without: whether `h2` reads it before a write fails is a matter of time.
        () => "closed".to_owned(),
    };
    Got { verdict, code: code(error), ..got }
}

fn code(error: &h2::Error) -> Option<String> {
    CODES.get(u32::from(error.reason()?) as usize).map(|code| (*code).to_owned())
}
