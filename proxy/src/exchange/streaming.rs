//! Which bodies are streams: a message may be long in coming there, and is no less wanted. They have no least rate.
//!
//! By their media type: of calls whose messages come one by one (gRPC, gRPC-Web, Connect), of server-sent events, of
//! lines or texts of JSON, and of parts that replace each other. One whose length is told is none. For all other
//! streams a rule says so itself (`timeouts.request: 0s`). WebSockets have bounds of their own.

use http::header::CONTENT_TYPE;

use crate::{fields::Fields, http1::body::Framing};

/// Media types of streams.
const STREAMS: [&str; 6] = [
    "application/grpc",
    "application/grpc-web",
    "text/event-stream",
    "application/x-ndjson",
    "application/json-seq",
    "multipart/x-mixed-replace",
];
/// Media type before the encoding of a stream's messages; without `connect` it is one message.
const CONNECT: &str = "application/connect+";

/// Whether a message with these fields has such a body.
pub(super) fn has(framing: Framing, fields: &Fields) -> bool {
    matches!(framing, Framing::Chunked | Framing::CloseDelimited)
        && fields.get(&CONTENT_TYPE).is_some_and(|media_type| {
            let begins = |with: &str| {
                media_type.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
            };
            // Behind it come parameters, or the encoding of messages.
            let is = |stream: &&str| {
                begins(stream) && matches!(media_type.get(stream.len()), None | Some(b';' | b'+' | b' '))
            };
            STREAMS.iter().any(is) || begins(CONNECT)
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
        for stream in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "application/grpc",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/connect+proto",
            "application/x-ndjson",
            "multipart/x-mixed-replace;boundary=a",
        ] {
            assert!(has(stream, Framing::Chunked) && has(stream, Framing::CloseDelimited), "{stream}");
            assert!(!has(stream, Framing::Length(9)), "{stream}");
        }
        for other in ["", "text/event", "text/plain", "application/json", "application/grpcx", "application/connect"] {
            assert!(!has(other, Framing::Chunked), "{other}");
        }
    }
}
