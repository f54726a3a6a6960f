//! Host and path, checked once before routing, limits and forwarding: the upstream gets the path that was checked.
//!
//! One rule for paths: what another server could read as a different path is refused, nothing is rewritten. Refused are
//! dot segments (raw or percent-encoded), backslashes, and NUL (`%00`).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Uri, header::HOST};

use super::answer::{BAD_HOST, BAD_PATH, BAD_TARGET, Cause};

/// The host a request is for.
#[derive(Debug, PartialEq)]
pub(crate) struct Host {
    /// As it came, with its port: for the upstream's Host field.
    pub(crate) value: HeaderValue,
    /// Where the port begins.
    end: usize,
}

impl Host {
    /// Without port, in lower case.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        let name = self.value.to_str().map_or("", |text| &text[..self.end]);
        match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => name.to_ascii_lowercase().into(),
            false => name.into(),
        }
    }
}

/// Takes the host from `:authority`, an absolute target, or the one Host field (RFC 9112 section 3.2).
pub(crate) fn host(uri: &Uri, headers: &HeaderMap) -> Result<Host, Cause> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(BAD_HOST);
    }
    let value = match (uri.authority(), field) {
        (Some(authority), field) => {
            if authority.as_str().contains('@') || field.is_some_and(|f| !same_host(f, authority.as_str())) {
                return Err(BAD_HOST);
            }
            HeaderValue::from_str(authority.as_str()).map_err(|_| BAD_HOST)?
        }
        (None, Some(field)) => field.clone(),
        (None, None) => return Err(BAD_HOST),
    };
    let end = name_end(value.to_str().map_err(|_| BAD_HOST)?).ok_or(BAD_HOST)?;
    Ok(Host { value, end })
}

fn same_host(field: &HeaderValue, authority: &str) -> bool {
    field.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
}

/// Length of the name within `name[:port]`, when both are well-formed.
fn name_end(host: &str) -> Option<usize> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(i) => host.split_at(i + 2),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    let port_ok = port.is_empty() || port[1..].bytes().all(|b| b.is_ascii_digit()) && port.len() <= 6;
    (!name.is_empty() && name.len() <= 255 && name.bytes().all(name_ok) && port_ok).then_some(name.len())
}

/// Checks the target: a path, and one that means the same to everybody.
pub(crate) fn path(uri: &Uri) -> Result<(), Cause> {
    let path = uri.path();
    if !path.starts_with('/') {
        return Err(BAD_TARGET);
    }
    let bytes = path.as_bytes();
    // Most paths hold none of these bytes, and are done here.
    if !bytes.iter().any(|b| matches!(b, b'.' | b'%' | b'\\')) {
        return Ok(());
    }
    if bytes.contains(&b'\\') || path.split('/').any(is_dot_segment) || holds_encoded(bytes) {
        return Err(BAD_PATH);
    }
    Ok(())
}

/// `.` or `..`, any of their dots percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment.as_bytes();
    let mut dots = 0;
    loop {
        rest = match rest {
            [] => return (1..=2).contains(&dots),
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
}

/// `%00` or `%5c`.
fn holds_encoded(path: &[u8]) -> bool {
    path.windows(3).any(|w| matches!(w, b"%00" | b"%5c" | b"%5C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_path(target: &str, expect: Result<(), Cause>) {
        assert_eq!(path(&target.parse().unwrap()), expect, "{target}");
    }

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a.b/..c/.d/...", "/a%20b", "/a?x=/../", "/%2e%2e%2e", "//a"] {
            check_path(good, Ok(()));
        }
        for bad in ["/..", "/a/../b", "/a/./b", "/%2e%2E/a", "/.%2e/a", "/a%00", "/a%5c..%5cb", "/a/.."] {
            check_path(bad, Err(BAD_PATH));
        }
        check_path("*", Err(BAD_TARGET));
    }

    #[track_caller]
    fn check_host(uri: &str, fields: &[&str], expect: Option<&str>) {
        let headers: HeaderMap =
            fields.iter().map(|field| (HOST, HeaderValue::from_bytes(field.as_bytes()).unwrap())).collect();
        let got = host(&uri.parse().unwrap(), &headers);
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
        check_host("http://user@a.b/", &[], None);
        for bad in ["", ":80", "a b", "a/b", "a:b", "a:1234567", "a\u{e9}"] {
            check_host("/", &[bad], None);
        }
        check_host("/", &[], None);
        check_host("/", &["a", "a"], None);
    }
}
