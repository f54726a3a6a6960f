//! The API server's verdict on a document, computed locally.

mod object;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use object::{Object, Violation};

/// Admits one document, or says what is wrong with it.
pub fn admit(mut value: Value) -> Result<Object, Vec<Violation>> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.entry("namespace").or_insert_with(|| "default".into());
        }
    }
    match (api_version.as_str(), kind.as_str()) {
        (crate::API_VERSION, "GatewayFleet") => decode(value).map(Object::GatewayFleet),
        (crate::API_VERSION, "ApiRoute") => decode(value).map(Object::ApiRoute),
        (crate::API_VERSION, "RatePolicy") => decode(value).map(Object::RatePolicy),
        ("v1", "Service") => decode(value).map(Object::Service),
        ("v1", "Secret") => decode(value).map(Object::Secret),
        ("discovery.k8s.io/v1", "EndpointSlice") => decode(value).map(Object::EndpointSlice),
        _ => Err(vec![Violation { path: "kind".into(), message: format!("unknown kind {api_version}/{kind}") }]),
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Violation>> {
    serde_json::from_value(value).map_err(|error| vec![Violation { path: "spec".into(), message: error.to_string() }])
}
