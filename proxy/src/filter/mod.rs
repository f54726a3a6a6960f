//! The filter chain: compiled once for each rule, in an order that the proxy fixes.
//!
//! normalise → route → request id, trace → client address → authn → authz → limits → cache → rewrite → balance →
//! upstream; back: rewrite, cache, compress. What runs before the route is known is not a filter but `exchange.rs`.

mod compile;
mod header_modifier;
mod limit;
mod local_reply;
mod path;
mod redirect;
mod rewrite;
#[cfg(test)]
pub(crate) mod testing;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;

pub(crate) use self::compile::compile;
pub use self::limit::Limiters;
pub(crate) use self::local_reply::head as problem_head;
use crate::{
    message::{RequestHead, ResponseHead},
    rate_limit_fields::RateLimit,
};

/// Where in the chain a filter stands; the order of the variants is the order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Trace context.
    Trace,
    /// Authentication: the consumer's identity.
    Authn,
    /// Authorization: the consumer's rights.
    Authz,
    /// Rate limits.
    Limits,
    /// Content coding of the response: works on its way back, behind the cache.
    Compress,
    /// Answers from memory.
    Cache,
    /// Header and URL changes, redirects.
    Rewrite,
}

/// The context of a request in its chain.
pub struct Ctx {
    /// The client's address.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The port it came to.
    pub port: u16,
    /// Length of the matched path prefix.
    pub prefix: usize,
    /// When its head was complete.
    pub started: Instant,
    /// The moment when its head was complete, in microseconds of the process' monotonic clock: the `now` of limits.
    pub now_us: u64,
    /// Consumer that sends it, when authenticated.
    pub identity: Option<Consumer>,
    /// State of the rule's limits for the final response, whatever answers.
    pub rate_limit: Option<RateLimit>,
}

/// An authenticated sender.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Name of the consumer.
    pub name: Arc<str>,
}

/// The outcome of a filter for a request.
pub enum Flow {
    /// The request goes on.
    Continue,
    /// The request is answered here. Filters of the response still run, as for any other response.
    Reply(LocalReply),
}

/// A response that the proxy itself makes, without an upstream.
#[derive(Debug)]
pub struct LocalReply {
    /// Status and header fields.
    pub head: ResponseHead,
    /// The body.
    pub body: Bytes,
    /// A fixed word for metrics and log, such as `rate_limited`.
    pub reason: &'static str,
}

/// A step of a chain.
pub trait Filter: Send + Sync {
    /// Where it stands.
    fn stage(&self) -> Stage;

    /// Looks at a request's head before it goes upstream. `head.uri` is in origin form with the checked path.
    fn on_request(&self, _head: &mut RequestHead, _ctx: &mut Ctx) -> Flow {
        Flow::Continue
    }

    /// Whether [`Filter::on_response`] does anything: a chain of which no filter says so is not run on the way back.
    fn sees_responses(&self) -> bool {
        false
    }

    /// Looks at the response's head on its way back; see [`Filter::sees_responses`].
    fn on_response(&self, _head: &mut ResponseHead, _ctx: &mut Ctx) {}
}

/// The filters of one rule, sorted by stage.
#[derive(Default)]
pub struct Chain {
    filters: Vec<Box<dyn Filter>>,
    sees_responses: bool,
}

impl Chain {
    /// Sorts filters into the proxy's order; those of one stage keep theirs.
    pub fn new(mut filters: Vec<Box<dyn Filter>>) -> Self {
        filters.sort_by_key(|f| f.stage());
        let sees_responses = filters.iter().any(|f| f.sees_responses());
        Self { filters, sees_responses }
    }

    /// Runs the request's way; an answer ends it.
    pub fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        for filter in &self.filters {
            if let Flow::Reply(answer) = filter.on_request(head, ctx) {
                return Flow::Reply(answer);
            }
        }
        Flow::Continue
    }

    /// Whether anything happens on the response's way.
    pub fn sees_responses(&self) -> bool {
        self.sees_responses
    }

    /// Runs the response's way, last filter first.
    pub fn on_response(&self, head: &mut ResponseHead, ctx: &mut Ctx) {
        if self.sees_responses {
            self.filters.iter().rev().for_each(|f| f.on_response(head, ctx));
        }
    }
}
