//! The content of a request's head that came by HTTP/2.

use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE, request};

use super::{heads::FIELD_LINE_BYTES, plain::is_name};
use crate::{
    fields::{self, Fields},
    header_value::trim,
    http1::{
        Malformed,
        field_rules::{Known, is_disguised, known},
        grammar,
        request::{Refused, Wants},
    },
    message::RequestHead,
    message_limits::{Limits, MAX_METHOD_BYTES},
};

/// A name and a value, in a list.
const FIELD_BYTES: usize = size_of::<(http::HeaderName, HeaderValue)>();

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// Head for the exchange. Fields of the connection are not among it: no message may have them (RFC 9113 section
    /// 8.2.2). A stream with the usual ones is ended by `h2`; others are left out here.
    pub parts: RequestHead,
    /// Wishes of the client.
    pub wants: Wants,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Expect`.
    pub(super) expects: Expects,
    /// Fault that HTTP does not allow, though `h2` does.
    malformed: Option<Malformed>,
    /// Bytes of names and values, as HTTP/1.1 would have them.
    bytes: usize,
}

impl Head {
    /// The size of the head, its target and authority included.
    pub fn bytes(&self) -> usize {
        let RequestHead { method, uri, .. } = &self.parts;
        let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
        let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
        method.as_str().len() + target + authority + self.bytes
    }

    /// Bytes of memory that it holds. Values may be shared with others of its connection, and are counted all the same:
    /// they are copied on their way.
    pub(super) fn held(&self) -> usize {
        self.bytes + self.parts.fields.len() * FIELD_BYTES
    }

    /// The limit that the head exceeds, if it does. Much larger ones `h2` itself refuses without a word (`builder` in
    /// `serve.rs`).
    pub(super) fn exceeded_limit(&self, limits: &Limits) -> Option<Refused> {
        let RequestHead { method, uri, fields, .. } = &self.parts;
        let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
        match () {
            () if method.as_str().len() > MAX_METHOD_BYTES => Some(Refused::MethodTooLong),
            () if target > limits.target_bytes => Some(Refused::TargetTooLong),
            () if fields.len() > limits.fields => Some(Refused::HeadTooLarge),
            () if self.bytes() > limits.head_bytes => Some(Refused::HeadTooLarge),
            () if let Some(malformed) = self.malformed => Some(malformed.into()),
            () if self.expects == Expects::Another => Some(Refused::Expectation),
            () if self.length > Some(limits.body_bytes) => Some(Refused::BodyTooLarge),
            () => None,
        }
    }
}

/// Reads it.
pub fn parse(parts: request::Parts) -> Head {
    let request::Parts { method, uri, version, headers, .. } = parts;
    let mut fields = fields::take();
    let Read { trailers, length, expects, malformed, bytes } = read(headers, &mut fields);
    let wants = Wants { trailers, ..Wants::default() };
    Head { parts: RequestHead { method, uri, version, fields }, wants, length, expects, malformed, bytes }
}

/// The expectation of the client (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Expects {
    #[default]
    Nothing,
    /// To be told to send its body.
    Continue,
    /// An expectation that is not known.
    Another,
}

#[derive(Default)]
struct Read {
    trailers: bool,
    length: Option<u64>,
    expects: Expects,
    malformed: Option<Malformed>,
    bytes: usize,
}

/// Moves fields over. What a client splits for the sake of HPACK, the upstream gets whole: one Cookie (RFC 9113 section
/// 8.2.3).
fn read(headers: HeaderMap, fields: &mut Fields) -> Read {
    let mut read = Read::default();
    let mut last: Option<HeaderName> = None;
    let mut cookies = vec![];
    for (name, mut value) in headers {
        // A name is told once for all of its values.
        if let Some(name) = name {
            if !is_name(&name) {
                read.malformed = Some(Malformed::FieldName);
            }
            last = Some(name);
        }
        let Some(name) = &last else { continue };
        trim(&mut value);
        let text = name.as_str().as_bytes();
        read.bytes += text.len() + value.len() + FIELD_LINE_BYTES;
        match known(text) {
            Known::Te => {
                read.trailers |= value.as_bytes().eq_ignore_ascii_case(b"trailers");
                continue;
            }
            Known::Connection | Known::Upgrade | Known::TransferEncoding | Known::OfConnection => continue,
            Known::Expect => {
                let known = read.expects != Expects::Another && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                read.expects = if known { Expects::Continue } else { Expects::Another };
                continue;
            }
            Known::ContentLength => {
                let number = grammar::number(value.as_bytes());
                // Several, as by HTTP/1.1: what is behind one may choose another.
                if number.is_none() || std::mem::replace(&mut read.length, number).is_some() {
                    read.malformed = Some(Malformed::ContentLength);
                }
            }
            // Names with an underscore are known to some servers under the name with a dash.
            Known::Other if text.contains(&b'_') && is_disguised(text) => continue,
            Known::Other if *name == COOKIE => {
                cookies.push(value);
                continue;
            }
            Known::Host | Known::Other => {}
        }
        fields.append(name.clone(), value);
    }
    if let Some(cookie) = joined(cookies) {
        fields.append(COOKIE, cookie);
    }
    read
}

fn joined(mut values: Vec<HeaderValue>) -> Option<HeaderValue> {
    if values.len() < 2 {
        return values.pop();
    }
    let text = values.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    // Each part was valid by itself.
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(values.iter().any(HeaderValue::is_sensitive));
    Some(value)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_is_for_the_exchange() {
        let request = Request::get("https://shop/").header("te", "trailers").header("x_forwarded_for", "9.9.9.9");
        let request =
            request.header("a", "1").header("content-length", "7").header("a", " \t2 ").header("keep-alive", "x");
        let request = request.header("cookie", "b=1").header("cookie", "c=2");
        let head = parse(request.body(()).unwrap().into_parts().0);
        let fields: Vec<_> = head.parts.fields.iter().collect();
        let expect: [(&[u8], &[u8]); 4] =
            [(b"a", b"1"), (b"a", b"2"), (b"content-length", b"7"), (b"cookie", b"b=1; c=2")];
        assert_eq!(fields, expect);
        assert!(head.wants.trailers && !head.wants.websocket);
        assert_eq!((head.length, head.bytes), (Some(7), 112));
    }
}
