//! What the proxy itself says to clients that speak gRPC: a status of theirs, in a response that is nothing but
//! trailers, by the gRPC specification's mappings of HTTP's statuses (`http-grpc-status-mapping.md`) and of HTTP/2's
//! codes (`PROTOCOL-HTTP2.md`, "Errors").

use bytes::Bytes;
use h2::Reason;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use crate::{
    filter::LocalReply,
    message::{RequestHead, ResponseHead},
};

const MEDIA_TYPE: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const CANCELLED: u16 = 1;
const UNKNOWN: u16 = 2;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const INTERNAL: u16 = 13;
const UNAVAILABLE: u16 = 14;
const UNAUTHENTICATED: u16 = 16;

/// Whether a request is a call of gRPC. (gRPC-Web, whose media type goes on otherwise, has trailers in its body.)
pub(super) fn asks(head: &RequestHead) -> bool {
    let media_type = head.fields.get(&CONTENT_TYPE).unwrap_or_default();
    match media_type.get(..MEDIA_TYPE.len()) {
        Some(begin) if begin.eq_ignore_ascii_case(MEDIA_TYPE) => {
            matches!(media_type.get(MEDIA_TYPE.len()), None | Some(b'+' | b';' | b' '))
        }
        _ => false,
    }
}

/// A local reply for such a client. Replies that are no error, such as redirects, stay as they are.
pub(super) fn local_reply(answer: LocalReply) -> LocalReply {
    let LocalReply { mut head, reason, error_source, .. } = answer;
    let status = head.status;
    if !status.is_client_error() && !status.is_server_error() {
        return LocalReply { head, ..answer };
    }
    head.status = StatusCode::OK;
    head.fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.fields.insert(GRPC_STATUS, code(status).into());
    // Titles and reasons are plain words: nothing in them needs to be percent-encoded.
    let message = format!("{} ({reason})", status.canonical_reason().unwrap_or("Error"));
    if let Ok(message) = HeaderValue::try_from(message) {
        head.fields.insert(GRPC_MESSAGE, message);
    }
    LocalReply { head, body: Bytes::new(), reason, error_source }
}

/// Says of such an answer that an upstream ended the call: its code means more than the status that stands for it.
pub(super) fn ended(head: &mut ResponseHead, reason: Reason) {
    head.fields.insert(GRPC_STATUS, code_of_reset(reason).into());
}

/// gRPC's status for a code of HTTP/2.
fn code_of_reset(reason: Reason) -> u16 {
    match reason {
        Reason::REFUSED_STREAM => UNAVAILABLE,
        Reason::CANCEL => CANCELLED,
        Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
        Reason::INADEQUATE_SECURITY => PERMISSION_DENIED,
        // Those that the mapping leaves out too.
        _ => INTERNAL,
    }
}

/// gRPC's status for one of HTTP.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        // Not of the mapping, which knows no proxy's limits: the call is larger than may be, and not to be tried again.
        413 | 431 => RESOURCE_EXHAUSTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn who_speaks_it() {
        let asks = |media_type: &str| {
            let request = Request::post("/").header("content-type", media_type).body(()).unwrap();
            asks(&request.into_parts().0.into())
        };
        for grpc in ["application/grpc", "Application/gRPC+proto", "application/grpc;x=y", "application/grpc ; x=y"] {
            assert!(asks(grpc), "{grpc}");
        }
        for other in ["", "application/grpc-web", "application/grpc-web+proto", "application/grpcx", "text/plain"] {
            assert!(!asks(other), "{other}");
        }
        assert!(!super::asks(&Request::new(()).into_parts().0.into()));
    }

    #[test]
    fn what_a_reset_means() {
        let mut head = ResponseHead::new(StatusCode::OK);
        for (reason, expect) in [
            (Reason::NO_ERROR, "13"),
            (Reason::PROTOCOL_ERROR, "13"),
            (Reason::INTERNAL_ERROR, "13"),
            (Reason::FLOW_CONTROL_ERROR, "13"),
            (Reason::SETTINGS_TIMEOUT, "13"),
            (Reason::STREAM_CLOSED, "13"),
            (Reason::FRAME_SIZE_ERROR, "13"),
            (Reason::REFUSED_STREAM, "14"),
            (Reason::CANCEL, "1"),
            (Reason::COMPRESSION_ERROR, "13"),
            (Reason::CONNECT_ERROR, "13"),
            (Reason::ENHANCE_YOUR_CALM, "8"),
            (Reason::INADEQUATE_SECURITY, "7"),
            (Reason::HTTP_1_1_REQUIRED, "13"),
            (Reason::from(99), "13"),
        ] {
            ended(&mut head, reason);
            assert_eq!(head.fields.get(&GRPC_STATUS), Some(expect.as_bytes()), "{reason:?}");
        }
    }
}
