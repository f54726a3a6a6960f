//! A body in the chunked coding (RFC 9112 section 7.1).
//!
//! - However the bytes are cut into reads, the decoder comes to what a naive reading of the whole comes to.
//! - What one of the two refuses before the other could not have become valid with any end.
//! - What was decoded, encoded for an upstream and decoded there, is the same again.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use proxy::{
    http1::{
        chunked::{Decoder, Next},
        encode,
    },
    message_limits::{DEFAULT, Limits},
};

/// Small, so that they are met.
const LIMITS: Limits = Limits { fields: 6, trailer_bytes: 128, extension_bytes: 32, ..DEFAULT };

/// What the bytes are.
#[derive(Debug, PartialEq)]
enum Body {
    /// Data, number of trailer lines, and bytes of the whole body.
    Complete(Vec<u8>, usize, usize),
    /// The beginning of a body; its data.
    Begun(Vec<u8>),
    /// No body.
    Bad,
}

/// Checks one input: its first two bytes say how the rest is cut.
pub fn check(input: &[u8]) {
    let [a, b, body @ ..] = input else { return };
    let expect = naive(body);
    let mut trailers = None;
    for steps in [[usize::MAX; 2], [1; 2], [usize::from(*a).max(1), usize::from(*b).max(1)]] {
        let got = feed(body, steps, &mut trailers);
        match (&got, &expect) {
            (Body::Bad, Body::Begun(_)) => hopeless(body, naive),
            // Trailers are looked at once they are complete.
            (Body::Begun(_), Body::Bad) => hopeless(body, |body| feed(body, steps, &mut None)),
            _ => assert_eq!(got, expect, "in steps of {steps:?}"),
        }
    }
    if let Body::Complete(data, _, _) = expect {
        sent(&data, trailers.as_deref(), usize::from(*a).max(1));
    }
}

/// Feeds the decoder in steps of these sizes, by turns.
fn feed(body: &[u8], steps: [usize; 2], trailers: &mut Option<Box<HeaderMap>>) -> Body {
    let (mut decoder, mut buf, mut data) = (Decoder::default(), BytesMut::new(), vec![]);
    let (mut fed, mut turn) = (0, 0);
    loop {
        match decoder.next(&mut buf, &LIMITS) {
            Err(_) => return Body::Bad,
            Ok(Next::Data(bytes)) => {
                assert!(!bytes.is_empty());
                data.extend_from_slice(&bytes);
            }
            Ok(Next::End(fields)) => {
                assert!(decoder.is_done());
                let count = fields.as_ref().map_or(0, |fields| fields.len());
                *trailers = fields;
                return Body::Complete(data, count, fed - buf.len());
            }
            Ok(Next::More) if fed == body.len() => return Body::Begun(data),
            Ok(Next::More) => {
                let to = fed.saturating_add(steps[turn]).min(body.len());
                buf.extend_from_slice(&body[fed..to]);
                (fed, turn) = (to, 1 - turn);
            }
        }
    }
}

/// Reads a body line by line, from the grammar.
fn naive(body: &[u8]) -> Body {
    let (mut rest, mut data, mut extensions) = (body, vec![], 0);
    loop {
        let Some((line, after)) = line(rest) else { return Body::Begun(data) };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let significant = size.iter().skip_while(|b| **b == b'0').count();
        let clean = extension.iter().all(|b| *b == b'\t' || *b >= b' ' && *b != 0x7f);
        let begins = extension.trim_ascii_start().first().is_none_or(|b| *b == b';');
        // White space alone is no extension.
        let blank = !extension.is_empty() && extension.trim_ascii().is_empty();
        extensions += extension.len();
        if size.is_empty() || significant > 15 || !clean || !begins || blank || extensions > LIMITS.extension_bytes {
            return Body::Bad;
        }
        let size = u64::from_str_radix(str::from_utf8(size).expect("digits"), 16).expect("at most 15 digits");
        if size == 0 {
            return trailer_section(body, after, data);
        }
        let there = after.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        data.extend_from_slice(&after[..there]);
        rest = match &after[there..] {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Body::Begun(data),
            _ => return Body::Bad,
        };
    }
}

fn trailer_section(body: &[u8], section: &[u8], data: Vec<u8>) -> Body {
    let (mut rest, mut lines, mut fields) = (section, 0, 0);
    loop {
        let Some((line, after)) = line(rest) else { return Body::Begun(data) };
        if section.len() - after.len() > LIMITS.trailer_bytes {
            return Body::Bad;
        }
        rest = after;
        if line.is_empty() {
            return Body::Complete(data, fields, body.len() - rest.len());
        }
        lines += 1;
        let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
        let name = &line[..colon];
        let token = |b: &u8| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(b);
        let clean = line.iter().all(|b| *b == b'\t' || *b >= b' ' && *b != 0x7f);
        if name.is_empty() || !name.iter().all(token) || !clean || lines > LIMITS.fields {
            return Body::Bad;
        }
        fields += usize::from(!is_left_out(name));
    }
}

/// RFC 9110 section 6.5.1: fields that frame, route or authenticate have no place in trailers; nor have those that servers
/// of the CGI family take for what is the proxy's to say, underscores for dashes.
fn is_left_out(name: &[u8]) -> bool {
    const OF_CONNECTION: [&str; 7] = [
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ];
    const OURS: [&str; 11] = [
        "connection",
        "content-length",
        "forwarded",
        "host",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    ];
    let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
    OF_CONNECTION.contains(&&*lower) || OURS.contains(&&*lower.replace('_', "-"))
}

/// The line at the beginning, without its end, and what follows it. A line feed anywhere ends a line, so that one without its
/// carriage return is seen: it stays in the line.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let feed = bytes.iter().position(|b| *b == b'\n')?;
    let (line, rest) = bytes.split_at(feed + 1);
    Some((line.strip_suffix(b"\r\n").unwrap_or(line), rest))
}

/// No end makes a body of what one of the two has refused already, by the reading of the other.
fn hopeless(body: &[u8], read: impl Fn(&[u8]) -> Body) {
    for end in
        ["0\r\n\r\n", "\r\n0\r\n\r\n", "\n0\r\n\r\n", "\r\n\r\n", "\n\r\n", "\n", "1\r\nx\r\n0\r\n\r\n", ":\r\n\r\n"]
    {
        let completed = read(&[body, end.as_bytes()].concat());
        assert!(!matches!(completed, Body::Complete(..)), "with {end:?} it is a body");
    }
}

/// Encodes as for an upstream, and decodes.
fn sent(data: &[u8], trailers: Option<&HeaderMap>, size: usize) {
    let mut out = vec![];
    for chunk in data.chunks(size) {
        encode::chunk_size(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    encode::last_chunk(&mut out, trailers);
    let mut buf = BytesMut::from(Bytes::from(out));
    let (mut decoder, mut again) = (Decoder::default(), vec![]);
    // Names and values are written with a space between them: one byte more for each.
    let limits = Limits { trailer_bytes: 2 * LIMITS.trailer_bytes, ..LIMITS };
    loop {
        match decoder.next(&mut buf, &limits).expect("valid") {
            Next::Data(bytes) => again.extend_from_slice(&bytes),
            Next::More => panic!("incomplete"),
            Next::End(fields) => {
                assert!(buf.is_empty());
                assert_eq!(fields.as_deref().unwrap_or(&HeaderMap::new()), trailers.unwrap_or(&HeaderMap::new()));
                assert_eq!(again, data);
                return;
            }
        }
    }
}
