//! Fields that came by HTTP/2 as they would be by HTTP/1.1, where `h2` and `http` allow more: whoever gets them by
//! either gets the same.

use http::{HeaderMap, HeaderName};

use crate::{
    header_value::trim,
    http1::{
        Malformed,
        field_rules::{Known, is_disguised, known},
    },
};

/// Whether a name is a token (RFC 9110 section 5.1): `http` takes a character that is none of a token, and by HTTP/1.1
/// that would be a line which is no field.
pub(super) fn is_name(name: &HeaderName) -> bool {
    !name.as_str().as_bytes().contains(&b'"')
}

/// Makes of a response's fields what is made of them by HTTP/1.1: what concerns its connection goes no further.
pub(crate) fn response(fields: &mut HeaderMap) -> Result<(), Malformed> {
    plain(fields, |name| matches!(known(name), Known::Te | Known::Expect | Known::OfConnection))
}

/// Trailers as they would be by HTTP/1.1: what must not stand there (RFC 9110 section 6.5.1) is left out.
pub(crate) fn trailers(fields: &mut HeaderMap) -> Result<(), Malformed> {
    plain(fields, |name| known(name) != Known::Other || is_disguised(name))
}

fn plain(fields: &mut HeaderMap, is_stray: impl Fn(&[u8]) -> bool) -> Result<(), Malformed> {
    if !fields.keys().all(is_name) {
        return Err(Malformed::FieldName);
    }
    fields.values_mut().for_each(trim);
    while let Some(stray) = fields.keys().find(|name| is_stray(name.as_str().as_bytes())).cloned() {
        fields.remove(stray);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn fields_are_what_they_are_by_http1() {
        let of = |names: &[&'static str]| -> HeaderMap {
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static(" v "))).collect()
        };
        let mut fields = of(&["x-a", "proxy-authenticate", "content-length", "x_b"]);
        assert_eq!(response(&mut fields), Ok(()));
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a", "x_b", "content-length"]);
        assert!(fields.values().all(|value| value == "v"));
        let mut fields = of(&["x-a", "content-length", "host", "x_forwarded_for", "x-forwarded-for", "te", "x_b"]);
        assert_eq!(trailers(&mut fields), Ok(()));
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a", "x_b"]);
        let quoted = HeaderName::from_lowercase(b"\"x\"").unwrap();
        let mut fields: HeaderMap = [(quoted, HeaderValue::from_static("v"))].into_iter().collect();
        assert_eq!(response(&mut fields), Err(Malformed::FieldName));
        assert_eq!(trailers(&mut fields), Err(Malformed::FieldName));
    }
}
