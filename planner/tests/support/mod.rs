//! Worlds from manifests, and answers that people can read.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub)] // not every test file uses all of it

use std::{collections::BTreeMap, sync::Arc};

use crds::Object;
use planner::{Kind, Millis, ObjectRef, World, WorldObject};
use serde_json::Value;
use snapshot::{Key, Snapshot};

/// 2026-01-01T00:00:00Z.
pub const NOW: Millis = Millis(1_767_225_600_000);

/// The world of some manifests. An object that stands twice: the first is its last accepted content.
#[track_caller]
pub fn world(manifests: &str) -> World {
    let documents: Vec<Value> = serde_yaml::from_multiple(manifests).unwrap();
    let mut world = World::default();
    for document in documents {
        add(&mut world, document, true);
    }
    world
}

/// Adds a document as admission leaves it; or, without, as it decodes.
pub fn add(world: &mut World, document: Value, admit: bool) {
    let object = identity(&document);
    let decoded = if admit { None } else { decode(&object, document.clone()) };
    let current = match decoded {
        Some(decoded) => Ok(Arc::new(decoded)),
        None => crds::admit(document.clone()).map(Arc::new),
    };
    let before = world.objects.remove(&object).and_then(|entry| entry.current.ok());
    let generation = if before.is_some() { 2 } else { 1 };
    let raw = current.is_err().then(|| Arc::new(document));
    let entry =
        WorldObject { current, raw, accepted: before, accepted_at: None, generation, created: None, origin: None };
    world.objects.insert(object, entry);
}

fn decode(object: &ObjectRef, document: Value) -> Option<Object> {
    Some(match object.kind {
        Kind::GatewayFleet => Object::GatewayFleet(serde_json::from_value(document).ok()?),
        Kind::ApiRoute => Object::ApiRoute(serde_json::from_value(document).ok()?),
        Kind::RatePolicy => Object::RatePolicy(serde_json::from_value(document).ok()?),
        Kind::AccessPolicy => Object::AccessPolicy(serde_json::from_value(document).ok()?),
        Kind::Consumer => Object::Consumer(serde_json::from_value(document).ok()?),
        Kind::Service => Object::Service(serde_json::from_value(document).ok()?),
        Kind::EndpointSlice => Object::EndpointSlice(serde_json::from_value(document).ok()?),
        Kind::Secret => Object::Secret(serde_json::from_value(document).ok()?),
        Kind::Namespace => Object::Namespace(serde_json::from_value(document).ok()?),
        Kind::Node => Object::Node(serde_json::from_value(document).ok()?),
        Kind::ReferenceGrant => Object::ReferenceGrant(serde_json::from_value(document).ok()?),
    })
}

fn identity(document: &Value) -> ObjectRef {
    let text = |path: &str| document.pointer(path).and_then(Value::as_str);
    let kind: Kind = serde_json::from_value(document["kind"].clone()).unwrap();
    let namespace = if kind.is_namespaced() { text("/metadata/namespace").unwrap_or("default") } else { "" }.to_owned();
    ObjectRef { kind, namespace, name: text("/metadata/name").unwrap_or_default().to_owned() }
}

/// Resources by key, without what is empty or default.
pub fn readable(snapshot: &Snapshot) -> BTreeMap<Key, Value> {
    let value = |resource: &snapshot::proto::Resource| {
        let mut value = short(serde_json::to_value(resource).unwrap());
        // `kind: {Route: {...}}` → `{...}`: the key says the kind.
        match value.get_mut("kind").and_then(Value::as_object_mut) {
            Some(kind) => kind.values_mut().next().unwrap().take(),
            None => Value::Null,
        }
    };
    snapshot.iter().map(|(key, entry)| (key.clone(), value(&entry.decode().unwrap()))).collect()
}

/// Drops members that are empty, 0 or null; makes a line of each condition.
pub fn short(value: Value) -> Value {
    match value {
        Value::Object(members) if members.contains_key("lastTransitionTime") => {
            let text = |key: &str| members[key].as_str().unwrap().to_owned();
            assert_eq!(text("lastTransitionTime"), "2026-01-01T00:00:00Z");
            let (type_, status, reason, message) = (text("type"), text("status"), text("reason"), text("message"));
            format!("{type_}={status} {reason} (generation {}): {message}", members["observedGeneration"]).into()
        }
        Value::Object(members) => {
            let members = members.into_iter().map(|(k, v)| (k, short(v)));
            Value::Object(members.filter(|(_, v)| !is_empty(v)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(short).collect()),
        value => value,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(_) => false,
    }
}
