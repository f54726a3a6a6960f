//! Header fields and paths, as filters may write them.

pub(crate) const BAD_PATH: &str = "must begin with / and hold no space, ? or #";

/// Whether it is an absolute path, without a query.
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
}

/// Fields that the proxy writes into every request, whatever a filter has made of them. (What a filter leaves of
/// `X-Forwarded-For` is kept: the client's address is added to it.)
pub(crate) const OF_REQUESTS: [&str; 3] = ["x-request-id", "x-forwarded-host", "x-forwarded-proto"];
/// Fields that the proxy writes into every response.
pub(crate) const OF_RESPONSES: [&str; 1] = ["x-request-id"];

/// The check of a field that a filter writes. Framing and connection fields belong to the proxy (RFC 9110 section 7.6.1): a
/// filter that wrote them could smuggle.
pub(crate) fn modifiable(name: &str, written: &[&str]) -> Result<(), String> {
    const OWN: [&str; 9] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    ];
    let own = OWN.iter().chain(written).any(|own| name.eq_ignore_ascii_case(own));
    if own { Err(format!("{name} is the proxy's own; a filter can't change it")) } else { Ok(()) }
}

/// The check of a token (RFC 9110 section 5.6.2).
pub(crate) fn http_token(name: &str) -> Result<(), String> {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fit = !name.is_empty() && name.bytes().all(tchar);
    if fit { Ok(()) } else { Err(format!("{name:?} is no field name (RFC 9110 token)")) }
}
