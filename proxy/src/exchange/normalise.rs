//! Host and path, checked once before routing, limits and forwarding: the upstream gets the path that was checked.
//!
//! One rule for targets, by whatever protocol they come: that of [`snapshot::path`] for paths. Of a query, what is not
//! ASCII is percent-encoded. A fragment is never sent (RFC 9110 section 4.2.5): it is cut off where a target is read
//! (`http::Uri`).

use std::{borrow::Cow, net::Ipv6Addr};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version, header::HOST};
use snapshot::path;

use super::reply_kinds::{BAD_HOST, BAD_PATH, BAD_TARGET, LocalReplyKind};
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
pub fn head(head: &mut RequestHead, rules: path::Rules) -> Result<Host, LocalReplyKind> {
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
    match (path(&head.uri, rules)?, query(&head.uri)) {
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
fn placed(head: &mut RequestHead, host: Host) -> Result<Host, LocalReplyKind> {
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
pub fn host(uri: &Uri, fields: &Fields) -> Result<Host, LocalReplyKind> {
    let field = fields.only(&HOST).map_err(|_| BAD_HOST)?;
    let is_field = uri.authority().is_none();
    let value = match (uri.authority(), field) {
        (Some(authority), field) => {
            // Both must agree, in HTTP/2 (RFC 9113 section 8.3.1).
            let differs = field.is_some_and(|field| !same_host(&field, authority.as_str().as_bytes()));
            // Letters of a scheme don't count (RFC 3986 section 3.1).
            let known = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
            let scheme = uri.scheme_str().is_some_and(known);
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

/// Bytes that a name in `Host` is made of.
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
fn path(uri: &Uri, rules: path::Rules) -> Result<Option<String>, LocalReplyKind> {
    let path = uri.path();
    if !path.starts_with('/') {
        return Err(BAD_TARGET);
    }
    // `http://host?query` has none: it is the root (RFC 9110 section 4.2.3).
    if !uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/')) {
        return Ok(Some("/".into()));
    }
    match path::normal(path, rules) {
        Some(Cow::Borrowed(_)) => Ok(None),
        Some(Cow::Owned(normal)) => Ok(Some(normal)),
        None => Err(BAD_PATH),
    }
}

/// The query in ASCII; `None`: it is, or there is none.
fn query(uri: &Uri) -> Option<String> {
    let query = uri.query().filter(|query| !query.is_ascii())?;
    let mut ascii = Vec::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        if byte.is_ascii() {
            ascii.push(byte);
        } else {
            path::encode(&mut ascii, byte);
        }
    }
    String::from_utf8(ascii).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |target: &str, expect: Result<Option<&str>, LocalReplyKind>| {
            let got = path(&target.parse().unwrap(), path::Rules::default());
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(|e| *e), expect, "{target}");
        };
        check("/a?x=/../%zz//", Ok(None));
        check("/a#/../b", Ok(None));
        check("//admin/../b", Ok(Some("/b")));
        check("/%2e%2E/a", Err(BAD_PATH));
        check("http://host?a=b", Ok(Some("/")));
        check("*", Err(BAD_TARGET));
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
        check_host("HTTPS://a.b/", &["a.b"], Some("a.b"));
        check_host("ftp://a.b/", &["a.b"], None);
        check_host("http://user@a.b/", &[], None);
        for bad in ["", ":80", "a b", "a/b", "a:b", "a:123456", "a\u{e9}", "[::1]x80", "[::1", "[a]", "a]b"] {
            check_host("/", &[bad], None);
        }
        check_host("/", &[], None);
        check_host("/", &["a", "a"], None);
    }
}
