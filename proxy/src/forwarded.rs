//! Header fields that the proxy adds (RFC 9110 section 7.6).

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{fields::Fields, header_value::ipv4};

/// Identifies a request across hops.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The addresses that each proxy on the way saw.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A client's address as a field's value; an IPv4 address in IPv6 form is an IPv4 address.
pub fn address(client: IpAddr) -> HeaderValue {
    let text = match client.to_canonical() {
        // By hand: each connection pays for it.
        IpAddr::V4(client) => {
            let mut text = Vec::with_capacity("255.255.255.255".len());
            ipv4(&mut text, client);
            text
        }
        IpAddr::V6(client) => client.to_string().into_bytes(),
    };
    // An address is text without control characters: this can't fail.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Tells the upstream which request this is, who asked, and how: in place of whatever the message says in these fields.
/// Only the hops of `X-Forwarded-For` stay; the client's address is appended, so that the last entry is always ours.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// `X-Request-Id`.
    pub request_id: &'a RequestId,
    /// The client's address, as [`address`] has it.
    pub client: &'a HeaderValue,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Host, as it came; empty: there was none.
    pub host: &'a [u8],
}

impl Forwarded<'_> {
    /// Whether a field is one of these.
    pub fn has(name: &[u8]) -> bool {
        let ours = match name.len() {
            12 => X_REQUEST_ID,
            15 => X_FORWARDED_FOR,
            16 => X_FORWARDED_HOST,
            17 => X_FORWARDED_PROTO,
            _ => return false,
        };
        name.eq_ignore_ascii_case(ours.as_str().as_bytes())
    }

    /// Writes them as lines of a head. `fields`: what the message has.
    pub fn write(&self, out: &mut Vec<u8>, fields: &Fields) {
        out.extend_from_slice(b"x-request-id: ");
        out.extend_from_slice(self.request_id.as_bytes());
        out.extend_from_slice(b"\r\nx-forwarded-for: ");
        fields.get_all(&X_FORWARDED_FOR).filter(|hop| is_text(hop)).for_each(|hop| {
            out.extend_from_slice(hop);
            out.extend_from_slice(b", ");
        });
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(b"\r\nx-forwarded-proto: ");
        out.extend_from_slice(self.proto().as_bytes());
        if !self.host.is_empty() {
            out.extend_from_slice(b"\r\nx-forwarded-host: ");
            out.extend_from_slice(self.host);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Sets them in a message whose fields are not written here.
    pub fn set(&self, fields: &mut HeaderMap) {
        let before = fields.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).filter(|hop| is_text(hop));
        let hops = before.chain([self.client.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]);
        self.request_id.set(fields);
        // Each part was valid by itself.
        fields.insert(X_FORWARDED_FOR, HeaderValue::try_from(hops).unwrap_or_else(|_| self.client.clone()));
        fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.proto()));
        fields.remove(X_FORWARDED_HOST);
        if !self.host.is_empty()
            && let Ok(host) = HeaderValue::from_bytes(self.host)
        {
            fields.insert(X_FORWARDED_HOST, host);
        }
    }

    fn proto(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

fn is_text(value: &[u8]) -> bool {
    value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

/// The id of a request, here and further on: a plain word of at most 128 characters.
#[derive(Clone, Debug)]
pub enum RequestId {
    /// The client's.
    Sent(Bytes),
    /// A new one: 32 hexadecimal digits.
    Made([u8; 32]),
}

impl RequestId {
    /// The client's if it is a plain word; else a new one.
    pub fn of(fields: &Fields, random: impl FnOnce() -> u128) -> Self {
        let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        let plain = |value: &Bytes| (1..=128).contains(&value.len()) && value.iter().all(word);
        let sent = fields.get_shared(&X_REQUEST_ID).filter(plain);
        sent.map_or_else(|| Self::Made(hex(random())), Self::Sent)
    }

    /// The id's text, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sent(value) => value,
            Self::Made(digits) => digits,
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Sets it as a field.
    pub(crate) fn set(&self, fields: &mut HeaderMap) {
        // A plain word is a valid value.
        if let Ok(mut value) = HeaderValue::from_bytes(self.as_bytes()) {
            // It never comes again: HPACK's tables are for what does (RFC 7541 section 6.2.3).
            value.set_sensitive(true);
            fields.insert(X_REQUEST_ID, value);
        }
    }
}

fn hex(number: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    static PAIRS: [[u8; 2]; 256] = {
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let mut text = [0; 32];
    for (digits, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        digits.copy_from_slice(&PAIRS[usize::from(byte)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[track_caller]
    fn check(sent: &[(&'static str, &'static str)], client: &str, tls: bool, hops: &'static str, proto: &'static str) {
        let client = address(client.parse().unwrap());
        let request_id = RequestId::Sent(Bytes::from_static(b"id"));
        let forwarded = Forwarded { request_id: &request_id, client: &client, tls, host: b"shop" };
        let fields = headers(sent);
        let expect = [
            ("x-request-id", "id"),
            ("x-forwarded-for", hops),
            ("x-forwarded-proto", proto),
            ("x-forwarded-host", "shop"),
        ];
        let mut written = vec![];
        forwarded.write(&mut written, &fields.clone().into());
        let lines: String = expect.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(String::from_utf8(written).unwrap(), lines);
        let mut set = fields;
        forwarded.set(&mut set);
        assert_eq!(set, headers(&expect));
        assert!(set.keys().all(|name| Forwarded::has(name.as_str().as_bytes())));
    }

    #[test]
    fn the_client_is_appended() {
        let sent = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("x-request-id", "another")];
        check(&sent, "::ffff:10.0.0.9", false, "1.1.1.1, 10.0.0.9", "http");
        let sent = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2, 3.3.3.3")];
        check(&sent, "::1", true, "1.1.1.1, 2.2.2.2, 3.3.3.3, ::1", "https");
        check(&[], "::1", true, "::1", "https");
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let random = || 0xabc;
        let made = "00000000000000000000000000000abc";
        for (sent, expect) in [("abc-1", "abc-1"), ("a b", made), ("\"", made), ("", made)] {
            assert_eq!(RequestId::of(&headers(&[("x-request-id", sent)]).into(), random).as_str(), expect, "{sent}");
        }
    }
}
