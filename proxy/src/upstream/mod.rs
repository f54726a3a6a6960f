//! Upstream endpoints, balancing, connection pools, and requests under way.

mod balance;
mod cluster;
mod endpoint;
mod error;
pub(crate) mod http1;
pub(crate) mod http2;
mod in_flight;
mod pool;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

pub use balance::pick;
pub use cluster::{Cluster, ClusterSlot};
pub use endpoint::{Endpoint, Endpoints, Protocol};
pub(crate) use error::UpstreamError;
pub(crate) use pool::{Checkout, PooledConnection, ReusePolicy};
pub use pool::{ConnectError, Pool};

use crate::{
    body::{DataMemory, ResponseBody, Source},
    forwarded::Forwarded,
    http1::{
        body::{BodyFrame, Framing},
        request::Wants,
    },
    memory::Holder,
    message::{RequestHead, ResponseHead},
    message_limits::Limits,
};

/// A request under way to an upstream, and its response.
///
/// Boxed: it changes hands half a dozen times, and a small allocation costs less than copying it as often.
pub(crate) enum UpstreamRequest {
    /// By HTTP/1.1.
    Http1(Box<http1::Http1Request>),
    /// By HTTP/2.
    Http2(Box<http2::Http2Request>),
}

impl UpstreamRequest {
    /// Makes a request ready to be sent on a connection. `kept`: what of its body another one was sent; `holder`: who
    /// is charged for what arrives.
    pub(crate) fn new(
        leased: PooledConnection,
        limits: Arc<Limits>,
        head: &RequestHead,
        forwarded: Forwarded<'_>,
        (body, kept): (Framing, http2::Kept),
        wants: Wants,
        holder: &Arc<Holder>,
    ) -> Self {
        match leased {
            PooledConnection::Http1(io, checkout) => {
                Self::Http1(Box::new(http1::Http1Request::new(io, checkout, limits, head, forwarded, body, wants)))
            }
            PooledConnection::Http2(connection, stream, reused) => {
                let leased = (connection, stream, reused);
                Self::Http2(Box::new(http2::Http2Request::new(
                    leased,
                    limits,
                    head,
                    forwarded,
                    (body, kept),
                    wants,
                    holder,
                )))
            }
        }
    }

    /// Sends the request as far as it goes, and reads the response's head.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        match self {
            UpstreamRequest::Http1(call) => call.poll_response(cx, source),
            UpstreamRequest::Http2(call) => call.poll_response(cx, source),
        }
    }

    /// The part of the request's body that was sent, for another try.
    pub(crate) fn take_kept(&mut self) -> http2::Kept {
        match self {
            UpstreamRequest::Http1(_) => http2::Kept::default(),
            UpstreamRequest::Http2(call) => call.take_kept(),
        }
    }

    /// Whether the connection was kept from an earlier request, which the upstream may have closed meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            UpstreamRequest::Http1(call) => call.is_reused(),
            UpstreamRequest::Http2(call) => call.is_reused(),
        }
    }
}

impl ResponseBody for UpstreamRequest {
    type Error = UpstreamError;

    fn framing(&self) -> Framing {
        match self {
            UpstreamRequest::Http1(call) => call.framing(),
            UpstreamRequest::Http2(call) => call.framing(),
        }
    }

    fn left(&self) -> Option<u64> {
        match self {
            UpstreamRequest::Http1(call) => call.left(),
            UpstreamRequest::Http2(call) => call.left(),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            UpstreamRequest::Http1(call) => call.is_done(),
            UpstreamRequest::Http2(call) => call.is_done(),
        }
    }

    fn ready_frame(&mut self) -> Option<Option<Result<BodyFrame, UpstreamError>>> {
        match self {
            UpstreamRequest::Http1(call) => call.ready_frame(),
            UpstreamRequest::Http2(_) => None,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<BodyFrame, UpstreamError>>> {
        match self {
            UpstreamRequest::Http1(call) => call.poll_frame(cx, source),
            UpstreamRequest::Http2(call) => call.poll_frame(cx, source),
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source) {
        match self {
            UpstreamRequest::Http1(call) => call.poll_rest(cx, source),
            UpstreamRequest::Http2(call) => call.poll_rest(cx, source),
        }
    }

    fn held(&self, unread: bool) -> usize {
        match self {
            UpstreamRequest::Http1(call) => call.held(unread),
            UpstreamRequest::Http2(call) => call.held(),
        }
    }

    fn memory(&self) -> DataMemory {
        match self {
            UpstreamRequest::Http1(_) => DataMemory::ReadBuffer,
            UpstreamRequest::Http2(_) => DataMemory::Frames,
        }
    }
}
