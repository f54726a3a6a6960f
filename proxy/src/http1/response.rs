//! A response's head from upstream: what is ambiguous or broken there is not passed on, and ends its connection.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version, header};

use super::{
    Malformed,
    body::Framing,
    field_rules::{Known, checked, known, strip_named},
    grammar,
    lines::HeaderLines,
};
use crate::{fields::Fields, message::ResponseHead};

/// A response's head, understood.
#[derive(Debug)]
pub struct Head {
    /// Status and fields, less what concerned the connection. `Content-Length` is among them only where it describes a
    /// body that is not there: in answers to HEAD, and in 304.
    pub parts: ResponseHead,
    /// Framing of the body.
    pub body: Framing,
    /// The upstream goes on with the connection.
    pub keep_alive: bool,
    /// Whether the connection becomes a WebSocket.
    pub websocket: bool,
}

/// Reads the answer to a request of `method`, whose lines were found; `fields` lend their memory.
pub fn parse(head: Bytes, lines: &HeaderLines, mut fields: Fields, method: &Method) -> Result<Head, Malformed> {
    let bytes = &head[..];
    let (status, version) = status_line(&bytes[lines.first()])?;
    let (mut length, mut codings, mut close, mut keep_alive) = (None, 0, false, false);
    let (mut upgrade, mut websocket, mut names) = (false, false, false);
    fields.clear();
    for (name, range) in lines.fields(bytes) {
        let value = &bytes[range.clone()];
        match known(&bytes[name.clone()]) {
            Known::ContentLength => {
                let number = grammar::number(value).ok_or(Malformed::ContentLength)?;
                // The same number twice is no ambiguity (RFC 9110 section 8.6); it is passed on once.
                if length.replace(number).is_some_and(|before| before != number) {
                    return Err(Malformed::ContentLength);
                }
                continue;
            }
            Known::TransferEncoding => {
                codings += 1;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::TransferEncoding);
                }
                continue;
            }
            Known::Connection => {
                for item in grammar::items(value) {
                    match item.len() {
                        5 if item.eq_ignore_ascii_case(b"close") => close = true,
                        10 if item.eq_ignore_ascii_case(b"keep-alive") => keep_alive = true,
                        7 if item.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
                        0 => {}
                        _ => names = true,
                    }
                }
                checked(value)?;
                continue;
            }
            Known::Upgrade => {
                websocket |= value.eq_ignore_ascii_case(b"websocket");
                checked(value)?;
                // It says what the client has to speak (RFC 9110 section 15.5.22).
                if status == StatusCode::UPGRADE_REQUIRED {
                    fields.parsed(name, range);
                }
                continue;
            }
            Known::Te | Known::Expect | Known::OfConnection => {
                checked(value)?;
                continue;
            }
            Known::Host | Known::Other => {
                checked(value)?;
                fields.parsed(name, range);
            }
        }
    }
    let http11 = version == Version::HTTP_11;
    if codings > 1 || codings == 1 && (!http11 || length.is_some()) {
        return Err(Malformed::TransferEncoding);
    }
    let naming = names.then(|| head.clone());
    fields.attach_buffer(head);
    if let Some(head) = naming {
        strip_named(&head, lines, &mut fields, |_| false);
    }
    let bodiless = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    if bodiless && let Some(length) = length {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = match (codings, length) {
        _ if bodiless || status == StatusCode::NO_CONTENT || status.is_informational() => Framing::Empty,
        (1, _) => Framing::Chunked,
        (_, Some(0)) => Framing::Empty,
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::CloseDelimited,
    };
    // What must not have a body says that it has one (RFC 9110 section 8.6, RFC 9112 section 6.1): it may follow.
    let bodied = codings > 0 || length.is_some_and(|length| length > 0);
    let stray = bodied && (status == StatusCode::NO_CONTENT || status.is_informational());
    let keep_alive = !close && (http11 || keep_alive) && body != Framing::CloseDelimited && !stray;
    Ok(Head { parts: ResponseHead { status, fields }, body, keep_alive, websocket: upgrade && websocket })
}

/// `HTTP/1.1 200 OK`; the reason may be missing, and so may the space before it.
fn status_line(line: &[u8]) -> Result<(StatusCode, Version), Malformed> {
    let bad = Malformed::StartLine;
    let version = match line.get(..9).ok_or(bad)? {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return Err(bad),
    };
    let status = StatusCode::from_bytes(line.get(9..12).ok_or(bad)?).map_err(|_| bad)?;
    match &line[12..] {
        [] => {}
        [b' ', reason @ ..] => checked(reason).map_err(|_| bad)?,
        _ => return Err(bad),
    }
    Ok((status, version))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http1::lines::Bounds;

    fn read(method: &Method, text: &str) -> Result<Head, Malformed> {
        let mut lines = HeaderLines::default();
        lines.reset(true);
        let end = lines.read(text.as_bytes(), Bounds { bytes: 1 << 16, fields: 128, first: 1 << 12 }).unwrap().unwrap();
        let head = BytesMut::from(text).split_to(end).freeze();
        parse(head, &lines, Fields::default(), method)
    }

    #[track_caller]
    fn check(method: &Method, head: &str, expect: Result<(u16, Framing, bool), Malformed>) {
        let got = read(method, &format!("{head}\r\n\r\n"));
        assert_eq!(got.map(|h| (h.parts.status.as_u16(), h.body, h.keep_alive)), expect, "{head:?}");
    }

    #[test]
    fn framing() {
        let get = |head: &str, expect| check(&Method::GET, head, expect);
        get("HTTP/1.1 200 OK\r\nContent-Length: 5", Ok((200, Framing::Length(5), true)));
        get("HTTP/1.1 200\r\nContent-Length: 5\r\ncontent-length: 5", Ok((200, Framing::Length(5), true)));
        get("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nConnection: close", Ok((200, Framing::Chunked, false)));
        get("HTTP/1.1 200 OK", Ok((200, Framing::CloseDelimited, false)));
        get("HTTP/1.0 200 OK\r\nContent-Length: 5", Ok((200, Framing::Length(5), false)));
        get("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", Ok((200, Framing::Length(5), true)));
        get("HTTP/1.1 204 No Content\r\nContent-Length: 5", Ok((204, Framing::Empty, false)));
        get("HTTP/1.1 204 No Content\r\nContent-Length: 0", Ok((204, Framing::Empty, true)));
        get("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked", Ok((103, Framing::Empty, false)));
        get("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Ok((304, Framing::Empty, true)));
        get("HTTP/1.1 100 Continue", Ok((100, Framing::Empty, true)));
        check(&Method::HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Ok((200, Framing::Empty, true)));
        for (head, what) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6", Malformed::ContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5", Malformed::ContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", Malformed::TransferEncoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", Malformed::TransferEncoding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", Malformed::TransferEncoding),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                Malformed::TransferEncoding,
            ),
            ("HTTP/1.1 200 OK\r\na: b\0", Malformed::FieldValue),
        ] {
            get(head, Err(what));
        }
        for line in
            ["HTTP/1.1 20 OK", "HTTP/1.1  200 OK", "HTTP/2 200 OK", "ICY 200 OK", "HTTP/1.1 200OK", "HTTP/1.1 2000"]
        {
            get(line, Err(Malformed::StartLine));
        }
    }

    #[test]
    fn fields() {
        let head = read(
            &Method::HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: x-a\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: x\r\n\r\n",
        );
        let fields = head.unwrap().parts.fields;
        assert_eq!(fields.iter().collect::<Vec<_>>(), [(&b"X-B"[..], &b"2"[..]), (b"content-length", b"7")]);
        let head = read(&Method::GET, "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
        assert!(head.websocket);
    }
}
