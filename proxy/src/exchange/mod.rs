//! The request path: normalise → route → request id → filters → balance → upstream, and back.
//!
//! A request is a head, a body and its connection; nothing here knows whether it came by HTTP/1 or HTTP/2, but for the
//! adapter to bodies as the `http-body` crate has them.

mod answer;
mod forward;
pub mod headers;
pub mod normalise;
mod record;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use h2::RecvStream;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, HOST, TE},
    response,
};
use tokio::time::Sleep;

pub use self::answer::Cause;
pub(crate) use self::{
    answer::{HEAD_TIMEOUT, refused},
    record::Exchange,
};
use crate::{
    body::{ResponseBody, Source},
    config::{Action, Rule},
    filter::{Answer, Ctx, Flow, ResponseFields},
    http1::{
        self, buffers,
        limits::Limits,
        request::{Refused, Wants},
    },
    http2::Http2Source,
    message::{RequestHead, ResponseHead},
    router::Query,
    server::{Conn, Worker},
    shared::clock_us,
    telemetry::Blame,
    upstream::Call,
};

/// What a request comes to.
pub(crate) struct Reply {
    /// The final response's head.
    pub(crate) head: ResponseHead,
    /// Fields in place of whatever the head has of them; `X-Request-Id` comes with the exchange.
    pub(crate) fields: ResponseFields,
    /// Its body.
    pub(crate) body: ReplyBody,
}

/// Where a response's body comes from.
pub(crate) enum ReplyBody {
    /// The proxy itself.
    Own(Bytes),
    /// An upstream, until a deadline.
    Upstream(Call, Option<Pin<Box<Sleep>>>),
    /// There is none: the connections become a WebSocket.
    WebSocket(Box<http1::call::Call>, Arc<Rule>),
}

/// Serves one request that came by HTTP/2. Every failure is a response; the response's body closes the exchange.
pub(crate) async fn serve_http2(
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    request: Request<RecvStream>,
) -> Response<ResponseBody> {
    conn.note_request();
    let (mut head, body) = request.into_parts();
    // Before anything is added: a client must not name our own fields in `Connection`.
    headers::strip_hop_by_hop(&mut head.headers);
    headers::drop_disguised(&mut head.headers);
    let wants = Wants { websocket: false, trailers: head.headers.remove(TE).is_some() };
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut head = RequestHead::from(head);
    let mut exchange = Box::new(Exchange::open(worker, conn, &head));
    let mut source = Http2Source::new(body, length, Arc::clone(&exchange.conn));
    exchange.counted_in = source.count();
    let reply = match beyond(&head, length, &exchange.conn.limits) {
        Some(why) => Some(refuse(refused(why), &mut exchange)),
        None => serve(&mut head, wants, &mut source, &mut exchange).await,
    };
    buffers::give_fields(head.fields);
    match reply {
        Some(Reply { head, fields, body: ReplyBody::Own(body) }) => {
            Response::from_parts(dressed(head, fields, &exchange.request_id), ResponseBody::own(body, exchange))
        }
        Some(Reply { head, fields, body: ReplyBody::Upstream(call, deadline) }) => {
            let head = dressed(head, fields, &exchange.request_id);
            Response::from_parts(head, ResponseBody::upstream(call, source, exchange, deadline))
        }
        // There is nobody to answer, and no WebSocket without an upgrade.
        Some(Reply { body: ReplyBody::WebSocket(..), .. }) | None => {
            let mut response = Response::new(ResponseBody::own(Bytes::new(), exchange));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}

/// The head with the proxy's own fields in it.
fn dressed(head: ResponseHead, fields: ResponseFields, id: &headers::RequestId) -> response::Parts {
    let mut head = response::Parts::from(head);
    for (name, value) in fields {
        head.headers.insert(name, value);
    }
    id.set(&mut head.headers);
    head
}

/// What a request by HTTP/2 has too much of; as a whole, its head was bounded when it was read.
fn beyond(head: &RequestHead, length: Option<u64>, limits: &Limits) -> Option<Refused> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    match () {
        () if target > limits.target_bytes => Some(Refused::TargetTooLong),
        () if head.fields.len() > limits.fields => Some(Refused::HeadTooLarge),
        () if length > Some(limits.body_bytes) => Some(Refused::BodyTooLarge),
        () => None,
    }
}

/// What a client is told whose request was no request.
pub(crate) fn refuse(cause: Cause, exchange: &mut Exchange) -> Reply {
    exchange.fail(cause.reason, Blame::Downstream);
    own(cause.answer(exchange.id()), exchange, ResponseFields::new())
}

/// Serves one request, whatever it came by; `head` is without fields of its connection. `None`: the client has gone.
pub(crate) async fn serve<S: Source>(
    head: &mut RequestHead,
    wants: Wants,
    source: &mut S,
    exchange: &mut Exchange,
) -> Option<Reply> {
    let (rule, prefix) = match route(head, exchange) {
        Ok(matched) => matched,
        Err(cause) => return Some(refuse(cause, exchange)),
    };
    exchange.rule = Some(rule.clone());
    let mut ctx = Ctx {
        client: exchange.conn.peer.ip(),
        tls: exchange.conn.tls,
        port: exchange.conn.public_port,
        prefix,
        started: exchange.started,
        now_us: clock_us(exchange.started),
        identity: None,
        response_headers: Vec::new(),
    };
    if let Flow::Answer(mut answer) = rule.chain.on_request(head, &mut ctx) {
        exchange.reason = Some(answer.reason);
        rule.chain.on_response(&mut answer.head, &mut ctx);
        return Some(own(answer, exchange, ctx.response_headers));
    }
    let outcome = match &rule.action {
        Action::Forward(backends) => forward::forward(backends, head, wants, source, exchange, &rule).await,
        Action::Unavailable(_) => Err(forward::Failure::Answer(answer::UNAVAILABLE, Blame::Internal)),
    };
    match outcome {
        Ok(forward::Inbound { mut head, call, deadline }) => {
            rule.chain.on_response(&mut head, &mut ctx);
            exchange.answered(head.status);
            let body = match call {
                Call::Http1(call) if call.is_websocket() => ReplyBody::WebSocket(call, rule),
                call => ReplyBody::Upstream(call, deadline),
            };
            Some(Reply { head, fields: ctx.response_headers, body })
        }
        Err(forward::Failure::Answer(cause, blame)) => {
            exchange.fail(cause.reason, blame);
            let mut answer = cause.answer(exchange.id());
            rule.chain.on_response(&mut answer.head, &mut ctx);
            Some(own(answer, exchange, ctx.response_headers))
        }
        Err(forward::Failure::Gone) => None,
    }
}

/// Checks host and target, brings the head into origin form, and finds the rule.
fn route(head: &mut RequestHead, exchange: &mut Exchange) -> Result<(Arc<Rule>, usize), Cause> {
    if head.method == Method::CONNECT {
        return Err(answer::BAD_TARGET);
    }
    let host = normalise::host(&head.uri, &head.fields)?;
    exchange.host = host.value.clone();
    match normalise::path(&head.uri)? {
        None if head.uri.authority().is_none() => {}
        None => head.uri = head.uri.path_and_query().cloned().ok_or(answer::BAD_TARGET)?.into(),
        Some(path) => {
            let target = head.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
            head.uri = target.parse().map_err(|_| answer::BAD_PATH)?;
        }
    }
    if head.fields.get(&HOST) != Some(&host.value) {
        let value = HeaderValue::from_maybe_shared(host.value.clone()).map_err(|_| answer::BAD_HOST)?;
        head.fields.insert(HOST, value);
    }

    let config = exchange.worker.shared.config.load();
    let port = config.ports.get(&exchange.conn.port).ok_or(answer::NO_ROUTE)?;
    let name = host.name();
    let query = Query {
        tls: exchange.conn.tls,
        host: &name,
        path: head.uri.path(),
        query: head.uri.query(),
        method: &head.method,
        fields: &head.fields,
    };
    let matched = port.router.find(&query).ok_or(answer::NO_ROUTE)?;
    Ok((matched.rule.clone(), matched.prefix))
}

/// A response of the proxy's own.
fn own(answer: Answer, exchange: &mut Exchange, fields: ResponseFields) -> Reply {
    let Answer { mut head, mut body, .. } = answer;
    exchange.answered(head.status);
    if exchange.method == Method::HEAD {
        head.fields.insert(CONTENT_LENGTH, body.len().into());
        body = Bytes::new();
    }
    Reply { head, fields, body: ReplyBody::Own(body) }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn what_is_the_proxys_own_stands_in_place_of_the_upstreams() {
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut head = ResponseHead::new(StatusCode::OK);
        head.fields =
            [field("ratelimit", "theirs"), field("x-request-id", "theirs"), field("x", "1")].into_iter().collect();
        let got = dressed(head, vec![field("ratelimit", "ours")], &headers::RequestId::Sent(Bytes::from_static(b"id")));
        let all = |name: &str| got.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!(["ratelimit", "x-request-id", "x"].map(all), [vec![&b"ours"[..]], vec![b"id"], vec![b"1"]]);
    }
}
