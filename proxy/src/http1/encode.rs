//! Heads as bytes. What frames a message and what concerns its connection is written from what the proxy knows, never
//! from fields: a filter that sets one changes nothing.

use std::time::Instant;

use http::{HeaderMap, Method, StatusCode, Version};

use super::{
    body::Framing,
    field_rules::{Known, known},
    request::Wants,
};
use crate::{
    date,
    fields::{Field, Fields},
    forwarded::{Forwarded, RequestId, X_REQUEST_ID},
    header_value::decimal,
    message::{RequestHead, ResponseHead},
    rate_limit_fields::RateLimit,
};

/// The future of a connection behind a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The connection goes on.
    Keep,
    /// The connection is closed.
    Close,
    /// The connection becomes a WebSocket.
    WebSocket,
}

/// Writes a request's head: in origin form, to one who speaks HTTP/1.1.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, forwarded: Forwarded<'_>, body: Framing, wants: Wants) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, &head.fields, false, Forwarded::has);
    forwarded.write(out, &head.fields);
    match body {
        // RFC 9110 section 8.6: a length is told where a body is to be expected.
        Framing::Empty if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => length(out, 0),
        Framing::Empty => {}
        Framing::Length(bytes) => length(out, bytes),
        Framing::Chunked | Framing::CloseDelimited => out.extend_from_slice(CHUNKED),
    }
    if wants.go_ahead {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    if wants.websocket {
        out.extend_from_slice(WEBSOCKET);
    } else if wants.trailers {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a response that are the proxy's, in place of whatever the head has of them.
#[derive(Clone, Copy, Debug)]
pub struct OwnFields<'a> {
    /// `X-Request-Id`.
    pub request_id: &'a RequestId,
    /// The rule's limits.
    pub rate_limit: Option<&'a RateLimit>,
    /// When the response was made: `Date`, unless the head has one.
    pub at: Instant,
}

impl OwnFields<'_> {
    fn has(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(X_REQUEST_ID.as_str().as_bytes())
            || self.rate_limit.is_some_and(|limit| limit.has(name))
    }
}

/// Writes a response's head to a client that speaks `version`. `Framing::CloseDelimited` has to end in `After::Close`.
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    own: OwnFields<'_>,
    body: Framing,
    method: &Method,
    version: Version,
    after: After,
) {
    status_line(out, head.status);
    let bodiless = *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let dated = fields(out, &head.fields, bodiless, |name| own.has(name));
    if let Some(limit) = own.rate_limit {
        limit.write(out);
    }
    out.extend_from_slice(b"x-request-id: ");
    out.extend_from_slice(own.request_id.as_bytes());
    out.extend_from_slice(b"\r\n");
    match body {
        Framing::Empty if bodiless || head.status == StatusCode::NO_CONTENT || head.status.is_informational() => {}
        Framing::Empty => length(out, 0),
        Framing::Length(bytes) => length(out, bytes),
        Framing::Chunked => out.extend_from_slice(CHUNKED),
        Framing::CloseDelimited => {}
    }
    match after {
        After::Keep if version == Version::HTTP_10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        After::Keep => {}
        After::Close => out.extend_from_slice(b"connection: close\r\n"),
        After::WebSocket => out.extend_from_slice(WEBSOCKET),
    }
    if head.status == StatusCode::UPGRADE_REQUIRED {
        // RFC 9110 section 7.8: beside every `Upgrade`.
        out.extend_from_slice(b"connection: upgrade\r\n");
    }
    if !dated && !head.status.is_informational() {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date::at(own.at).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response's head. What would frame a body is not among the fields that came.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead) {
    status_line(out, head.status);
    fields(out, &head.fields, false, |_| false);
    out.extend_from_slice(b"\r\n");
}

/// A trailer section with the last chunk before it.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (name, value) in trailers {
            if !is_of_connection(name.as_str().as_bytes(), false) {
                field(out, name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The line before a chunk's data.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 18];
    let (mut at, mut left) = (16, size);
    loop {
        at -= 1;
        text[at] = DIGITS[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    text[16..].copy_from_slice(b"\r\n");
    out.extend_from_slice(&text[at..]);
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";
const WEBSOCKET: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\n";

/// Writes fields, but for those that are written elsewhere; answers whether `Date` was among them.
fn fields(out: &mut Vec<u8>, fields: &Fields, with_length: bool, elsewhere: impl Fn(&[u8]) -> bool) -> bool {
    let mut dated = false;
    fields.fields().for_each(|Field { name, value, line, parsed }| {
        // What was parsed from HTTP/1.1 lost what is of its connection when it was read.
        if !parsed && is_of_connection(name, with_length) || elsewhere(name) {
            return;
        }
        dated |= name.eq_ignore_ascii_case(b"date");
        match line {
            Some(line) => out.extend_from_slice(line),
            None => field(out, name, value),
        }
    });
    dated
}

fn is_of_connection(name: &[u8], with_length: bool) -> bool {
    match known(name) {
        Known::Other | Known::Host => false,
        Known::ContentLength => !with_length,
        _ => true,
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length(out: &mut Vec<u8>, bytes: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, bytes);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    // The reason that came from upstream says nothing that the status does not.
    match status {
        StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(status.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{
        HeaderValue, Request, Response,
        header::{CONTENT_LENGTH, DATE},
    };

    use super::*;
    use crate::filter::testing::rate_limit;

    #[test]
    fn requests() {
        let request = Request::post("http://a/b?c").header("host", "a").header("x", "1").header("x", "2");
        let request = request.header("x-request-id", "theirs").header("x-forwarded-host", "theirs");
        let request = request.header("content-length", "9").header("connection", "x").header("transfer-encoding", "y");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let head = RequestHead::from(head);
        let client = HeaderValue::from_static("::1");
        let id = id();
        let forwarded = Forwarded { request_id: &id, client: &client, tls: false, host: b"shop" };
        let written = |body, websocket, trailers| {
            let mut out = vec![];
            super::request(&mut out, &head, forwarded, body, Wants { websocket, trailers, ..Wants::default() });
            String::from_utf8(out).unwrap()
        };
        let start = "POST /b?c HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\nx-request-id: id\r\nx-forwarded-for: ::1\r\n\
                     x-forwarded-proto: http\r\nx-forwarded-host: shop\r\n";
        assert_eq!(written(Framing::Empty, false, false), format!("{start}content-length: 0\r\n\r\n"));
        assert_eq!(written(Framing::Length(70), false, false), format!("{start}content-length: 70\r\n\r\n"));
        let trailers = "te: trailers\r\nconnection: te\r\n\r\n";
        assert_eq!(written(Framing::Chunked, false, true), format!("{start}transfer-encoding: chunked\r\n{trailers}"));
        let websocket = "connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(written(Framing::Empty, true, false), format!("{start}content-length: 0\r\n{websocket}"));
    }

    fn id() -> RequestId {
        RequestId::Sent(Bytes::from_static(b"id"))
    }

    fn own<'a>(request_id: &'a RequestId, rate_limit: Option<&'a RateLimit>) -> OwnFields<'a> {
        OwnFields { request_id, rate_limit, at: Instant::now() }
    }

    #[track_caller]
    fn check(status: u16, body: Framing, method: &Method, version: Version, after: After, expect: &str) {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        head.fields.insert(DATE, HeaderValue::from_static("now"));
        head.fields.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        let mut out = vec![];
        response(&mut out, &head, own(&id(), None), body, method, version, after);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn responses() {
        let (get, head) = (&Method::GET, &Method::HEAD);
        let (v0, v1) = (Version::HTTP_10, Version::HTTP_11);
        let check =
            |status, body, method, version, after, expect: &str| check(status, body, method, version, after, expect);
        check(
            200,
            Framing::Length(3),
            get,
            v1,
            After::Keep,
            "HTTP/1.1 200 OK\r\ndate: now\r\nx-request-id: id\r\ncontent-length: 3\r\n\r\n",
        );
        let end = "date: now\r\ncontent-length: 7\r\nx-request-id: id\r\nconnection: keep-alive\r\n\r\n";
        check(404, Framing::Empty, head, v0, After::Keep, &format!("HTTP/1.1 404 Not Found\r\n{end}"));
        check(
            304,
            Framing::Empty,
            get,
            v1,
            After::Keep,
            "HTTP/1.1 304 Not Modified\r\ndate: now\r\ncontent-length: 7\r\nx-request-id: id\r\n\r\n",
        );
        check(
            204,
            Framing::Empty,
            get,
            v1,
            After::Close,
            "HTTP/1.1 204 No Content\r\ndate: now\r\nx-request-id: id\r\nconnection: close\r\n\r\n",
        );
        check(
            799,
            Framing::Empty,
            get,
            v1,
            After::Keep,
            "HTTP/1.1 799 \r\ndate: now\r\nx-request-id: id\r\ncontent-length: 0\r\n\r\n",
        );
        let end = "date: now\r\nx-request-id: id\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        check(101, Framing::Empty, get, v1, After::WebSocket, &format!("HTTP/1.1 101 Switching Protocols\r\n{end}"));
        let mut out = vec![];
        let theirs = Response::builder().header("ratelimit", "theirs").header("x-b", "theirs");
        let (parts, ()) = theirs.body(()).unwrap().into_parts();
        let limit = rate_limit();
        response(&mut out, &parts.into(), own(&id(), Some(&limit)), Framing::Chunked, get, v1, After::Keep);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(" GMT\r\n"), "{text}");
        assert!(
            text.starts_with(
                "HTTP/1.1 200 OK\r\nx-b: theirs\r\nratelimit-policy: p\r\nratelimit: n;r=1;t=1\r\nx-request-id: id\r\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn chunks() {
        for (size, expect) in [(0, "0\r\n"), (10, "a\r\n"), (0x1234, "1234\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
        {
            let mut out = vec![];
            chunk_size(&mut out, size);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        }
    }
}
