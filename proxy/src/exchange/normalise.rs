//! Host and path, checked once before routing, limits and forwarding: the upstream gets the path that was checked.
//!
//! One rule for targets, by whatever protocol they come. Two spellings that every server reads as the same path become one:
//! percent-encoded unreserved characters are decoded (RFC 3986 section 6.2.2.2), what no path may hold as it is, such as
//! UTF-8 and quotes, is percent-encoded, and empty segments are left out (`//` becomes `/`). What servers read differently
//! is refused: dot segments, backslashes, encoded slashes and backslashes (`%2f`, `%5c`), control characters, overlong
//! UTF-8, and percent signs that encode nothing. Of a query, what is not ASCII is percent-encoded. A fragment is never sent
//! (RFC 9110 section 4.2.5): it is cut off where a target is read (`http::Uri`).

use std::{borrow::Cow, net::Ipv6Addr};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version, header::HOST};

use super::answer::{BAD_HOST, BAD_PATH, BAD_TARGET, Cause};
use crate::{fields::Fields, message::RequestHead};

/// The target of a request that is for the server as a whole.
pub(super) const ASTERISK: &str = "*";

/// The host a request is for.
#[derive(Debug, Default, PartialEq)]
pub struct Host {
    /// As it came, with its port: for the upstream's Host field.
    pub value: Bytes,
    /// Whether that is the Host field, as it is.
    pub is_field: bool,
    /// Where the port begins.
    end: usize,
    /// Whether the name is in lower case.
    lower: bool,
}

impl Host {
    /// Without port, in lower case.
    pub fn name(&self) -> Cow<'_, str> {
        let name = str::from_utf8(&self.value[..self.end]).unwrap_or_default();
        if self.lower { name.into() } else { name.to_ascii_lowercase().into() }
    }
}

/// Checks a request's host and target, and brings its head into origin form with one Host.
pub fn head(head: &mut RequestHead) -> Result<Host, Cause> {
    if head.method == Method::CONNECT {
        return Err(BAD_TARGET);
    }
    if head.version < Version::HTTP_2
        && let Some(authority) = head.uri.authority()
        && head.fields.get(&HOST).is_some_and(|field| field != authority.as_str().as_bytes())
    {
        // RFC 9112 section 3.2.2: whatever Host says, the target says it. The upstream is told that alone.
        head.fields.remove(&HOST);
    }
    let host = match host(&head.uri, &head.fields) {
        // A host is missing, not wrong: HTTP/1.0 knows none (RFC 9112 section 3.3). It is served by what serves any.
        Err(_) if head.version == Version::HTTP_10 && !names_host(head) => Host::default(),
        host => host?,
    };
    if head.method == Method::OPTIONS && head.uri.path() == ASTERISK {
        // Of the server as a whole (RFC 9110 section 9.3.7): there is no path to look at.
        head.uri = Uri::from_static(ASTERISK);
        return placed(head, host);
    }
    match (path(&head.uri)?, query(&head.uri)) {
        (None, None) if head.uri.authority().is_none() => {}
        (None, None) => head.uri = head.uri.path_and_query().cloned().ok_or(BAD_TARGET)?.into(),
        (path, query) => {
            let mut target = path.unwrap_or_else(|| head.uri.path().to_owned());
            if let Some(query) = query.as_deref().or(head.uri.query()) {
                target.push('?');
                target.push_str(query);
            }
            head.uri = target.try_into().map_err(|_| BAD_PATH)?;
        }
    }
    placed(head, host)
}

/// Puts the host where the upstream looks for it.
fn placed(head: &mut RequestHead, host: Host) -> Result<Host, Cause> {
    if !host.is_field && !host.value.is_empty() && head.fields.get(&HOST) != Some(&host.value) {
        let value = HeaderValue::from_maybe_shared(host.value.clone()).map_err(|_| BAD_HOST)?;
        head.fields.insert(HOST, value);
    }
    Ok(host)
}

fn names_host(head: &RequestHead) -> bool {
    head.uri.authority().is_some() || head.fields.get(&HOST).is_some()
}

/// Takes the host from `:authority`, an absolute target, or the one Host field (RFC 9112 section 3.2).
pub fn host(uri: &Uri, fields: &Fields) -> Result<Host, Cause> {
    let field = fields.only(&HOST).map_err(|_| BAD_HOST)?;
    let is_field = uri.authority().is_none();
    let value = match (uri.authority(), field) {
        (Some(authority), field) => {
            // Both must agree, in HTTP/2 (RFC 9113 section 8.3.1).
            let differs = field.is_some_and(|field| !same_host(&field, authority.as_str().as_bytes()));
            let scheme = uri.scheme_str().is_some_and(|s| matches!(s, "http" | "https"));
            if authority.as_str().contains('@') || differs || !scheme {
                return Err(BAD_HOST);
            }
            Bytes::copy_from_slice(authority.as_str().as_bytes())
        }
        (None, Some(field)) => field,
        (None, None) => return Err(BAD_HOST),
    };
    let (end, lower) = name_end(&value).ok_or(BAD_HOST)?;
    Ok(Host { value, is_field, end, lower })
}

fn same_host(field: &[u8], authority: &[u8]) -> bool {
    // `:80` and `:443` say no more than the scheme.
    let name = |host: &[u8]| host.strip_suffix(b":80").or_else(|| host.strip_suffix(b":443")).unwrap_or(host).len();
    field[..name(field)].eq_ignore_ascii_case(&authority[..name(authority)])
}

/// What a name in `Host` is made of.
static OF_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = (b as u8).is_ascii_alphanumeric() || matches!(b as u8, b'-' | b'.' | b'_');
        b += 1;
    }
    table
};

/// Length of the name within `name[:port]`, when both are well-formed, and whether it is in lower case.
fn name_end(host: &[u8]) -> Option<(usize, bool)> {
    let end = if let [b'[', rest @ ..] = host {
        let length = memchr::memchr(b']', rest)?;
        str::from_utf8(&rest[..length]).ok()?.parse::<Ipv6Addr>().ok()?;
        length + 2
    } else {
        host.iter().position(|b| !OF_NAME[usize::from(*b)]).unwrap_or(host.len())
    };
    let port_ok = match &host[end..] {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let upper = host[..end].iter().fold(false, |any, b| any | b.is_ascii_uppercase());
    ((1..=255).contains(&end) && port_ok).then_some((end, !upper))
}

/// Checks the target, and brings its path into the one form; `None`: it is in that form.
pub fn path(uri: &Uri) -> Result<Option<String>, Cause> {
    let path = uri.path();
    if !path.starts_with('/') {
        return Err(BAD_TARGET);
    }
    let bytes = path.as_bytes();
    // Most paths are plain, have no empty segment, and are done here.
    let suspect = |w: &[u8]| !PLAIN[usize::from(w[0])] || w[0] == b'/' && matches!(w[1], b'/' | b'.');
    if !bytes.windows(2).any(suspect) && bytes.last().is_none_or(|last| PLAIN[usize::from(*last)]) {
        return Ok(None);
    }
    let normal = normal(bytes).and_then(|normal| String::from_utf8(normal).ok()).ok_or(BAD_PATH)?;
    Ok((normal != path).then_some(normal))
}

/// The query in ASCII; `None`: it is, or there is none.
fn query(uri: &Uri) -> Option<String> {
    let query = uri.query().filter(|query| !query.is_ascii())?;
    let mut ascii = Vec::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        if byte.is_ascii() { ascii.push(byte) } else { encode(&mut ascii, byte) }
    }
    String::from_utf8(ascii).ok()
}

/// What a path may hold as it is (RFC 3986 section 3.3).
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
                    | b':' | b'@' | b'/'
                    // No path may, and yet there are clients that do not encode it, and servers that take it as it is.
                    | b'[' | b']'
            );
        byte += 1;
    }
    table
};

/// Writes a byte percent-encoded, in upper case (RFC 3986 section 6.2.2.1).
fn encode(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// The one form of a path, in one pass over its bytes: decodes what is unreserved, keeps other encodings and encodes what
/// needs it, leaves empty segments out. `None`: servers could read it differently.
fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    // Where the segment under way begins.
    let mut segment = 0;
    let mut rest = path;
    // The last decoded byte, while encodings follow one another: overlong UTF-8 shows in the second byte.
    let mut before = None;
    loop {
        rest = match rest {
            [] => return (!is_dots(&normal[segment..])).then_some(normal),
            [b'/', after @ ..] => {
                if is_dots(&normal[segment..]) {
                    return None;
                }
                if normal.last() != Some(&b'/') {
                    normal.push(b'/');
                }
                segment = normal.len();
                before = None;
                after
            }
            [b'\\', ..] => return None,
            [b'%', high, low, after @ ..] => {
                let byte = hex(*high)? << 4 | hex(*low)?;
                if is_overlong(before, byte) || matches!(byte, 0 | b'/' | b'\\') {
                    return None;
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    normal.push(byte);
                } else {
                    encode(&mut normal, byte);
                }
                before = Some(byte);
                after
            }
            [b'%', ..] => return None,
            [byte, after @ ..] if PLAIN[usize::from(*byte)] => {
                normal.push(*byte);
                before = None;
                after
            }
            [byte, after @ ..] => {
                if is_overlong(before, *byte) {
                    return None;
                }
                encode(&mut normal, *byte);
                before = Some(*byte);
                after
            }
        };
    }
}

/// Whether a byte makes overlong UTF-8 of what is before it: another spelling of a shorter character.
fn is_overlong(before: Option<u8>, byte: u8) -> bool {
    matches!(byte, 0xc0 | 0xc1) || matches!((before, byte), (Some(0xe0), 0x80..0xa0) | (Some(0xf0), 0x80..0x90))
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(target: &str, expect: Result<Option<&str>, Cause>) {
        let got = path(&target.parse().unwrap());
        assert_eq!(got.as_ref().map(Option::as_deref).map_err(|e| *e), expect, "{target}");
    }

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a.b/..c/.d/...", "/a%20b", "/a?x=/../%zz//", "/%C3%A9", "/%E2%82%AC", "/%FF"] {
            check_path(good, Ok(None));
        }
        check_path("/%61dmin", Ok(Some("/admin")));
        check_path("//admin", Ok(Some("/admin")));
        check_path("/a///b//", Ok(Some("/a/b/")));
        check_path("/%7euser/%2e%2E%2e/%c3%a9", Ok(Some("/~user/.../%C3%A9")));
        check_path("/caf\u{e9}", Ok(Some("/caf%C3%A9")));
        check_path("/\"a\"/{b}|^", Ok(Some("/%22a%22/%7Bb%7D%7C%5E")));
        check_path("/a#/../b", Ok(None));
        for bad in ["/..", "/a/../b", "/a/./b", "/%2e%2E/a", "/.%2e/a", "/a/..", "/a//..//b"] {
            check_path(bad, Err(BAD_PATH));
        }
        for bad in
            ["/a%00", "/a%5c..%5cb", "/a%2fb", "/a%2Fb", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af", "/%", "/%4", "/%zz"]
        {
            check_path(bad, Err(BAD_PATH));
        }
        check_path("*", Err(BAD_TARGET));
    }

    #[test]
    fn queries() {
        let check = |target: &str, expect: Option<&str>| {
            assert_eq!(query(&target.parse().unwrap()).as_deref(), expect, "{target}");
        };
        check("/", None);
        check("/?a={b}|c&d=%zz", None);
        check("/?q=caf\u{e9}&r=%C3%A9", Some("q=caf%C3%A9&r=%C3%A9"));
    }

    #[track_caller]
    fn check_host(uri: &str, fields: &[&str], expect: Option<&str>) {
        let fields_of: Fields =
            fields.iter().map(|field| (HOST, HeaderValue::from_bytes(field.as_bytes()).unwrap())).collect();
        let got = host(&uri.parse().unwrap(), &fields_of);
        assert_eq!(got.as_ref().map(|h| h.name()).ok().as_deref(), expect, "{uri} {fields:?}");
    }

    #[test]
    fn hosts() {
        check_host("/", &["shop.example"], Some("shop.example"));
        check_host("/", &["Shop.Example:8080"], Some("shop.example"));
        check_host("/", &["[::1]:80"], Some("[::1]"));
        check_host("http://a.b:80/", &[], Some("a.b"));
        check_host("http://a.b/", &["a.b"], Some("a.b"));
        check_host("http://a.b/", &["c"], None);
        check_host("http://a.b:80/", &["A.B"], Some("a.b"));
        check_host("http://a.b:81/", &["a.b"], None);
        check_host("ftp://a.b/", &["a.b"], None);
        check_host("http://user@a.b/", &[], None);
        for bad in ["", ":80", "a b", "a/b", "a:b", "a:123456", "a\u{e9}", "[::1]x80", "[::1", "[a]", "a]b"] {
            check_host("/", &[bad], None);
        }
        check_host("/", &[], None);
        check_host("/", &["a", "a"], None);
    }
}
