//! What a request's head says that came by HTTP/2.

use http::{HeaderMap, HeaderName, request};

use crate::{
    fields::Fields,
    http1::{
        buffers, grammar,
        request::{Known, Wants, is_disguised, known},
    },
    message::RequestHead,
};

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// What is for the exchange. Fields of the connection are not among it: no message has them (RFC 9113 section 8.2.2),
    /// and `h2` ends a stream that does.
    pub parts: RequestHead,
    /// What the client can take.
    pub wants: Wants,
    /// `Content-Length`.
    pub length: Option<u64>,
}

/// Reads it.
pub fn parse(parts: request::Parts) -> Head {
    let request::Parts { method, uri, version, headers, .. } = parts;
    let mut fields = buffers::take_fields();
    let (trailers, length) = read(headers, &mut fields);
    Head { parts: RequestHead { method, uri, version, fields }, wants: Wants { websocket: false, trailers }, length }
}

/// Moves fields over; answers whether trailers are taken, and the body's length.
fn read(headers: HeaderMap, fields: &mut Fields) -> (bool, Option<u64>) {
    let (mut trailers, mut length) = (false, None);
    let mut last: Option<HeaderName> = None;
    for (name, value) in headers {
        // A name is told once for all of its values.
        if name.is_some() {
            last = name;
        }
        let Some(name) = &last else { continue };
        let text = name.as_str().as_bytes();
        match known(text) {
            Known::Te => {
                trailers |= value.as_bytes().eq_ignore_ascii_case(b"trailers");
                continue;
            }
            Known::Connection | Known::Upgrade | Known::TransferEncoding | Known::OfConnection => continue,
            Known::ContentLength => length = length.or_else(|| grammar::number(value.as_bytes())),
            // Names with an underscore are known to some servers under the name with a dash.
            Known::Other if text.contains(&b'_') && is_disguised(text) => continue,
            Known::Host | Known::Expect | Known::Other => {}
        }
        fields.append(name.clone(), value);
    }
    (trailers, length)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn what_is_for_the_exchange() {
        let request = Request::get("https://shop/").header("te", "trailers").header("x_forwarded_for", "9.9.9.9");
        let request = request.header("a", "1").header("content-length", "7").header("a", "2").header("keep-alive", "x");
        let head = parse(request.body(()).unwrap().into_parts().0);
        let fields: Vec<_> = head.parts.fields.iter().collect();
        let expect: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"a", b"2"), (b"content-length", b"7")];
        assert_eq!(fields, expect);
        assert!(head.wants.trailers && !head.wants.websocket);
        assert_eq!(head.length, Some(7));
    }
}
