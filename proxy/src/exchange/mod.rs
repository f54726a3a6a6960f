//! The request path: normalise → route → request id → filters → balance → upstream, and back.
//!
//! A request is a head, a body and its connection; nothing here knows whether it came by HTTP/1 or HTTP/2, but for two
//! things that the protocols do differently: how a connection is told that it ends, and upgrades.

mod answer;
mod forward;
mod headers;
mod normalise;
mod record;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST},
    request, response,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;

pub(crate) use self::record::Exchange;
use crate::{
    body::{RequestBody, ResponseBody},
    config::{Action, Rule},
    filter::{Answer, Ctx, Flow},
    router::Query,
    server::{Conn, Worker},
    shared::clock_us,
    telemetry::Blame,
    websocket,
};

/// Serves one request. Every failure is a response; the response's body closes the exchange.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    conn.note_request(request.version());
    let upgrade = websocket::wanted(&request).then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    // Before anything is added: a client must not name our own fields in `Connection`.
    headers::strip_hop_by_hop(&mut head.headers);
    let request_id = headers::request_id(&head.headers, || fastrand::u128(..));
    let mut exchange = Box::new(Exchange::open(worker.clone(), conn.clone(), &head, request_id));
    let (body, count) = RequestBody::new(body);
    exchange.bytes_in = count;

    let (rule, prefix) = match route(&worker, &mut head, &mut exchange) {
        Ok(matched) => matched,
        Err(cause) => {
            exchange.fail(cause.reason, Blame::Downstream);
            discard(body, exchange.version);
            let answer = cause.answer(exchange.id());
            return own(answer, exchange, HeaderMap::new());
        }
    };
    exchange.rule = Some(rule.clone());
    head.headers.insert(headers::X_REQUEST_ID, exchange.request_id.clone());
    let mut ctx = Ctx {
        client: conn.peer.ip(),
        tls: conn.tls,
        port: conn.public_port,
        prefix,
        started: exchange.started,
        now_us: clock_us(exchange.started),
        identity: None,
        response_headers: HeaderMap::new(),
        rule,
    };
    let rule = ctx.rule.clone();
    if let Flow::Answer(mut answer) = rule.chain.on_request(&mut head, &mut ctx) {
        exchange.reason = Some(answer.reason);
        discard(body, exchange.version);
        rule.chain.on_response(&mut answer.head, &mut ctx);
        return own(answer, exchange, ctx.response_headers);
    }
    let outcome = match &rule.action {
        Action::Forward(backends) => {
            let request = forward::Outbound { head, body, upgrade };
            forward::forward(&worker, backends, request, &mut exchange, &rule).await
        }
        Action::Unavailable(_) => {
            discard(body, exchange.version);
            Err((answer::UNAVAILABLE, Blame::Internal))
        }
    };
    match outcome {
        Ok(forward::Inbound { mut head, body, deadline }) => {
            rule.chain.on_response(&mut head, &mut ctx);
            finish(&mut head, &mut exchange, ctx.response_headers);
            let body = match body {
                Some((body, lease)) => ResponseBody::upstream(body, lease, exchange, deadline),
                None => ResponseBody::own(Bytes::new(), exchange),
            };
            Response::from_parts(head, body)
        }
        Err((cause, blame)) => {
            exchange.fail(cause.reason, blame);
            let mut answer = cause.answer(exchange.id());
            rule.chain.on_response(&mut answer.head, &mut ctx);
            own(answer, exchange, ctx.response_headers)
        }
    }
}

/// Checks host and target, brings the head into origin form, and finds the rule.
fn route(
    worker: &Worker,
    head: &mut request::Parts,
    exchange: &mut Exchange,
) -> Result<(Arc<Rule>, usize), answer::Cause> {
    if head.method == Method::CONNECT {
        return Err(answer::BAD_TARGET);
    }
    let host = normalise::host(&head.uri, &head.headers, head.version)?;
    exchange.host = host.value.clone();
    match normalise::path(&head.uri)? {
        None if head.uri.authority().is_none() => {}
        None => head.uri = head.uri.path_and_query().cloned().ok_or(answer::BAD_TARGET)?.into(),
        Some(path) => {
            let target = head.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
            head.uri = target.parse().map_err(|_| answer::BAD_PATH)?;
        }
    }
    head.headers.insert(HOST, host.value.clone());

    let config = worker.shared.config.load();
    let port = config.ports.get(&exchange.conn.port).ok_or(answer::NO_ROUTE)?;
    let name = host.name();
    let query = Query {
        tls: exchange.conn.tls,
        host: &name,
        path: head.uri.path(),
        query: head.uri.query(),
        method: &head.method,
        headers: &head.headers,
    };
    let matched = port.router.find(&query).ok_or(answer::NO_ROUTE)?;
    Ok((matched.rule.clone(), matched.prefix))
}

/// A response of the proxy's own.
fn own(answer: Answer, mut exchange: Box<Exchange>, fields: HeaderMap) -> Response<ResponseBody> {
    let Answer { mut head, mut body, .. } = answer;
    finish(&mut head, &mut exchange, fields);
    if exchange.method == Method::HEAD {
        head.headers.insert(CONTENT_LENGTH, body.len().into());
        body = Bytes::new();
    }
    Response::from_parts(head, ResponseBody::own(body, exchange))
}

/// Reads what a client still sends while it gets the proxy's own answer, within bounds: a connection closed with unread
/// bytes is reset, and the answer lost with it. HTTP/2 resets the stream instead, behind the answer.
fn discard(body: RequestBody, version: Version) {
    const MOST: u64 = 1 << 20;
    const LONGEST: Duration = Duration::from_secs(2);
    let RequestBody::Streaming(mut body, _) = body else { return };
    if version >= Version::HTTP_2 {
        return;
    }
    tokio::spawn(tokio::time::timeout(LONGEST, async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > MOST {
                return;
            }
        }
    }));
}

/// The last touch on a response's head, whatever answers.
fn finish(head: &mut response::Parts, exchange: &mut Exchange, fields: HeaderMap) {
    if !fields.is_empty() {
        head.headers.extend(fields);
    }
    head.headers.insert(headers::X_REQUEST_ID, exchange.request_id.clone());
    // HTTP/2 is told by GOAWAY; such a field would be a protocol error there.
    if exchange.version < Version::HTTP_2 && exchange.conn.is_retiring() && head.status.as_u16() != 101 {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.status = head.status.as_u16();
    exchange.answered = Some(Instant::now());
}
