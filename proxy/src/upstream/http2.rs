//! One request to an upstream that speaks HTTP/2, through hyper.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::channel::mpsc;
use http::{Request, Response, Uri, Version, header, uri};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::{
    CallError,
    pool::{STREAM_WINDOW, Stream},
};
use crate::{
    body::{BodyError, RequestBody, Source, SourceError},
    exchange::headers::Forwarded,
    http1::{
        body::{Framing, Piece},
        request::Wants,
    },
    message::{RequestHead, ResponseHead},
    server::Waiting,
};

type Sender = hyper::client::conn::http2::SendRequest<RequestBody>;
type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failed>> + Send>>;

/// Why a stream got no response; with the body, if it was not sent.
type Failed = (hyper::Error, Option<RequestBody>);

/// A request under way on a stream.
pub(crate) struct Call {
    /// The stream counts against its connection's limit, and the request as under way to its endpoint.
    _stream: Stream,
    reused: bool,
    sending: Option<Sending>,
    /// Where pieces of the request's body go, unless hyper has the body itself.
    feed: Option<mpsc::Sender<Result<Frame<bytes::Bytes>, BodyError>>>,
    /// Whether a piece went there.
    fed: bool,
    body: Option<Incoming>,
    framing: Framing,
}

impl Call {
    /// Makes the request ready to be sent.
    pub(crate) fn new(
        (mut sender, stream, reused): (Sender, Stream, bool),
        head: &RequestHead,
        forwarded: Forwarded<'_>,
        source: &mut impl Source,
        wants: Wants,
    ) -> Self {
        let (body, feed) = match (source.take_body(), source.framing()) {
            (Some(body), _) => (body, None),
            (None, Framing::Empty) => (RequestBody::Empty, None),
            (None, framing) => {
                let (feed, pieces) = mpsc::channel(0);
                let length = if let Framing::Length(length) = framing { Some(length) } else { None };
                (RequestBody::Fed(pieces, length), Some(feed))
            }
        };
        let request = addressed(head, forwarded, body, wants);
        let sending = Box::pin(async move {
            if let Err(e) = sender.ready().await {
                return Err((e, Some(request.into_body())));
            }
            sender.try_send_request(request).await.map_err(|mut e| {
                let unsent = e.take_message().map(Request::into_body);
                (e.into_error(), unsent)
            })
        });
        Self { _stream: stream, reused, sending: Some(sending), feed, fed: false, body: None, framing: Framing::Empty }
    }

    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<ResponseHead, CallError>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Err(CallError::Broken("the response was taken")));
        };
        // Before the body is asked for: of a request that can't be sent nothing is lost.
        let response = match sending.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => response,
            Poll::Ready(Err((e, unsent))) => {
                tracing::debug!(error = %e, "upstream stream ended");
                return Poll::Ready(Err(match unsent {
                    Some(body) if !self.fed => {
                        source.return_body(body);
                        CallError::Unsent("the connection was closed")
                    }
                    _ => CallError::Http2(e),
                }));
            }
            Poll::Pending => match ready!(self.poll_feed(cx, source)) {
                Err(e) => return Poll::Ready(Err(CallError::Source(e))),
                Ok(()) => {
                    source.wait(Waiting::UpstreamToAnswer);
                    return Poll::Pending;
                }
            },
        };
        self.sending = None;
        source.progress();
        let (mut head, body) = response.into_parts();
        self.framing = match body.size_hint().exact() {
            _ if body.is_end_stream() => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        if self.framing != Framing::Empty {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        self.body = Some(body);
        Poll::Ready(Ok(head.into()))
    }

    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<Piece, CallError>>> {
        self.poll_rest(cx, source);
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            source.wait(Waiting::UpstreamToSend);
            return Poll::Pending;
        };
        source.progress();
        Poll::Ready(match frame {
            None => {
                self.body = None;
                None
            }
            Some(Err(e)) => Some(Err(e.into())),
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => {
                    self.body = None;
                    Piece::Trailers(frame.into_trailers().map(Box::new).unwrap_or_default())
                }
            })),
        })
    }

    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source) {
        // A body that broke off was told to the upstream already.
        let _ = self.poll_feed(cx, source);
    }

    pub(super) fn is_done(&self) -> bool {
        self.sending.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// What has come of an unread body is with hyper, which does not say how much: as much as may come.
    pub(super) fn held(&self, unread: bool) -> usize {
        let most = if unread && self.body.is_some() { STREAM_WINDOW as usize } else { 0 };
        self.left().and_then(|left| usize::try_from(left).ok()).map_or(most, |left| most.min(left))
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), |body| body.size_hint().exact())
    }

    /// Passes pieces of the request's body on.
    fn poll_feed(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Poll<Result<(), SourceError>> {
        while let Some(feed) = &mut self.feed {
            let Poll::Ready(ready) = feed.poll_ready(cx) else {
                source.wait(Waiting::UpstreamToRead);
                return Poll::Pending;
            };
            if ready.is_err() {
                // The upstream takes no more.
                self.feed = None;
                break;
            }
            let (frame, end) = match ready!(source.poll_piece(cx)) {
                None => {
                    self.feed = None;
                    break;
                }
                Some(Ok(Piece::Data(data))) => (Ok(Frame::data(data)), None),
                Some(Ok(Piece::Trailers(trailers))) => (Ok(Frame::trailers(*trailers)), Some(Ok(()))),
                Some(Err(e)) => (Err(BodyError::Client), Some(Err(e))),
            };
            // There is room, and a receiver that is gone is noticed next time.
            let _ = feed.start_send(frame);
            self.fed = true;
            if let Some(end) = end {
                self.feed = None;
                return Poll::Ready(end);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The request as hyper wants it for HTTP/2.
fn addressed(head: &RequestHead, forwarded: Forwarded<'_>, body: RequestBody, wants: Wants) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut fields = head.fields.to_map();
    let host = fields.remove(header::HOST);
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        fields.remove(name);
    }
    if wants.trailers {
        fields.insert(header::TE, http::HeaderValue::from_static("trailers"));
    }
    forwarded.set(&mut fields);
    *request.headers_mut() = fields;
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = host.and_then(|host| host.as_bytes().try_into().ok());
    parts.path_and_query = head.uri.path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
