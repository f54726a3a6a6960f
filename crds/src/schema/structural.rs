//! The last pass over a derived schema.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

/// Makes a derived schema what we would have written by hand:
///
/// - no `nullable` (nor a null among the words of an enum): then the API server drops a null, as it does for built-in types, and CEL's `has()` tells the truth;
/// - no `uint32` and other formats that the API server does not know and warns about; the bounds are there as numbers;
/// - no bounds of numbers that are listed one by one: they would never refuse anything;
/// - no empty defaults (`[]`, `{}`), which would only be noise in every stored object.
pub(crate) fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    if let Some(words) = &mut schema.enum_ {
        words.retain(|word| !word.0.is_null());
    }
    if schema.enum_.is_some() {
        (schema.minimum, schema.maximum) = (None, None);
    }
    schema.format.take_if(|format| format.starts_with("uint"));
    schema.default.take_if(|default| is_empty(&default.0));
    each_child(schema, &mut tidy);
}

/// Says in words what a field is when it is left out: `kubectl explain` shows descriptions alone.
pub(crate) fn describe_defaults(schema: &mut JSONSchemaProps) {
    if let (Some(description), Some(default)) = (&mut schema.description, &schema.default)
        && !default.0.is_object()
        && !default.0.is_array()
        && !description.contains("efault")
    {
        let text = default.0.as_str().map_or_else(|| whole(&default.0), str::to_owned);
        let end = if description.ends_with('.') { "" } else { "." };
        *description = format!("{description}{end} Default: {text}.");
    }
    each_child(schema, &mut describe_defaults);
}

/// A number without `.0`, which the typed form adds.
fn whole(value: &Value) -> String {
    value.to_string().trim_end_matches(".0").to_owned()
}

/// Drops the defaults: a status has none, or reading an object would show a state that nobody observed.
pub(crate) fn without_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    each_child(schema, &mut without_defaults);
}

/// The subschemas of a structural schema, which has them in these three places only.
fn each_child(schema: &mut JSONSchemaProps, visit: &mut dyn FnMut(&mut JSONSchemaProps)) {
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(&mut *visit);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        visit(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        visit(values);
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}
