//! The request path: normalise → route → request id → filters → balance → upstream, and back.
//!
//! A request is a head, a body and its connection; nothing here knows whether it came by HTTP/1 or HTTP/2.

mod forward;
mod grpc;
mod lifecycle;
pub mod normalise;
mod reply_kinds;
mod streaming;
mod waiting;

use std::{pin::Pin, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{Method, Uri, Version, header::CONTENT_LENGTH};
use snapshot::path;
use tokio::time::Sleep;

pub use self::reply_kinds::LocalReplyKind;
pub(crate) use self::{
    lifecycle::Exchange,
    reply_kinds::{HEAD_TIMEOUT, refused},
};
use crate::{
    body::{ResponseBody as _, Source, Stepped, Steps},
    clock::clock_us,
    connection::{Conn, Way},
    fields::Fields,
    filter::{BodyPlan, Ctx, FilterState, LocalReply, Outcome, Unwind, asked_by_preflight},
    http1::request::Wants,
    message::{RequestHead, ResponseHead},
    rate_limit_fields::RateLimit,
    router::{Matched, Missed, Query, Router},
    rule::{Action, Rule},
    telemetry::ErrorSource,
    upstream::{self, UpstreamRequest},
    worker::Worker,
};

/// The outcome of a request.
pub(crate) struct Reply {
    /// The final response's head.
    pub(crate) head: ResponseHead,
    /// State of the rule's rate limits, to be written with the head.
    pub(crate) rate_limit: Option<RateLimit>,
    /// Body of the final response.
    pub(crate) body: ReplyBody,
}

/// Where a response's body comes from.
pub(crate) enum ReplyBody {
    /// The proxy itself.
    Local(Bytes),
    /// An upstream, until a deadline.
    Upstream(UpstreamRequest, Option<Pin<Box<Sleep>>>),
    /// An upstream too, by way of what filters make of it.
    Stepped(Box<Stepped<UpstreamRequest>>, Option<Pin<Box<Sleep>>>),
    /// No response: an upstream ended the stream, and so is that of a client that speaks HTTP/2.
    Reset(h2::Reason),
    /// No body: the connections become a WebSocket.
    WebSocket(Box<upstream::http1::Http1Request>, Arc<Rule>),
}

/// The local reply to what is no valid request; `head`: as far as it was one.
pub(crate) fn refuse(kind: LocalReplyKind, head: &RequestHead, exchange: &mut Exchange<'_>) -> Reply {
    exchange.fail(kind.reason, ErrorSource::Downstream);
    local_reply(kind.reply(exchange.id()), head, exchange, None)
}

/// Records a connection that was ended for what it held before there was a request.
pub(crate) fn ended_for_memory(worker: &Worker, conn: &Conn) {
    let (uri, fields) = (Uri::default(), Fields::default());
    let head = RequestHead { method: Method::GET, uri, version: Version::HTTP_11, fields };
    drop(Exchange::open(worker, conn, &head));
}

/// Serves one request, whatever it came by; `head` is without fields of its connection. `None`: the client has gone.
pub(crate) async fn serve<S: Source>(
    head: &mut RequestHead,
    wants: Wants,
    source: &mut S,
    exchange: &mut Exchange<'_>,
) -> Option<Reply> {
    let (rule, prefix) = match route(head, exchange) {
        Ok(matched) => matched,
        Err(kind) => return Some(refuse(kind, head, exchange)),
    };
    exchange.rule = Some(rule.clone());
    if rule.streams {
        source.is_of_stream(Way::Request);
        source.is_of_stream(Way::Response);
    } else if streaming::has(source.framing(), &head.fields) {
        // What its client says of it is said of nothing else.
        source.is_of_stream(Way::Request);
    }
    let mut ctx = Ctx {
        client: exchange.client(),
        tls: exchange.conn.tls,
        port: exchange.conn.public_port,
        prefix,
        paths: exchange.conn.limits.paths,
        started: exchange.started,
        now_us: clock_us(exchange.started),
        identity: None,
        logged: None,
        rate_limit: None,
        body: None,
        state: FilterState::default(),
    };
    let outcome = rule.chain.on_request(head, &mut ctx);
    exchange.consumer.clone_from(&ctx.identity);
    if let Some(uri) = ctx.logged.take() {
        exchange.target = uri.path_and_query().cloned();
    }
    let passed = match outcome {
        Outcome::Passed => Ok(None),
        Outcome::Replied(_, answer) => Ok(Some(answer)),
        // Boxed: rare.
        Outcome::Waits(at, wait) => Box::pin(waiting::pass(&rule, (at, wait), head, &mut ctx, source, exchange)).await,
    };
    let outcome = match passed {
        Ok(None) => match &rule.action {
            Action::Forward(backends) => forward::forward(backends, head, wants, source, exchange, &rule).await,
            Action::Unavailable(_) => {
                Err(forward::Failure::LocalReply(reply_kinds::UNAVAILABLE, ErrorSource::Internal))
            }
        },
        Ok(Some(mut answer)) => {
            (exchange.reason, exchange.error_source) = (Some(answer.reason), answer.error_source);
            rule.chain.on_response(&mut answer.head, head, &mut ctx, Unwind::All);
            return Some(local_reply(answer, head, exchange, ctx.rate_limit));
        }
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(forward::Inbound { head: mut response, call, deadline }) => {
            if streaming::has(call.framing(), &response.fields) {
                source.is_of_stream(Way::Response);
            }
            ctx.body = rule.chain.sees_responses().then(|| plan(&call, exchange)).flatten();
            rule.chain.on_response(&mut response, head, &mut ctx, Unwind::All);
            // The filters' time is ours too; without them it is still the same moment.
            let came = exchange.upstream.head.filter(|_| !rule.chain.sees_responses());
            exchange.answered(response.status, came.unwrap_or_else(Instant::now));
            let body = match call {
                UpstreamRequest::Http1(call) if call.is_websocket() => ReplyBody::WebSocket(call, rule),
                call => match ctx.body.filter(|plan| !plan.steps.is_empty()) {
                    None => ReplyBody::Upstream(call, deadline),
                    Some(plan) => ReplyBody::Stepped(Box::new(Stepped::new(call, plan.steps)), deadline),
                },
            };
            Some(Reply { head: response, rate_limit: ctx.rate_limit, body })
        }
        Err(forward::Failure::LocalReply(kind, error_source)) => {
            exchange.fail(kind.reason, error_source);
            let mut answer = kind.reply(exchange.id());
            rule.chain.on_response(&mut answer.head, head, &mut ctx, Unwind::All);
            Some(local_reply(answer, head, exchange, ctx.rate_limit))
        }
        Err(forward::Failure::Reset(reason)) => {
            let kind = reply_kinds::reset(reason);
            exchange.fail(kind.reason, ErrorSource::Upstream);
            if exchange.version == Version::HTTP_2 {
                exchange.answered(kind.status, Instant::now());
                let head = ResponseHead::new(kind.status);
                return Some(Reply { head, rate_limit: None, body: ReplyBody::Reset(reason) });
            }
            let mut answer = kind.reply(exchange.id());
            rule.chain.on_response(&mut answer.head, head, &mut ctx, Unwind::All);
            let mut reply = local_reply(answer, head, exchange, ctx.rate_limit);
            if grpc::asks(head) {
                grpc::ended(&mut reply.head, reason);
            }
            Some(reply)
        }
        Err(forward::Failure::Gone) => None,
    }
}

/// Checks host and target, brings the head into origin form, and finds the rule.
fn route(head: &mut RequestHead, exchange: &mut Exchange<'_>) -> Result<(Arc<Rule>, usize), LocalReplyKind> {
    let config = exchange.worker.shared.config.load();
    if let Some(rules) = &config.settings.client_address {
        exchange.find_client(rules, &head.fields);
    }
    let paths = exchange.conn.limits.paths;
    exchange.host = normalise::head(head, paths)?;
    let port = config.ports.get(&exchange.conn.port).ok_or(reply_kinds::NO_ROUTE)?;
    let name = exchange.host.name();
    if let Some(asked) = exchange.conn.server_name()
        && !port.router.is_of_one_listener(asked, &name)
    {
        return Err(reply_kinds::MISDIRECTED);
    }
    let path = match head.uri.path() {
        normalise::ASTERISK => "/".into(),
        path => path::matched(path, paths),
    };
    let query = Query {
        tls: exchange.conn.tls,
        host: &name,
        path: &path,
        query: head.uri.query(),
        method: &head.method,
        fields: &head.fields,
    };
    let matched = find(&port.router, &query).map_err(|missed| match missed {
        Missed::NoRoute => reply_kinds::NO_ROUTE,
        Missed::TooCostly => reply_kinds::ROUTING_TOO_COSTLY,
    })?;
    Ok((matched.rule.clone(), path::spanned(head.uri.path(), paths, matched.prefix)))
}

/// The rule that serves a request. A preflight is for the one that serves what it asks about, if that answers preflights.
fn find<'r>(router: &'r Router, query: &Query<'_>) -> Result<Matched<'r>, Missed> {
    if let Some(method) = asked_by_preflight(query.method, query.fields) {
        match router.find(&Query { method: &method, ..*query }) {
            Ok(asked) if asked.rule.chain.answers_preflights() => return Ok(asked),
            // Who may ask for it is not for the rule of another method to say.
            Ok(asked) => {
                let other = router.find(query)?;
                return Ok(if other.rule.chain.answers_preflights() { asked } else { other });
            }
            Err(Missed::TooCostly) => return Err(Missed::TooCostly),
            Err(Missed::NoRoute) => {}
        }
    }
    router.find(query)
}

/// The body of an upstream's response, for filters to add steps to; `None`: there is a WebSocket instead.
fn plan(call: &UpstreamRequest, exchange: &Exchange<'_>) -> Option<BodyPlan> {
    let websocket = matches!(call, UpstreamRequest::Http1(call) if call.is_websocket());
    let has_room = exchange.conn.holder.has_room();
    (!websocket).then(|| BodyPlan { framing: call.framing(), steps: Steps::default(), has_room })
}

/// A response of the proxy's own.
fn local_reply(
    answer: LocalReply,
    request: &RequestHead,
    exchange: &mut Exchange<'_>,
    rate_limit: Option<RateLimit>,
) -> Reply {
    // Metrics and log have it as HTTP says it, whatever the client speaks.
    exchange.answered(answer.head.status, Instant::now());
    let answer = if grpc::asks(request) { grpc::local_reply(answer) } else { answer };
    let LocalReply { mut head, mut body, .. } = answer;
    if exchange.method == Method::HEAD && !body.is_empty() {
        // The length that GET's would have (RFC 9110 section 8.6). That of none may be unknown: a service that was asked by HEAD
        // said none.
        head.fields.insert(CONTENT_LENGTH, body.len().into());
        body = Bytes::new();
    }
    Reply { head, rate_limit, body: ReplyBody::Local(body) }
}
