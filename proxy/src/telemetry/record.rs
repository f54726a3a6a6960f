//! One request, over, as metrics, access log and load windows see it; and the words that it may fail with.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{Method, Version};

use super::routes::RouteMetrics;
use crate::consumers::Consumer;

/// The reason of a request that a policy rejected.
pub const RATE_LIMITED: &str = "rate_limited";
/// The reason of a request that was rejected for want of capacity.
pub const SHED: &str = "shed";

/// The source of the error in a failed request; `blame` in metrics and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorSource {
    /// The client.
    Downstream,
    /// The backend.
    Upstream,
    /// The proxy or its configuration.
    Internal,
    /// A service that a filter asks.
    External,
}

/// The record of a request that is over.
pub struct RequestRecord<'a> {
    /// When it was over.
    pub ended: Instant,
    /// The rule that served it; `None`: none matched.
    pub rule: Option<ServedBy<'a>>,
    /// Consumer that sent it, when authenticated.
    pub consumer: Option<&'a Consumer>,
    /// The client's address, as text.
    pub client: &'a [u8],
    /// Port of the client; `None`: another proxy names the client.
    pub client_port: Option<u16>,
    /// The request's method.
    pub method: &'a Method,
    /// The request's path and query, as it came.
    pub target: &'a str,
    /// Host, as it came.
    pub host: &'a [u8],
    /// Protocol of the client's connection.
    pub version: Version,
    /// The final status; 0: the client got none.
    pub status: u16,
    /// `X-Request-Id`.
    pub request_id: &'a [u8],
    /// From the request's head to the response's end.
    pub duration: Duration,
    /// From the request's way upstream to the response's head; `None`: did not go upstream.
    pub upstream: Option<Duration>,
    /// Time for which filters waited for others; `None`: none did.
    pub external: Option<Duration>,
    /// Time the proxy itself added up to the response's head.
    pub added: Duration,
    /// Where it went.
    pub upstream_address: Option<SocketAddr>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Why it failed or was answered by the proxy itself: a fixed word.
    pub reason: Option<&'static str>,
    /// Source of that error.
    pub error_source: Option<ErrorSource>,
}

/// The rule that served a request.
#[derive(Clone, Copy)]
pub struct ServedBy<'a> {
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// The rule's name.
    pub rule: &'a str,
    /// The route's counters.
    pub metrics: &'a RouteMetrics,
}

impl ErrorSource {
    /// The word for metrics and log.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorSource::Downstream => "downstream",
            ErrorSource::Upstream => "upstream",
            ErrorSource::Internal => "internal",
            ErrorSource::External => "external",
        }
    }
}
