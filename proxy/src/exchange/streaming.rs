//! Which bodies are streams: a message may be long in coming there, and is no less wanted. They have no least rate.
//!
//! By their media type: gRPC's, gRPC-Web's, and that of server-sent events. One whose length is told is none. For all other
//! streams a rule says so itself (`timeouts.request: 0s`). WebSockets have bounds of their own.

use http::header::CONTENT_TYPE;

use crate::{fields::Fields, http1::body::Framing};

/// What media types of streams begin with; parameters and suffixes follow.
const BEGIN: [&[u8]; 2] = [b"application/grpc", b"text/event-stream"];

/// Whether a message with these fields has such a body.
pub(super) fn has(framing: Framing, fields: &Fields) -> bool {
    matches!(framing, Framing::Chunked | Framing::UntilClose)
        && fields.get(&CONTENT_TYPE).is_some_and(|media_type| {
            BEGIN.iter().any(|begin| media_type.get(..begin.len()).is_some_and(|got| got.eq_ignore_ascii_case(begin)))
        })
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::message::ResponseHead;

    #[test]
    fn streams_are_known_by_their_media_type() {
        let has = |media_type: &str, framing| {
            let response = Response::builder().header("content-type", media_type).body(()).unwrap();
            has(framing, &ResponseHead::from(response.into_parts().0).fields)
        };
        for stream in
            ["text/event-stream", "Text/Event-Stream; charset=utf-8", "application/grpc", "application/grpc-web+proto"]
        {
            assert!(has(stream, Framing::Chunked) && has(stream, Framing::UntilClose), "{stream}");
            assert!(!has(stream, Framing::Length(9)), "{stream}");
        }
        for other in ["", "text/event", "text/plain", "application/json"] {
            assert!(!has(other, Framing::Chunked), "{other}");
        }
    }
}
