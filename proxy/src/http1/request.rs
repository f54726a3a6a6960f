//! A request's head: from its lines to method, target and fields, and what it says of its connection and its body.
//!
//! What concerns this connection only (RFC 9110 section 7.6.1) never becomes a field: it is understood here, and the
//! next connection is told what it needs anew.

use std::ops::Range;

use bytes::Bytes;
use http::{Method, Uri, Version, uri::PathAndQuery};

use super::{
    Malformed,
    body::Framing,
    field_rules::{Known, checked, is_disguised, known, strip_named},
    grammar,
    lines::HeaderLines,
};
use crate::{
    fields::Fields,
    message::RequestHead,
    message_limits::{Limits, MAX_METHOD_BYTES},
};

/// A request's head, understood.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version, and the fields that are for the upstream. No field of the connection or of the body's
    /// framing is among them.
    pub parts: RequestHead,
    /// Framing of the body.
    pub body: Framing,
    /// The client wants to go on with the connection.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub expects_continue: bool,
    /// Wishes of the client beyond the message itself.
    pub wants: Wants,
}

/// The wishes of a client beyond the message itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The connection to become a WebSocket.
    pub websocket: bool,
    /// Trailers.
    pub trailers: bool,
    /// To be told by the upstream to go on before it sends the body.
    pub go_ahead: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// 400: there is none in HTTP/1.1, or several.
    #[error("the request needs exactly one Host")]
    Host,
    /// 501: it is longer than any method (RFC 9112 section 3).
    #[error("the method is too long")]
    MethodTooLong,
    /// 414.
    #[error("the request target is too long")]
    TargetTooLong,
    /// 431.
    #[error("the head is too large")]
    HeadTooLarge,
    /// 501: a transfer coding that the proxy does not know (RFC 9112 section 6.1).
    #[error("the transfer coding is not known")]
    Coding,
    /// 505.
    #[error("the version of HTTP is not known")]
    Version,
    /// 417.
    #[error("the expectation is not known")]
    Expectation,
    /// 413.
    #[error("the body is too large")]
    BodyTooLarge,
}

/// The content of `Connection` and its kin.
#[derive(Default)]
struct Hop {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    websocket: bool,
    /// Number of fields that `Connection` names: they are not for the next hop.
    names: usize,
}

/// Reads a head, whose lines were found; `fields` lend their memory.
pub fn parse(head: Bytes, lines: &HeaderLines, mut fields: Fields, limits: &Limits) -> Result<Head, Refused> {
    let (method, target, version) = start_line(&head, lines.first(), limits)?;
    let (mut hop, mut hosts, mut length, mut codings) = (Hop::default(), 0, None, 0);
    let (mut takes_trailers, mut expects_continue) = (false, false);
    let mut chunked = false;
    let bytes = &head[..];
    fields.clear();
    for (at, range) in lines.fields(bytes) {
        let (name, value) = (&bytes[at.clone()], &bytes[range.clone()]);
        match known(name) {
            Known::ContentLength => {
                let number = grammar::number(value).ok_or(Malformed::ContentLength)?;
                if length.replace(number).is_some() {
                    return Err(Malformed::ContentLength.into());
                }
                continue;
            }
            Known::TransferEncoding => {
                codings += 1;
                chunked = value.eq_ignore_ascii_case(b"chunked");
                if !chunked {
                    return Err(coding(value));
                }
                continue;
            }
            Known::Connection => {
                hop.read(value)?;
                continue;
            }
            Known::Upgrade => {
                hop.websocket |= grammar::items(value).any(|item| item.eq_ignore_ascii_case(b"websocket"));
                checked(value)?;
                continue;
            }
            Known::Te => {
                takes_trailers |= grammar::items(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
                checked(value)?;
                continue;
            }
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    checked(value)?;
                    return Err(Refused::Expectation);
                }
                expects_continue = true;
                continue;
            }
            Known::OfConnection => {
                checked(value)?;
                continue;
            }
            Known::Host => hosts += 1,
            Known::Other => {}
        }
        // Names with an underscore are known to some servers under the name with a dash.
        if name.contains(&b'_') && is_disguised(name) {
            checked(value)?;
            continue;
        }
        checked(value)?;
        fields.parsed(at, range);
    }
    let body = match (codings, length) {
        (0, None | Some(0)) => Framing::Empty,
        (0, Some(length)) if length > limits.body_bytes => return Err(Refused::BodyTooLarge),
        (0, Some(length)) => Framing::Length(length),
        (1, None) if version == Version::HTTP_11 && chunked => Framing::Chunked,
        // Several, one beside a length, or one in HTTP/1.0.
        _ => return Err(Malformed::TransferEncoding.into()),
    };
    if hosts > 1 || hosts == 0 && version == Version::HTTP_11 {
        return Err(Refused::Host);
    }
    // More than there are fields: most of them name nothing.
    if hop.names > limits.fields {
        return Err(Refused::HeadTooLarge);
    }
    let naming = (hop.names > 0).then(|| head.clone());
    fields.attach_buffer(head);
    if let Some(head) = naming {
        // A client must not be able to take out what is the proxy's to say: a known attack on proxies.
        strip_named(&head, lines, &mut fields, is_disguised);
    }
    let http11 = version == Version::HTTP_11;
    let websocket = hop.upgrade && hop.websocket && http11 && method == Method::GET && body == Framing::Empty;
    Ok(Head {
        parts: RequestHead { method, uri: target, version, fields },
        body,
        keep_alive: !hop.close && (http11 || hop.keep_alive),
        // RFC 9110 section 10.1.1: there is nothing to wait for, or the client is too old to.
        expects_continue: expects_continue && http11 && body != Framing::Empty,
        wants: Wants { websocket, trailers: takes_trailers && http11, go_ahead: false },
    })
}

fn start_line(head: &Bytes, at: Range<usize>, limits: &Limits) -> Result<(Method, Uri, Version), Refused> {
    let bad = Malformed::StartLine;
    let (start, line) = (at.start, &head[at]);
    let first = memchr::memchr(b' ', line).ok_or(bad)?;
    let last = memchr::memrchr(b' ', line).filter(|last| *last > first).ok_or(bad)?;
    let version = match &line[last + 1..] {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Refused::Version),
        _ => return Err(bad.into()),
    };
    if !grammar::is_token(&line[..first]) {
        return Err(bad.into());
    }
    if first > MAX_METHOD_BYTES {
        return Err(Refused::MethodTooLong);
    }
    let method = Method::from_bytes(&line[..first]).map_err(|_| bad)?;
    let target = &line[first + 1..last];
    if target.len() > limits.target_bytes {
        return Err(Refused::TargetTooLong);
    }
    // What else it may hold is decided for all protocols at once (`exchange/normalise.rs`).
    if target.is_empty() || target.iter().any(|b| matches!(b, 0..=b' ' | 0x7f)) {
        return Err(bad.into());
    }
    let mut uri = Uri::from_maybe_shared(head.slice(start + first + 1..start + last)).map_err(|_| bad)?;
    if method == Method::OPTIONS && uri.authority().is_some() && names_no_path(target) {
        uri = of_the_server(uri).ok_or(bad)?;
    }
    Ok((method, uri, version))
}

/// The part of a first line that is too long, as far as it has come.
pub(super) fn too_long(line: &[u8]) -> Refused {
    let method = &line[..line.len().min(MAX_METHOD_BYTES + 1)];
    if method.contains(&b' ') { Refused::TargetTooLong } else { Refused::MethodTooLong }
}

/// Whether there is nothing behind the authority of a target in absolute form.
fn names_no_path(target: &[u8]) -> bool {
    let authority = target.splitn(3, |b| *b == b'/').nth(2).unwrap_or_default();
    !authority.iter().any(|b| matches!(b, b'/' | b'?' | b'#'))
}

/// OPTIONS of such a target is of the server as a whole (RFC 9112 section 3.2.4).
fn of_the_server(target: Uri) -> Option<Uri> {
    let mut parts = target.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    Uri::from_parts(parts).ok()
}

/// A coding other than `chunked`.
fn coding(value: &[u8]) -> Refused {
    let mut codings: Vec<&[u8]> = grammar::items(value).collect();
    let last = codings.pop().unwrap_or_default();
    let known_end = last.eq_ignore_ascii_case(b"chunked") && !codings.is_empty();
    let unknown = |coding: &&[u8]| grammar::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked");
    if known_end && codings.iter().all(unknown) { Refused::Coding } else { Malformed::TransferEncoding.into() }
}

impl Hop {
    fn read(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for item in grammar::items(value) {
            match item.len() {
                5 if item.eq_ignore_ascii_case(b"close") => self.close = true,
                10 if item.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                7 if item.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                0 => {}
                _ => self.names += 1,
            }
        }
        checked(value)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        exchange::normalise,
        http1::lines::{Bad, Bounds, TooMuch},
        http2,
        message_limits::{DEFAULT, START_LINE_OVERHEAD_BYTES},
    };

    fn read(text: &[u8]) -> Result<Option<(Head, usize)>, Refused> {
        let mut lines = HeaderLines::default();
        lines.reset(true);
        let first = DEFAULT.target_bytes + START_LINE_OVERHEAD_BYTES;
        let bounds = Bounds { bytes: DEFAULT.head_bytes, fields: DEFAULT.fields, first };
        let end = lines.read(text, bounds).map_err(|bad| match bad {
            Bad::Malformed(malformed) => Refused::Malformed(malformed),
            Bad::TooMuch(TooMuch::First) => too_long(text),
            Bad::TooMuch(TooMuch::Head) => Refused::HeadTooLarge,
        })?;
        let Some(end) = end else { return Ok(None) };
        let head = BytesMut::from(text).split_to(end).freeze();
        Ok(Some((parse(head, &lines, Fields::default(), &DEFAULT)?, end)))
    }

    fn good(text: &str) -> Head {
        read(text.as_bytes()).unwrap().unwrap().0
    }

    fn names(head: &Head) -> Vec<String> {
        let name = |(name, _): (&[u8], &[u8])| String::from_utf8_lossy(name).to_lowercase();
        head.parts.fields.iter().map(name).collect()
    }

    #[track_caller]
    fn bad(text: &str, expect: impl Into<Refused>) {
        assert_eq!(read(text.as_bytes()).map(|_| ()), Err(expect.into()), "{text:?}");
    }

    fn with(fields: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_request() {
        let head = good("GET /a?b=c HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nx-a:  2\t\r\n\r\n");
        assert_eq!((head.parts.method.as_str(), head.parts.uri.to_string()), ("GET", "/a?b=c".into()));
        let values: Vec<_> = head.parts.fields.iter().collect();
        assert_eq!(values, [(&b"Host"[..], &b"shop"[..]), (b"X-A", b"1"), (b"x-a", b"2")]);
        assert!(head.keep_alive && !head.expects_continue && !head.wants.websocket && head.body == Framing::Empty);
    }

    #[test]
    fn start_lines() {
        for bad_line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET /\t HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /< HTTP/1.1",
            "GET #a HTTP/1.1",
            "/ HTTP/1.1",
            "GET HTTP/1.1",
            "GET  HTTP/1.1",
            "GET / HTTP/11",
            "GET /\x7f HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET a HTTP/1.1 x",
        ] {
            bad(&format!("{bad_line}\r\nHost: a\r\n\r\n"), Malformed::StartLine);
        }
        for version in ["0.9", "1.2", "2.0", "3.0"] {
            bad(&format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), Refused::Version);
        }
        bad(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8 << 10)), Refused::TargetTooLong);
        bad(&format!("GET /{}", "a".repeat(9 << 10)), Refused::TargetTooLong);
        let method = |length| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(length));
        good(&method(MAX_METHOD_BYTES));
        bad(&method(MAX_METHOD_BYTES + 1), Refused::MethodTooLong);
        bad(&method(9 << 10), Refused::MethodTooLong);
        bad(&"A".repeat(9 << 10), Refused::MethodTooLong);
        for target in ["/", "*", "http://a/b?c", "/{}[]|?a[]={}|^", "/%zz", "a"] {
            good(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }

    #[test]
    fn hosts() {
        bad("GET / HTTP/1.1\r\n\r\n", Refused::Host);
        bad("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refused::Host);
        bad("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", Refused::Host);
        good("GET / HTTP/1.0\r\n\r\n");
    }

    #[test]
    fn framing() {
        let framing = |fields: &str| good(&with(fields)).body;
        assert_eq!(framing(""), Framing::Empty);
        assert_eq!(framing("Content-Length: 0\r\n"), Framing::Empty);
        assert_eq!(framing("content-length:\t00012 \r\n"), Framing::Length(12));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
        for value in ["", "+5", "-5", "5, 5", "5,", "0x5", "5 5", "5\u{b}", "18446744073709551616", "five"] {
            bad(&with(&format!("Content-Length: {value}\r\n")), Malformed::ContentLength);
        }
        bad(&with("Content-Length: 5\r\nContent-Length: 5\r\n"), Malformed::ContentLength);
        for value in [
            "",
            "identity",
            "chunked, chunked",
            "chunked, gzip",
            "chunked;q=1",
            "xchunked",
            "\u{b}chunked",
            "chunked,",
            ",chunked",
            "\"chunked\"",
            "chunked identity",
            "gzip",
        ] {
            bad(&with(&format!("Transfer-Encoding: {value}\r\n")), Malformed::TransferEncoding);
        }
        bad(&with("Transfer-Encoding: gzip, chunked\r\n"), Refused::Coding);
        bad(&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Malformed::TransferEncoding);
        bad(&with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), Malformed::TransferEncoding);
        bad(&with("Content-Length: 5\r\ntransfer-encoding: chunked\r\n"), Malformed::TransferEncoding);
        bad("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::TransferEncoding);
        for name in ["Content-Length ", "Transfer-Encoding\t", "Content-\0Length", "\u{feff}Content-Length"] {
            bad(&with(&format!("{name}: 5\r\n")), Malformed::FieldName);
        }
        for field in ["a: b\0c", "a: b\rc", "connection: \x01", "te: \x7f", "upgrade: \0", "keep-alive: \x1b"] {
            bad(&with(&format!("{field}\r\n")), Malformed::FieldValue);
        }
        bad(&with("a: b\r\n c: d\r\n"), Malformed::Folded);
        bad(&with(&"a: b\r\n".repeat(101)), Refused::HeadTooLarge);
        bad(&with(&format!("a: {}\r\n", "b".repeat(64 << 10))), Refused::HeadTooLarge);
    }

    #[test]
    fn what_concerns_the_connection() {
        let head = good(&with(
            "Connection: close, x-one,, Host , x-forwarded-for\r\nx-one: 1\r\nx-two: 2\r\nx-forwarded-for: 9\r\n\
             keep-alive: timeout=5\r\nproxy-authorization: x\r\nte: gzip, Trailers\r\nhttp2-settings: y\r\nupgrade: h2c\r\n",
        ));
        assert_eq!(names(&head), ["host", "x-two", "x-forwarded-for"]);
        assert!(!head.keep_alive && head.wants.trailers && !head.wants.websocket);
        let naming = |names: usize| with(&format!("Connection: {}x\r\n", "x,,,".repeat(names - 1)));
        good(&naming(DEFAULT.fields));
        bad(&naming(DEFAULT.fields + 1), Refused::HeadTooLarge);
        assert!(!good("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(good("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!good("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n").keep_alive);
        bad(&with("expect: 200-ok\r\n"), Refused::Expectation);
        assert!(good(&with("content-length: 1\r\nexpect: 100-Continue\r\n")).expects_continue);
        assert!(!good(&with("expect: 100-continue\r\n")).expects_continue);
        let upgrade = |method: &str, more: &str| {
            let fields = "Host: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket";
            good(&format!("{method} / HTTP/1.1\r\n{fields}\r\n{more}\r\n")).wants.websocket
        };
        assert!(upgrade("GET", ""));
        assert!(!upgrade("POST", "") && !upgrade("GET", "content-length: 5\r\n"));
    }

    #[test]
    fn a_field_in_disguise_is_dropped() {
        let head = good(&with("X_Forwarded_For: 1\r\nContent_Length: 5\r\nx_other: 2\r\nX-Forwarded_Proto: 3\r\n"));
        assert_eq!(names(&head), ["host", "x_other"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The same target comes to the same, or to nothing, by HTTP/1.1 and by HTTP/2, and the field to the same
        /// value.
        #[test]
        fn either_protocol_reads_the_same(target in proptest::collection::vec(prop_oneof![
            any::<u8>(), b'!'..b'~', Just(b'%'), Just(b'/'), Just(b'.'), Just(b'?'), Just(b'2'), Just(b'E'), Just(0xc3), Just(0xa9)
        ], 0..20), value in "[ \ta-c]{0,6}") {
            let target = [b"/", &target[..]].concat();
            let text = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\nX: ", value.as_bytes(), b"\r\n\r\n"].concat();
            // Where a line's end or a space stands is the line's to say, also behind a fragment's `#`, which nobody reads.
            prop_assume!(!target.iter().any(|b| matches!(b, 0..=b' ' | 0x7f)));
            let normal = |mut head: RequestHead| {
                let host = normalise::head(&mut head, DEFAULT.paths).ok()?;
                let value = head.fields.get("x").map(<[u8]>::to_vec);
                Some((head.uri.to_string(), host.name().into_owned(), value))
            };
            let by_http1 = read(&text).ok().flatten().and_then(|(head, _)| normal(head.parts));
            // As h2 reads a pseudo-header field.
            let by_http2 = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok().and_then(|target| {
                let request = Request::get(Uri::builder().scheme("http").authority("a").path_and_query(target).build().ok()?);
                let request = request.header("x", HeaderValue::from_bytes(value.as_bytes()).ok()?);
                normal(http2::head::parse(request.body(()).ok()?.into_parts().0).parts)
            });
            prop_assert_eq!(by_http1, by_http2);
        }

        /// Nothing panics, and what is accepted is what was there.
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'/'), Just(b'a')
        ], 0..120)) {
            for prefix in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:"] {
                let mut text = prefix.as_bytes().to_vec();
                text.extend(&bytes);
                text.extend(b"\r\n\r\n");
                if let Ok(Some((head, end))) = read(&text) {
                    prop_assert!(end <= text.len());
                    for (_, value) in head.parts.fields.iter() {
                        prop_assert!(text.windows(value.len().max(1)).any(|w| w == value) || value.is_empty());
                        prop_assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
                    }
                }
            }
        }
    }
}
