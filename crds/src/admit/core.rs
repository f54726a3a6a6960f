//! Service, EndpointSlice, Secret and Namespace: Kubernetes checks these in code, so their schemas say little. Added here is what
//! Sluice relies on.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use k8s_openapi::ByteString;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::violations::{Violations, item, member};
use crate::{Kind, schema::text};

/// Kubernetes' bound on the data of a Secret.
const MAX_SECRET: usize = 1024 * 1024;

pub(super) fn service(mut schema: Value) -> Value {
    named(&mut schema, text::label(&mut SchemaSettings::openapi3().into_generator()).to_value());
    add(
        &mut schema,
        "/properties/spec/properties/type",
        json!({
            "enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"], "default": "ClusterIP",
        }),
    );
    add(&mut schema, "/properties/spec/properties/ports", json!({"maxItems": 1000}));
    let port = "/properties/spec/properties/ports/items/properties";
    add(&mut schema, &format!("{port}/port"), json!({"minimum": 1, "maximum": 65535}));
    add(&mut schema, &format!("{port}/nodePort"), json!({"minimum": 0, "maximum": 65535}));
    add(&mut schema, &format!("{port}/protocol"), json!({"enum": ["TCP", "UDP", "SCTP"], "default": "TCP"}));
    add(&mut schema, "", json!({"required": ["metadata", "spec"]}));
    schema
}

pub(super) fn endpoint_slice(mut schema: Value) -> Value {
    named(&mut schema, text::subdomain(&mut SchemaSettings::openapi3().into_generator()).to_value());
    add(&mut schema, "/properties/addressType", json!({"enum": ["IPv4", "IPv6", "FQDN"]}));
    add(&mut schema, "/properties/endpoints", json!({"maxItems": 1000}));
    add(&mut schema, "/properties/endpoints/items/properties/addresses", json!({"minItems": 1, "maxItems": 100}));
    add(&mut schema, "/properties/ports", json!({"maxItems": 100}));
    let port = "/properties/ports/items/properties";
    add(&mut schema, &format!("{port}/port"), json!({"minimum": 1, "maximum": 65535}));
    add(&mut schema, &format!("{port}/name"), json!({"default": ""}));
    add(&mut schema, &format!("{port}/protocol"), json!({"enum": ["TCP", "UDP", "SCTP"], "default": "TCP"}));
    schema
}

pub(super) fn secret(mut schema: Value) -> Value {
    named(&mut schema, text::subdomain(&mut SchemaSettings::openapi3().into_generator()).to_value());
    add(&mut schema, "/properties/type", json!({"default": "Opaque"}));
    schema
}

pub(super) fn namespace(mut schema: Value) -> Value {
    add(&mut schema, "", json!({"required": ["metadata"]}));
    add(&mut schema, "/properties/metadata", json!({"required": ["name"]}));
    let name = text::label(&mut SchemaSettings::openapi3().into_generator()).to_value();
    add(&mut schema, "/properties/metadata/properties/name", name);
    schema
}

pub(super) fn node(mut schema: Value) -> Value {
    add(&mut schema, "", json!({"required": ["metadata"]}));
    add(&mut schema, "/properties/metadata", json!({"required": ["name"]}));
    let name = text::subdomain(&mut SchemaSettings::openapi3().into_generator()).to_value();
    add(&mut schema, "/properties/metadata/properties/name", name);
    schema
}

/// The checks that no schema can say.
pub(super) fn check(kind: Kind, value: &Value, found: &mut Violations) {
    match kind {
        Kind::Service => check_service(value, found),
        Kind::EndpointSlice => check_endpoint_slice(value, found),
        Kind::Secret => check_secret(value, found),
        _ if !kind.is_namespaced() && value.pointer("/metadata/namespace").is_some() => {
            found.push("metadata.namespace", format!("a {} is in none: leave it out", kind.name()));
        }
        _ => {}
    }
}

fn check_service(value: &Value, found: &mut Violations) {
    let spec = value.get("spec").unwrap_or(&Value::Null);
    let ports = list(spec, "ports");
    if ports.is_empty()
        && spec.get("type").is_some_and(|kind| kind != "ExternalName")
        && spec.get("ports").is_none_or(Value::is_array)
    {
        let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
        if !headless && !found.misspelt.iter().any(|path| path == "spec") {
            found.push("spec.ports", "is required: name at least one port");
        }
    }
    let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
    for (index, port) in ports.iter().enumerate() {
        let path = item("spec.ports", index);
        match port.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => {
                found.push(member(&path, "name"), "is required when there is more than one port");
            }
            None => {}
            Some(name) => {
                if let Some(other) = names.insert(name, index) {
                    found.push(member(&path, "name"), format!("is already that of {}", item("spec.ports", other)));
                }
            }
        }
        let number = port.get("port").and_then(Value::as_i64).map(|number| (number, port.get("protocol")));
        if let Some(number) = number
            && let Some(other) = numbers.insert(number, index)
        {
            found.push(member(&path, "port"), format!("is already that of {}", item("spec.ports", other)));
        }
        let fits = match port.get("targetPort") {
            None => true,
            Some(Value::Number(number)) => number.as_i64().is_some_and(|number| (1..=65535).contains(&number)),
            Some(Value::String(name)) => is_port_name(name),
            Some(_) => false,
        };
        if !fits {
            let message = "must be a port number from 1 to 65535, or the name of a container's port (at most 15 lower-case \
                           letters, digits and '-')";
            found.push(member(&path, "targetPort"), message);
        }
    }
}

fn check_endpoint_slice(value: &Value, found: &mut Violations) {
    let family = value.get("addressType").and_then(Value::as_str).unwrap_or_default();
    for (index, endpoint) in list(value, "endpoints").iter().enumerate() {
        for (at, address) in list(endpoint, "addresses").iter().enumerate() {
            let Some(text) = address.as_str() else { continue };
            let fits = match family {
                "IPv4" => text.parse::<Ipv4Addr>().is_ok(),
                "IPv6" => text.parse::<Ipv6Addr>().is_ok(),
                _ => true,
            };
            if !fits {
                let path = item(&member(&item("endpoints", index), "addresses"), at);
                found.push(path, format!("must be an {family} address, not {}", found.show(address)));
            }
        }
    }
}

fn check_secret(value: &Value, found: &mut Violations) {
    let mut size = 0;
    for field in ["data", "stringData"] {
        for (key, content) in value.get(field).and_then(Value::as_object).into_iter().flatten() {
            let path = member(field, key);
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if key.is_empty() || key.len() > 253 || !key.bytes().all(known) {
                found.push(&path, "the key must be at most 253 letters, digits, '-', '_' and '.'");
            }
            let Some(text) = content.as_str() else { continue };
            size += text.len();
            if field == "data" && serde_json::from_value::<ByteString>(content.clone()).is_err() {
                found.push(path, "is no base64; plain text belongs in stringData");
            }
        }
    }
    if size > MAX_SECRET {
        found.push("data", format!("has {size} bytes, at most {MAX_SECRET} are allowed"));
    }
    if value.get("type").is_some_and(|kind| kind == "kubernetes.io/tls") {
        for key in ["tls.crt", "tls.key"] {
            let there = |field: &str| value.get(field).and_then(|data| data.get(key)).is_some();
            if !there("data") && !there("stringData") {
                found.push(member("data", key), "is required in a Secret of type kubernetes.io/tls");
            }
        }
    }
}

/// An IANA service name, as Kubernetes wants the names of ports.
fn is_port_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(known)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn named(schema: &mut Value, name: Value) {
    add(schema, "/properties/metadata", json!({"required": ["name"]}));
    add(schema, "/properties/metadata/properties/name", name);
    let namespace = text::label(&mut SchemaSettings::openapi3().into_generator()).to_value();
    add(schema, "/properties/metadata/properties/namespace", namespace);
}

/// Adds keywords to a node of a schema.
fn add(schema: &mut Value, pointer: &str, keywords: Value) {
    debug_assert!(schema.pointer(pointer).is_some(), "the type has no {pointer} any more");
    if let (Some(Value::Object(node)), Value::Object(keywords)) = (schema.pointer_mut(pointer), keywords) {
        node.extend(keywords);
    }
}
