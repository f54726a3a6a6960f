//! One request to an upstream that speaks HTTP/1.1, and its response: a connection belongs to it until the response was
//! read to its end. Both ways go on side by side: an upstream may answer before it has read the request.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{error::UpstreamError, pool::Checkout};
use crate::{
    body::{Source, SourceError},
    connection::TimeoutKind,
    fields,
    forwarded::Forwarded,
    http1::{
        Malformed,
        body::{BodyFrame, Decoder, Framing, Next},
        buffers::{Peer, ReadBuffer},
        encode,
        lines::{Bad, Bounds},
        request::Wants,
        response as codec,
        stream::Stream as _,
        write_buffer::WriteBuffer,
    },
    message::{RequestHead, ResponseHead},
    message_limits::{CONTINUE_TIMEOUT, Limits},
};

/// Longest first line of a response.
const MAX_STATUS_LINE_BYTES: usize = 8 << 10;
/// A request under way on a connection.
pub(crate) struct Http1Request {
    /// Until it is given back.
    io: Option<TcpStream>,
    checkout: Checkout,
    limits: Arc<Limits>,
    buffer: ReadBuffer,
    out: WriteBuffer,
    upload: Upload,
    /// The body waits for the upstream to ask for it, until then.
    held: Option<Pin<Box<Sleep>>>,
    method: Method,
    websocket: bool,
    /// Whether the connection can serve another request, as far as is known.
    reusable: bool,
    interim: u32,
    /// The upstream has said 101.
    switched: bool,
    framing: Framing,
    body: Decoder,
}

/// The request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    /// Pieces of the body are to come.
    Body(Framing),
    /// The request was handed over for writing as a whole.
    Complete,
    /// The upstream takes no more.
    Stopped,
}

impl Http1Request {
    /// Makes the request ready to be sent.
    pub(crate) fn new(
        io: TcpStream,
        checkout: Checkout,
        limits: Arc<Limits>,
        head: &RequestHead,
        forwarded: Forwarded<'_>,
        body: Framing,
        wants: Wants,
    ) -> Self {
        let mut out = WriteBuffer::default();
        encode::request(out.bytes(), head, forwarded, body, wants);
        Self {
            io: Some(io),
            checkout,
            limits,
            buffer: ReadBuffer::new(Peer::Upstream),
            out,
            upload: if body == Framing::Empty { Upload::Complete } else { Upload::Body(body) },
            held: wants.go_ahead.then(|| Box::pin(sleep(CONTINUE_TIMEOUT))),
            method: head.method.clone(),
            websocket: wants.websocket,
            reusable: true,
            interim: 0,
            switched: false,
            framing: Framing::Empty,
            body: Decoder::Length(0),
        }
    }

    /// Sends the request as far as it goes, and reads the response's head.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            let held = self.held.is_some();
            let sent = match self.poll_upload(cx, source) {
                Poll::Ready(Err(e)) => return Poll::Ready(Err(UpstreamError::Source(e))),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let response = self.poll_head(cx, source);
            match &response {
                Poll::Ready(_) => return response,
                // The upstream has just asked for the body.
                Poll::Pending if held && self.held.is_none() => {}
                Poll::Pending => {
                    if sent || held {
                        source.wait(TimeoutKind::UpstreamToAnswer);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            if !self.buffer.bytes.is_empty()
                && let Some(head) = self.head(cx, source)?
            {
                source.progress();
                // Whoever is refused need not send its body any more; whoever is not goes on unasked.
                if self.held.take().is_some() && !head.status.is_success() {
                    self.stop();
                }
                // An answer to what was not all sent: what the upstream makes of the rest is not known.
                self.reusable &= self.is_sent();
                return Poll::Ready(Ok(head));
            }
            let read = ready!(self.poll_fill(cx));
            match read {
                Ok(0) => {
                    let silent = self.buffer.bytes.is_empty() && self.interim == 0;
                    let why = "the connection was closed before a response";
                    return Poll::Ready(Err(if silent { self.silent(why) } else { UpstreamError::Broken(why) }));
                }
                Ok(_) => {}
                Err(_) => {
                    let why = "the connection broke before a response";
                    return Poll::Ready(Err(if self.interim == 0 {
                        self.silent(why)
                    } else {
                        UpstreamError::Broken(why)
                    }));
                }
            }
        }
    }

    /// The next piece of the response's body. What is left of the request's goes its way meanwhile.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<BodyFrame, UpstreamError>>> {
        self.poll_rest(cx, source);
        loop {
            if let Some(piece) = self.ready_frame() {
                return Poll::Ready(piece);
            }
            let Poll::Ready(read) = self.poll_fill(cx) else {
                source.wait(TimeoutKind::UpstreamToSend);
                return Poll::Pending;
            };
            match read {
                Ok(0) if matches!(self.body, Decoder::CloseDelimited) => {
                    self.body = Decoder::Length(0);
                    self.io = None;
                }
                Ok(0) => return Poll::Ready(Some(Err(UpstreamError::Broken("the response broke off")))),
                Ok(read) => source.moved(TimeoutKind::UpstreamToSend, read as u64),
                Err(_) => {
                    return Poll::Ready(Some(Err(UpstreamError::Broken("the connection broke within the response"))));
                }
            }
        }
    }

    /// The next piece of what has come already; `None`: none. Within: as from [`Http1Request::poll_frame`].
    pub(crate) fn ready_frame(&mut self) -> Option<Option<Result<BodyFrame, UpstreamError>>> {
        let next = match self.body.next(&mut self.buffer.bytes, &self.limits) {
            Ok(Next::More) => return None,
            Ok(Next::Data(data)) => Some(Ok(BodyFrame::Data(data))),
            Ok(Next::End(trailers)) => trailers.map(|t| Ok(BodyFrame::Trailers(t))),
            Err(malformed) => {
                self.io = None;
                Some(Err(UpstreamError::Invalid(malformed)))
            }
        };
        if self.body.is_done() {
            self.give_back();
        }
        Some(next)
    }

    /// Goes on with the request's body while the response is under way. When that can't go on, it ends: the response
    /// may be complete without it.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source) {
        if (matches!(self.upload, Upload::Body(_)) || !self.out.is_empty())
            && let Poll::Ready(Err(_)) = self.poll_upload(cx, source)
        {
            self.stop();
        }
    }

    /// Whether the response was read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Bytes of memory that are held for it. `unread`: some of what it was read into waits for the client.
    pub(crate) fn held(&self, unread: bool) -> usize {
        let read = if unread { self.buffer.held_by_parts() } else { self.buffer.held() };
        read + self.out.held() + self.out.large()
    }

    /// The framing of the response's body.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Bytes of the response's body to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.body.left()
    }

    /// Whether the connection was kept from an earlier request, which the upstream may have closed meanwhile.
    pub(crate) fn is_reused(&self) -> bool {
        self.checkout.reused
    }

    /// Whether the upstream has agreed to a WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.switched
    }

    /// Gives up the connection that became a WebSocket, and what was read of it.
    pub(crate) fn into_stream(mut self) -> Option<(Bytes, TcpStream, Checkout)> {
        let read = self.buffer.bytes.split().freeze();
        Some((read, self.io.take()?, self.checkout))
    }

    fn is_sent(&self) -> bool {
        self.upload == Upload::Complete && self.out.is_empty()
    }

    /// Writes what there is to write.
    fn poll_upload(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Poll<Result<(), SourceError>> {
        loop {
            let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
            let before = self.out.written();
            let written = self.out.poll_write(io, cx);
            if self.out.written() > before {
                source.moved(TimeoutKind::UpstreamToRead, self.out.written() - before);
            }
            match written {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // The upstream takes no more of it, but may have answered.
                    self.stop();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    source.wait(TimeoutKind::UpstreamToRead);
                    return Poll::Pending;
                }
            }
            let Upload::Body(framing) = self.upload else {
                // While the upstream thinks, others can write from it.
                self.out.release();
                return Poll::Ready(Ok(()));
            };
            if let Some(held) = &mut self.held {
                // One that sends its body all the same does not wait.
                if source.poll_unasked(cx).is_pending() {
                    ready!(held.as_mut().poll(cx));
                }
                self.held = None;
            }
            loop {
                match ready!(source.poll_frame(cx)) {
                    Some(Ok(BodyFrame::Data(data))) => self.out.push(data, framing),
                    Some(Ok(BodyFrame::Trailers(trailers))) => {
                        self.out.finish(framing, Some(&trailers));
                        self.upload = Upload::Complete;
                        break;
                    }
                    None => {
                        self.out.finish(framing, None);
                        self.upload = Upload::Complete;
                        break;
                    }
                    Some(Err(e)) => {
                        self.stop();
                        return Poll::Ready(Err(e));
                    }
                }
                if self.out.is_full() || !source.has_buffered() {
                    break;
                }
            }
        }
    }

    fn stop(&mut self) {
        self.upload = Upload::Stopped;
        self.reusable = false;
        self.out.clear();
    }

    /// The final head, once it has come; those before it are passed on.
    fn head(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Result<Option<ResponseHead>, UpstreamError> {
        loop {
            let ReadBuffer { bytes, lines, .. } = &mut self.buffer;
            let bounds = Bounds {
                bytes: self.limits.response_head_bytes,
                fields: self.limits.response_fields,
                first: MAX_STATUS_LINE_BYTES,
            };
            let end = lines.read(bytes, bounds).map_err(|bad| match bad {
                Bad::Malformed(malformed) => UpstreamError::Invalid(malformed),
                Bad::TooMuch(_) => UpstreamError::Invalid(Malformed::TooLong),
            })?;
            let Some(end) = end else { return Ok(None) };
            let head = bytes.split_to(end).freeze();
            let head = codec::parse(head, lines, fields::take(), &self.method).map_err(UpstreamError::Invalid)?;
            let upgraded = head.parts.status == StatusCode::SWITCHING_PROTOCOLS;
            if upgraded && !(self.websocket && head.websocket) {
                return Err(UpstreamError::Protocol);
            }
            if !upgraded && head.parts.status.is_informational() {
                self.reusable &= head.keep_alive;
                self.interim += 1;
                if self.interim > self.limits.interim {
                    return Err(UpstreamError::Endless);
                }
                if head.parts.status == StatusCode::CONTINUE {
                    self.held = None;
                }
                source.interim(cx, &head.parts);
                fields::give_back(head.parts.fields);
                self.buffer.lines.reset(true);
                if self.buffer.bytes.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            self.switched = upgraded;
            self.reusable &= head.keep_alive && !upgraded;
            (self.framing, self.body) = (head.body, head.body.decoder_of_upstream());
            if self.body.is_done() && !upgraded {
                self.reusable &= self.is_sent();
                self.give_back();
            }
            return Ok(Some(head.parts));
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        // While the upstream thinks, others can read into it.
        if self.buffer.is_released() {
            ready!(io.poll_readable(cx));
        }
        self.buffer.make_room();
        let read = pin!(io.read_buf(&mut self.buffer.bytes)).poll(cx);
        if read.is_pending() && self.buffer.bytes.is_empty() {
            self.buffer.release_unshared();
        }
        read
    }

    /// Not a byte came back.
    fn silent(&self, why: &'static str) -> UpstreamError {
        if self.out.written() > 0 { UpstreamError::Silent(why) } else { UpstreamError::Unsent(why) }
    }

    /// The response is complete: the connection is kept, if nothing is left of the request or the response.
    fn give_back(&mut self) {
        let complete = self.is_sent() && self.buffer.bytes.is_empty();
        if let Some(io) = self.io.take()
            && self.reusable
            && complete
        {
            self.checkout.give_back(io);
        }
    }
}
