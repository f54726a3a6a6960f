//! A client's connection: heads and bodies from its bytes, and bytes that wait to be written.

mod linger;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header::CONTENT_TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Malformed,
    body::{BodyFrame, Decoder, Framing, Next},
    buffers::{Peer, ReadBuffer},
    encode,
    lines::{Bad, Bounds, HeaderLines, TooMuch},
    request::{self, Head, Refused},
    stream::Stream,
    write_buffer::WriteBuffer,
};
use crate::{
    body::{Interrupt, Source, SourceError},
    connection::{Conn, Pace, TimeoutKind, Way},
    fields,
    memory::{Charge, Kind},
    message::ResponseHead,
    message_limits::{Limits, START_LINE_OVERHEAD_BYTES},
    timers::StreamTimer,
};

/// Preface of HTTP/2, on a connection without ALPN (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A client that sends further requests before it has its answer may be this many bytes ahead.
const MAX_PIPELINED_BYTES: usize = 8 << 10;
/// Most bytes that TLS keeps of what its client does not read.
const TLS_UNREAD_BYTES: usize = 64 << 10;

/// A connection, between and within requests.
pub(crate) struct Client<S> {
    io: S,
    conn: Arc<Conn>,
    limits: Arc<Limits>,
    /// Pace of the bodies under way.
    pace: Pace,
    buffer: ReadBuffer,
    /// Bytes that wait to be written to the client.
    pub(crate) out: WriteBuffer,
    /// TLS may hold back some of what was written.
    unflushed: bool,
    /// The body of the request under way.
    body: Decoder,
    framing: Framing,
    /// Whether the client has closed its side: it sends no further request, and may wait for answers (RFC 9112 section
    /// 9.6). A client that has closed both sides looks the same, until it refuses what it is sent, keepalive's probes
    /// included.
    half_closed: bool,
    /// Second in which it was looked at last, whether a client that has closed its side has gone.
    watch: Option<u32>,
    /// Timer by which the task looks again.
    watch_timer: StreamTimer,
    /// Bytes of that body so far.
    pub(crate) received: u64,
    expects_continue: bool,
    /// The proxy itself has told it to continue: it is not told a second time.
    told: bool,
    /// Whether the client knows interim responses: HTTP/1.0 has none.
    takes_interim: bool,
    /// Such a one waits to be written.
    interim_waits: bool,
    first: bool,
    /// Memory of the head under way, or of the one that is being answered.
    heads: Charge,
    /// Charge for bodies.
    bodies: Charge,
}

/// The next thing that a client sends.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request's head.
    Request(Head),
    /// A request that is not valid or too large, and its media type, as far as it came.
    Refused(Refused, Option<HeaderValue>),
    /// A head that takes too long.
    TooSlow,
    /// HTTP/2.
    Http2,
    /// Nothing: it has gone, or was idle for too long, or the proxy leaves.
    End,
}

impl<S: Stream> Client<S> {
    pub(crate) fn new(io: S, conn: Arc<Conn>, limits: Arc<Limits>) -> Self {
        let [heads, bodies] = [Kind::Heads, Kind::Bodies].map(|kind| Charge::new(&conn.holder, kind));
        Self {
            io,
            pace: Pace::new(limits.least_rate),
            conn,
            limits,
            buffer: ReadBuffer::new(Peer::Client),
            out: WriteBuffer::default(),
            unflushed: false,
            body: Decoder::Length(0),
            framing: Framing::Empty,
            half_closed: false,
            watch: None,
            watch_timer: StreamTimer::default(),
            received: 0,
            expects_continue: false,
            told: false,
            takes_interim: false,
            interim_waits: false,
            first: true,
            heads,
            bodies,
        }
    }

    /// The next request's head.
    pub(crate) async fn next(&mut self) -> Event {
        self.out.release();
        self.buffer.lines.reset(true);
        self.bodies.set(0);
        self.pace = Pace::new(self.limits.least_rate);
        let waiting = if self.buffer.bytes.is_empty() { TimeoutKind::Idle } else { TimeoutKind::Head };
        self.conn.wait(waiting, &self.limits);
        let event = poll_fn(|cx| self.poll_next(cx)).await;
        self.conn.progress();
        event
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if !self.buffer.bytes.is_empty()
                && let Some(event) = self.head()
            {
                return Poll::Ready(event);
            }
            let idle = self.buffer.bytes.is_empty();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Event::End),
                Poll::Ready(Ok(_)) if idle => self.conn.wait(TimeoutKind::Head, &self.limits),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if idle => {
                    self.buffer.release();
                    self.heads.set(0);
                    if self.conn.is_closing() && !self.io.has_unseen() || self.conn.expired().is_some() {
                        return Poll::Ready(Event::End);
                    }
                    return Poll::Pending;
                }
                Poll::Pending if self.conn.expired().is_some() => return Poll::Ready(Event::TooSlow),
                Poll::Pending => {
                    self.heads.set(self.buffer.held());
                    return Poll::Pending;
                }
            }
        }
    }

    /// The head, once all of it has come; `None`: more is needed.
    fn head(&mut self) -> Option<Event> {
        let ReadBuffer { bytes, lines, .. } = &mut self.buffer;
        if self.first && bytes[0] == b'P' {
            let known = bytes.len().min(PREFACE.len());
            if bytes[..known] == PREFACE[..known] {
                return (known == PREFACE.len()).then_some(Event::Http2);
            }
        }
        let first = self.limits.target_bytes + START_LINE_OVERHEAD_BYTES;
        let bounds = Bounds { bytes: self.limits.head_bytes, fields: self.limits.fields, first };
        let end = match lines.read(bytes, bounds) {
            Ok(end) => end?,
            Err(bad) => {
                let refused = refused(bad, &bytes[lines.first().start..]);
                return Some(Event::Refused(refused, media_type(bytes, lines)));
            }
        };
        let first = std::mem::replace(&mut self.first, false);
        let head = bytes.split_to(end).freeze();
        // As long as the request is under way, since it may have to be sent again.
        self.heads.set(head.len() + bytes.capacity());
        let whole = head.clone();
        Some(match request::parse(head, lines, fields::take(), &self.limits) {
            Ok(head) => {
                (self.body, self.framing) = (head.body.decoder(), head.body);
                (self.received, self.expects_continue, self.told) = (0, head.expects_continue, false);
                self.takes_interim = head.parts.version == Version::HTTP_11;
                Event::Request(head)
            }
            // Another protocol, or a preface of HTTP/2 gone wrong: whoever sends that reads no answer of ours.
            Err(Refused::Malformed(Malformed::StartLine)) if first && !resembles_http(&whole) => Event::End,
            Err(refused) => Event::Refused(refused, media_type(&whole, lines)),
        })
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_released() {
            ready!(self.io.poll_readable(cx));
        }
        self.buffer.make_room();
        pin!(self.io.read_buf(&mut self.buffer.bytes)).poll(cx)
    }

    /// Writes what waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        self.unflushed = S::FAREWELL;
        let before = self.io.written();
        let flushed = match self.out.poll_write(&mut self.io, cx) {
            // What TLS holds back.
            Poll::Ready(Ok(())) if S::FAREWELL => Pin::new(&mut self.io).poll_flush(cx),
            flushed => flushed,
        };
        let written = self.io.written() - before;
        if written > 0 || flushed.is_ready() {
            self.moved(TimeoutKind::ClientToRead, written);
        }
        match flushed {
            Poll::Pending => self.wait(TimeoutKind::ClientToRead),
            Poll::Ready(_) => self.unflushed = false,
        }
        flushed
    }

    /// Whether a client that was waited for to read has read too little, which only a try can tell.
    pub(crate) fn reads_too_little(&mut self, cx: &mut Context<'_>) -> bool {
        self.io.insist(true);
        let flushed = self.poll_flush(cx);
        self.io.insist(false);
        match flushed {
            Poll::Ready(flushed) => flushed.is_err(),
            Poll::Pending => self.conn.expired().is_some(),
        }
    }

    /// Writes what waits, unless the client does not read for too long.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.conn.expired() {
            Some(_) if self.reads_too_little(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => self.poll_flush(cx),
        })
        .await
    }

    /// Writes interim responses, as far as that goes: nobody waits for a client to read them. What is wrong with it
    /// shows with the final one.
    fn write_interim(&mut self, cx: &mut Context<'_>) {
        self.unflushed |= S::FAREWELL;
        if let Poll::Ready(Ok(())) = self.out.poll_write(&mut self.io, cx)
            && (!S::FAREWELL || Pin::new(&mut self.io).poll_flush(cx).is_ready())
        {
            (self.interim_waits, self.unflushed) = (false, false);
        }
    }

    /// Whether bytes have come that belong to no request yet.
    pub(crate) fn is_ahead(&self) -> bool {
        !self.buffer.bytes.is_empty()
    }

    /// Whether the request's body was read to its end.
    pub(crate) fn has_body_left(&self) -> bool {
        !self.body.is_done()
    }

    /// Whether what is left of the body is little enough to be read and dropped, so that the connection can go on.
    pub(crate) fn can_discard(&self) -> bool {
        let little = |left| left <= self.limits.discarded_bytes;
        self.body.is_done() || !self.expects_continue && self.body.left().is_some_and(little)
    }

    /// The final response begins: nobody is told to continue any more.
    pub(crate) fn answering(&mut self) {
        (self.expects_continue, self.takes_interim, self.interim_waits) = (false, false, false);
    }

    /// Reads what is left of the body and drops it. Whether the connection can go on.
    pub(crate) async fn discard(&mut self) -> bool {
        self.progress();
        poll_fn(|cx| {
            loop {
                match self.poll_frame(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(ended) => return Poll::Ready(ended.is_none()),
                    Poll::Pending if self.conn.expired().is_some() => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Closes the connection: at once, or when there is something unread, once the client had time to read what it was
    /// sent. Closed with bytes unread, a connection is reset, and the answer lost with it.
    pub(crate) async fn close(mut self, unread: bool) {
        let unread = unread || !self.buffer.bytes.is_empty();
        if !S::FAREWELL && !unread {
            return;
        }
        let told = tokio::time::timeout(self.limits.linger_stall, self.io.shutdown()).await;
        if unread && matches!(told, Ok(Ok(()))) {
            self.linger().await;
        }
    }

    /// Whether a client that has closed its side has gone. Looked at once a second, and when there is reason to.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let second = self.conn.second();
        if self.watch != Some(second) && self.io.has_failed() {
            return Poll::Ready(Interrupt::Gone);
        }
        self.watch = Some(second);
        self.conn.arm_timer(&mut self.watch_timer, second + 1, cx.waker());
        Poll::Pending
    }

    /// Closes it so that the client takes what it has of a body for broken.
    pub(crate) fn abort(self) {
        self.io.close_by_reset();
    }

    /// Gives up the stream, and what was read of it.
    pub(crate) fn into_stream(mut self) -> (Bytes, S) {
        (self.buffer.bytes.split().freeze(), self.io)
    }
}

impl<S: Stream> Source for Client<S> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame, SourceError>>> {
        loop {
            match self.body.next(&mut self.buffer.bytes, &self.limits) {
                // Of trailers, as by HTTP/2.
                Err(Malformed::TooLong) => return Poll::Ready(Some(Err(SourceError::Refused(Refused::HeadTooLarge)))),
                Err(malformed) => return Poll::Ready(Some(Err(SourceError::Refused(malformed.into())))),
                Ok(Next::Data(data)) => {
                    self.received += data.len() as u64;
                    if self.received > self.limits.body_bytes {
                        return Poll::Ready(Some(Err(SourceError::Refused(Refused::BodyTooLarge))));
                    }
                    return Poll::Ready(Some(Ok(BodyFrame::Data(data))));
                }
                Ok(Next::End(trailers)) => return Poll::Ready(trailers.map(|t| Ok(BodyFrame::Trailers(t)))),
                Ok(Next::More) => {}
            }
            if self.expects_continue {
                (self.expects_continue, self.told) = (false, true);
                self.out.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if ready!(self.poll_flush(cx)).is_err() {
                return Poll::Ready(Some(Err(SourceError::Gone)));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(SourceError::Gone))),
                Poll::Ready(Ok(read)) => self.moved(TimeoutKind::Body, read as u64),
                Poll::Pending => {
                    self.wait(TimeoutKind::Body);
                    return Poll::Pending;
                }
            }
        }
    }

    fn expects_continue(&self) -> bool {
        // One that sends its body all the same does not wait.
        self.expects_continue && !self.has_buffered()
    }

    fn poll_unasked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_buffered() && !self.body.is_done() {
            // Whether it broke off shows when it is asked for.
            let _ = ready!(self.poll_fill(cx));
        }
        // Nobody needs to be told any more (RFC 9110 section 10.1.1).
        self.expects_continue = false;
        Poll::Ready(())
    }

    fn interim(&mut self, cx: &mut Context<'_>, head: &ResponseHead) {
        let is_continue = head.status == StatusCode::CONTINUE;
        // A client that leaves so many unread is told no more of what it can do without.
        if !self.takes_interim || is_continue && self.told || self.out.is_full() {
            return;
        }
        self.expects_continue &= !is_continue;
        encode::interim(self.out.bytes(), head);
        self.interim_waits = true;
        self.write_interim(cx);
    }

    fn has_buffered(&self) -> bool {
        !self.buffer.bytes.is_empty() && !self.body.is_done()
    }

    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if self.interim_waits {
            self.write_interim(cx);
        }
        if let Some(waiting) = self.conn.expired() {
            return Poll::Ready(Interrupt::Stalled(waiting));
        }
        // A body that is not read to its end shows the client's end itself.
        while self.body.is_done() && !self.half_closed && self.buffer.bytes.len() < MAX_PIPELINED_BYTES {
            match ready!(self.poll_fill(cx)) {
                Ok(0) => self.half_closed = true,
                Err(_) => return Poll::Ready(Interrupt::Gone),
                Ok(_) => {}
            }
        }
        if self.half_closed { self.poll_gone(cx) } else { Poll::Pending }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_gone(cx).map(drop)
    }

    fn wait(&mut self, waiting: TimeoutKind) {
        if self.pace.wait(waiting, self.conn.second()) {
            self.conn.wait_until(waiting, self.pace.until(waiting.limit(&self.limits)));
        }
    }

    fn moved(&mut self, what: TimeoutKind, bytes: u64) {
        self.pace.moved(what, bytes, self.conn.second());
        self.conn.progress();
    }

    fn waiting(&self) -> Option<TimeoutKind> {
        self.conn.waiting()
    }

    fn hold(&mut self, bytes: usize) {
        let of_tls = if S::FAREWELL && self.unflushed { TLS_UNREAD_BYTES } else { 0 };
        // Without a body, what is left of it is the head's.
        let read = if self.body.is_done() { 0 } else { self.buffer.held() };
        // A large part stands in what an upstream's response was read into.
        self.bodies.set(bytes.max(self.out.large()) + read + self.out.held() + of_tls);
    }

    fn progress(&mut self) {
        self.pace.stop(self.conn.second());
        self.conn.progress();
    }

    fn is_of_stream(&mut self, way: Way) {
        self.pace.is_of_stream(way);
    }

    fn is_ended(&self) -> bool {
        self.body.is_done()
    }
}

/// Whether the first line names a version of HTTP, or a path.
fn resembles_http(head: &[u8]) -> bool {
    let line = memchr::memchr(b'\n', head).map_or(head, |end| &head[..end]).to_ascii_lowercase();
    memchr::memmem::find(&line, b"http/").is_some() || memchr::memmem::find(&line, b" /").is_some()
}

/// `Content-Type`, which says in what a client is answered.
fn media_type(head: &[u8], lines: &HeaderLines) -> Option<HeaderValue> {
    let mut fields = lines.fields(head);
    let (_, value) =
        fields.find(|(name, _)| head[name.clone()].eq_ignore_ascii_case(CONTENT_TYPE.as_str().as_bytes()))?;
    HeaderValue::from_bytes(&head[value]).ok()
}

fn refused(bad: Bad, head: &[u8]) -> Refused {
    match bad {
        Bad::Malformed(malformed) => malformed.into(),
        Bad::TooMuch(TooMuch::First) => request::too_long(head),
        Bad::TooMuch(TooMuch::Head) => Refused::HeadTooLarge,
    }
}
