//! Which fields of a message concern its connection or its framing, which ones are the proxy's to say, and what a
//! trailer section may hold. Requests and responses have these rules in common, and so does HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Malformed, grammar, lines::HeaderLines};
use crate::fields::Fields;

/// Reads a trailer section whose lines were found. What must not stand there (RFC 9110 section 6.5.1) is left out.
pub(super) fn trailers(section: &Bytes, lines: &HeaderLines) -> Result<Box<HeaderMap>, Malformed> {
    let mut fields = Box::<HeaderMap>::default();
    for (name, range) in lines.fields(section) {
        let name = &section[name];
        if matches!(known(name), Known::Other) && !is_disguised(name) {
            append(&mut fields, name, section.slice(range))?;
        } else {
            checked(&section[range])?;
        }
    }
    Ok(fields)
}

/// Fields that are not simply passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    Expect,
    /// Others that concern the connection only.
    OfConnection,
    Other,
}

/// Tells by length first: most names are done with that.
pub(crate) fn known(name: &[u8]) -> Known {
    let is = |other: &str, known| if name.eq_ignore_ascii_case(other.as_bytes()) { known } else { Known::Other };
    match name.len() {
        2 => is("te", Known::Te),
        4 => is("host", Known::Host),
        6 => is("expect", Known::Expect),
        7 => is("upgrade", Known::Upgrade),
        10 if matches!(name[0], b'c' | b'C') => is("connection", Known::Connection),
        10 => is("keep-alive", Known::OfConnection),
        14 if matches!(name[0], b'c' | b'C') => is("content-length", Known::ContentLength),
        14 => is("http2-settings", Known::OfConnection),
        16 => is("proxy-connection", Known::OfConnection),
        17 => is("transfer-encoding", Known::TransferEncoding),
        18 => is("proxy-authenticate", Known::OfConnection),
        19 => is("proxy-authorization", Known::OfConnection),
        _ => Known::Other,
    }
}

/// Whether a name, its underscores read as dashes, is one that the proxy itself sets or acts on. Servers of the CGI
/// family know both spellings as one field, so that a client could say what is the proxy's to say.
pub(crate) fn is_disguised(name: &[u8]) -> bool {
    const OURS: [&str; 11] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
        "x-real-ip",
    ];
    let dashed = name.iter().map(|b| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() });
    // Lengths first: most names are done with that.
    OURS.iter().any(|ours| ours.len() == name.len() && ours.bytes().eq(dashed.clone()))
}

/// Adds a field.
fn append(fields: &mut HeaderMap, name: &[u8], value: Bytes) -> Result<(), Malformed> {
    let name = HeaderName::from_bytes(name).map_err(|_| Malformed::FieldName)?;
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::FieldValue)?;
    // Fields are counted while lines are read: there is room.
    fields.try_append(name, value).map(drop).map_err(|_| Malformed::TooLong)
}

/// Checks a value that is not kept.
pub(super) fn checked(value: &[u8]) -> Result<(), Malformed> {
    // Without an early end, so that it is done many bytes at a time.
    let invalid = value.iter().fold(false, |any, b| any | !matches!(b, b'\t' | b' '..=b'~' | 0x80..));
    if invalid { Err(Malformed::FieldValue) } else { Ok(()) }
}

/// Takes out the fields that `Connection` names, but for those that are spared.
pub(super) fn strip_named(bytes: &[u8], lines: &HeaderLines, fields: &mut Fields, spared: impl Fn(&[u8]) -> bool) {
    let mut named = vec![];
    for (name, range) in lines.fields(bytes) {
        if matches!(known(&bytes[name]), Known::Connection) {
            named.extend(grammar::items(&bytes[range]).filter(|item| !item.is_empty() && !spared(item)));
        }
    }
    fields.remove_all(named);
}
