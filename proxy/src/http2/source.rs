//! The body of a request that came by HTTP/2, and how long its exchange is waited for.
//!
//! Streams share a connection, and so can't use its one place for what is waited for: each has a timer of its own on
//! the connection's wheel (`timers.rs`), taken when it first waits, and set anew only when it rang too early.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response, StatusCode, header::CONTENT_LENGTH};

use super::{
    blocks::Blocks,
    head::Expects,
    heads::{self, Heads},
    held::Held,
    plain,
    sender::Sender,
};
use crate::{
    body::{Interrupt, Source, SourceError},
    connection::{Conn, Pace, TimeoutKind, Way},
    http1::{
        body::{BodyFrame, Framing},
        request::Refused,
    },
    memory::{Charge, Kind},
    message::ResponseHead,
    timers::StreamTimer,
};

/// When so many bytes of heads wait for the client to read them, it is told no more of what it can do without.
const MAX_UNREAD_HEAD_BYTES: usize = 32 << 10;
/// Largest head of a response for which the charge of its stream suffices.
const SMALL_HEAD_BYTES: usize = 2 << 10;
/// Bytes that an interim response without fields takes: its place in a list, and its maps.
const INTERIM_BYTES: usize = 256;

/// A request's body, by HTTP/2.
pub(crate) struct Http2Source<'a> {
    sender: &'a Sender,
    /// Whether the client waits to be told to send it.
    expects_continue: bool,
    /// The proxy itself has told it to: it is not told a second time.
    told: bool,
    /// `None`: there is none, or nothing of it is wanted any more.
    body: Option<RecvStream>,
    /// Part of the body that came unasked.
    ahead: Option<Came>,
    framing: Framing,
    /// Bytes of it so far.
    count: u64,
    bounds: Bounds,
    held: Arc<Held>,
    stream: u32,
    /// Whether the stream is known there.
    is_held: bool,
    /// Charge for what the exchange holds; made when there first is something.
    charge: Option<Charge>,
    conn: Arc<Conn>,
    pace: Pace,
    /// Bytes of the connection's bodies that had left when that was looked at last.
    left: u64,
    /// The second in which the connection was last told to write what it can.
    insisted: Option<u32>,
    timer: StreamTimer,
}

/// The bounds of trailers, besides the limits that hold by HTTP/1.1 too: the budget of the connection's heads, and what
/// was cut off.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) heads: Arc<Heads>,
    pub(super) blocks: Arc<Blocks>,
}

/// The next of a body: a part of it, or its end.
type Came = Option<Result<Bytes, h2::Error>>;

impl<'a> Http2Source<'a> {
    pub(super) fn new(
        body: RecvStream,
        (length, expects): (Option<u64>, Expects),
        held: Arc<Held>,
        conn: Arc<Conn>,
        bounds: Bounds,
        sender: &'a Sender,
    ) -> Self {
        let stream = u32::from(body.stream_id());
        let (body, framing) = match body.is_end_stream() {
            true => (None, Framing::Empty),
            false => (Some(body), length.map_or(Framing::Chunked, Framing::Length)),
        };
        let is_held = body.is_some();
        let expects_continue = body.is_some() && expects == Expects::Continue;
        Self {
            sender,
            expects_continue,
            told: false,
            body,
            ahead: None,
            framing,
            count: 0,
            bounds,
            held,
            stream,
            is_held,
            charge: None,
            pace: Pace::new(conn.limits.least_rate),
            conn,
            left: 0,
            insisted: None,
            timer: StreamTimer::default(),
        }
    }

    /// The final response begins: nobody is told to continue any more.
    pub(super) fn answering(&mut self) {
        self.expects_continue = false;
    }

    /// A head is with `h2`, to be sent, of so many bytes.
    pub(super) fn queued_head(&mut self, bytes: usize) {
        if bytes > SMALL_HEAD_BYTES {
            self.queue_head(bytes);
        }
    }

    fn queue_head(&mut self, bytes: usize) {
        self.is_held = true;
        self.held.queued_head(self.stream, bytes);
    }

    /// Whether nothing more of the response is to be read for now.
    pub(super) fn is_held_back(&self) -> bool {
        self.conn.holder.is_held_back()
    }

    /// Reads no more of the body: `h2` lets others of the connection have its window.
    pub(super) fn drop_body(&mut self) {
        self.ahead = None;
        if self.body.take().is_some() {
            self.held.unwanted(self.stream);
        }
    }

    /// So much of the response is with `h2`, to be sent; `by_http2`: as it came in its frames.
    pub(super) fn queued(&mut self, bytes: usize, by_http2: bool) {
        self.is_held = true;
        self.held.queued(self.stream, bytes, by_http2);
    }

    /// The client can be sent more.
    pub(super) fn opened(&mut self) {
        self.count_read();
        self.progress();
    }

    /// Counts what the client has read since that was done last, on the whole connection: which stream it reads first
    /// is up to it, so a client is as slow as its connection.
    fn count_read(&mut self) {
        let left = self.held.read();
        let bytes = left - std::mem::replace(&mut self.left, left);
        self.pace.moved(TimeoutKind::ClientToRead, bytes, self.conn.second());
    }

    /// Whether whoever is waited for has used up his time, for all that is known.
    fn is_late(&mut self, waiting: TimeoutKind) -> bool {
        self.conn.second() >= self.pace.until(waiting.limit(&self.conn.limits))
    }

    /// Whether he has. What a client has read shows when something is written, and the kernel tells of some room late.
    fn is_too_slow(&mut self, waiting: TimeoutKind) -> bool {
        let now = self.conn.second();
        if waiting != TimeoutKind::ClientToRead {
            return true;
        }
        self.count_read();
        self.pace.wait(waiting, now);
        if !self.is_late(waiting) {
            return false;
        }
        let tried = self.insisted.is_some_and(|at| at + 1 == now);
        if !tried {
            self.insisted = Some(now);
            self.conn.insist();
        }
        tried
    }

    /// Bytes of the body so far.
    pub(super) fn counted(&self) -> u64 {
        self.count
    }

    fn send_interim(&mut self, head: Response<()>) {
        let bytes = INTERIM_BYTES + heads::size(head.headers());
        if self.sender.interim(head) {
            self.queue_head(bytes);
        }
    }

    /// Trailers within the bounds.
    fn checked(&self, mut trailers: HeaderMap) -> Result<BodyFrame, SourceError> {
        let (limits, size) = (&self.conn.limits, heads::size(&trailers));
        let fit = trailers.len() <= limits.fields && size <= limits.trailer_bytes && self.bounds.heads.spend(size);
        let whole = !self.bounds.blocks.is_large(self.stream);
        if !fit || !whole {
            return Err(SourceError::Refused(Refused::HeadTooLarge));
        }
        match plain::trailers(&mut trailers) {
            Ok(()) => Ok(BodyFrame::Trailers(Box::new(trailers))),
            Err(malformed) => Err(SourceError::Refused(malformed.into())),
        }
    }
}

impl Source for Http2Source<'_> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame, SourceError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let came = self.ahead.take().map_or_else(|| body.poll_data(cx), Poll::Ready);
        let Poll::Ready(data) = came else {
            if std::mem::take(&mut self.expects_continue) {
                self.told = true;
                self.send_interim(with_status(StatusCode::CONTINUE));
            }
            self.wait(TimeoutKind::Body);
            return Poll::Pending;
        };
        let piece = match data {
            Some(Ok(data)) => {
                // Whoever asked has room for it: the client may send as much again.
                let _ = body.flow_control().release_capacity(data.len());
                self.count += data.len() as u64;
                self.moved(TimeoutKind::Body, data.len() as u64);
                if !data.is_empty() {
                    self.held.taken(self.stream, data.len());
                }
                let fits = self.count <= self.conn.limits.body_bytes;
                Some(if fits { Ok(BodyFrame::Data(data)) } else { Err(SourceError::Refused(Refused::BodyTooLarge)) })
            }
            Some(Err(_)) => Some(Err(SourceError::Gone)),
            None => match ready!(body.poll_trailers(cx)) {
                Ok(trailers) => trailers.map(|trailers| self.checked(trailers)),
                Err(_) => Some(Err(SourceError::Gone)),
            },
        };
        self.progress();
        Poll::Ready(piece)
    }

    fn is_ended(&self) -> bool {
        self.ahead.is_none() && self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    fn poll_unasked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(body) = &mut self.body
            && self.ahead.is_none()
        {
            // A frame without a byte is none of it.
            let came = loop {
                match ready!(body.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() && !body.is_end_stream() => {}
                    came => break came,
                }
            };
            self.ahead = Some(came);
        }
        // Nobody needs to be told any more (RFC 9110 section 10.1.1).
        self.expects_continue = false;
        Poll::Ready(())
    }

    fn interim(&mut self, _: &mut Context<'_>, head: &ResponseHead) {
        let is_continue = head.status == StatusCode::CONTINUE;
        if is_continue && self.told || self.held.heads(self.stream) > MAX_UNREAD_HEAD_BYTES {
            return;
        }
        self.expects_continue &= !is_continue;
        let mut response = with_status(head.status);
        *response.headers_mut() = head.fields.to_map();
        // It describes no body, and there is none.
        response.headers_mut().remove(CONTENT_LENGTH);
        self.send_interim(response);
    }

    fn has_buffered(&self) -> bool {
        false
    }

    /// Never ready for a client that has gone: its stream is reset, and the exchange dropped.
    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Some(waiting) = self.pace.waiting() else { return Poll::Pending };
        let now = self.conn.second();
        if self.is_late(waiting) && self.is_too_slow(waiting) {
            return Poll::Ready(Interrupt::Stalled(waiting));
        }
        // At once: as soon as the clock has gone on.
        let until = self.pace.until(waiting.limit(&self.conn.limits)).max(now + 1);
        self.conn.arm_timer(&mut self.timer, until, cx.waker());
        Poll::Pending
    }

    /// Never: see [`Http2Source::poll_interrupt`].
    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn wait(&mut self, waiting: TimeoutKind) {
        // What it read before pays for nothing.
        if self.pace.wait(waiting, self.conn.second()) && waiting == TimeoutKind::ClientToRead {
            self.left = self.held.read();
        }
    }

    fn waiting(&self) -> Option<TimeoutKind> {
        self.pace.waiting()
    }

    fn moved(&mut self, what: TimeoutKind, bytes: u64) {
        self.pace.moved(what, bytes, self.conn.second());
    }

    fn hold(&mut self, bytes: usize) {
        if bytes > 0 || self.charge.is_some() {
            self.charge.get_or_insert_with(|| Charge::new(&self.conn.holder, Kind::Bodies)).set(bytes);
        }
    }

    fn progress(&mut self) {
        self.pace.stop(self.conn.second());
    }

    fn is_of_stream(&mut self, way: Way) {
        self.pace.is_of_stream(way);
    }
}

fn with_status(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

impl Drop for Http2Source<'_> {
    fn drop(&mut self) {
        self.conn.cancel_timer(&mut self.timer);
        if self.is_held {
            self.held.dropped(self.stream);
        }
        self.bounds.blocks.forget(self.stream);
    }
}
