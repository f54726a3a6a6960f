//! The CustomResourceDefinitions, as `crds/yaml` and the chart hold them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Kind,
    schema::structural::{describe_defaults, tidy, without_defaults},
};

/// The definitions of all kinds of ours. Take them from here: what `crd()` of a type gives is not tidied.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    Kind::ALL.into_iter().filter(|kind| kind.is_ours()).filter_map(definition).collect()
}

/// The definition of a kind; of one of others, whose own is installed by them, the part that is read. `None`: of
/// Kubernetes' own types.
pub(crate) fn definition(kind: Kind) -> Option<CustomResourceDefinition> {
    kind.info().definition.map(|definition| finished(definition()))
}

/// File name and content of each definition, as they stand in `crds/yaml`.
#[allow(clippy::expect_used)] // of a value made a line before, without map keys that are no strings
pub fn definitions_yaml() -> Vec<(String, String)> {
    let yaml = |crd: CustomResourceDefinition| {
        let body = serde_yaml::to_string(&json(&crd)).expect("JSON is YAML");
        let text = format!(
            "# Generated from the types in crds/src; do not edit. `UPDATE=1 cargo test -p crds` writes it anew.\n{body}"
        );
        (format!("{}.yaml", crd.spec.names.plural), text)
    };
    definitions().into_iter().map(yaml).collect()
}

/// A definition or schema as JSON, with whole numbers written without `.0`, which the typed form cannot say.
#[allow(clippy::expect_used)] // as above
pub(crate) fn json(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).expect("a schema has string keys only");
    whole(&mut value);
    value
}

fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|v| v.open_api_v3_schema.as_mut()) {
            finish(schema);
        }
    }
    crd
}

fn finish(schema: &mut JSONSchemaProps) {
    tidy(schema);
    if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
        without_defaults(status);
    }
    describe_defaults(schema);
}

/// `1.0` becomes `1` everywhere. Our bounds are far below 2^53, where every whole f64 is exact.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(members) => members.values_mut().for_each(whole),
        _ => {}
    }
}
