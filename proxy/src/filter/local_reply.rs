//! Answers of filters: RFC 9457 problem details.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::{Flow, LocalReply};
use crate::message::ResponseHead;

/// Ends the request with a problem. `detail` is for the client and needs no escaping.
pub(super) fn reply(status: StatusCode, reason: &'static str, detail: &str) -> Flow {
    Flow::Reply(LocalReply { head: head(status), body: problem(status, detail), reason, error_source: None })
}

/// The head of a problem.
pub(crate) fn head(status: StatusCode) -> ResponseHead {
    let mut head = ResponseHead::new(status);
    head.fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    head
}

/// The body of a problem.
pub(super) fn problem(status: StatusCode, detail: &str) -> Bytes {
    let title = status.canonical_reason().unwrap_or("Error");
    let (code, detail) = (status.as_u16(), serde_json::Value::from(detail));
    format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{code},\"detail\":{detail}}}\n").into()
}
