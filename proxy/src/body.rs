//! Bodies on their way through, whatever protocol they come by: a request's body is a [`Source`] that is asked for its
//! next piece; a response's is a [`crate::upstream::Call`]'s.
//!
//! Towards an upstream that speaks HTTP/2, a request's is hyper's kind of body: [`RequestBody`].

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream as _, channel::mpsc};
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::{
    http1::{
        body::{Framing, Piece},
        limits::Limits,
        request::Refused,
    },
    http2::{
        Taken,
        heads::{self, Heads},
    },
    server::Waiting,
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

    /// While something is waited for, so many bytes of memory are held for this request, besides those of the source itself.
    fn hold(&mut self, bytes: usize);

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
    /// The client of another protocol did.
    #[error("the client broke off")]
    Client,
    /// Its trailers are more than may be.
    #[error("the trailers are too large")]
    Trailers,
}

/// A request's body for hyper to send upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// A stream's.
    Received(Received),
    /// Pieces that another protocol's connection brings.
    Fed(mpsc::Receiver<Result<Frame<Bytes>, BodyError>>, Option<u64>),
}

/// A body that comes by HTTP/2.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) stream: RecvStream,
    /// Its length, if that is known.
    pub(crate) length: Option<u64>,
    /// Its bytes so far.
    pub(crate) count: Arc<Taken>,
    pub(crate) trailers: Trailers,
}

/// What bounds trailers that come by HTTP/2: the same as by HTTP/1.1, and the budget of the connection's heads.
#[derive(Debug)]
pub(crate) struct Trailers {
    pub(crate) limits: Arc<Limits>,
    pub(crate) heads: Arc<Heads>,
}

impl Trailers {
    fn checked(&self, trailers: HeaderMap) -> Result<HeaderMap, BodyError> {
        let size = heads::size(&trailers);
        let fit = trailers.len() <= self.limits.fields && size <= self.limits.trailer_bytes && self.heads.spend(size);
        if fit { Ok(trailers) } else { Err(BodyError::Trailers) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Fed(pieces, _) => Pin::new(pieces).poll_next(cx),
            RequestBody::Received(Received { stream, count, trailers: bounds, .. }) => {
                Poll::Ready(match ready!(stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        // Whoever asked has room for it: the client may send as much again.
                        let _ = stream.flow_control().release_capacity(data.len());
                        count.add(data.len());
                        Some(Ok(Frame::data(data)))
                    }
                    Some(Err(e)) => Some(Err(e.into())),
                    None => match ready!(stream.poll_trailers(cx)) {
                        Ok(trailers) => trailers.map(|trailers| bounds.checked(trailers).map(Frame::trailers)),
                        Err(e) => Some(Err(e.into())),
                    },
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Received(received) => received.stream.is_end_stream(),
            RequestBody::Fed(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Received(Received { length, .. }) | RequestBody::Fed(_, length) => {
                length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
