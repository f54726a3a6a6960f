//! `x-kubernetes-list-type`: a `map` has no two items with the same keys, a `set` no two equal items.

use std::collections::HashMap;

use serde_json::Value;

use super::violations::{Violations, item, member, show};

pub(super) fn check(schema: &Value, value: &Value, found: &mut Violations) {
    walk(schema, value, "", found);
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Violations) {
    match value {
        Value::Object(members) => {
            let properties = schema.get("properties");
            let values = schema.get("additionalProperties");
            for (key, value) in members {
                if let Some(schema) = properties.and_then(|properties| properties.get(key)).or(values) {
                    walk(schema, value, &member(path, key), found);
                }
            }
        }
        Value::Array(items) => {
            unique(schema, items, path, found);
            if let Some(schema) = schema.get("items") {
                for (index, value) in items.iter().enumerate() {
                    walk(schema, value, &item(path, index), found);
                }
            }
        }
        _ => {}
    }
}

fn unique(schema: &Value, items: &[Value], path: &str, found: &mut Violations) {
    let keys: Option<Vec<&str>> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .map(|keys| keys.iter().filter_map(Value::as_str).collect()),
        Some("set") => None,
        _ => return,
    };
    let mut first = HashMap::new();
    for (index, value) in items.iter().enumerate() {
        // What an item is known by, as text, in which equal values are equal.
        let identity = match &keys {
            None => show_full(value),
            Some(keys) => {
                let parts: Vec<_> = keys.iter().filter_map(|key| value.get(key).map(show_full)).collect();
                if parts.len() < keys.len() {
                    continue; // the missing key is reported by itself
                }
                parts.join(" ")
            }
        };
        if let Some(other) = first.get(&identity) {
            let other = item(path, *other);
            match &keys {
                None => found.push(item(path, index), format!("{} is already in {other}: remove one", show(value))),
                Some(keys) => {
                    let key = keys.join(", ");
                    let shown: Vec<_> = keys.iter().filter_map(|key| value.get(key).map(show)).collect();
                    let message =
                        format!("its {key} {} is already that of {other}: {key} must be unique", shown.join(", "));
                    found.push(item(path, index), message);
                }
            }
        } else {
            first.insert(identity, index);
        }
    }
}

fn show_full(value: &Value) -> String {
    value.to_string()
}
