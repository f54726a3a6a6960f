//! The body of a request that came by HTTP/2, and how long its exchange is waited for.
//!
//! Streams share a connection, and so can't use its one place for what is waited for: each has a place of its own among
//! those of the connection that the worker's tick wakes, taken when it first waits, and set anew only when it was woken too
//! early.

use std::{
    cell::Cell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use h2::RecvStream;
use http_body::Body as _;

use super::{heads::Heads, held::Held};
use crate::{
    body::{BodyError, Interrupt, Received, RequestBody, Source, SourceError, Trailers},
    http1::{
        body::{Framing, Piece},
        request::Refused,
    },
    memory::{Charge, Kind},
    server::{Conn, Waiting},
};

/// A request's body, by HTTP/2.
pub(crate) struct Http2Source {
    body: RequestBody,
    framing: Framing,
    /// What of a body was taken so far, for as long as it lives; `None`: there is none.
    count: Option<Arc<Taken>>,
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

/// Counts what was taken of a request's body.
#[derive(Debug)]
pub(crate) struct Taken {
    bytes: AtomicU64,
    held: Arc<Held>,
    stream: u32,
}

impl Taken {
    /// So much was taken.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.held.taken(self.stream, bytes);
    }
}

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
    /// Bytes of the body that had come.
    count: u64,
}

impl Http2Source {
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        held: Arc<Held>,
        conn: Arc<Conn>,
        heads: Arc<Heads>,
    ) -> Self {
        let id = u32::from(stream.stream_id());
        let (body, framing, count) = if stream.is_end_stream() {
            (RequestBody::Empty, Framing::Empty, None)
        } else {
            let framing = length.map_or(Framing::Chunked, Framing::Length);
            let count = Arc::new(Taken { bytes: AtomicU64::new(0), held: Arc::clone(&held), stream: id });
            let trailers = Trailers { limits: Arc::clone(&conn.limits), heads };
            let received = Received { stream, length, count: Arc::clone(&count), trailers };
            (RequestBody::Received(received), framing, Some(count))
        };
        let (is_held, waiting) = (count.is_some(), Cell::new(None));
        Self { body, framing, count, held, stream: id, is_held, charge: None, conn, waiting, alarm: None }
    }

    /// What is left of the body is not read any more: `h2` lets others of the connection have its window.
    pub(super) fn drop_body(&mut self) {
        self.body = RequestBody::Empty;
        if self.count.is_some() {
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
        self.count.as_ref().map_or(0, |count| count.bytes.load(Ordering::Relaxed))
    }

    fn is_bounded(&self) -> bool {
        self.conn.limits.body_bytes < u64::MAX
    }
}

impl Source for Http2Source {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, SourceError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.wait(Waiting::Body);
            return Poll::Pending;
        };
        self.progress();
        Poll::Ready(match frame {
            None => None,
            Some(Err(BodyError::Trailers)) => Some(Err(SourceError::Refused(Refused::HeadTooLarge))),
            Some(Err(_)) => Some(Err(SourceError::Gone)),
            Some(Ok(_)) if self.counted() > self.conn.limits.body_bytes => {
                Some(Err(SourceError::Refused(Refused::BodyTooLarge)))
            }
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => Piece::Trailers(frame.into_trailers().map(Box::new).unwrap_or_default()),
            })),
        })
    }

    fn has_buffered(&self) -> bool {
        false
    }

    /// That the client has gone shows elsewhere: its stream is reset, and the exchange dropped.
    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Some(wait) = self.waiting.get() else { return Poll::Pending };
        let now = self.conn.second();
        let mut until = self.conn.until(wait.since, wait.waiting);
        if now >= until {
            // A body that was passed on as a whole shows here only that it goes on.
            let count = self.counted();
            if count == wait.count {
                return Poll::Ready(Interrupt::Stalled(wait.waiting));
            }
            self.waiting.set(Some(Wait { since: now, count, ..wait }));
            until = self.conn.until(now, wait.waiting);
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
            None => Wait { waiting, since: self.conn.second(), count: self.counted() },
        };
        self.waiting.set(Some(wait));
    }

    fn hold(&mut self, bytes: usize) {
        if bytes > 0 || self.charge.is_some() {
            self.charge.get_or_insert_with(|| Charge::new(&self.conn.holder, Kind::Bodies)).set(bytes);
        }
    }

    fn progress(&self) {
        self.waiting.set(None);
    }

    /// One of unknown length that is bounded is passed on piece by piece, since whoever has it counts against no bound.
    fn take_body(&mut self) -> Option<RequestBody> {
        let uncounted = self.framing == Framing::Chunked && self.is_bounded();
        (!uncounted).then(|| std::mem::replace(&mut self.body, RequestBody::Empty))
    }

    fn return_body(&mut self, body: RequestBody) {
        self.body = body;
    }
}

impl Drop for Http2Source {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm {
            self.conn.wake_no_more(alarm.place);
        }
        if self.is_held {
            self.held.dropped(self.stream);
        }
    }
}
