//! Responses of the proxy's own: RFC 9457 problem details, without internals.

use bytes::Bytes;
use http::StatusCode;

use crate::{
    filter::{LocalReply, problem_head},
    http1::request::Refused,
};

/// The kinds of local replies: status, a fixed word for metrics and log, and a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalReplyKind {
    /// The status.
    pub status: StatusCode,
    /// A fixed word.
    pub reason: &'static str,
    /// A sentence for the client.
    pub detail: &'static str,
}

const fn kind(status: StatusCode, reason: &'static str, detail: &'static str) -> LocalReplyKind {
    LocalReplyKind { status, reason, detail }
}

/// No usable Host.
pub(crate) const BAD_HOST: LocalReplyKind =
    kind(StatusCode::BAD_REQUEST, "bad_host", "The request needs exactly one valid Host.");
/// TLS was made for a listener that does not serve the host: with another connection it may be served (RFC 9110 section
/// 15.5.20).
pub(crate) const MISDIRECTED: LocalReplyKind = kind(
    StatusCode::MISDIRECTED_REQUEST,
    "misdirected",
    "This connection was made for another host, which is served by itself.",
);
/// A path that could mean another one upstream.
pub(crate) const BAD_PATH: LocalReplyKind = kind(
    StatusCode::BAD_REQUEST,
    "bad_path",
    "The path leads above the root, or holds backslashes, parameters or percent-encodings that servers read differently.",
);
/// CONNECT, or a target that is no path.
pub(crate) const BAD_TARGET: LocalReplyKind =
    kind(StatusCode::BAD_REQUEST, "bad_target", "The request target is not a path.");
/// No route matches.
pub(crate) const NO_ROUTE: LocalReplyKind = kind(StatusCode::NOT_FOUND, "no_route", "No route matches this request.");
/// The route would take too long to find.
pub(crate) const ROUTING_TOO_COSTLY: LocalReplyKind = kind(
    StatusCode::INTERNAL_SERVER_ERROR,
    "routing_too_costly",
    "The routes of this host have too many expressions to compare such a request with.",
);
/// The rule can't work as configured.
pub(crate) const UNAVAILABLE: LocalReplyKind =
    kind(StatusCode::INTERNAL_SERVER_ERROR, "rule_unavailable", "This route's configuration is not valid.");
/// The rule's backend does not exist.
pub(crate) const NO_BACKEND: LocalReplyKind =
    kind(StatusCode::INTERNAL_SERVER_ERROR, "no_backend", "This route's backend does not exist.");
/// The backend has no endpoints.
pub(crate) const NO_ENDPOINT: LocalReplyKind =
    kind(StatusCode::SERVICE_UNAVAILABLE, "no_endpoint", "This route's backend has no endpoints.");
/// No connection to the backend.
pub(crate) const CONNECT_FAILED: LocalReplyKind =
    kind(StatusCode::BAD_GATEWAY, "connect_failed", "The backend could not be reached.");
/// No descriptor is left for a connection to the backend.
pub(crate) const EXHAUSTED: LocalReplyKind =
    kind(StatusCode::SERVICE_UNAVAILABLE, "descriptors_exhausted", "There are too many connections at the moment.");
/// The client's share of descriptors is used up.
pub(crate) const CLIENT_EXHAUSTED: LocalReplyKind = kind(
    StatusCode::SERVICE_UNAVAILABLE,
    "client_descriptors_exhausted",
    "This client has too many requests under way at the moment.",
);
/// The backend broke off before a response.
pub(crate) const UPSTREAM_BROKE: LocalReplyKind =
    kind(StatusCode::BAD_GATEWAY, "upstream_broke", "The backend closed the connection before a response.");
/// The backend's response was not in time.
pub(crate) const UPSTREAM_TIMEOUT: LocalReplyKind =
    kind(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The backend did not answer in time.");
/// The backend did not read the request in time.
pub(crate) const UPSTREAM_UNREAD: LocalReplyKind =
    kind(StatusCode::GATEWAY_TIMEOUT, "upstream_unread", "The backend did not read the request's body in time.");
/// The route's time for a request was over while the backend was waited for.
pub(crate) const REQUEST_TIMEOUT: LocalReplyKind = kind(
    StatusCode::GATEWAY_TIMEOUT,
    "request_timeout",
    "The backend did not answer within the time that this route has for a request.",
);
/// The route's time for a request was over while the client was waited for.
pub(crate) const UPLOAD_TIMEOUT: LocalReplyKind = kind(
    StatusCode::REQUEST_TIMEOUT,
    "request_timeout",
    "The request's body did not come within the time that this route has for a request.",
);
/// The route's time for a request was over while a filter waited for its service.
pub(crate) const FILTER_TIMEOUT: LocalReplyKind = kind(
    StatusCode::GATEWAY_TIMEOUT,
    "filter_timeout",
    "The request was not checked within the time that this route has for a request.",
);
/// The head of the backend's response is too large.
pub(crate) const UPSTREAM_TOO_LARGE: LocalReplyKind = kind(
    StatusCode::BAD_GATEWAY,
    "upstream_head_too_large",
    "The header fields of the backend's response are more, or longer, than is allowed here.",
);
/// The backend's response is not valid HTTP.
pub(crate) const UPSTREAM_INVALID: LocalReplyKind =
    kind(StatusCode::BAD_GATEWAY, "upstream_invalid", "The backend's response is not valid HTTP.");
/// The backend has not processed the request.
pub(crate) const UPSTREAM_REFUSED: LocalReplyKind = kind(
    StatusCode::SERVICE_UNAVAILABLE,
    "upstream_refused",
    "The backend has not processed the request, which may be sent again.",
);
/// The backend ended the request's stream before a response.
pub(crate) const UPSTREAM_RESET: LocalReplyKind =
    kind(StatusCode::BAD_GATEWAY, "upstream_reset", "The backend ended the request before a response.");
/// The client's body was not in time.
pub(crate) const BODY_TIMEOUT: LocalReplyKind =
    kind(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The request's body did not come in time.");
/// The client's head was not in time.
pub(crate) const HEAD_TIMEOUT: LocalReplyKind =
    kind(StatusCode::REQUEST_TIMEOUT, "head_timeout", "The request's head did not come in time.");

/// The local reply for the end of an upstream's stream, to a client that has no streams.
pub(crate) const fn reset(reason: h2::Reason) -> LocalReplyKind {
    match reason {
        h2::Reason::REFUSED_STREAM | h2::Reason::ENHANCE_YOUR_CALM => UPSTREAM_REFUSED,
        _ => UPSTREAM_RESET,
    }
}

/// The local reply for a request that the codec refuses.
pub(crate) const fn refused(why: Refused) -> LocalReplyKind {
    match why {
        Refused::Malformed(_) => kind(
            StatusCode::BAD_REQUEST,
            "malformed_request",
            "The request is not valid HTTP/1.1, or could be read in more than one way.",
        ),
        Refused::Host => BAD_HOST,
        Refused::MethodTooLong => {
            kind(StatusCode::NOT_IMPLEMENTED, "method_too_long", "The request's method is longer than any method.")
        }
        Refused::TargetTooLong => {
            kind(StatusCode::URI_TOO_LONG, "target_too_long", "The request target is longer than is allowed here.")
        }
        Refused::HeadTooLarge => kind(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head_too_large",
            "The request's header fields are more, or longer, than is allowed here.",
        ),
        Refused::Coding => {
            kind(StatusCode::NOT_IMPLEMENTED, "unknown_coding", "The request's transfer coding is not known here.")
        }
        Refused::Version => kind(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "unknown_version",
            "HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here.",
        ),
        Refused::Expectation => {
            kind(StatusCode::EXPECTATION_FAILED, "unknown_expectation", "Only 100-continue can be expected here.")
        }
        Refused::BodyTooLarge => {
            kind(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request's body is larger than is allowed here.")
        }
    }
}

impl LocalReplyKind {
    /// The response, with the request id for whoever asks why.
    pub(crate) fn reply(self, request_id: &str) -> LocalReply {
        let title = self.status.canonical_reason().unwrap_or("Error");
        // Nothing here needs escaping: titles and details are fixed, a request id is alphanumeric.
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{}\",\"requestId\":\"{request_id}\"}}\n",
            self.status.as_u16(),
            self.detail,
        );
        LocalReply { head: problem_head(self.status), body: Bytes::from(body), reason: self.reason, error_source: None }
    }
}
