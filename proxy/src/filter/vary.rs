//! `Vary` (RFC 9110 section 12.5.5): the fields of requests that a response depends on.

use http::{HeaderName, HeaderValue, header::VARY};

use crate::{fields::Fields, http1::grammar::items};

/// Adds a field's name to `Vary`, unless it is said already.
pub(super) fn add(fields: &mut Fields, name: &HeaderName) {
    let says = |item: &[u8]| item == b"*" || item.eq_ignore_ascii_case(name.as_str().as_bytes());
    if !fields.get_all(&VARY).any(|value| items(value).any(says)) {
        fields.append(VARY, HeaderValue::from(name.clone()));
    }
}
