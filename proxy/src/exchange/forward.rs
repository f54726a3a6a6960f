//! To a backend and back: balance, connect, send; try again where that is safe.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, header::HOST};
use tokio::time::{Sleep, sleep_until};

use super::{
    Exchange,
    reply_kinds::{self, LocalReplyKind},
};
use crate::{
    body::{Interrupt, ResponseBody as _, Source, SourceError},
    connection::TimeoutKind,
    forwarded::Forwarded,
    http1::{Malformed, body::Framing, request::Wants},
    message::{RequestHead, ResponseHead},
    rule::{Backends, Rule},
    telemetry::ErrorSource,
    upstream::{
        ConnectError, Endpoint, PooledConnection, Protocol, ReusePolicy, UpstreamError, UpstreamRequest, http2::Kept,
        pick,
    },
};

/// Tries for one request: each next one only when the last can't have reached an upstream, or may safely be repeated.
const MAX_ATTEMPTS: usize = 3;

/// A response on its way back.
pub(super) struct Inbound {
    pub(super) head: ResponseHead,
    /// Request whose response's body is to be read.
    pub(super) call: UpstreamRequest,
    /// When the body is cut off.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
}

/// Why there is none.
pub(super) enum Failure {
    /// The client is told.
    LocalReply(LocalReplyKind, ErrorSource),
    /// The upstream ended the stream: the client is told the same, or what that means.
    Reset(h2::Reason),
    /// The client has gone.
    Gone,
}

/// Forwards one request.
pub(super) async fn forward<S: Source>(
    backends: &Backends,
    head: &mut RequestHead,
    wants: Wants,
    source: &mut S,
    exchange: &mut Exchange<'_>,
    rule: &Arc<Rule>,
) -> Result<Inbound, Failure> {
    let deadline = rule.deadline(exchange.started);
    let sent = {
        let sending = pin!(send(backends, head, wants, source, exchange, rule));
        within(deadline, sending).await
    };
    let (head, call, limit) = match sent {
        Some(sent) => sent?,
        None if source.waiting() == Some(TimeoutKind::Body) => {
            return Err(Failure::LocalReply(reply_kinds::UPLOAD_TIMEOUT, ErrorSource::Downstream));
        }
        None => return Err(Failure::LocalReply(reply_kinds::REQUEST_TIMEOUT, ErrorSource::Upstream)),
    };
    // The backend's time is over when its response is whole (GEP-1742).
    let deadline = deadline.into_iter().chain(limit).min().map(|at| Box::pin(sleep_until(at)));
    Ok(Inbound { head, call, deadline })
}

async fn send<S: Source>(
    backends: &Backends,
    head: &mut RequestHead,
    wants: Wants,
    source: &mut S,
    exchange: &mut Exchange<'_>,
    rule: &Rule,
) -> Result<(ResponseHead, UpstreamRequest, Option<tokio::time::Instant>), Failure> {
    let replayable = is_replayable(head, source.framing(), wants);
    let slot =
        backends.pick(fastrand::u64(..)).ok_or(Failure::LocalReply(reply_kinds::NO_BACKEND, ErrorSource::Internal))?;
    let (mut failed, mut kept) = (None, Kept::default());
    let mut last = Failure::LocalReply(reply_kinds::CONNECT_FAILED, ErrorSource::Upstream);
    // What is sent once must not meet a connection that was closed a moment ago.
    let mut reuse = if replayable { ReusePolicy::Any } else { ReusePolicy::Checked };
    for attempt in 1..=MAX_ATTEMPTS {
        let endpoint = {
            let cluster = slot.cluster.load();
            let cluster =
                cluster.as_ref().ok_or(Failure::LocalReply(reply_kinds::NO_BACKEND, ErrorSource::Internal))?;
            pick(&cluster.endpoints, fastrand::u64(..), failed).cloned()
        };
        let endpoint = endpoint.ok_or(Failure::LocalReply(reply_kinds::NO_ENDPOINT, ErrorSource::Upstream))?;
        if endpoint.protocol != Protocol::H2c && !kept.is_empty() {
            // The cluster speaks another protocol since: what was sent can't be taken back.
            return Err(last);
        }
        exchange.upstream.address = Some(endpoint.address);
        exchange.upstream.sent.get_or_insert_with(Instant::now);
        let limit = rule.backend_timeout.map(|limit| tokio::time::Instant::now() + limit);
        let pool = &exchange.worker.pool;
        // Before one is made, so that those who wait side by side see each other. One that is shared is nobody's.
        let (taken, may_make) = match endpoint.protocol {
            Protocol::Http1 => exchange.conn.take_upstream(),
            Protocol::H2c => (None, true),
        };
        exchange.taken = taken;
        let leased = match pool.checkout_kept(&endpoint, reuse) {
            Some(kept) => Ok(kept),
            None if !may_make => {
                return Err(Failure::LocalReply(reply_kinds::CLIENT_EXHAUSTED, ErrorSource::Downstream));
            }
            // Boxed: rare, and larger than all the rest of a request.
            None => within(limit, Box::pin(pool.checkout_new(&endpoint, &exchange.conn.limits)).as_mut())
                .await
                .ok_or(Failure::LocalReply(reply_kinds::UPSTREAM_TIMEOUT, ErrorSource::Upstream))?,
        };
        let leased = match leased {
            Ok(leased) => leased,
            Err(ConnectError::Exhausted) => {
                return Err(Failure::LocalReply(reply_kinds::EXHAUSTED, ErrorSource::Internal));
            }
            Err(e) => {
                tracing::debug!(endpoint = %endpoint.address, error = %e, attempt, "no connection to upstream");
                failed = Some(endpoint.id);
                continue;
            }
        };
        if exchange.host.value.is_empty()
            && head.fields.get(&HOST).is_none()
            && let Ok(address) = HeaderValue::try_from(endpoint.address.to_string())
        {
            // The client named no host, and HTTP/1.1 wants one.
            head.fields.insert(HOST, address);
        }
        let wants = Wants { go_ahead: source.expects_continue(), ..wants };
        let mut call = call(leased, head, wants, (source.framing(), std::mem::take(&mut kept)), exchange);
        let (answer, limit) = response(&mut call, source, limit.zip(rule.backend_timeout)).await?;
        let error = match answer {
            Ok(head) => {
                exchange.upstream.head = Some(Instant::now());
                return Ok((head, call, limit));
            }
            Err(e) => e,
        };
        reuse = ReusePolicy::New;
        match error {
            UpstreamError::Unsent(_) => {}
            // Whatever the method (RFC 9113 section 8.7). Its connection takes no more, or has room again.
            UpstreamError::Unprocessed => {
                tracing::debug!(endpoint = %endpoint.address, attempt, "not processed by the upstream");
                kept = call.take_kept();
                (failed, last) = (Some(endpoint.id), Failure::Reset(h2::Reason::REFUSED_STREAM));
                reuse = if replayable { ReusePolicy::Any } else { ReusePolicy::Checked };
            }
            // A kept connection that the upstream closed just then; an idempotent request may be sent again
            // (RFC 9110 section 9.2.2).
            UpstreamError::Silent(_) if replayable && call.is_reused() => {}
            error => return Err(broken(&endpoint, &error, attempt)),
        }
    }
    Err(last)
}

/// A call on a connection.
fn call(
    leased: PooledConnection,
    head: &RequestHead,
    wants: Wants,
    (body, kept): (Framing, Kept),
    exchange: &Exchange<'_>,
) -> UpstreamRequest {
    let conn = &exchange.conn;
    let forwarded = Forwarded {
        request_id: &exchange.request_id,
        client: conn.client(),
        tls: conn.tls,
        host: &exchange.host.value,
    };
    UpstreamRequest::new(leased, Arc::clone(&conn.limits), head, forwarded, (body, kept), wants, &conn.holder)
}

/// Waits for the response's head, and for what ends the exchange before. `limit`: when the upstream's time is over, and
/// how long it is. It counts from when the client was last waited for: nobody answers for another's slowness. Answers
/// when it is over then, too.
async fn response<S: Source>(
    call: &mut UpstreamRequest,
    source: &mut S,
    limit: Option<(tokio::time::Instant, Duration)>,
) -> Result<(Result<ResponseHead, UpstreamError>, Option<tokio::time::Instant>), Failure> {
    let mut late = pin!(limit.map(|(at, _)| sleep_until(at)));
    let mut for_client = false;
    poll_fn(|cx| {
        let was_for_client = for_client;
        if let Poll::Ready(response) = call.poll_response(cx, source) {
            let limit = late.as_ref().as_pin_ref().map(|late| late.deadline());
            return Poll::Ready(Ok((response, limit)));
        }
        if let (Some(mut late), Some((_, time))) = (late.as_mut().as_pin_mut(), limit) {
            for_client = source.waiting() == Some(TimeoutKind::Body);
            if was_for_client || for_client {
                late.as_mut().reset(tokio::time::Instant::now() + time);
            }
            if late.poll(cx).is_ready() {
                return Poll::Ready(Err(Failure::LocalReply(reply_kinds::UPSTREAM_TIMEOUT, ErrorSource::Upstream)));
            }
        }
        source.hold(call.held(false));
        // Once it is known what is waited for.
        source.poll_interrupt(cx).map(|interrupt| {
            Err(match interrupt {
                Interrupt::Gone => Failure::Gone,
                Interrupt::Stalled(TimeoutKind::Body) => {
                    Failure::LocalReply(reply_kinds::BODY_TIMEOUT, ErrorSource::Downstream)
                }
                Interrupt::Stalled(TimeoutKind::UpstreamToRead) => {
                    Failure::LocalReply(reply_kinds::UPSTREAM_UNREAD, ErrorSource::Upstream)
                }
                Interrupt::Stalled(_) => Failure::LocalReply(reply_kinds::UPSTREAM_TIMEOUT, ErrorSource::Upstream),
            })
        })
    })
    .await
}

fn broken(endpoint: &Endpoint, error: &UpstreamError, attempt: usize) -> Failure {
    match error {
        UpstreamError::Source(SourceError::Gone) => return Failure::Gone,
        UpstreamError::Reset(reason) => return Failure::Reset(*reason),
        UpstreamError::Source(SourceError::Refused(why)) => {
            return Failure::LocalReply(reply_kinds::refused(*why), ErrorSource::Downstream);
        }
        _ => tracing::debug!(endpoint = %endpoint.address, %error, attempt, "upstream broke off"),
    }
    let kind = match error {
        UpstreamError::Invalid(Malformed::TooLong) => reply_kinds::UPSTREAM_TOO_LARGE,
        UpstreamError::Invalid(_) | UpstreamError::Protocol | UpstreamError::Endless => reply_kinds::UPSTREAM_INVALID,
        _ => reply_kinds::UPSTREAM_BROKE,
    };
    Failure::LocalReply(kind, ErrorSource::Upstream)
}

/// Waits no longer than until then. The work is pinned where it was made: handed over, a future is copied, and its
/// caller holds it twice.
pub(super) async fn within<T>(
    limit: Option<tokio::time::Instant>,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout_at(limit, work).await.ok(),
        None => Some(work.await),
    }
}

fn is_replayable(head: &RequestHead, body: Framing, wants: Wants) -> bool {
    body == Framing::Empty
        && matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
        && !wants.websocket
}
