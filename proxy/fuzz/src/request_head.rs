//! A request's head, from what a client sent to what an upstream gets.
//!
//! - However the bytes are cut into reads, the verdict is the same.
//! - What is accepted is what RFC 9112 allows, by a reading of its lines as text, and `httparse` reads the same in it.
//! - Of its fields nothing is lost but what concerns the connection, the framing, or names a field in disguise.
//! - What is written to the upstream is accepted in turn, and means the same.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Version, header::HOST};
use proxy::{
    exchange::normalise,
    fields::Fields,
    forwarded::{self, Forwarded, RequestId},
    http1::{
        body::Framing,
        encode,
        lines::{Bad, Bounds, HeaderLines},
        request::{Head, Wants, parse},
    },
    message::RequestHead,
    message_limits::{DEFAULT, Limits},
};

/// Small, so that they are met.
const LIMITS: Limits = Limits { head_bytes: 1024, fields: 12, target_bytes: 128, body_bytes: 1 << 40, ..DEFAULT };

/// Fields that never reach the next hop (RFC 9110 section 7.6.1), and those that frame a body.
const OF_CONNECTION: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A head as its lines say, without regard to what they mean.
struct Text<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    fields: Vec<(String, &'a [u8])>,
}

/// Checks one input: what a client sends.
pub fn check(input: &[u8]) {
    let whole = read(input, input.len().max(1), &LIMITS);
    for step in [1, 3] {
        let cut = read(input, step, &LIMITS);
        assert_eq!(format!("{cut:?}"), format!("{whole:?}"), "read in steps of {step}");
    }
    let Ok(Some((head, end))) = whole else { return };
    assert!(end <= LIMITS.head_bytes);
    let text = text(&input[..end]);
    same_as_httparse(input, end, &text);
    assert_eq!(framing(&text), head.body);
    let field = |name: &str| text.fields.iter().filter(|(n, _)| n == name).count();
    assert!(field("host") == 1 || field("host") == 0 && text.version == "HTTP/1.0");
    nothing_lost(&text, &head.parts.fields.to_map());
    sent(head);
}

/// Reads a head as a connection does that gets `step` bytes at a time.
fn read(input: &[u8], step: usize, limits: &Limits) -> Result<Option<(Head, usize)>, ()> {
    let mut lines = HeaderLines::default();
    lines.reset(true);
    let bounds = Bounds { bytes: limits.head_bytes, fields: limits.fields, first: limits.target_bytes + 100 };
    let mut there = 0;
    while there < input.len() {
        there = (there + step).min(input.len());
        if let Some(end) = lines.read(&input[..there], bounds).map_err(|_: Bad| ())? {
            let bytes = Bytes::copy_from_slice(&input[..end]);
            let head = parse(bytes, &lines, Fields::default(), limits).map_err(drop)?;
            return Ok(Some((head, end)));
        }
    }
    Ok(None)
}

/// Cuts an accepted head into its parts, and finds fault with it where another server could.
fn text(head: &[u8]) -> Text<'_> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let head = head.strip_suffix(b"\r\n\r\n").expect("a head ends in an empty line");
    let mut lines = vec![];
    let mut start = 0;
    for at in (0..=head.len()).filter(|at| *at == head.len() || head[*at..].starts_with(b"\r\n")) {
        lines.push(&head[start..at]);
        start = at + 2;
    }
    for line in &lines {
        assert!(line.iter().all(|b| *b == b'\t' || *b >= b' ' && *b != 0x7f), "a control character");
    }
    let first = str::from_utf8(lines[0]).expect("UTF-8");
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, version @ ("HTTP/1.0" | "HTTP/1.1")] = parts[..] else { panic!("{first:?}") };
    assert!(is_token(method) && !target.is_empty() && !target.bytes().any(|b| b.is_ascii_control()));
    let fields = lines[1..].iter().map(|line| {
        let colon = line.iter().position(|b| *b == b':').expect("a colon");
        let name = str::from_utf8(&line[..colon]).expect("ASCII");
        assert!(is_token(name), "{name:?}");
        (name.to_ascii_lowercase(), line[colon + 1..].trim_ascii())
    });
    Text { method, target, version, fields: fields.collect() }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b))
}

/// RFC 9112 section 6.3, of what has passed for unambiguous.
fn framing(text: &Text<'_>) -> Framing {
    let all = |name: &str| text.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect::<Vec<_>>();
    match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Framing::Empty,
        ([], [length]) => match str::from_utf8(length).expect("digits") {
            digits if digits.bytes().all(|b| b == b'0') => Framing::Empty,
            digits => Framing::Length(digits.bytes().fold(0, |n, b| n * 10 + u64::from(b - b'0'))),
        },
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && text.version == "HTTP/1.1" => Framing::Chunked,
        _ => panic!("a length and a coding, or several of one"),
    }
}

/// Whatever we accept, a well-known parser accepts, and understands the same by it.
fn same_as_httparse(input: &[u8], end: usize, text: &Text<'_>) {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(input), Ok(httparse::Status::Complete(end)));
    assert_eq!((request.method, request.path), (Some(text.method), Some(text.target)));
    assert_eq!(request.version, Some(u8::from(text.version == "HTTP/1.1")));
    let fields = request.headers.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.trim_ascii()));
    assert_eq!(fields.collect::<Vec<_>>(), text.fields);
}

fn nothing_lost(text: &Text<'_>, got: &HeaderMap) {
    let listed = |name: &str| {
        let connection = text.fields.iter().filter(|(n, _)| n == "connection");
        let mut items = connection.flat_map(|(_, list)| list.split(|b| *b == b','));
        items.any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    for (name, _) in &text.fields {
        let sent: Vec<&[u8]> = text.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect();
        let kept: Vec<&[u8]> = got.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let may_go = OF_CONNECTION.contains(&name.as_str()) || listed(name) || name.contains('_');
        assert!(kept == sent || kept.is_empty() && may_go, "{name}: {kept:?} of {sent:?}");
        assert!(kept.is_empty() || !OF_CONNECTION.contains(&name.as_str()), "{name} is passed on");
    }
    for name in got.keys() {
        assert!(text.fields.iter().any(|(n, _)| n == name.as_str()), "{name} comes from nowhere");
    }
}

/// Sends an accepted head on, as `exchange` does, and reads that as the upstream would.
fn sent(mut head: Head) {
    let Some(host) = prepared(&mut head.parts) else { return };
    let request_id = RequestId::Made([b'0'; 32]);
    let client = forwarded::address(Ipv4Addr::LOCALHOST.into());
    let forwarded = Forwarded { request_id: &request_id, client: &client, tls: false, host: &host };
    let mut out = vec![];
    encode::request(&mut out, &head.parts, forwarded, head.body, head.wants);
    let mut before = head.parts.fields.to_map();
    forwarded.set(&mut before);
    out.extend_from_slice(b"GET /smuggled HTTP/1.1\r\n\r\n");

    let limits = Limits { head_bytes: 8 << 10, target_bytes: 8 << 10, fields: 200, ..LIMITS };
    let (again, end) = read(&out, out.len(), &limits).expect("accepted").expect("complete");
    assert_eq!(&out[end..], b"GET /smuggled HTTP/1.1\r\n\r\n");
    let text = text(&out[..end]);
    same_as_httparse(&out, end, &text);
    assert_eq!(framing(&text), head.body);
    assert_eq!(text.version, "HTTP/1.1");
    let after = again.parts;
    assert_eq!((&after.method, &after.uri, after.version), (&head.parts.method, &head.parts.uri, Version::HTTP_11));
    assert_eq!(after.fields.to_map(), before);
    assert!(again.keep_alive && !again.expects_continue);
    let wants = Wants { trailers: head.wants.trailers && !head.wants.websocket, ..head.wants };
    assert_eq!((again.body, again.wants), (head.body, wants));
}

/// Brings a head into the form in which it is routed and sent; `None`: it is refused.
fn prepared(head: &mut RequestHead) -> Option<Bytes> {
    if head.method == Method::CONNECT {
        return None;
    }
    let host = normalise::host(&head.uri, &head.fields).ok()?.value;
    let path = snapshot::path::normal(head.uri.path(), DEFAULT.paths)?.into_owned();
    let target = head.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    head.uri = target.parse().expect("a normalised path is a target");
    head.fields.insert(HOST, HeaderValue::from_maybe_shared(host.clone()).expect("a valid value"));
    Some(host)
}
