//! The upstream, by HTTP/1.1 and by HTTP/2: it tells what it was asked, and answers as the case has it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    Fields,
    case::{Answer, Frame},
    client::{RUN, pairs},
    h1wire::{Body, Framing, Reader, get},
    h2wire::{Queued, frame, headers},
};

/// A request as the upstream read it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// Method and target.
    pub(super) asked: String,
    pub(super) host: String,
    /// Names in lower case; without Host.
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    /// It came to its end.
    pub(super) whole: bool,
}

/// What is played, and what of it the upstream saw.
#[derive(Debug, Default)]
pub(super) struct Stage {
    run: u64,
    answer: Answer,
    seen: Vec<Seen>,
    /// The runs of which something whole was seen when they were over.
    late: Vec<u64>,
}

/// Shared by the upstream's connections and whoever asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Upstream(Arc<Mutex<Stage>>);

/// One request's place in what was seen.
struct Turn {
    upstream: Upstream,
    run: u64,
    at: usize,
    answer: Answer,
}

impl Upstream {
    /// Begins to listen; where, by HTTP/1.1 and by HTTP/2.
    pub(super) async fn start(&self) -> (SocketAddr, SocketAddr) {
        let [one, two] =
            [TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await];
        let (one, two) = (one.unwrap(), two.unwrap());
        let addresses = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let (first, second) = (self.clone(), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = one.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(http1(stream, first.clone()));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = two.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(http2(stream, second.clone()));
            }
        });
        addresses
    }

    /// This is what is answered from now on.
    pub(super) fn play(&self, run: u64, answer: Answer) {
        let mut stage = self.stage();
        (stage.run, stage.answer, stage.seen) = (run, answer, vec![]);
    }

    /// What was seen of it.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.stage().seen.clone()
    }

    /// The runs whose requests came when they were over: they were neither judged nor compared.
    pub(super) fn late(&self) -> Vec<u64> {
        self.stage().late.clone()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap()
    }

    /// A request's head has come.
    fn turn(&self, mut seen: Seen) -> Turn {
        let mut stage = self.stage();
        // One that is late belongs to a run before.
        let run = get(&seen.fields, RUN).map_or(stage.run, |run| String::from_utf8_lossy(run).parse().unwrap());
        seen.fields.retain(|(name, _)| name != RUN.as_bytes());
        let at = stage.seen.len();
        if run == stage.run {
            stage.seen.push(seen);
        }
        Turn { upstream: self.clone(), run, at, answer: stage.answer.clone() }
    }
}

impl Turn {
    /// And so has its body.
    fn body(&self, body: Body) {
        let mut stage = self.upstream.stage();
        if stage.run != self.run {
            stage.late.extend(body.whole.then_some(self.run));
        } else if let Some(seen) = stage.seen.get_mut(self.at) {
            (seen.body, seen.trailers, seen.whole) = (body.bytes, body.trailers, body.whole);
        }
    }
}

async fn http1(stream: TcpStream, upstream: Upstream) {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head().await {
        let framing = head.framing(Framing::Length(0));
        let host = String::from_utf8_lossy(head.get("host").unwrap_or_default()).into_owned();
        let asked = head.first.strip_suffix(" HTTP/1.1").unwrap().to_owned();
        let (hosts, fields): (Fields, Fields) = head.fields.into_iter().partition(|(name, _)| name == b"host");
        assert_eq!(hosts.len(), 1, "{asked}: Hosts");
        let head_only = asked.starts_with("HEAD ");
        let turn = upstream.turn(Seen { asked, host, fields, ..Seen::default() });
        let mut out = vec![];
        for (status, fields) in &turn.answer.interim {
            lines(&mut out, *status, fields);
        }
        let _ = reader.io.write_all(&out).await;
        if turn.answer.early {
            let _ = reader.io.write_all(&turn.answer.http1(head_only)).await;
            turn.body(reader.body(framing).await);
        } else {
            turn.body(reader.body(framing).await);
            let _ = reader.io.write_all(&turn.answer.http1(head_only)).await;
        }
        if turn.answer.closes {
            let _ = reader.io.shutdown().await;
            return;
        }
    }
}

/// A head; its end included.
fn lines(out: &mut Vec<u8>, status: u16, fields: &Fields) {
    out.extend(format!("HTTP/1.1 {status} As Said\r\n").as_bytes());
    fields.iter().for_each(|(name, value)| out.extend([&name[..], b": ", value, b"\r\n"].concat()));
    out.extend(b"\r\n");
}

impl Answer {
    /// Whether a response to that has no body, whatever it says of one.
    fn is_bodiless(&self, head_only: bool) -> bool {
        head_only || matches!(self.status, 100..200 | 204 | 304)
    }

    fn content(&self) -> &[u8] {
        match &self.body {
            Some(body) => body,
            None if self.status == 200 => b"ok",
            None => b"",
        }
    }

    fn with_length(&self) -> Fields {
        let mut fields = self.fields.clone();
        let told = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
        // 204 and 304 tell none of their own.
        if !told && !self.streams && !matches!(self.status, 100..200 | 204 | 304) {
            fields.push((b"content-length".into(), self.content().len().to_string().into()));
        }
        fields
    }

    fn http1(&self, head_only: bool) -> Vec<u8> {
        if let Some(raw) = &self.h1 {
            return raw.clone();
        }
        if self.silent {
            return vec![];
        }
        let (mut out, mut fields) = (vec![], self.with_length());
        if self.streams {
            fields.push((b"transfer-encoding".into(), b"chunked".into()));
        }
        lines(&mut out, self.status, &fields);
        let content = self.content();
        if self.is_bodiless(head_only) {
            return out;
        }
        if !self.streams {
            out.extend(content);
            return out;
        }
        if !content.is_empty() {
            out.extend([format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat());
        }
        out.extend(b"0\r\n");
        self.trailers.iter().for_each(|(name, value)| out.extend([&name[..], b": ", value, b"\r\n"].concat()));
        out.extend(b"\r\n");
        out
    }

    fn http2(&self, head_only: bool) -> Vec<Frame> {
        if !self.h2.is_empty() {
            return self.h2.clone();
        }
        if self.silent {
            return vec![];
        }
        let mut fields = with_status(self.status, &self.with_length());
        let content = if self.is_bodiless(head_only) { b"" } else { self.content() };
        if content.is_empty() && !head_only {
            fields.retain(|(name, value)| !(name == b"content-length" && value == b"0"));
        }
        let trailers = if self.is_bodiless(head_only) { &vec![] } else { &self.trailers };
        let mut frames = vec![Frame::Headers { fields, end: content.is_empty() && trailers.is_empty() }];
        if !content.is_empty() {
            frames.push(Frame::Data { bytes: content.to_vec(), end: trailers.is_empty() });
        }
        if !trailers.is_empty() {
            frames.push(Frame::Headers { fields: lower(trailers), end: true });
        }
        frames
    }
}

fn with_status(status: u16, fields: &Fields) -> Fields {
    let status = (b":status".to_vec(), status.to_string().into_bytes());
    std::iter::once(status).chain(lower(fields)).collect()
}

/// Names as HTTP/2 has them (RFC 9113 section 8.2.1).
fn lower(fields: &Fields) -> Fields {
    fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

async fn http2(stream: TcpStream, upstream: Upstream) {
    let (read, mut write) = stream.into_split();
    let (out, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            // Nothing is the end.
            if bytes.is_empty() || write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    let io = Queued { io: read, out: out.clone() };
    let mut builder = h2::server::Builder::new();
    builder.max_header_list_size(1 << 20).max_concurrent_reset_streams(10_000).max_local_error_reset_streams(None);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(io).await else { return };
    // `h2` never answers: a stream that it has to let go it would reset.
    let mut kept = vec![];
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(request, respond.stream_id().into(), out.clone(), upstream.clone()));
        kept.push(respond);
    }
}

async fn serve(
    request: http::Request<h2::RecvStream>,
    id: u32,
    out: mpsc::UnboundedSender<Vec<u8>>,
    upstream: Upstream,
) {
    let (head, mut body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let host = head.uri.authority().map_or("", |authority| authority.as_str()).to_owned();
    let fields = pairs(&head.headers);
    assert_eq!(get(&fields, "host"), None, "{target}: a Host beside :authority");
    let seen = Seen { asked: format!("{} {target}", head.method), host, fields, ..Seen::default() };
    let turn = upstream.turn(seen);
    let head_only = head.method == http::Method::HEAD;
    let send = |frames: Vec<Frame>| {
        for sent in frames {
            let bytes = match sent {
                Frame::Headers { fields, end } => headers(id, &fields, end),
                Frame::Data { bytes, end } => frame(0, u8::from(end), id, &bytes),
                Frame::Reset(code) => frame(3, 0, id, &code.to_be_bytes()),
                Frame::GoAway(code) => frame(7, 0, 0, &[id.to_be_bytes(), code.to_be_bytes()].concat()),
            };
            let _ = out.send(bytes);
        }
    };
    let interim =
        |(status, fields): &(u16, Fields)| Frame::Headers { fields: with_status(*status, fields), end: false };
    send(turn.answer.interim.iter().map(interim).collect());
    if turn.answer.early {
        send(turn.answer.http2(head_only));
    }
    let mut read = Body { whole: true, ..Body::default() };
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            read.whole = false;
            break;
        };
        let _ = body.flow_control().release_capacity(data.len());
        read.bytes.extend(&data);
    }
    if read.whole {
        read.trailers = body.trailers().await.ok().flatten().as_ref().map(pairs).unwrap_or_default();
    }
    turn.body(read);
    if !turn.answer.early {
        send(turn.answer.http2(head_only));
    }
    if turn.answer.closes {
        let _ = out.send(vec![]);
    }
}
