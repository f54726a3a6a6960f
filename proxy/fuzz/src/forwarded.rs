//! What of a client's fields is passed on, and what the upstream is told of the client. Lines of `name: value`; the first byte
//! says who the client is.
//!
//! - Fields of the connection and those in disguise go; everything else stays as it came.
//! - A client can neither take the proxy's own fields out nor speak for it: the last entry of `X-Forwarded-For` is its
//!   address, and there is one `X-Forwarded-Proto` and one `X-Forwarded-Host`, under any spelling.
//! - A request id is a plain word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use proxy::{forwarded, http2::head};

const CLIENTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0207)),
];

/// Fields of one connection (RFC 9110 section 7.6.1).
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What the proxy says or acts on, in the spelling with dashes.
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

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((flags, text)) = input.split_first() else { return };
    let mut before = HeaderMap::new();
    for line in text.split(|b| *b == b'\n').take(100) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            before.append(name, value);
        }
    }
    let after = passed(before.clone());
    what_stays(&before, &after);
    assert_eq!(passed(after.clone()), after, "a second time changes nothing");
    told(after, CLIENTS[usize::from(flags >> 1) % 3], flags & 1 == 1);
}

/// What a stream passes on.
fn passed(fields: HeaderMap) -> HeaderMap {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.headers = fields;
    head::parse(parts).parts.fields.to_map()
}

fn what_stays(before: &HeaderMap, after: &HeaderMap) {
    for name in before.keys() {
        let text = name.as_str();
        let disguised = text.contains('_') && OURS.contains(&&*text.replace('_', "-"));
        let kept: Vec<_> = after.get_all(name).iter().collect();
        let sent: Vec<_> = before.get_all(name).iter().collect();
        let goes = OF_CONNECTION.contains(&text) || disguised;
        if text == "cookie" {
            let crumbs = sent.iter().map(|crumb| crumb.as_bytes()).collect::<Vec<_>>().join(&b"; "[..]);
            assert_eq!(kept, [&*crumbs], "they are one");
        } else {
            assert_eq!(kept, if goes { vec![] } else { sent }, "{name}");
        }
    }
    assert!(after.keys().all(|name| before.contains_key(name)));
}

fn told(mut fields: HeaderMap, client: IpAddr, tls: bool) {
    let id = forwarded::RequestId::of(&fields.clone().into(), || 0xabc);
    let request_id = &id;
    let id = id.as_str();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    assert!((1..=128).contains(&id.len()) && id.bytes().all(plain), "{id:?}");
    assert!(fields.get("x-request-id").is_some_and(|sent| sent == id) || id == "00000000000000000000000000000abc");

    let before = fields.clone();
    forwarded::Forwarded { request_id, client: &forwarded::address(client), tls, host: b"shop.example:80" }
        .set(&mut fields);
    let only = |name: &str| {
        let values: Vec<_> = fields.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}");
        assert!(fields.keys().all(|other| other.as_str() == name || other.as_str().replace('_', "-") != name));
        values[0].to_str().expect("printable").to_owned()
    };
    let hops = only("x-forwarded-for");
    let (theirs, ours) = hops.rsplit_once(", ").unwrap_or(("", &hops));
    assert_eq!(ours.parse(), Ok(client.to_canonical()));
    let sent: Vec<_> = before.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    assert_eq!(theirs, sent.join(", "));
    assert_eq!(only("x-forwarded-proto"), if tls { "https" } else { "http" });
    assert_eq!(only("x-forwarded-host"), "shop.example:80");
    assert_eq!(only("x-request-id"), id);
    for name in before.keys().filter(|name| !forwarded::Forwarded::has(name.as_str().as_bytes())) {
        assert!(before.get_all(name).iter().eq(fields.get_all(name).iter()), "{name}");
    }
}
