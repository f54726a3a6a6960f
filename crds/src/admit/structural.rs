//! The schema stage: what `jsonschema` finds, in plain words.

use std::collections::HashMap;

use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind as Found},
    paths::LocationSegment,
};
use serde_json::Value;

use super::{
    rules::Rules,
    violations::{Violations, item, member, nearest, show},
};
use crate::schema::text;

pub(super) fn check(rules: &Rules, value: &Value, found: &mut Violations) {
    // Of one value only the first reason is told: text of the wrong type need not also be none of the accepted words.
    let mut first: HashMap<String, (u8, String)> = HashMap::new();
    for error in rules.validator.iter_errors(value) {
        let path = path_of(&error);
        found.blocking |= matches!(
            error.kind(),
            Found::Required { .. }
                | Found::Type { .. }
                | Found::Enum { .. }
                | Found::MaxItems { .. }
                | Found::MaxLength { .. }
        );
        if let Found::Required { property } = error.kind() {
            if !found.misspelt.contains(&path) {
                found.push(member(&path, property.as_str().unwrap_or_default()), "is required");
            }
            continue;
        }
        let rank = match error.kind() {
            Found::Type { .. } => 0,
            Found::Enum { .. } => 1,
            Found::Pattern { .. } => 3,
            _ => 2,
        };
        if first.get(&path).is_none_or(|(known, _)| rank < *known) {
            let message = describe(&error, &rules.schema, found);
            first.insert(path, (rank, message));
        }
    }
    for (path, (_, message)) in first {
        found.push(path, message);
    }
}

fn describe(error: &ValidationError<'_>, schema: &Value, found: &Violations) -> String {
    let instance = error.instance();
    let shown = found.show(instance);
    let (parent, _) = error.schema_path().as_str().rsplit_once('/').unwrap_or_default();
    let node = schema.pointer(parent).unwrap_or(&Value::Null);
    let kind = error.kind();
    match kind {
        Found::Type { kind } => wrong_type(kind, instance, &shown, node),
        Found::Pattern { pattern } => no_match(pattern, &shown),
        Found::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().map(bare).collect();
            let hint = instance.as_str().and_then(|given| nearest(given, options.iter().map(String::as_str)));
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            match options.as_slice() {
                [only] => format!("must be {only}, not {shown}{hint}"),
                _ => format!("must be one of {}, not {shown}{hint}", options.join(", ")),
            }
        }
        Found::Minimum { limit } | Found::Maximum { limit } => match (node.get("minimum"), node.get("maximum"), kind) {
            (Some(min), Some(max), _) => format!("must be between {min} and {max}, not {shown}"),
            (_, _, Found::Minimum { .. }) => format!("must be at least {limit}, not {shown}"),
            _ => format!("must be at most {limit}, not {shown}"),
        },
        Found::MinLength { limit: 1 } => "must not be empty".into(),
        Found::MinLength { limit } => format!("must have at least {limit} characters"),
        Found::MaxLength { limit } => {
            let length = instance.as_str().map_or(0, |text| text.chars().count());
            format!("has {length} characters, at most {limit} are allowed")
        }
        Found::MinItems { limit: 1 } => "must not be empty".into(),
        Found::MinItems { limit } => format!("must have at least {limit} items"),
        Found::MaxItems { limit } => {
            format!("has {} items, at most {limit} are allowed", instance.as_array().map_or(0, Vec::len))
        }
        Found::Format { format } if format == "date-time" => {
            format!("must be a date and time such as 2026-01-02T03:04:05Z; it is {shown}")
        }
        // The schemas use none of the others; their own words are better than none, but never with a value in them.
        other => format!("breaks the schema's {}", other.keyword()),
    }
}

fn wrong_type(kind: &TypeKind, instance: &Value, shown: &str, node: &Value) -> String {
    let TypeKind::Single(wanted) = kind else { return format!("has the wrong type: {shown}") };
    match (wanted, instance) {
        (JsonType::String, Value::Bool(_) | Value::Number(_)) => {
            match node.get("pattern").and_then(Value::as_str).filter(|pattern| !fits(pattern, shown)) {
                Some(pattern) => no_match(pattern, shown),
                None => format!("must be text, not {shown}: write it in quotes"),
            }
        }
        (JsonType::String, _) => format!("must be text, not {shown}"),
        (JsonType::Integer | JsonType::Number, Value::String(text)) if text.parse::<i64>().is_ok() => {
            format!("must be a whole number, not the text {shown}: write it without quotes")
        }
        (JsonType::Integer | JsonType::Number, _) => format!("must be a whole number, not {shown}"),
        (JsonType::Boolean, _) => format!("must be true or false, not {shown}"),
        (JsonType::Array, _) => format!("must be a list, not {shown}: begin each item with '- '"),
        (JsonType::Object, _) => format!("must be a mapping, not {shown}"),
        (JsonType::Null, _) => "must be empty".into(),
    }
}

fn no_match(pattern: &str, shown: &str) -> String {
    let words = text::words(pattern).map_or_else(|| format!("text that fits {pattern}"), str::to_owned);
    format!("must be {words}; it is {shown}")
}

/// Whether quotes alone would make it right.
fn fits(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// Text without its quotes, for a list of accepted words.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| show(value), str::to_owned)
}

fn path_of(error: &ValidationError<'_>) -> String {
    error.instance_path().segments().fold(String::new(), |path, segment| match segment {
        LocationSegment::Property(key) => member(&path, &key),
        LocationSegment::Index(index) => item(&path, index),
    })
}
