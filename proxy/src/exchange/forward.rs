//! To a backend and back: balance, connect, send; try again where that is safe.

use std::{pin::Pin, sync::Arc, time::Instant};

use http::{
    HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE},
    request, response, uri,
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use tokio::time::Sleep;

use super::{
    Exchange,
    answer::{self, Cause},
    headers,
};
use crate::{
    body::RequestBody,
    config::{Backends, Rule},
    server::Worker,
    telemetry::Blame,
    upstream::{Connecting, Endpoint, Lease, Protocol, SendError, pick},
    websocket,
};

/// Tries for one request: each next one only when the last can't have reached an upstream, or may safely be repeated.
const TRIES: usize = 3;

/// A request on its way upstream.
pub(super) struct Outbound {
    pub(super) head: request::Parts,
    pub(super) body: RequestBody,
    /// The client asks for a WebSocket.
    pub(super) upgrade: Option<OnUpgrade>,
}

/// A response on its way back.
pub(super) struct Inbound {
    pub(super) head: response::Parts,
    /// Streamed, with the connection it comes by; none of a WebSocket, whose relay holds the connection.
    pub(super) body: Option<(Incoming, Lease)>,
    /// When the body is cut off.
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
}

type Failure = (Cause, Blame);

/// Forwards one request.
pub(super) async fn forward(
    worker: &Arc<Worker>,
    backends: &Backends,
    outbound: Outbound,
    exchange: &mut Exchange,
    rule: &Arc<Rule>,
) -> Result<Inbound, Failure> {
    let Outbound { mut head, body, upgrade } = outbound;
    // hyper answers 100 (Continue) itself once the body is asked for.
    head.headers.remove(EXPECT);
    headers::add_forwarded(&mut head.headers, exchange.conn.peer.ip(), exchange.conn.tls, &exchange.host);
    if upgrade.is_some() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let request = Request::from_parts(head, body);

    let deadline = rule.request_timeout.map(|t| tokio::time::Instant::from_std(exchange.started + t));
    let sent = send(worker, backends, request, exchange, rule);
    let (response, lease) = match deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline, sent).await.map_err(|_| (answer::UPSTREAM_TIMEOUT, Blame::Upstream))??
        }
        None => sent.await?,
    };
    let mut response = response;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrade else { return Err((answer::UPSTREAM_BROKE, Blame::Upstream)) };
        websocket::relay(worker, client, hyper::upgrade::on(&mut response), rule.clone(), lease);
        let mut head = returning(response).0;
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(Inbound { head, body: None, deadline: None });
    }
    let (head, body) = returning(response);
    let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
    Ok(Inbound { head, body: Some((body, lease)), deadline })
}

/// A response, less what concerned the upstream's connection.
fn returning(response: http::Response<Incoming>) -> (response::Parts, Incoming) {
    let (mut head, body) = response.into_parts();
    if head.headers.contains_key(TRANSFER_ENCODING) {
        // The body was read as chunked; a length beside it is wrong (RFC 9112 section 6.3).
        head.headers.remove(CONTENT_LENGTH);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    (head, body)
}

async fn send(
    worker: &Arc<Worker>,
    backends: &Backends,
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
    rule: &Rule,
) -> Result<(http::Response<Incoming>, Lease), Failure> {
    let replayable = is_replayable(&request);
    let slot = backends.pick(fastrand::u64(..)).ok_or((answer::NO_BACKEND, Blame::Internal))?;
    let mut failed = None;
    let mut fresh = false;
    for attempt in 1..=TRIES {
        let endpoint = {
            let cluster = slot.cluster.load();
            let cluster = cluster.as_ref().ok_or((answer::NO_BACKEND, Blame::Internal))?;
            pick(&cluster.endpoints, fastrand::u64(..), failed).cloned()
        };
        let endpoint = endpoint.ok_or((answer::NO_ENDPOINT, Blame::Upstream))?;
        exchange.upstream.address = Some(endpoint.address);
        exchange.upstream.sent.get_or_insert_with(Instant::now);
        let limit = rule.backend_timeout.map(|limit| tokio::time::Instant::now() + limit);
        let leasing =
            async { if fresh { worker.pool.fresh(&endpoint).await } else { worker.pool.lease(&endpoint).await } };
        let mut lease = match within(limit, leasing).await? {
            Ok(lease) => lease,
            Err(e) => {
                tracing::debug!(endpoint = %endpoint.address, error = %e, attempt, "no connection to upstream");
                failed = Some(endpoint.id);
                continue;
            }
        };
        address(&mut request, &endpoint);
        let spare = (replayable && lease.connecting == Connecting::Reused).then(|| copy(&request));
        let sent = within(limit, lease.send(request)).await?;
        request = match (sent, spare) {
            (Ok(response), _) => {
                exchange.upstream.head = Some(Instant::now());
                return Ok((response, lease));
            }
            (Err(SendError::Unsent(request)), _) => *request,
            // A kept connection that the upstream closed just then; an idempotent request may be sent again
            // (RFC 9110 section 9.2.2).
            (Err(SendError::Broken(_)), Some(spare)) => spare,
            (Err(SendError::Broken(e)), None) => {
                tracing::debug!(endpoint = %endpoint.address, error = %e, attempt, "upstream broke off");
                return Err((answer::UPSTREAM_BROKE, Blame::Upstream));
            }
        };
        fresh = true;
    }
    Err((answer::CONNECT_FAILED, Blame::Upstream))
}

/// Bounds one try.
async fn within<T>(limit: Option<tokio::time::Instant>, work: impl Future<Output = T>) -> Result<T, Failure> {
    match limit {
        Some(limit) => {
            tokio::time::timeout_at(limit, work).await.map_err(|_| (answer::UPSTREAM_TIMEOUT, Blame::Upstream))
        }
        None => Ok(work.await),
    }
}

fn is_replayable(request: &Request<RequestBody>) -> bool {
    matches!(request.body(), RequestBody::Empty)
        && matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
        && !request.headers().contains_key(UPGRADE)
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Brings the target into the form that the endpoint's protocol wants; a second try may go to another protocol.
fn address(request: &mut Request<RequestBody>, endpoint: &Endpoint) {
    match endpoint.protocol {
        Protocol::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            if matches!(request.body(), RequestBody::Streaming(body, _) if body.size_hint().exact().is_none()) {
                // hyper would take a GET of unknown length for one without a body.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        Protocol::H2c => {
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(TRANSFER_ENCODING);
            let Some(host) = request.headers_mut().remove(HOST) else { return };
            let mut parts = uri::Parts::default();
            parts.scheme = Some(uri::Scheme::HTTP);
            parts.authority = host.as_bytes().try_into().ok();
            parts.path_and_query = request.uri().path_and_query().cloned();
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
}
