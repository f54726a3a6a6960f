//! Header fields that a proxy removes and adds (RFC 9110 section 7.6).

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
};

use crate::{http1::request::is_disguised, value};

/// Identifies a request across hops.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerns one connection only: the fields that `Connection` names, and those that always do.
/// `TE: trailers` stays, for gRPC.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // A client must not be able to strip these (a known attack on proxies).
            .filter(|name| ![HOST, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO].contains(name))
            .collect();
        named.into_iter().filter(|name| name != TE).for_each(|name| drop(headers.remove(name)));
        headers.remove(CONNECTION);
    }
    for name in [TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.remove(TE);
    }
}

/// Removes fields whose names are ours with underscores for dashes.
pub fn drop_disguised(headers: &mut HeaderMap) {
    let disguised = |name: &&HeaderName| name.as_str().contains('_') && is_disguised(name.as_str().as_bytes());
    let names: Vec<HeaderName> = headers.keys().filter(disguised).cloned().collect();
    names.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// A client's address as a field's value; an IPv4 address in IPv6 form is an IPv4 address.
pub fn address(client: IpAddr) -> HeaderValue {
    // An address is text without control characters: this can't fail.
    HeaderValue::try_from(client.to_canonical().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Tells the upstream who asked, and how. The client's address is appended, so that the last entry is always ours.
pub fn add_forwarded(headers: &mut HeaderMap, client: &HeaderValue, tls: bool, host: &HeaderValue) {
    let hops = match headers.contains_key(X_FORWARDED_FOR) {
        false => None,
        true => {
            let before = headers.get_all(X_FORWARDED_FOR).iter().chain([client]);
            let hops: Vec<&str> = before.filter_map(|value| value.to_str().ok()).collect();
            HeaderValue::try_from(hops.join(", ")).ok()
        }
    };
    headers.insert(X_FORWARDED_FOR, hops.unwrap_or_else(|| client.clone()));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if tls { "https" } else { "http" }));
    headers.insert(X_FORWARDED_HOST, host.clone());
}

/// A client's request id is kept when it is a plain word of at most 128 characters; else the request gets a new one.
pub fn request_id(headers: &HeaderMap, random: impl FnOnce() -> u128) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        (1..=128).contains(&bytes.len()) && bytes.iter().all(word)
    };
    headers.get(X_REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| hex(random()))
}

fn hex(number: u128) -> HeaderValue {
    value::value(|out| value::hex(out, number)).unwrap_or_else(|| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut got = headers(&[
            ("connection", "close, x-one, host, x-forwarded-for"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("host", "a"),
            ("x-forwarded-for", "9.9.9.9"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
        ]);
        strip_hop_by_hop(&mut got);
        let expect = headers(&[("x-two", "2"), ("host", "a"), ("x-forwarded-for", "9.9.9.9"), ("te", "trailers")]);
        assert_eq!(got, expect);
    }

    #[test]
    fn the_client_is_appended() {
        let mut got = headers(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        let shop = HeaderValue::from_static("shop");
        let mapped = address("::ffff:10.0.0.9".parse().unwrap());
        add_forwarded(&mut got, &mapped, false, &shop);
        let expect =
            [("x-forwarded-for", "1.1.1.1, 10.0.0.9"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "shop")];
        assert_eq!(got, headers(&expect));
        let mut got = HeaderMap::new();
        add_forwarded(&mut got, &HeaderValue::from_static("::1"), true, &shop);
        let expect = [("x-forwarded-for", "::1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "shop")];
        assert_eq!(got, headers(&expect));
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let random = || 0xabc;
        let made = "00000000000000000000000000000abc";
        for (sent, expect) in [("abc-1", "abc-1"), ("a b", made), ("\"", made), ("", made)] {
            assert_eq!(request_id(&headers(&[("x-request-id", sent)]), random), expect, "{sent}");
        }
    }
}
