//! The body of a request that came by HTTP/2, and how long its exchange is waited for.
//!
//! Streams share a connection, and so can't use its one place for what is waited for: each has a place of its own among
//! those of the connection that the worker's tick wakes, taken when it first waits, and set anew only when it was woken too
//! early.

use std::{
    cell::Cell,
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
    http1::{
        body::{Framing, Piece},
        request::Refused,
    },
    memory::{Charge, Kind},
    message::ResponseHead,
    server::{Conn, Waiting},
};

/// A request's body, by HTTP/2.
pub(crate) struct Http2Source<'a> {
    sender: &'a Sender,
    /// Its client waits to be told to send it.
    expects_continue: bool,
    /// The proxy itself has told it to: it is not told a second time.
    told: bool,
    /// `None`: there is none, or nothing of it is wanted any more.
    body: Option<RecvStream>,
    /// What came of it unasked.
    ahead: Option<Came>,
    framing: Framing,
    /// Bytes of it so far.
    count: u64,
    bounds: Bounds,
    held: Arc<Held>,
    stream: u32,
    /// Whether the stream is known there.
    is_held: bool,
    /// What is held for the exchange; made when there first is something.
    charge: Option<Charge>,
    conn: Arc<Conn>,
    waiting: Cell<Option<Wait>>,
    alarm: Option<Alarm>,
}

/// What bounds trailers, besides the limits that hold by HTTP/1.1 too: the budget of the connection's heads, and what was
/// cut off.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) heads: Arc<Heads>,
    pub(super) blocks: Arc<Blocks>,
}

/// What comes of a body: a part of it, or its end.
type Came = Option<Result<Bytes, h2::Error>>;

/// When the stream will be woken.
#[derive(Clone, Copy)]
struct Alarm {
    place: usize,
    until: u32,
}

/// What is waited for.
#[derive(Clone, Copy)]
struct Wait {
    waiting: Waiting,
    /// Second of the worker's clock.
    since: u32,
}

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
        let (is_held, waiting) = (body.is_some(), Cell::new(None));
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
            conn,
            waiting,
            alarm: None,
        }
    }

    /// The final response begins: nobody is told to continue any more.
    pub(super) fn answering(&mut self) {
        self.expects_continue = false;
    }

    /// What is left of the body is not read any more: `h2` lets others of the connection have its window.
    pub(super) fn drop_body(&mut self) {
        self.ahead = None;
        if self.body.take().is_some() {
            self.held.unwanted(self.stream);
        }
    }

    /// So much of the response is with `h2`, to be sent.
    pub(super) fn queued(&mut self, bytes: usize) {
        self.is_held = true;
        self.held.queued(self.stream, bytes);
    }

    /// Bytes of the body so far.
    pub(super) fn counted(&self) -> u64 {
        self.count
    }

    /// Trailers within the bounds.
    fn checked(&self, mut trailers: HeaderMap) -> Result<Piece, SourceError> {
        let (limits, size) = (&self.conn.limits, heads::size(&trailers));
        let fit = trailers.len() <= limits.fields && size <= limits.trailer_bytes && self.bounds.heads.spend(size);
        let whole = !self.bounds.blocks.is_large(self.stream);
        if !fit || !whole {
            return Err(SourceError::Refused(Refused::HeadTooLarge));
        }
        match plain::trailers(&mut trailers) {
            Ok(()) => Ok(Piece::Trailers(Box::new(trailers))),
            Err(malformed) => Err(SourceError::Refused(malformed.into())),
        }
    }
}

impl Source for Http2Source<'_> {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, SourceError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let came = self.ahead.take().map_or_else(|| body.poll_data(cx), Poll::Ready);
        let Poll::Ready(data) = came else {
            if std::mem::take(&mut self.expects_continue) {
                self.told = true;
                self.sender.interim(with_status(StatusCode::CONTINUE));
            }
            self.wait(Waiting::Body);
            return Poll::Pending;
        };
        let piece = match data {
            Some(Ok(data)) => {
                // Whoever asked has room for it: the client may send as much again.
                let _ = body.flow_control().release_capacity(data.len());
                self.count += data.len() as u64;
                self.held.taken(self.stream, data.len());
                let fits = self.count <= self.conn.limits.body_bytes;
                Some(if fits { Ok(Piece::Data(data)) } else { Err(SourceError::Refused(Refused::BodyTooLarge)) })
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
            self.ahead = Some(ready!(body.poll_data(cx)));
        }
        // Nobody needs to be told any more (RFC 9110 section 10.1.1).
        self.expects_continue = false;
        Poll::Ready(())
    }

    fn interim(&mut self, _: &mut Context<'_>, head: &ResponseHead) {
        let is_continue = head.status == StatusCode::CONTINUE;
        if is_continue && self.told {
            return;
        }
        self.expects_continue &= !is_continue;
        let mut response = with_status(head.status);
        *response.headers_mut() = head.fields.to_map();
        // It describes no body, and there is none.
        response.headers_mut().remove(CONTENT_LENGTH);
        self.sender.interim(response);
    }

    fn has_buffered(&self) -> bool {
        false
    }

    /// That the client has gone shows elsewhere: its stream is reset, and the exchange dropped.
    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Some(wait) = self.waiting.get() else { return Poll::Pending };
        let now = self.conn.second();
        let until = self.conn.until(wait.since, wait.waiting);
        if now >= until {
            return Poll::Ready(Interrupt::Stalled(wait.waiting));
        }
        // One that is to be woken earlier looks again then.
        if self.alarm.is_none_or(|alarm| alarm.until > until || alarm.until <= now) {
            let place = self.conn.wake_at(self.alarm.map(|alarm| alarm.place), until, cx.waker());
            self.alarm = Some(Alarm { place, until });
        }
        Poll::Pending
    }

    fn wait(&self, waiting: Waiting) {
        let wait = match self.waiting.get() {
            Some(wait) => Wait { waiting, ..wait },
            None => Wait { waiting, since: self.conn.second() },
        };
        self.waiting.set(Some(wait));
    }

    fn waiting(&self) -> Option<Waiting> {
        self.waiting.get().map(|wait| wait.waiting)
    }

    fn hold(&mut self, bytes: usize) {
        if bytes > 0 || self.charge.is_some() {
            self.charge.get_or_insert_with(|| Charge::new(&self.conn.holder, Kind::Bodies)).set(bytes);
        }
    }

    fn progress(&self) {
        self.waiting.set(None);
    }
}

fn with_status(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

impl Drop for Http2Source<'_> {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm {
            self.conn.wake_no_more(alarm.place);
        }
        if self.is_held {
            self.held.dropped(self.stream);
        }
        self.bounds.blocks.forget(self.stream);
    }
}
