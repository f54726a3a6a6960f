//! The filter chain: compiled once for each rule, in an order that the proxy fixes.
//!
//! normalise → route → request id, trace → client address → authn → authz → limits → cache → rewrite → balance →
//! upstream; back: rewrite, cache, compress. What runs before the route is known is not a filter but `exchange.rs`.

mod access;
mod chain;
mod compile;
mod compression;
mod external_auth;
mod header_modifier;
mod limit;
mod local_reply;
mod parts;
mod path;
mod redirect;
mod rewrite;
mod state;
#[cfg(test)]
pub(crate) mod testing;

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Instant};

use bytes::Bytes;
use http::Uri;
use snapshot::path::Rules;

pub(crate) use self::local_reply::head as problem_head;
pub use self::{access::AccessPolicies, limit::Limiters};
pub use self::{
    chain::{Chain, Outcome, Place, Unwind},
    state::FilterState,
};
pub(crate) use self::{compile::compile, parts::Parts};
use crate::{
    body::Steps,
    consumers::Consumer,
    http1::body::Framing,
    message::{RequestHead, ResponseHead},
    rate_limit_fields::RateLimit,
    services::Caller,
    telemetry::{ErrorSource, Waiter},
};

/// Where in the chain a filter stands; the order of the variants is the order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Trace context.
    Trace,
    /// Access policies: who calls, and what they may do.
    Authn,
    /// Others who say whether a request may go on.
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
    /// How paths are read, as routes are compared with them.
    pub paths: Rules,
    /// When its head was complete.
    pub started: Instant,
    /// The moment when its head was complete, or when the last filter had waited, in microseconds of the process'
    /// monotonic clock: the `now` of limits.
    pub now_us: u64,
    /// Consumer that sends it, when authenticated: as the most specific policy that knows it has it.
    pub identity: Option<Arc<Consumer>>,
    /// What the log has of the request's target, if not all.
    pub logged: Option<Box<Uri>>,
    /// State of the rule's limits for the final response, whatever answers.
    pub rate_limit: Option<RateLimit>,
    /// State that filters keep from the request until its response.
    pub state: FilterState,
    /// Body of the response, on its way back; `None`: it stays as it is, for it is the proxy's own, or there is none.
    pub body: Option<BodyPlan>,
}

/// A response's body as filters see it: they may add steps that it passes.
pub struct BodyPlan {
    /// The framing that it came with. `Empty`: there is none, as in an answer to HEAD.
    pub(crate) framing: Framing,
    /// Steps, in the order in which it passes them.
    pub(crate) steps: Steps,
    /// Whether there is memory for steps that hold much.
    pub(crate) has_room: bool,
}

/// The outcome of a filter for a request.
pub enum Flow {
    /// The request goes on.
    Continue,
    /// The request is answered here. Filters of the response still run, as for any other response.
    Reply(LocalReply),
    /// The filter waits for somebody else; head and context stay as they are until then.
    Wait(Wait),
}

/// A filter's wait for somebody else, which owns what it needs.
pub struct Wait {
    /// The filter, as metrics know it.
    pub(crate) filter: Waiter,
    begin: Box<dyn FnOnce(Caller) -> Waiting + Send>,
}

/// A wait that has begun. Dropped before its end when the client leaves, or the request's time is over.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Resume> + Send>>;

/// The rest of a filter that has waited: what it does with the request now.
pub type Resume = Box<dyn FnOnce(&mut RequestHead, &mut Ctx) -> Flow + Send>;

impl Wait {
    /// A wait that begins with what its filter needs to call services.
    pub(crate) fn new<W>(filter: Waiter, begin: impl FnOnce(Caller) -> W + Send + 'static) -> Self
    where
        W: Future<Output = Resume> + Send + 'static,
    {
        Self { filter, begin: Box::new(|caller| Box::pin(begin(caller))) }
    }

    /// Begins it.
    pub(crate) fn begin(self, caller: Caller) -> Waiting {
        (self.begin)(caller)
    }
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
    /// Source of the error, if it answers one.
    pub error_source: Option<ErrorSource>,
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

    /// Looks at the response's head on its way back; see [`Filter::sees_responses`]. `request`: as it was sent upstream,
    /// or as far as it came.
    fn on_response(&self, _head: &mut ResponseHead, _request: &RequestHead, _ctx: &mut Ctx) {}
}
