//! A request's body on its way to an upstream: kept until its response begins, since another may have to be sent it,
//! and put together where it comes in small pieces.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};

use crate::{
    body::{Source, SourceError},
    http1::body::BodyFrame,
    http2::heads,
};

/// Bytes that are kept of a request's body until its response begins: to be sent again to another connection, when the
/// upstream did not process it.
const MAX_KEPT_BYTES: usize = 64 << 10;
/// Bytes that a piece takes besides its own: its place in the list, and the handle of what it was read into.
const PIECE_OVERHEAD_BYTES: usize = 64;
/// Longest piece that is copied, so that what it was read into is free for others.
const MAX_COPIED_BYTES: usize = 1 << 10;
/// Small pieces that have come together go on together, up to so many bytes: upstreams count frames, and end
/// connections of which they get very many.
const MAX_COALESCED_BYTES: usize = 16 << 10;
/// A piece of a request's body, or its end.
pub(super) type Next = Option<Result<BodyFrame, SourceError>>;

/// The part of a request's body that was sent, as long as that is all of it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pieces: VecDeque<BodyFrame>,
    /// Memory that keeping them takes.
    pub(super) bytes: usize,
    /// Number of pieces that were sent on this connection.
    sent: usize,
    /// Whether it is not all of it: there was more, or the response has begun, and what was sent is forgotten.
    pub(super) cut: bool,
}

impl Kept {
    /// The kept part for another connection, which was sent nothing of it.
    pub(super) fn unsent(self) -> Self {
        Self { sent: 0, ..self }
    }

    /// Whether some of it was sent before, elsewhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next piece: of those that another connection was sent, then of those to come.
    pub(super) fn next(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<BodyFrame, SourceError>>> {
        if self.cut
            && let Some(piece) = self.pieces.pop_front()
        {
            self.bytes -= weight(&piece);
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Some(piece) = self.pieces.get(self.sent) {
            self.sent += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        let piece = ready!(source.poll_frame(cx));
        if let Some(Ok(piece)) = &piece
            && !self.cut
        {
            self.keep(piece);
        }
        Poll::Ready(piece)
    }

    /// A piece with the small ones that have come behind it, and what came behind them.
    pub(super) fn together(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        first: Bytes,
    ) -> (Bytes, Option<Next>) {
        if first.len() > MAX_COPIED_BYTES || self.is_sent() && source.is_ended() {
            return (first, None);
        }
        let mut all = BytesMut::new();
        while all.len() < MAX_COALESCED_BYTES && !(self.is_sent() && source.is_ended()) {
            match self.next(cx, source) {
                Poll::Ready(Some(Ok(BodyFrame::Data(data)))) if data.len() <= MAX_COPIED_BYTES => {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&data);
                }
                Poll::Ready(behind) => return (if all.is_empty() { first } else { all.freeze() }, Some(behind)),
                Poll::Pending => break,
            }
        }
        (if all.is_empty() { first } else { all.freeze() }, None)
    }

    fn keep(&mut self, piece: &BodyFrame) {
        self.bytes += weight(piece);
        if self.bytes > MAX_KEPT_BYTES {
            *self = Self { cut: true, ..Self::default() };
        } else {
            self.pieces.push_back(match piece {
                BodyFrame::Data(data) if data.len() <= MAX_COPIED_BYTES => {
                    BodyFrame::Data(Bytes::copy_from_slice(data))
                }
                piece => piece.clone(),
            });
            self.sent = self.pieces.len();
        }
    }

    /// Nothing is sent again. What this connection was not sent yet still is.
    pub(super) fn forget_sent(&mut self) {
        self.pieces.drain(..self.sent);
        (self.sent, self.cut) = (0, true);
        self.bytes = self.pieces.iter().map(weight).sum();
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.pieces.len()
    }
}

/// The memory that keeping a piece takes.
pub(super) fn weight(piece: &BodyFrame) -> usize {
    PIECE_OVERHEAD_BYTES
        + match piece {
            BodyFrame::Data(data) => data.len(),
            BodyFrame::Trailers(trailers) => heads::size(trailers),
        }
}
