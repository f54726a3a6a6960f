//! The rules of one kind: its schema, compiled for `jsonschema` and for CEL.

use jsonschema::{PatternOptions, Validator};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{cel::Tree, core};
use crate::{
    Kind,
    definitions::{definition, json as to_json},
    schema::text,
};

/// The rules that documents of a kind are held to.
pub struct Rules {
    pub(super) schema: Value,
    pub(super) validator: Validator,
    pub(super) cel: Tree,
}

impl Rules {
    pub(super) fn of(kind: Kind) -> Self {
        Self::new(schema(kind))
    }

    /// Compiles a schema, which must be one of [`super::schema`], or less.
    #[allow(clippy::expect_used)] // the schemas are fixed when this is compiled, and each is used by a test
    pub fn new(mut schema: Value) -> Self {
        bound_integers(&mut schema);
        // `regex` matches in linear time, whatever the text.
        let validator = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(&schema)
            .expect("the schema compiles");
        let cel = Tree::of(&schema);
        Self { schema, validator, cel }
    }
}

/// The schema that a kind is held to.
pub(super) fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Service => core::service(schema_of::<Service>()),
        Kind::EndpointSlice => core::endpoint_slice(schema_of::<EndpointSlice>()),
        Kind::Secret => core::secret(schema_of::<Secret>()),
        Kind::Namespace => core::namespace(schema_of::<Namespace>()),
        Kind::Node => core::node(schema_of::<Node>()),
        _ => defined(definition(kind)),
    }
}

/// The schema from the definition, with the metadata of every object and without the status.
fn defined(definition: Option<CustomResourceDefinition>) -> Value {
    let schema = definition
        .and_then(|crd| crd.spec.versions.into_iter().next())
        .and_then(|version| version.schema?.open_api_v3_schema);
    let mut schema = to_json(&schema);
    let mut metadata = schema_of::<ObjectMeta>();
    let generator = &mut SchemaSettings::openapi3().into_generator();
    metadata["required"] = json!(["name"]);
    metadata["properties"]["name"] = text::subdomain(generator).to_value();
    metadata["properties"]["namespace"] = text::label(generator).to_value();
    schema["required"] = json!(["metadata", "spec"]);
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = metadata;
    schema
}

/// The schema of one of Kubernetes' own types.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// JSON Schema leaves `format: int32` to the reader; the API server does not.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(node) => {
            let bounds = match node.get("format").and_then(Value::as_str) {
                Some("int32") => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
                Some("int64") => Some((i64::MIN, i64::MAX)),
                _ => None,
            };
            if let Some((min, max)) = bounds {
                node.entry("minimum").or_insert_with(|| min.into());
                node.entry("maximum").or_insert_with(|| max.into());
            }
            node.values_mut().for_each(bound_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        _ => {}
    }
}
