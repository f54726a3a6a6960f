//! values.schema.json: a hand-written frame, and in it the schema of a GatewayFleet's spec, so that helm refuses a wrong fleet
//! before it installs anything.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// The place in the frame where the fleet's spec belongs.
const PLACE: &str = "/properties/fleet/properties/spec";
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
/// Keywords that mean the same in JSON Schema, with plain values.
const KEPT: &[&str] = &[
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "type",
    "uniqueItems",
];

pub(super) fn generate(mut frame: Value, fleet: &Value) -> anyhow::Result<String> {
    let spec = fleet.pointer(SPEC).with_context(|| format!("no {SPEC} in the definition of GatewayFleets"))?;
    let place = frame.pointer_mut(PLACE).filter(|place| **place == "GatewayFleet");
    *place.with_context(|| format!("values.schema.in.json: `GatewayFleet` is expected at {PLACE}"))? = convert(spec);
    Ok(format!("{}\n", serde_json::to_string_pretty(&frame)?))
}

/// The defaults of the members of each member of a fleet's spec that is an object.
pub(super) fn defaults(fleet: &Value) -> anyhow::Result<String> {
    let spec = fleet.pointer(SPEC).with_context(|| format!("no {SPEC} in the definition of GatewayFleets"))?;
    let members = |schema: &Value| -> Map<String, Value> {
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties.filter_map(|(name, schema)| Some((name.clone(), schema.get("default")?.clone()))).collect()
    };
    let all =
        spec["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.clone(), members(schema)));
    let all: Map<String, Value> =
        all.filter(|(_, members)| !members.is_empty()).map(|(name, members)| (name, members.into())).collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}

/// A structural schema as JSON Schema. The API server fills in defaults before it looks at what is required; and unknown fields
/// are refused, as it does with strict validation.
fn convert(schema: &Value) -> Value {
    let Some(from) = schema.as_object() else { return schema.clone() };
    let is = |key: &str| from.get(key) == Some(&Value::Bool(true));
    let mut to: Map<String, Value> =
        KEPT.iter().filter_map(|key| Some(((*key).to_owned(), from.get(*key)?.clone()))).collect();
    if from.get("x-kubernetes-list-type") == Some(&json!("set")) {
        to.insert("uniqueItems".to_owned(), json!(true));
    }
    if is("x-kubernetes-int-or-string") {
        to.insert("type".to_owned(), json!(["integer", "string"]));
    } else {
        for key in ["allOf", "anyOf", "oneOf"] {
            if let Some(all) = from.get(key).and_then(Value::as_array) {
                to.insert(key.to_owned(), all.iter().map(junctor).collect());
            }
        }
        if let Some(not) = from.get("not") {
            to.insert("not".to_owned(), junctor(not));
        }
    }
    if let Some(items) = from.get("items") {
        to.insert("items".to_owned(), convert(items));
    }
    let properties = from.get("properties").and_then(Value::as_object);
    if let Some(properties) = properties {
        let converted = properties.iter().map(|(name, schema)| (name.clone(), convert(schema)));
        to.insert("properties".to_owned(), Value::Object(converted.collect()));
        if !is("x-kubernetes-preserve-unknown-fields") {
            to.insert("additionalProperties".to_owned(), json!(false));
        }
    }
    if let Some(additional) = from.get("additionalProperties") {
        to.insert("additionalProperties".to_owned(), convert(additional));
    }
    if let Some(required) = from.get("required").and_then(Value::as_array) {
        let has_default = |name: &Value| {
            properties.zip(name.as_str()).and_then(|(all, name)| all.get(name)?.get("default")).is_some()
        };
        let required: Vec<_> = required.iter().filter(|name| !has_default(name)).cloned().collect();
        to.insert("required".to_owned(), required.into());
    }
    Value::Object(to)
}

/// Below `anyOf` and the like stands only what is added to the structure, which is closed elsewhere.
fn junctor(schema: &Value) -> Value {
    let mut converted = convert(schema);
    open(&mut converted);
    converted
}

fn open(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("additionalProperties") == Some(&json!(false)) {
                fields.remove("additionalProperties");
            }
            fields.values_mut().for_each(open);
        }
        Value::Array(items) => items.iter_mut().for_each(open),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_means_is_said_in_json_schema() {
        let structural = json!({
            "type": "object",
            "required": ["name", "mode"],
            "x-kubernetes-validations": [{"rule": "true"}],
            "properties": {
                "name": {"type": "string", "pattern": "^a$", "format": "ipv4"},
                "mode": {"type": "string", "default": "A", "enum": ["A", "B"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "set": {"type": "array", "x-kubernetes-list-type": "set"},
                "percent": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true},
            },
            "anyOf": [{"required": ["labels"], "properties": {"mode": {"enum": ["A"]}}}],
        });
        let expect = json!({
            "type": "object",
            "anyOf": [{"required": ["labels"], "properties": {"mode": {"enum": ["A"]}}}],
            "properties": {
                "name": {"pattern": "^a$", "type": "string"},
                "mode": {"enum": ["A", "B"], "type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "set": {"type": "array", "uniqueItems": true},
                "percent": {"type": ["integer", "string"]},
            },
            "additionalProperties": false,
            "required": ["name"],
        });
        assert_eq!(convert(&structural), expect);
    }

    #[test]
    fn without_its_place_there_is_no_schema() {
        let fleet = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"spec": {"type": "object"}}}}}]}});
        let frame = |place: &str| json!({"properties": {"fleet": {"properties": {"spec": place}}}});
        assert!(generate(frame("GatewayFleet"), &fleet).unwrap().contains(r#""type": "object""#));
        assert!(generate(frame("Gateway"), &fleet).is_err());
        assert!(generate(frame("GatewayFleet"), &json!({})).is_err());
    }
}
