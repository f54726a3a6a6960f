//! Bodies on their way through: streamed, counted, and closing what they hold when they end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::{exchange::Exchange, upstream::Lease};

/// What ends a body before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The rule's request timeout is over.
    #[error("request timeout")]
    Timeout,
}

/// A client's body on its way upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// Streamed, its bytes counted.
    Streaming(Incoming, Arc<AtomicU64>),
}

impl RequestBody {
    /// Takes over a client's body; the counter is there when there is anything to count.
    pub(crate) fn new(incoming: Incoming) -> (Self, Option<Arc<AtomicU64>>) {
        if incoming.is_end_stream() {
            return (RequestBody::Empty, None);
        }
        let count = Arc::new(AtomicU64::new(0));
        (RequestBody::Streaming(incoming, count.clone()), Some(count))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let RequestBody::Streaming(incoming, count) = self.get_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if let Some(Ok(data)) = frame.as_ref().map(|f| f.as_ref().map(Frame::data_ref)) {
            count.fetch_add(data.map_or(0, |d| d.len() as u64), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streaming(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streaming(incoming, _) => incoming.size_hint(),
        }
    }
}

/// A response's body on its way to the client. Its end closes the exchange and gives the upstream connection back.
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Box<Exchange>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Trailers went out: nothing can follow, and hyper does not ask again.
    ended: bool,
}

enum Source {
    Own(Option<Bytes>),
    Upstream(Incoming, Option<Lease>),
}

impl ResponseBody {
    /// A body of the proxy's own.
    pub(crate) fn own(body: Bytes, exchange: Box<Exchange>) -> Self {
        let body = (!body.is_empty()).then_some(body);
        Self { source: Source::Own(body), exchange, deadline: None, ended: false }
    }

    /// A body from upstream, cut off at `deadline`.
    pub(crate) fn upstream(
        incoming: Incoming,
        lease: Lease,
        exchange: Box<Exchange>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        Self { source: Source::Upstream(incoming, Some(lease)), exchange, deadline, ended: false }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let (incoming, lease) = match &mut this.source {
            Source::Own(body) => {
                let body = body.take();
                this.exchange.bytes_out += body.as_ref().map_or(0, |b| b.len() as u64);
                return Poll::Ready(body.map(|b| Ok(Frame::data(b))));
            }
            Source::Upstream(incoming, lease) => (incoming, lease),
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.exchange.bytes_out += frame.data_ref().map_or(0, |d| d.len() as u64);
                if frame.is_trailers() {
                    this.ended = true;
                    lease.take().into_iter().for_each(Lease::give_back);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                this.exchange.upstream_broke();
                Poll::Ready(Some(Err(e.into())))
            }
            Poll::Ready(None) => {
                if let Some(lease) = lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => match &mut this.deadline {
                Some(deadline) => {
                    ready!(deadline.as_mut().poll(cx));
                    this.exchange.timed_out();
                    Poll::Ready(Some(Err(BodyError::Timeout)))
                }
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
            || match &self.source {
                Source::Own(body) => body.is_none(),
                Source::Upstream(incoming, _) => incoming.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Upstream(incoming, _) => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            // Dropped before its end: the client went away, unless upstream or a timeout is already to blame.
            self.exchange.client_went();
        } else if let Source::Upstream(_, lease) = &mut self.source
            && let Some(lease) = lease.take()
        {
            // hyper does not poll a body that says it has ended.
            lease.give_back();
        }
    }
}
