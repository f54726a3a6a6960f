//! Fields that the schema does not know are named and taken out; nulls are dropped and defaults filled in, as the API
//! server does it before it validates.

use serde_json::{Map, Value};

use super::violations::{Violations, item, member, nearest};

/// Goes down schema and value together; the schema bounds the depth.
pub(super) fn prepare(schema: &Value, value: &mut Value, found: &mut Violations) {
    walk(schema, value, "", found);
}

fn walk(schema: &Value, value: &mut Value, path: &str, found: &mut Violations) {
    match value {
        Value::Object(members) => object(schema, members, path, found),
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, value) in items.iter_mut().enumerate() {
                    walk(schema, value, &item(path, index), found);
                }
            }
        }
        Value::Number(number) if number.is_f64() && schema.get("type").is_some_and(|t| t == "integer") => {
            // 80.0 is a whole number to the API server; serde wants it written as one.
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

fn object(schema: &Value, members: &mut Map<String, Value>, path: &str, found: &mut Violations) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let values = schema.get("additionalProperties").filter(|schema| schema.is_object());
    if properties.is_none() && values.is_none() {
        return; // free-form, such as managedFields
    }
    let property = |key: &str| properties.and_then(|properties| properties.get(key));

    members.retain(|key, value| {
        if property(key).is_some() {
            return !value.is_null();
        }
        if let Some(schema) = values {
            // Go reads a null among a map's texts, as in `labels: {a: }`, as empty text.
            if value.is_null() && schema.get("type").is_some_and(|t| t == "string") {
                *value = Value::from("");
            }
            return true;
        }
        let known = properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str));
        unknown(path, key, known, found);
        false
    });
    for (key, schema) in properties.into_iter().flatten() {
        if let Some(default) = schema.get("default").filter(|_| !members.contains_key(key)) {
            members.insert(key.clone(), default.clone());
        }
    }
    for (key, value) in members.iter_mut() {
        if let Some(schema) = property(key).or(values) {
            walk(schema, value, &member(path, key), found);
        }
    }
}

fn unknown<'a>(path: &str, key: &str, known: impl Iterator<Item = &'a str> + Clone, found: &mut Violations) {
    let message = match nearest(key, known.clone()) {
        Some(near) => format!("unknown field; did you mean {near}?"),
        None => {
            let known: Vec<_> = known.take(20).collect();
            format!("unknown field; known here are {}", known.join(", "))
        }
    };
    found.push(member(path, key), message);
    found.misspelt.push(path.to_owned());
}
