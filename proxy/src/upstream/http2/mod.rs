//! One request to an upstream that speaks HTTP/2, on the `h2` crate: its stream, both ways side by side.

mod arrived;
mod connection;
mod kept;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, response, uri};
use tokio::time::{Sleep, sleep};

use self::kept::{Next, weight};
pub(crate) use self::{connection::Connection, kept::Kept};
use super::{error::UpstreamError, in_flight::Stream};
use crate::{
    body::{Source, SourceError},
    connection::TimeoutKind,
    forwarded::Forwarded,
    http1::{
        Malformed,
        body::{BodyFrame, Framing},
        grammar,
        request::Wants,
    },
    http2::{heads, plain},
    memory::{Charge, Holder, Kind},
    message::{RequestHead, ResponseHead},
    message_limits::{CONTINUE_TIMEOUT, Limits},
};

/// A request under way on a stream.
pub(crate) struct Http2Request {
    /// The stream counts against its connection's limit, and the request as under way to its endpoint.
    _stream: Stream,
    connection: Connection,
    reused: bool,
    limits: Arc<Limits>,
    state: State,
    /// The request's way, until it ends.
    upload: Option<SendStream<Bytes>>,
    /// The body waits for the upstream to ask for it, until then.
    held: Option<Pin<Box<Sleep>>>,
    interim: u32,
    kept: Kept,
    /// Rest of the piece of the body under way, and whether anything follows it.
    piece: Bytes,
    last: bool,
    /// Piece that came behind it.
    behind: Option<Next>,
    /// The stream's number, once it has one.
    id: u32,
    framing: Framing,
    /// Bytes of the response's body to come, where that is known.
    left: Option<u64>,
    /// The response to HEAD has no body, whatever comes behind it.
    head_only: bool,
    /// Account of the client that asked.
    holder: Arc<Holder>,
}

/// The response's way.
enum State {
    /// The request is to be sent.
    Unsent(Box<Request<()>>),
    Sent(ResponseFuture),
    Body(RecvStream),
    /// The response was read to its end, or broke off.
    Done,
}

impl Http2Request {
    /// Makes the request ready to be sent. `kept`: what of its body another connection was sent.
    pub(crate) fn new(
        (connection, stream, reused): (Connection, Stream, bool),
        limits: Arc<Limits>,
        head: &RequestHead,
        forwarded: Forwarded<'_>,
        (body, kept): (Framing, Kept),
        wants: Wants,
        holder: &Arc<Holder>,
    ) -> Self {
        let state =
            addressed(head, forwarded, body, wants).map_or(State::Done, |request| State::Unsent(Box::new(request)));
        Self {
            _stream: stream,
            connection,
            reused,
            limits,
            state,
            upload: None,
            held: wants.go_ahead.then(|| Box::pin(sleep(CONTINUE_TIMEOUT))),
            interim: 0,
            kept: kept.unsent(),
            piece: Bytes::new(),
            last: body == Framing::Empty,
            behind: None,
            id: 0,
            framing: Framing::Empty,
            left: Some(0),
            head_only: head.method == Method::HEAD,
            holder: Arc::clone(holder),
        }
    }

    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        if let State::Unsent(request) = &mut self.state {
            let request = std::mem::take(&mut **request);
            let (response, upload) = match self.connection.sender().send_request(request, self.last) {
                Ok(sent) => sent,
                Err(error) => {
                    tracing::debug!(%error, "no stream to the upstream");
                    let closed = error.is_go_away() || error.is_reset() || error.is_io();
                    return Poll::Ready(Err(if closed { self.unprocessed() } else { UpstreamError::Protocol }));
                }
            };
            self.id = response.stream_id().as_u32();
            self.connection.arrived().begin(self.id, Charge::new(&self.holder, Kind::Bodies));
            self.upload = (!self.last).then_some(upload);
            self.state = State::Sent(response);
        }
        // Before the body is asked for: of a request that is not processed nothing is lost.
        let Poll::Ready(response) = self.poll_head(cx, source)? else {
            let held = self.held.is_some();
            let upload = self.poll_upload(cx, source);
            if upload.is_ready() || held && self.held.is_some() {
                source.wait(TimeoutKind::UpstreamToAnswer);
            }
            return match upload {
                Poll::Ready(Err(e)) => Poll::Ready(Err(UpstreamError::Source(e))),
                _ => Poll::Pending,
            };
        };
        source.progress();
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.state = State::Done;
                return Poll::Ready(Err(self.no_response(&error)));
            }
        };
        self.kept.forget_sent();
        let (mut head, body) = response.into_parts();
        if head.headers.len() > self.limits.response_fields
            || heads::size(&head.headers) > self.limits.response_head_bytes
        {
            self.state = State::Done;
            return Poll::Ready(Err(Malformed::TooLong.into()));
        }
        if let Err(malformed) = plain::response(&mut head.headers) {
            self.state = State::Done;
            return Poll::Ready(Err(malformed.into()));
        }
        // Whoever is refused need not send its body any more; whoever is not goes on unasked.
        if self.held.take().is_some() && !head.status.is_success() {
            self.stop();
        }
        self.receive(&mut head, body);
        Poll::Ready(Ok(head.into()))
    }

    /// The response, once it has come; those before it are passed on.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Result<Poll<Result<Response<RecvStream>, h2::Error>>, UpstreamError> {
        let State::Sent(response) = &mut self.state else { return Err(UpstreamError::Protocol) };
        loop {
            match response.poll_informational(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(Ok(interim))) => {
                    self.interim += 1;
                    let (mut head, ()) = interim.into_parts();
                    if self.interim > self.limits.interim {
                        return Err(UpstreamError::Endless);
                    }
                    if heads::size(&head.headers) > self.limits.response_head_bytes {
                        return Err(Malformed::TooLong.into());
                    }
                    match head.status {
                        // There is none in HTTP/2 (RFC 9113 section 8.6).
                        StatusCode::SWITCHING_PROTOCOLS => return Err(UpstreamError::Protocol),
                        StatusCode::CONTINUE => self.held = None,
                        _ => {}
                    }
                    plain::response(&mut head.headers)?;
                    source.interim(cx, &head.into());
                }
                // The final one, or what broke.
                Poll::Ready(_) => return Ok(Pin::new(response).poll(cx)),
            }
        }
    }

    /// Goes on with the body of a response whose head has come.
    fn receive(&mut self, head: &mut response::Parts, body: RecvStream) {
        // As by HTTP/1.1, whose clients take what came behind these for the next response.
        if self.head_only || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            self.state = State::Done;
            return;
        }
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| grammar::number(length.as_bytes()));
        (self.framing, self.left) = match length {
            _ if body.is_end_stream() => (Framing::Empty, Some(0)),
            Some(length) => (Framing::Length(length), Some(length)),
            None => (Framing::Chunked, None),
        };
        if self.framing != Framing::Empty {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        self.state = State::Body(body);
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<BodyFrame, UpstreamError>>> {
        if let Poll::Ready(Err(e)) = self.poll_upload(cx, source) {
            self.state = State::Done;
            return Poll::Ready(Some(Err(UpstreamError::Source(e))));
        }
        let State::Body(body) = &mut self.state else { return Poll::Ready(None) };
        let Poll::Ready(data) = body.poll_data(cx) else {
            self.connection.arrived().drained(self.id);
            source.wait(TimeoutKind::UpstreamToSend);
            return Poll::Pending;
        };
        match data {
            Some(Ok(data)) => {
                source.moved(TimeoutKind::UpstreamToSend, data.len() as u64);
                // Whoever asked has room for it: the upstream may send as much again.
                let _ = body.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                self.connection.arrived().taken(self.id, data.len());
                Poll::Ready(Some(Ok(BodyFrame::Data(data))))
            }
            Some(Err(error)) => {
                self.state = State::Done;
                Poll::Ready(Some(Err(broken(&error))))
            }
            None => {
                let trailers = ready!(body.poll_trailers(cx));
                source.progress();
                self.state = State::Done;
                Poll::Ready(match trailers {
                    Ok(None) => None,
                    Ok(Some(trailers)) => Some(self.checked(trailers).map(|t| BodyFrame::Trailers(Box::new(t)))),
                    Err(error) => Some(Err(broken(&error))),
                })
            }
        }
    }

    /// Goes on with the request's body. When that can't go on, it ends: the response may be complete without it.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source) {
        // A body that broke off was told to the upstream already.
        let _ = self.poll_upload(cx, source);
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.state {
            State::Body(body) => body.is_end_stream(),
            State::Done => true,
            State::Unsent(_) | State::Sent(_) => false,
        }
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Bytes of memory that are held for it, besides what has come.
    pub(super) fn held(&self) -> usize {
        let behind = self.behind.iter().flatten().flatten().map(weight).sum::<usize>();
        self.kept.bytes + self.piece.len() + behind
    }

    pub(super) fn left(&self) -> Option<u64> {
        if self.is_done() { Some(0) } else { self.left }
    }

    /// The part of the body that was sent, for another connection.
    pub(crate) fn take_kept(&mut self) -> Kept {
        std::mem::take(&mut self.kept)
    }

    /// Passes pieces of the request's body on.
    fn poll_upload(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Poll<Result<(), SourceError>> {
        while let Some(upload) = &mut self.upload {
            if let Some(held) = &mut self.held {
                // One that sends its body all the same does not wait.
                if source.poll_unasked(cx).is_pending() {
                    ready!(held.as_mut().poll(cx));
                }
                self.held = None;
            }
            if !self.piece.is_empty() {
                upload.reserve_capacity(self.piece.len());
                let capacity = match upload.capacity() {
                    0 => match upload.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(capacity))) => {
                            source.moved(TimeoutKind::UpstreamToRead, capacity as u64);
                            capacity
                        }
                        Poll::Ready(_) => 0,
                        Poll::Pending => {
                            source.wait(TimeoutKind::UpstreamToRead);
                            return Poll::Pending;
                        }
                    },
                    capacity => capacity,
                };
                let part = self.piece.split_to(capacity.min(self.piece.len()));
                let end = self.last && self.piece.is_empty();
                if part.is_empty() || upload.send_data(part, end).is_err() {
                    // The upstream takes no more.
                    self.stop();
                } else if end {
                    self.upload = None;
                }
                continue;
            }
            let next = match self.behind.take() {
                Some(next) => next,
                None => ready!(self.kept.next(cx, source)),
            };
            let sent = match next {
                Some(Ok(BodyFrame::Data(data))) => {
                    (self.piece, self.behind) = self.kept.together(cx, source, data);
                    self.last = self.behind.is_none() && self.kept.is_sent() && source.is_ended();
                    if !self.piece.is_empty() || !self.last {
                        continue;
                    }
                    upload.send_data(Bytes::new(), true)
                }
                Some(Ok(BodyFrame::Trailers(trailers))) => upload.send_trailers(*trailers),
                None => upload.send_data(Bytes::new(), true),
                Some(Err(e)) => {
                    upload.send_reset(Reason::CANCEL);
                    self.stop();
                    return Poll::Ready(Err(e));
                }
            };
            // An upstream that takes no more may have answered.
            drop(sent);
            self.upload = None;
        }
        Poll::Ready(Ok(()))
    }

    fn stop(&mut self) {
        (self.upload, self.piece) = (None, Bytes::new());
    }

    /// The upstream says, or shows, that it has not processed the request (RFC 9113 section 8.7).
    fn unprocessed(&mut self) -> UpstreamError {
        match self.behind.take() {
            // What is wrong with the request is as wrong elsewhere.
            Some(Some(Err(e))) => UpstreamError::Source(e),
            _ if self.kept.cut => UpstreamError::Reset(Reason::REFUSED_STREAM),
            _ => UpstreamError::Unprocessed,
        }
    }

    /// Why there is no response.
    fn no_response(&mut self, error: &h2::Error) -> UpstreamError {
        tracing::debug!(%error, "upstream stream ended");
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        match () {
            // Of streams beyond the last one that it processes, `h2` says that they were told to go away.
            () if error.is_remote() && (error.is_go_away() || error.is_reset() && refused) => self.unprocessed(),
            () => match broken(error) {
                UpstreamError::Broken(why) if self.interim == 0 => UpstreamError::Silent(why),
                other => other,
            },
        }
    }

    /// Trailers within the bounds.
    fn checked(&self, mut trailers: HeaderMap) -> Result<HeaderMap, UpstreamError> {
        let fit = trailers.len() <= self.limits.fields && heads::size(&trailers) <= self.limits.trailer_bytes;
        if !fit || self.connection.blocks().is_large(self.id) {
            return Err(Malformed::TooLong.into());
        }
        plain::trailers(&mut trailers)?;
        Ok(trailers)
    }
}

impl Drop for Http2Request {
    fn drop(&mut self) {
        self.connection.blocks().forget(self.id);
        self.connection.arrived().end(self.id);
    }
}

/// Why a response ends before its time.
fn broken(error: &h2::Error) -> UpstreamError {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => UpstreamError::Reset(reason),
        Some(_) if error.is_library() => UpstreamError::Protocol,
        _ => UpstreamError::Broken("the connection broke off"),
    }
}

/// The request as HTTP/2 has it; `None`: its host, or its target, is none.
fn addressed(head: &RequestHead, forwarded: Forwarded<'_>, body: Framing, wants: Wants) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut fields = head.fields.to_map();
    let host = fields.remove(header::HOST);
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE] {
        fields.remove(name);
    }
    match body {
        Framing::Length(length) => drop(fields.insert(header::CONTENT_LENGTH, length.into())),
        // RFC 9110 section 8.6: where a body would mean something.
        Framing::Empty if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Framing::Empty | Framing::Chunked | Framing::CloseDelimited => {}
    }
    if wants.go_ahead {
        fields.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if wants.trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    forwarded.set(&mut fields);
    *request.headers_mut() = fields;
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = host.and_then(|host| host.as_bytes().try_into().ok());
    parts.path_and_query = head.uri.path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(request)
}
