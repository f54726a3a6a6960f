//! The proxy's own calls: to services that filters ask before a request goes on.
//!
//! A call is bytes in and bytes out, bounded in time and size, over the connections that its worker has to that cluster
//! anyway. A service works on a bounded number of them at once; the others wait for their turn, within their time. What
//! a call holds is charged to the client for whose request it is made.

mod calls;

use std::{future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header::HOST};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::calls::Calls;
use crate::{
    body::{BytesSource, ResponseBody as _, Source},
    connection::{Conn, UpstreamPermit},
    fields::Fields,
    forwarded::{Forwarded, RequestId},
    http1::{
        body::{BodyFrame, Framing},
        request::Wants,
    },
    memory::{Charge, Holder, Kind},
    message::{RequestHead, ResponseHead},
    message_limits::Limits,
    upstream::{
        ClusterSlot, ConnectError, Endpoint, Pool, PooledConnection, Protocol, ReusePolicy, UpstreamError,
        UpstreamRequest, http2::Kept, pick,
    },
};

/// Tries for one call: each next one only when the last can't have reached the service, or met a kept connection that
/// broke.
const MAX_ATTEMPTS: usize = 3;

/// The request on whose behalf services are called: its worker's connections, its client, and what services are told of
/// both.
pub(crate) struct Caller {
    pub(crate) pool: Arc<Pool>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) holder: Arc<Holder>,
    /// Permit for a connection to a service; and whether one may be made.
    pub(crate) permit: (Option<UpstreamPermit>, bool),
    pub(crate) request_id: RequestId,
    /// Address of the client, and its value as a field.
    pub(crate) client: (IpAddr, HeaderValue),
    pub(crate) tls: bool,
    /// Host, as it came.
    pub(crate) host: Bytes,
}

impl Caller {
    /// The caller for a request of this connection.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        calls: &Arc<Calls>,
        conn: &Conn,
        client: (IpAddr, HeaderValue),
        (request_id, host): (&RequestId, &Bytes),
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            calls: Arc::clone(calls),
            limits: Arc::clone(&conn.limits),
            holder: Arc::clone(&conn.holder),
            permit: conn.take_upstream(),
            request_id: request_id.clone(),
            client,
            tls: conn.tls,
            host: host.clone(),
        }
    }

    fn forwarded(&self) -> Forwarded<'_> {
        Forwarded { request_id: &self.request_id, client: &self.client.1, tls: self.tls, host: &self.host }
    }
}

/// The bounds of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From the call's beginning to the response's end.
    pub(crate) timeout: Duration,
    /// Bytes of the response's body.
    pub(crate) response_bytes: usize,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: ResponseHead,
    /// The body, or why it is not whole: what the head says counts all the same.
    pub(crate) body: Result<Bytes, CallError>,
}

/// Why a call has no response, or no whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// As many calls wait for the service as may, or this one waited for as long as it may.
    #[error("too many calls wait for it")]
    Full,
    /// The snapshot lacks the service.
    #[error("it does not exist")]
    NoCluster,
    /// The service has no endpoint.
    #[error("it has no endpoint")]
    NoEndpoint,
    /// The client's share of the descriptors is used up.
    #[error("the client has too many requests under way")]
    Exhausted,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no whole response.
    #[error(transparent)]
    Broken(#[from] UpstreamError),
    /// The response's body is longer than the bound.
    #[error("its response is too long")]
    TooLarge,
    /// The response was not in time.
    #[error("its response was not in time")]
    Timeout,
}

/// Calls a service with a request that may be sent again when a kept connection broke. Dropped, the call is over.
pub(crate) async fn call(
    caller: &Caller,
    service: &ClusterSlot,
    (head, body): (RequestHead, Bytes),
    bounds: Bounds,
) -> Result<Response, CallError> {
    let until = Instant::now() + bounds.timeout;
    let mut charge = Charge::new(&caller.holder, Kind::Bodies);
    charge.set(weight(&head.fields) + body.len());
    let place = caller.calls.enter(&service.key, caller.client.0).ok_or(CallError::Full)?;
    // Who waits for others has not been without an answer.
    let _turn = timeout_at(until, place.turn()).await.map_err(|_| CallError::Full)?;
    let sending = timeout_at(until, send(caller, service, head, &body, (until, &mut charge)));
    let (request, source, head) = sending.await.unwrap_or(Err(CallError::Timeout))?;
    charge.set(weight(&head.fields));
    let body = timeout_at(until, read(request, source, bounds.response_bytes, charge));
    let body = body.await.unwrap_or(Err(CallError::Timeout));
    Ok(Response { head, body })
}

async fn send(
    caller: &Caller,
    service: &ClusterSlot,
    mut head: RequestHead,
    body: &Bytes,
    (until, charge): (Instant, &mut Charge),
) -> Result<(UpstreamRequest, BytesSource, ResponseHead), CallError> {
    let question = charge.bytes();
    let (mut failed, mut reuse, mut last) = (None, ReusePolicy::Any, CallError::NoEndpoint);
    for attempt in 1..=MAX_ATTEMPTS {
        let endpoint = {
            let cluster = service.cluster.load();
            let cluster = cluster.as_ref().ok_or(CallError::NoCluster)?;
            pick(&cluster.endpoints, fastrand::u64(..), failed).cloned()
        };
        let endpoint = endpoint.ok_or(CallError::NoEndpoint)?;
        let leased = match caller.pool.checkout_kept(&endpoint, reuse) {
            Some(kept) => kept,
            None if endpoint.protocol == Protocol::Http1 && !caller.permit.1 => return Err(CallError::Exhausted),
            None => match connect(caller, &endpoint, until).await {
                Ok(new) => new,
                Err(e) => {
                    tracing::debug!(service = %service.key, endpoint = %endpoint.address, error = %e, attempt, "no connection");
                    (failed, last) = (Some(endpoint.id), e.into());
                    continue;
                }
            },
        };
        if head.fields.get(&HOST).is_none()
            && let Ok(address) = HeaderValue::try_from(endpoint.address.to_string())
        {
            // HTTP/1.1 wants one.
            head.fields.insert(HOST, address);
        }
        let mut source = BytesSource::new(body.clone());
        let mut request = request(caller, leased, &head, source.framing());
        let answer = poll_fn(|cx| {
            let answer = request.poll_response(cx, &mut source);
            charge.set(question + request.held(false));
            answer
        });
        let error = match answer.await {
            Ok(head) => return Ok((request, source, head)),
            Err(e) => e,
        };
        tracing::debug!(service = %service.key, endpoint = %endpoint.address, %error, attempt, "no response");
        match error {
            UpstreamError::Unsent(_) => {}
            UpstreamError::Unprocessed => failed = Some(endpoint.id),
            UpstreamError::Silent(_) if request.is_reused() => {}
            error => return Err(error.into()),
        }
        (reuse, last) = (ReusePolicy::New, error.into());
    }
    Err(last)
}

/// Makes a connection. One that never comes leaves time for another endpoint.
async fn connect(caller: &Caller, endpoint: &Arc<Endpoint>, until: Instant) -> Result<PooledConnection, ConnectError> {
    let now = Instant::now();
    let making = caller.pool.checkout_new(endpoint, &caller.limits);
    let limit = now + until.saturating_duration_since(now) / MAX_ATTEMPTS as u32;
    timeout_at(limit, making).await.unwrap_or(Err(ConnectError::Timeout))
}

/// Bytes of header fields.
fn weight(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn request(caller: &Caller, leased: PooledConnection, head: &RequestHead, body: Framing) -> UpstreamRequest {
    let limits = Arc::clone(&caller.limits);
    let body = (body, Kept::default());
    UpstreamRequest::new(leased, limits, head, caller.forwarded(), body, Wants::default(), &caller.holder)
}

/// Reads a response's body to its end, so that its connection can be used again.
async fn read(
    mut request: UpstreamRequest,
    mut source: BytesSource,
    most: usize,
    mut charge: Charge,
) -> Result<Bytes, CallError> {
    let head = charge.bytes();
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| request.poll_frame(cx, &mut source)).await {
        // Trailers say nothing that anybody asked for.
        if let BodyFrame::Data(data) = frame? {
            if body.len() + data.len() > most {
                return Err(CallError::TooLarge);
            }
            body.extend_from_slice(&data);
            charge.set(head + body.capacity() + request.held(false));
        }
    }
    Ok(body.freeze())
}
