//! The CEL stage. kube-cel converts every value on its way down for CEL, whether a rule asks for it or not, so it is only
//! shown the values that have rules: the walk is ours.

use kube_cel::{CompiledSchema, ErrorKind, compile_schema, validate_compiled};
use serde_json::{Value, json};

use super::violations::{Violations, item, member};

/// The rules of a schema, with the way to each of them and nothing else.
pub(super) struct Tree {
    /// The rules of this very node.
    rules: Option<CompiledSchema>,
    properties: Vec<(String, Tree)>,
    items: Option<Box<Tree>>,
}

impl Tree {
    pub(super) fn of(schema: &Value) -> Self {
        let properties = schema.get("properties").and_then(Value::as_object);
        Self {
            rules: schema.get("x-kubernetes-validations").map(|rules| {
                let mut node = shape(schema);
                node["x-kubernetes-validations"] = rules.clone();
                compile_schema(&node)
            }),
            properties: properties
                .into_iter()
                .flatten()
                .map(|(key, schema)| (key.clone(), Self::of(schema)))
                .filter(|(_, tree)| !tree.is_empty())
                .collect(),
            items: schema.get("items").map(Self::of).filter(|tree| !tree.is_empty()).map(Box::new),
        }
    }

    /// Whether there is no rule here or below.
    fn is_empty(&self) -> bool {
        self.rules.is_none() && self.properties.is_empty() && self.items.is_none()
    }
}

/// A schema without its rules: which of its members are fields and which the keys of a map, whose names differ in CEL.
fn shape(schema: &Value) -> Value {
    let mut node = json!({});
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        node["properties"] = properties.iter().map(|(key, schema)| (key.clone(), shape(schema))).collect();
    }
    for key in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(key) {
            node[key] = shape(schema);
        }
    }
    node
}

/// Asks the rules, unless an earlier find makes them pointless.
pub(super) fn check(tree: &Tree, value: &Value, found: &mut Violations) {
    if found.blocking || !found.misspelt.is_empty() {
        return;
    }
    let mut failures = Vec::new();
    walk(tree, value, "", &mut failures);
    let refused = found.paths();
    for (path, message) in failures {
        match message {
            // What the schema already said of the same value needs no second word.
            Failure::Refused(_) if refused.contains(&path) => {}
            Failure::Refused(message) => found.push(path, message),
            // A rule may stumble over what the schema already refused. Alone, it must not let the object pass.
            Failure::Stumbled(_) if !refused.is_empty() => {}
            Failure::Stumbled(message) => found.push(path, format!("cannot be checked: {message}")),
        }
    }
}

enum Failure {
    /// The rule says no.
    Refused(String),
    /// The rule could not be asked.
    Stumbled(String),
}

fn walk(tree: &Tree, value: &Value, path: &str, failures: &mut Vec<(String, Failure)>) {
    if let Some(rules) = &tree.rules {
        for error in validate_compiled(rules, value, None).err().into_iter().flatten() {
            let failure = match error.kind {
                ErrorKind::ValidationFailure => Failure::Refused(error.message),
                _ => Failure::Stumbled(error.message),
            };
            failures.push((format!("{path}{}", error.field_path), failure)); // a fieldPath begins with a dot
        }
    }
    match value {
        Value::Object(members) => {
            for (key, tree) in &tree.properties {
                if let Some(value) = members.get(key) {
                    walk(tree, value, &member(path, key), failures);
                }
            }
        }
        Value::Array(items) => {
            if let Some(tree) = &tree.items {
                for (index, value) in items.iter().enumerate() {
                    walk(tree, value, &item(path, index), failures);
                }
            }
        }
        _ => {}
    }
}
