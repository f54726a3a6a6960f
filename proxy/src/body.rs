//! Bodies on their way through, whatever protocol they come by: a request's body is a [`Source`] that is asked for its
//! next piece; a response's is a [`Call`]'s.
//!
//! Towards hyper (HTTP/2 on either side) both are its kind of body: [`RequestBody`] and [`ResponseBody`].

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream as _, channel::mpsc};
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    exchange::Exchange,
    http1::{
        body::{Framing, Piece},
        request::Refused,
    },
    http2::Http2Source,
    server::Waiting,
    upstream::{Call, CallError},
};

/// A request's body, where it comes from.
pub(crate) trait Source {
    /// How long it is.
    fn framing(&self) -> Framing;

    /// Its next piece.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, SourceError>>>;

    /// Whether some of it has come that no piece was made of yet.
    fn has_buffered(&self) -> bool;

    /// Ready when the exchange has to end for the client's sake, or because somebody took too long.
    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt>;

    /// From now on, this is waited for.
    fn wait(&self, waiting: Waiting);

    /// Something that was waited for came.
    fn progress(&self);

    /// The whole body, if it is hyper's; it can be passed on as it is.
    fn take_body(&mut self) -> Option<RequestBody>;

    /// What was taken is not needed after all.
    fn return_body(&mut self, body: RequestBody);
}

/// Why there is no next piece.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// The client broke off.
    Gone,
    /// What it sends is not valid, or too much.
    Refused(Refused),
}

/// Why an exchange ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The client has gone.
    Gone,
    /// This took too long.
    Stalled(Waiting),
}

/// What ends a body before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side broke off.
    #[error(transparent)]
    Broken(#[from] h2::Error),
    /// The upstream did.
    #[error("upstream: {0}")]
    Upstream(#[from] CallError),
    /// The client of another protocol did.
    #[error("the client broke off")]
    Client,
    /// The rule's request timeout is over, or one side sent nothing for too long.
    #[error("timeout")]
    Timeout,
}

/// A request's body for hyper to send upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// A stream's, of this length if that is known, its bytes counted.
    Received(RecvStream, Option<u64>, Arc<AtomicU64>),
    /// Pieces that another protocol's connection brings.
    Fed(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>, Option<u64>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Fed(pieces, _) => Pin::new(pieces).poll_next(cx),
            RequestBody::Received(stream, _, count) => Poll::Ready(match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever asked has room for it: the client may send as much again.
                    let _ = stream.flow_control().release_capacity(data.len());
                    count.fetch_add(data.len() as u64, Ordering::Relaxed);
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(e)) => Some(Err(e.into())),
                None => match ready!(stream.poll_trailers(cx)) {
                    Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                    Err(e) => Some(Err(e.into())),
                },
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Received(stream, ..) => stream.is_end_stream(),
            RequestBody::Fed(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Received(_, Some(length), _) | RequestBody::Fed(_, Some(length)) => {
                SizeHint::with_exact(*length)
            }
            RequestBody::Received(_, None, _) | RequestBody::Fed(_, None) => SizeHint::default(),
        }
    }
}

/// A response's body for hyper to send to a client. Its end closes the exchange.
pub(crate) struct ResponseBody {
    from: Origin,
    exchange: Box<Exchange>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

enum Origin {
    Own(Option<Bytes>),
    Upstream(Call, Http2Source),
}

impl ResponseBody {
    /// A body of the proxy's own.
    pub(crate) fn own(body: Bytes, exchange: Box<Exchange>) -> Self {
        let body = (!body.is_empty()).then_some(body);
        let ended = body.is_none();
        Self { from: Origin::Own(body), exchange, deadline: None, ended }
    }

    /// A body from upstream, cut off at `deadline`. What is left of the request's body goes there meanwhile.
    pub(crate) fn upstream(
        call: Call,
        source: Http2Source,
        exchange: Box<Exchange>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        let ended = call.is_done();
        Self { from: Origin::Upstream(call, source), exchange, deadline, ended }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let (call, source) = match &mut this.from {
            Origin::Own(body) => {
                this.ended = true;
                let body = body.take();
                this.exchange.bytes_out += body.as_ref().map_or(0, |b| b.len() as u64);
                return Poll::Ready(body.map(|b| Ok(Frame::data(b))));
            }
            Origin::Upstream(call, source) => (call, source),
        };
        let piece = match call.poll_piece(cx, source) {
            Poll::Ready(piece) => piece,
            Poll::Pending => {
                let late = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                match source.poll_interrupt(cx) {
                    _ if late => this.exchange.timed_out(),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Interrupt::Stalled(waiting)) if !waiting.is_for_client() => this.exchange.timed_out(),
                    Poll::Ready(_) => this.exchange.client_went(),
                }
                return Poll::Ready(Some(Err(BodyError::Timeout)));
            }
        };
        this.ended = call.is_done();
        Poll::Ready(match piece {
            None => None,
            Some(Ok(Piece::Data(data))) => {
                this.exchange.bytes_out += data.len() as u64;
                Some(Ok(Frame::data(data)))
            }
            Some(Ok(Piece::Trailers(trailers))) => Some(Ok(Frame::trailers(*trailers))),
            Some(Err(e)) => {
                this.exchange.upstream_broke();
                Some(Err(e.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.from {
            Origin::Own(body) => Some(body.as_ref().map_or(0, |b| b.len() as u64)),
            Origin::Upstream(call, _) => call.left(),
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.ended {
            // Dropped before its end: the client went away, unless upstream or a timeout is already to blame.
            self.exchange.client_went();
        }
    }
}
