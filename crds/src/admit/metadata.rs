//! The parts of `metadata` that no schema can say: the syntax of map keys. Its types and names are in the schema.

use serde_json::{Map, Value};

use super::violations::{Violations, member};

/// Kubernetes' bound on all annotations together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(super) fn check(value: &Value, found: &mut Violations) {
    let map = |name: &str| value.pointer(&format!("/metadata/{name}")).and_then(Value::as_object);
    if let Some(labels) = map("labels") {
        keys("metadata.labels", labels, found);
        for (key, value) in labels {
            if let Value::String(text) = value
                && !text.is_empty()
                && !is_name(text)
            {
                let shown = found.show(value);
                found.push(
                    member("metadata.labels", key),
                    format!(
                        "a label's value has at most 63 letters, digits, '-', '_' and '.', with a letter or digit first \
                         and last; it is {shown}"
                    ),
                );
            }
        }
    }
    if let Some(annotations) = map("annotations") {
        keys("metadata.annotations", annotations, found);
        let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        if size > MAX_ANNOTATIONS {
            found.push(
                "metadata.annotations",
                format!("have {size} bytes together, at most {MAX_ANNOTATIONS} are allowed"),
            );
        }
    }
}

fn keys(path: &str, map: &Map<String, Value>, found: &mut Violations) {
    for key in map.keys() {
        let (prefix, name) = key.split_once('/').map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
        if !is_name(name) || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
            found.push(
                member(path, key),
                "the key must be a name of at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' in front \
                 if you like, such as example.com/team",
            );
        }
    }
}

/// The name part of a qualified name, and a label's value.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

fn is_subdomain(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.len() <= 253
        && text.split('.').map(str::as_bytes).all(|label| {
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            edge(label.first()) && edge(label.last()) && label.iter().all(inner)
        })
}
