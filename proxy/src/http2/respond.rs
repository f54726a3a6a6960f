//! A response on its stream, as fast as the client takes it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, DATE, UPGRADE},
    response,
};
use tokio::time::Sleep;

use super::{heads, sender::Sender, source::Http2Source};
use crate::{
    body::{DataMemory, Interrupt, ResponseBody, Source as _},
    connection::TimeoutKind,
    date,
    exchange::{Exchange, Reply, ReplyBody},
    forwarded::RequestId,
    header_value,
    http1::body::BodyFrame,
    message::ResponseHead,
    rate_limit_fields::RateLimit,
    upstream::{UpstreamError, UpstreamRequest},
};

/// A part of a body that is no longer than this does not keep what it was read into until the client takes it.
const MAX_COPIED_BYTES: usize = 8 << 10;
/// Small parts that have come together go on together, up to so many bytes: clients count frames, and end connections
/// of which they get very many.
const MAX_COALESCED_BYTES: usize = 16 << 10;

/// Why a response did not reach its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the client reset it: {0}")]
    Reset(Reason),
    #[error("the client took, or sent, nothing for too long")]
    Stalled,
    #[error("the connection is closed")]
    Closed,
    #[error("upstream: {0}")]
    Upstream(UpstreamError),
    #[error("the upstream sent, or took, nothing for too long")]
    UpstreamStalled,
    #[error("the request's time is over")]
    Timeout(Option<TimeoutKind>),
}

/// Sends a reply, and records what became of it.
pub(super) async fn respond(reply: Reply, source: &mut Http2Source<'_>, exchange: &mut Exchange<'_>, sender: &Sender) {
    let Reply { head, rate_limit, body } = reply;
    let head = finalize_headers(head, rate_limit, &exchange.request_id, exchange.answered_at());
    source.answering();
    let sent = match body {
        ReplyBody::Local(body) => {
            // Nobody will read it.
            source.drop_body();
            let response = Sending { body: None::<&mut UpstreamRequest>, deadline: None, source };
            response.own(head, body, exchange, sender).await
        }
        ReplyBody::Upstream(mut body, deadline) => {
            Sending { body: Some(&mut body), deadline, source }.relay(head, exchange, sender).await
        }
        ReplyBody::Stepped(mut body, deadline) => {
            Sending { body: Some(&mut *body), deadline, source }.relay(head, exchange, sender).await
        }
        ReplyBody::Reset(reason) => return sender.reset(passed(reason)),
        // None was asked for: there is no upgrade in HTTP/2.
        ReplyBody::WebSocket(..) => return sender.reset(Reason::INTERNAL_ERROR),
    };
    let Err(ended) = sent else { return };
    tracing::debug!(error = %ended, "stream ended early");
    match ended {
        Ended::Upstream(ref error) => exchange.body_broke(error),
        Ended::Timeout(waiting) => exchange.timed_out(waiting),
        Ended::UpstreamStalled => exchange.upstream_stalled(),
        Ended::Stalled => exchange.client_stalled(),
        Ended::Http2(_) | Ended::Reset(_) | Ended::Closed => exchange.client_went(),
    }
    // A reset takes back what waits to be written: what came of the response goes out first, as far as it can.
    tokio::task::yield_now().await;
    match ended {
        Ended::Upstream(UpstreamError::Reset(reason)) => sender.reset(passed(reason)),
        // A clean end would make a cut response look whole.
        Ended::Upstream(_) | Ended::UpstreamStalled | Ended::Timeout(_) => sender.reset(Reason::INTERNAL_ERROR),
        Ended::Stalled => sender.reset(Reason::CANCEL),
        Ended::Http2(_) | Ended::Reset(_) | Ended::Closed => {}
    }
}

/// The reason that ends a client's stream when an upstream ended its own: the same, if that is about the request. What
/// is about the connection to the upstream says nothing of the client's.
fn passed(reason: Reason) -> Reason {
    match reason {
        Reason::NO_ERROR | Reason::REFUSED_STREAM | Reason::CANCEL | Reason::ENHANCE_YOUR_CALM => reason,
        _ => Reason::INTERNAL_ERROR,
    }
}

/// The head with the proxy's own fields in it.
fn finalize_headers(head: ResponseHead, rate_limit: Option<RateLimit>, id: &RequestId, at: Instant) -> response::Parts {
    let mut head = response::Parts::from(head);
    if let Some(limit) = rate_limit {
        limit.set(&mut head.headers);
    }
    id.set(&mut head.headers);
    // By HTTP/1.1 alone (RFC 9113 section 8.2.2).
    if head.status == StatusCode::UPGRADE_REQUIRED {
        head.headers.remove(UPGRADE);
    }
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date::at(at));
    }
    head
}

/// A response on its way.
struct Sending<'a, 'b, B> {
    /// Where it comes from; `None`: from the proxy itself.
    body: Option<&'a mut B>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Body of the request, what is left of which goes its way meanwhile.
    source: &'a mut Http2Source<'b>,
}

impl<B: ResponseBody<Error = UpstreamError>> Sending<'_, '_, B> {
    /// Sends the head; `None`: there is nothing to follow.
    fn send_head(
        &mut self,
        mut head: response::Parts,
        length: Option<u64>,
        ended: bool,
        sender: &Sender,
    ) -> Result<Option<SendStream<Bytes>>, Ended> {
        if let Some(length @ 1..) = length
            && !head.headers.contains_key(CONTENT_LENGTH)
            && let Some(length) = header_value::value(|out| header_value::decimal(out, length))
        {
            head.headers.insert(CONTENT_LENGTH, length);
        }
        let bytes = heads::size(&head.headers);
        let stream = sender.respond(Response::from_parts(head, ()), ended)?;
        self.source.queued_head(bytes);
        Ok((!ended).then_some(stream))
    }

    /// Sends an answer of the proxy's own.
    async fn own(
        mut self,
        head: response::Parts,
        body: Bytes,
        exchange: &mut Exchange<'_>,
        sender: &Sender,
    ) -> Result<(), Ended> {
        exchange.bytes_out = body.len() as u64;
        match self.send_head(head, Some(exchange.bytes_out), body.is_empty(), sender)? {
            Some(mut stream) => self.send(&mut stream, body, 0, true).await,
            None => Ok(()),
        }
    }

    /// Sends one whose body comes from somewhere, as it comes.
    async fn relay(mut self, head: response::Parts, exchange: &mut Exchange<'_>, sender: &Sender) -> Result<(), Ended> {
        let (left, done) = self.body.as_ref().map_or((Some(0), true), |body| (body.left(), body.is_done()));
        let Some(mut stream) = self.send_head(head, left, done, sender)? else { return Ok(()) };
        // What came behind parts that go on together.
        let mut next: Option<Result<Option<BodyFrame>, Ended>> = None;
        loop {
            let piece = match next.take() {
                Some(piece) => piece?,
                None => poll_fn(|cx| self.poll_frame(cx, &mut stream)).await?,
            };
            match piece {
                None => return Ok(stream.send_data(Bytes::new(), true)?),
                Some(BodyFrame::Trailers(trailers)) => return Ok(stream.send_trailers(*trailers)?),
                Some(BodyFrame::Data(data)) => {
                    // The buffer that it was read into is wanted back, and much larger.
                    let data = if data.len() <= MAX_COPIED_BYTES {
                        let (data, behind) = poll_fn(|cx| Poll::Ready(self.together(cx, &data))).await;
                        next = behind;
                        data
                    } else {
                        data
                    };
                    exchange.bytes_out += data.len() as u64;
                    let end = next.is_none() && self.body.as_ref().is_none_or(|body| body.is_done());
                    let behind = match &next {
                        Some(Ok(Some(BodyFrame::Data(data)))) => data.len(),
                        _ => 0,
                    };
                    self.send(&mut stream, data, behind, end).await?;
                    if end {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A small part with those that have come behind it, and what came behind them.
    fn together(&mut self, cx: &mut Context<'_>, first: &[u8]) -> (Bytes, Option<Result<Option<BodyFrame>, Ended>>) {
        let mut all = BytesMut::from(first);
        while let Some(body) = self.body.as_mut().filter(|body| all.len() < MAX_COALESCED_BYTES && !body.is_done()) {
            // What is made here is made for others' turns too: no more of it than there is.
            let come = match body.memory() {
                DataMemory::Own => body.ready_frame().map_or(Poll::Pending, Poll::Ready),
                _ => body.poll_frame(cx, self.source),
            };
            match come {
                Poll::Ready(Some(Ok(BodyFrame::Data(data)))) if data.len() <= MAX_COPIED_BYTES => {
                    all.extend_from_slice(&data);
                }
                Poll::Ready(behind) => return (all.freeze(), Some(behind.transpose().map_err(Ended::Upstream))),
                Poll::Pending => break,
            }
        }
        (all.freeze(), None)
    }

    /// Sends some bytes as the client's windows open. What waits here is one part of a body, and nothing more is read
    /// from upstream meanwhile, but for the bytes that stand `behind` it.
    async fn send(
        &mut self,
        stream: &mut SendStream<Bytes>,
        mut data: Bytes,
        behind: usize,
        end: bool,
    ) -> Result<(), Ended> {
        if data.is_empty() {
            return if end { Ok(stream.send_data(data, true)?) } else { Ok(()) };
        }
        // What goes on together was copied.
        let copied = data.len() <= MAX_COALESCED_BYTES + MAX_COPIED_BYTES;
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            if stream.capacity() == 0 {
                let held = self.body.as_ref().map_or(0, |body| body.held(true));
                // A large part by HTTP/1.1 stands in what it was read into.
                let stands = !copied && self.memory() == Some(DataMemory::ReadBuffer);
                self.source.hold(if stands { held.max(data.len()) } else { held + data.len() } + behind);
                poll_fn(|cx| self.poll_capacity(cx, stream)).await?;
                self.source.hold(0);
            }
            let part = data.split_to(data.len().min(stream.capacity()));
            if !part.is_empty() {
                let bytes = part.len();
                stream.send_data(part, end && data.is_empty())?;
                self.source.queued(bytes, self.memory() == Some(DataMemory::Frames));
            }
        }
        Ok(())
    }

    fn memory(&self) -> Option<DataMemory> {
        self.body.as_ref().map(|body| body.memory())
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
    ) -> Poll<Result<Option<BodyFrame>, Ended>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        if self.source.is_held_back() {
            // It is not the upstream that is waited for.
            self.source.progress();
            cx.waker().wake_by_ref();
        } else if let Poll::Ready(piece) = body.poll_frame(cx, self.source) {
            return Poll::Ready(piece.transpose().map_err(Ended::Upstream));
        }
        self.source.hold(body.held(false));
        if let Poll::Ready(ended) = self.poll_end(cx) {
            return Poll::Ready(Err(ended));
        }
        stream.poll_reset(cx).map(|reset| Err(reset.map_or_else(Ended::Http2, Ended::Reset)))
    }

    /// Waits until the client takes more: its stream is reset when it does not for too long, and what it held is free.
    fn poll_capacity(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Poll<Result<(), Ended>> {
        if let Poll::Ready(capacity) = stream.poll_capacity(cx) {
            self.source.opened();
            return Poll::Ready(capacity.ok_or(Ended::Closed)?.map(drop).map_err(Ended::Http2));
        }
        if let Some(body) = &mut self.body {
            body.poll_rest(cx, self.source);
        }
        self.source.wait(TimeoutKind::ClientToRead);
        self.poll_end(cx).map(Err)
    }

    /// Ready with what ends the response before its time.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Ended::Timeout(self.source.waiting()));
        }
        self.source.poll_interrupt(cx).map(|interrupt| match interrupt {
            Interrupt::Stalled(waiting) if !waiting.is_for_client() => Ended::UpstreamStalled,
            Interrupt::Stalled(_) => Ended::Stalled,
            Interrupt::Gone => Ended::Closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::filter::testing::rate_limit;

    #[test]
    fn what_is_the_proxys_own_stands_in_place_of_the_upstreams() {
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields =
            [field("ratelimit", "theirs"), field("x-request-id", "theirs"), field("x", "1")].into_iter().collect();
        let id = RequestId::Sent(Bytes::from_static(b"id"));
        let got = finalize_headers(head, Some(rate_limit()), &id, Instant::now());
        let all = |name: &str| got.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!(["ratelimit", "x-request-id", "x"].map(all), [vec![&b"n;r=1;t=1"[..]], vec![b"id"], vec![b"1"]]);
        assert!(got.headers.contains_key(DATE));
    }
}
