//! A client's connection from its first byte to its last: one request after the other, each answered before the next.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header::CONTENT_TYPE};
use tokio::{net::TcpStream, time::Sleep};

use super::{
    body::{BodyFrame, Framing},
    client::{Client, Event},
    encode::{self, After, OwnFields},
    request::Head,
    stream::{Prefixed, Stream},
    write_buffer::WriteBuffer,
};
use crate::{
    body::{Interrupt, ResponseBody, Source},
    connection::{Conn, TimeoutKind},
    exchange::{self, Exchange, LocalReplyKind, Reply, ReplyBody},
    fields::{self, Fields},
    message::{RequestHead, ResponseHead},
    rate_limit_fields::RateLimit,
    rule::Rule,
    upstream::{self, Checkout, UpstreamError},
    worker::Worker,
};

/// A response that comes faster than this many bytes at once lets others have their turn.
const YIELD_AFTER_BYTES: u64 = 256 << 10;
/// Requests that a client sent ahead of their answers are served in one go up to so many.
const MAX_PIPELINED_REQUESTS: u32 = 8;

/// The future of a connection that HTTP/1.1 has done with.
pub(crate) enum Ended<S> {
    /// The connection is closed.
    Closed,
    /// The client speaks HTTP/2.
    Http2(Prefixed<S>),
    /// The connection is a WebSocket.
    WebSocket(Box<WebSocket<S>>),
}

/// Both ends of a WebSocket, and what has to live as long.
pub(crate) struct WebSocket<S> {
    pub(crate) client: Prefixed<S>,
    pub(crate) upstream: Prefixed<TcpStream>,
    pub(crate) rule: Arc<Rule>,
    pub(crate) checkout: Checkout,
}

/// Serves a connection.
pub(crate) async fn serve<S: Stream>(worker: &Arc<Worker>, conn: &Arc<Conn>, io: S) -> Ended<S> {
    let mut client = Client::new(io, Arc::clone(conn), Arc::clone(&conn.limits));
    let mut ahead = 0;
    loop {
        let end = match client.next().await {
            Event::Request(mut head) => request(worker, conn, &mut client, &mut head).await,
            Event::Refused(why, media_type) => {
                refuse(worker, conn, &mut client, exchange::refused(why), media_type).await
            }
            Event::TooSlow => refuse(worker, conn, &mut client, exchange::HEAD_TIMEOUT, None).await,
            Event::End => End::Close { unread: false },
            Event::Http2 => {
                let (read, io) = client.into_stream();
                return Ended::Http2(Prefixed::new(read, io));
            }
        };
        match end {
            End::Keep => {
                ahead = if client.is_ahead() { ahead + 1 } else { 0 };
                if ahead == MAX_PIPELINED_REQUESTS {
                    ahead = 0;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            End::Close { unread } => client.close(unread).await,
            End::Abort => client.abort(),
            End::WebSocket(call, rule) => {
                let (read, client) = client.into_stream();
                let client = Prefixed::new(read, client);
                let Some((read, upstream, checkout)) = call.into_stream() else { return Ended::Closed };
                let upstream = Prefixed::new(read, upstream);
                return Ended::WebSocket(Box::new(WebSocket { client, upstream, rule, checkout }));
            }
        }
        return Ended::Closed;
    }
}

/// The future of a connection behind an exchange.
enum End {
    Keep,
    /// `unread`: the client may still be sending.
    Close {
        unread: bool,
    },
    /// The response is broken, and the client has to notice.
    Abort,
    WebSocket(Box<upstream::http1::Http1Request>, Arc<Rule>),
}

/// Answers what is no request; `media_type`: what it was to be one in.
async fn refuse<S: Stream>(
    worker: &Arc<Worker>,
    conn: &Arc<Conn>,
    client: &mut Client<S>,
    kind: LocalReplyKind,
    media_type: Option<HeaderValue>,
) -> End {
    let (uri, mut fields) = (Uri::default(), Fields::default());
    if let Some(media_type) = media_type {
        fields.insert(CONTENT_TYPE, media_type);
    }
    let head = RequestHead { method: Method::GET, uri, version: Version::HTTP_11, fields };
    let mut exchange = Exchange::open(worker, conn, &head);
    let Reply { head, rate_limit, body } = exchange::refuse(kind, &head, &mut exchange);
    let ReplyBody::Local(body) = body else { return End::Close { unread: true } };
    let framing = Framing::Length(body.len() as u64);
    let own = own_fields(&exchange, rate_limit.as_ref());
    encode::response(client.out.bytes(), &head, own, framing, &Method::GET, Version::HTTP_11, After::Close);
    exchange.bytes_out = body.len() as u64;
    client.out.push(body, framing);
    if client.flush().await.is_err() {
        exchange.client_went();
    }
    End::Close { unread: true }
}

/// Serves one request.
async fn request<S: Stream>(worker: &Arc<Worker>, conn: &Arc<Conn>, client: &mut Client<S>, head: &mut Head) -> End {
    conn.note_request();
    let mut exchange = Exchange::open(worker, conn, &head.parts);
    let reply = exchange::serve(&mut head.parts, head.wants, client, &mut exchange).await;
    client.progress();
    let end = match reply {
        None => End::Close { unread: false },
        Some(Reply { head: reply, rate_limit, body }) => match body {
            ReplyBody::Local(body) => own(conn, client, head, (reply, rate_limit), body, &mut exchange).await,
            ReplyBody::Upstream(mut call, deadline) => {
                relay(conn, client, head, (reply, rate_limit), (&mut call, deadline), &mut exchange).await
            }
            ReplyBody::Stepped(mut body, deadline) => {
                relay(conn, client, head, (reply, rate_limit), (&mut *body, deadline), &mut exchange).await
            }
            // To clients that speak HTTP/2 alone.
            ReplyBody::Reset(_) => End::Abort,
            ReplyBody::WebSocket(call, rule) => {
                encode_response(client, head, (reply, rate_limit), &exchange, Framing::Empty, After::WebSocket);
                match client.flush().await {
                    Ok(()) => End::WebSocket(call, rule),
                    Err(_) => End::Close { unread: false },
                }
            }
        },
    };
    exchange.bytes_in = client.received;
    fields::give_back(std::mem::take(&mut head.parts.fields));
    end
}

/// Writes a response's head, which is needed no more then: its fields would keep the buffer that they were read into.
fn encode_response<S>(
    client: &mut Client<S>,
    request: &Head,
    (reply, rate_limit): (ResponseHead, Option<RateLimit>),
    exchange: &Exchange<'_>,
    framing: Framing,
    after: After,
) where
    S: Stream,
{
    let (method, version) = (&request.parts.method, request.parts.version);
    let own = own_fields(exchange, rate_limit.as_ref());
    encode::response(client.out.bytes(), &reply, own, framing, method, version, after);
    fields::give_back(reply.fields);
}

/// The fields that the proxy itself writes in a response's head.
fn own_fields<'a>(exchange: &'a Exchange<'_>, rate_limit: Option<&'a RateLimit>) -> OwnFields<'a> {
    OwnFields { request_id: &exchange.request_id, rate_limit, at: exchange.answered_at() }
}

/// Sends an answer of the proxy's own.
async fn own<S: Stream>(
    conn: &Conn,
    client: &mut Client<S>,
    request: &Head,
    reply: (ResponseHead, Option<RateLimit>),
    body: Bytes,
    exchange: &mut Exchange<'_>,
) -> End {
    // What was wrong with the request may be wrong with what follows.
    let wrong = matches!(
        exchange.status(),
        StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE
    );
    let keep = request.keep_alive && !wrong && !conn.is_retiring() && client.can_discard();
    client.answering();
    let framing = if body.is_empty() { Framing::Empty } else { Framing::Length(body.len() as u64) };
    let after = if keep { After::Keep } else { After::Close };
    encode_response(client, request, reply, exchange, framing, after);
    exchange.bytes_out = body.len() as u64;
    client.out.push(body, framing);
    if client.flush().await.is_err() {
        exchange.client_went();
        return End::Close { unread: false };
    }
    if !keep {
        return End::Close { unread: client.has_body_left() };
    }
    if client.has_body_left() && !client.discard().await { End::Close { unread: true } } else { End::Keep }
}

/// Sends a response whose body comes from somewhere, as it comes, until its deadline.
async fn relay<S: Stream, B: ResponseBody<Error = UpstreamError>>(
    conn: &Conn,
    client: &mut Client<S>,
    request: &Head,
    reply: (ResponseHead, Option<RateLimit>),
    (body, mut deadline): (&mut B, Option<Pin<Box<Sleep>>>),
    exchange: &mut Exchange<'_>,
) -> End {
    let framing = match body.framing() {
        Framing::Chunked | Framing::CloseDelimited if request.parts.version == Version::HTTP_10 => {
            Framing::CloseDelimited
        }
        Framing::CloseDelimited => Framing::Chunked,
        framing => framing,
    };
    let keep =
        request.keep_alive && !conn.is_retiring() && framing != Framing::CloseDelimited && !client.has_body_left();
    let after = if keep { After::Keep } else { After::Close };
    client.answering();
    encode_response(client, request, reply, exchange, framing, after);
    let mut ended = false;
    let relayed = poll_fn(|cx| {
        // Before anything else is waited for.
        match conn.expired() {
            Some(TimeoutKind::ClientToRead) if !client.reads_too_little(cx) => {}
            Some(waiting) => return Poll::Ready(Err(Broken::Stalled(waiting))),
            None => {}
        }
        let (mut turn, mut unread) = (0, false);
        loop {
            // What has come is put together before it is written.
            let come = if ended || client.out.is_full() { None } else { body.ready_frame() };
            let piece = match come {
                Some(piece) => Some(piece),
                None => match client.poll_flush(cx) {
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Client)),
                    Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) if turn > YIELD_AFTER_BYTES || conn.holder.is_held_back() => {
                        // It is not the upstream that is waited for.
                        client.progress();
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) => match body.poll_frame(cx, client) {
                        Poll::Ready(piece) => Some(piece),
                        Poll::Pending => None,
                    },
                    Poll::Pending => {
                        body.poll_rest(cx, client);
                        client.wait(TimeoutKind::ClientToRead);
                        unread = true;
                        None
                    }
                },
            };
            if let Some(piece) = piece {
                let (data, end) = take(&mut client.out, piece, framing, request.wants.trailers)?;
                exchange.bytes_out += data;
                (turn, ended) = (turn + data, end);
                continue;
            }
            client.hold(body.held(unread));
            if let Some(deadline) = &mut deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(Broken::Deadline(conn.waiting())));
            }
            return match client.poll_interrupt(cx) {
                // Whether it has read too little is found out at the next tick, which wakes this.
                Poll::Ready(Interrupt::Stalled(TimeoutKind::ClientToRead)) | Poll::Pending => Poll::Pending,
                Poll::Ready(Interrupt::Stalled(waiting)) => Poll::Ready(Err(Broken::Stalled(waiting))),
                Poll::Ready(Interrupt::Gone) => Poll::Ready(Err(Broken::Client)),
            };
        }
    })
    .await;
    client.progress();
    match relayed {
        Ok(()) if keep => End::Keep,
        Ok(()) => End::Close { unread: client.has_body_left() },
        Err(broken) => {
            match broken {
                Broken::Client => exchange.client_went(),
                Broken::Stalled(waiting) if waiting.is_for_client() => exchange.client_stalled(),
                Broken::Stalled(_) => exchange.upstream_stalled(),
                Broken::Deadline(waiting) => exchange.timed_out(waiting),
                Broken::Upstream(error) => {
                    tracing::debug!(%error, "the response broke off");
                    exchange.body_broke(&error);
                    // As far as it came.
                    let _ = client.flush().await;
                }
            }
            // A length or a missing last chunk tells the client; nothing else does.
            if framing == Framing::CloseDelimited { End::Abort } else { End::Close { unread: false } }
        }
    }
}

/// Puts a piece to what waits to be written; answers how many bytes of the body it holds, and whether that ends with
/// it.
fn take(
    out: &mut WriteBuffer,
    piece: Option<Result<BodyFrame, UpstreamError>>,
    framing: Framing,
    takes_trailers: bool,
) -> Result<(u64, bool), Broken> {
    match piece {
        Some(Ok(BodyFrame::Data(data))) => {
            let bytes = data.len() as u64;
            out.push(data, framing);
            return Ok((bytes, false));
        }
        Some(Ok(BodyFrame::Trailers(trailers))) => out.finish(framing, takes_trailers.then_some(&*trailers)),
        Some(Err(UpstreamError::Source(_))) => return Err(Broken::Client),
        Some(Err(e)) => return Err(Broken::Upstream(e)),
        None => out.finish(framing, None),
    }
    Ok((0, true))
}

/// Why a response was not sent to its end.
enum Broken {
    Client,
    Upstream(UpstreamError),
    /// A timeout of this kind is over.
    Stalled(TimeoutKind),
    /// The request's time is over, while this was waited for.
    Deadline(Option<TimeoutKind>),
}
