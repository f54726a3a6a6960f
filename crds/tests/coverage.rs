//! Each constraint of the schemas is there for something: for each of them there is a manifest in `testdata` that it alone
//! refuses, so that taking the constraint out of the schema would let the manifest pass.
//!
//! What stands under `spec` is walked. A status is written by the operator only, and metadata is Kubernetes' own.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod support;

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crds::{
    Kind, admit,
    admit::{Rules, admit_by},
};
use serde_json::Value;
use support::inputs;

/// Keywords of which each is a constraint by itself.
const KEYWORDS: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "enum",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
];

/// Constraints that refuse nothing alone, and why they are there. One that does fails the test too.
const IMPLIED: &[(&str, &str)] = &[
    (
        "GatewayFleet /properties/spec/properties/scaling/properties/targets maxItems: 4",
        "there are four types, each at most once; what the rules cost at most is counted by it",
    ),
    (
        "ApiRoute /properties/spec/properties/rules/items/properties/filters maxItems: 8",
        "at most one filter of each type; what that rule costs at most is counted by it",
    ),
    (
        "ApiRoute /properties/spec/properties/rules/items/properties/filters/items/properties/cors/properties/allowMethods maxItems: 10",
        "there are ten words, each at most once; what the rule on '*' costs at most is counted by it",
    ),
    (
        "GatewayFleet /properties/spec/properties/scaling/properties/minReplicas maximum: 1000",
        "no more than maxReplicas; said of the field itself when both are too high",
    ),
    (
        "GatewayFleet /properties/spec/properties/scaling/properties/maxReplicas minimum: 1",
        "no less than minReplicas; said of the field itself when both are too low",
    ),
];

/// One constraint of a schema.
struct Constraint {
    /// JSON pointer of the node that has it.
    node: String,
    /// The field that the node describes, without indices.
    field: String,
    keyword: &'static str,
    /// Of a keyword that is a list (`required`, `x-kubernetes-validations`): which of them.
    index: Option<usize>,
}

/// A manifest that is refused.
struct Refused {
    value: Value,
    /// The fields that are at fault, without indices.
    fields: Vec<String>,
}

#[test]
fn every_constraint_refuses_a_manifest_that_nothing_else_does() {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.info().definition.is_some());
    let mut missing: Vec<String> = kinds.flat_map(without_manifest).collect();
    for (constraint, reason) in IMPLIED {
        let at = missing.iter().position(|found| found == constraint);
        missing.remove(at.unwrap_or_else(|| panic!("{constraint} is no more, or needs no exception: {reason}")));
    }
    assert!(
        missing.is_empty(),
        "no manifest in testdata is refused by these alone ({}):\n{}",
        missing.len(),
        missing.join("\n")
    );
}

/// The constraints of a kind that no manifest shows.
fn without_manifest(kind: Kind) -> Vec<String> {
    let schema = admit::schema(kind);
    let mut constraints = vec![];
    walk(&schema["properties"]["spec"], "/properties/spec", "spec", &mut constraints);
    assert!(constraints.len() > 5, "the constraints of {kind:?} are gone");
    let refused = refused(kind);

    let next = AtomicUsize::new(0);
    let work = || {
        let mut missing = vec![];
        while let Some(constraint) = constraints.get(next.fetch_add(1, Ordering::Relaxed)) {
            let without = Rules::new(constraint.taken_out_of(&schema));
            let alone = |manifest: &&Refused| {
                let field = &constraint.field;
                manifest.fields.iter().any(|at| at.starts_with(field.as_str()) || field.starts_with(at.as_str()))
                    && passes(&without, &manifest.value)
            };
            if !refused.iter().any(|manifest| alone(&manifest)) {
                missing.push(format!("{} {}", kind.name(), constraint.describe(&schema)));
            }
        }
        missing
    };
    let mut missing: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    missing.sort();
    missing
}

/// Whether nothing else refuses it. A rule that can't be asked without the field that the constraint requires is no other
/// reason: it says so of the missing field itself.
fn passes(rules: &Rules, manifest: &Value) -> bool {
    let violations = admit_by(rules, manifest.clone()).err().unwrap_or_default();
    violations.iter().all(|violation| violation.message.starts_with("cannot be checked"))
}

fn walk(node: &Value, at: &str, field: &str, found: &mut Vec<Constraint>) {
    let mut push = |keyword, index| {
        found.push(Constraint { node: at.to_owned(), field: field.to_owned(), keyword, index });
    };
    for keyword in KEYWORDS {
        // An `atomic` list is one that may hold what it likes.
        if node.get(keyword).is_some_and(|value| value != "atomic") {
            push(keyword, None);
        }
    }
    for keyword in ["required", "x-kubernetes-validations"] {
        let count = node.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).for_each(|index| push(keyword, Some(index)));
    }
    for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(child, &format!("{at}/properties/{name}"), &format!("{field}.{name}"), found);
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(child) = node.get(keyword).filter(|child| child.is_object()) {
            walk(child, &format!("{at}/{keyword}"), field, found);
        }
    }
}

impl Constraint {
    fn taken_out_of(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        let node = schema.pointer_mut(&self.node).unwrap().as_object_mut().unwrap();
        match self.index {
            None => drop(node.remove(self.keyword)),
            Some(index) => drop(node[self.keyword].as_array_mut().unwrap().remove(index)),
        }
        schema
    }

    fn describe(&self, schema: &Value) -> String {
        let value = &schema.pointer(&self.node).unwrap()[self.keyword];
        let value = self.index.map_or(value, |index| &value[index]);
        let value = value.get("rule").unwrap_or(value);
        format!("{} {}: {value}", self.node, self.keyword)
    }
}

/// The manifests of a kind that are refused.
fn refused(kind: Kind) -> Vec<Refused> {
    let manifest = |path: std::path::PathBuf| {
        let value: Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        if value.get("kind").is_none_or(|word| word != kind.name()) {
            return None;
        }
        let violations = admit(value.clone()).err()?;
        let fields = violations.iter().map(|violation| without_indices(&violation.path)).collect();
        Some(Refused { value, fields })
    };
    inputs().into_iter().filter_map(manifest).collect()
}

/// `spec.listeners[0].port` → `spec.listeners.port`.
fn without_indices(path: &str) -> String {
    let mut rest = path;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    plain + rest
}
