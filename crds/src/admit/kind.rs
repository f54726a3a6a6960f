//! The kind that a document claims to be, among those that are known.

use std::sync::OnceLock;

use serde_json::Value;

use super::{
    rules::Rules,
    violations::{Violation, nearest, show},
};
use crate::Kind;

/// A kind's rules, compiled when they are first needed.
pub(super) fn rules(kind: Kind) -> &'static Rules {
    static RULES: [OnceLock<Rules>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    RULES[kind as usize].get_or_init(|| Rules::of(kind))
}

/// The kind a document names, if it is known and of the version that is read.
pub(super) fn of(value: &Value) -> Result<Kind, Vec<Violation>> {
    if !value.is_object() {
        let message = format!("a manifest is a mapping with apiVersion, kind, metadata and spec, not {}", show(value));
        return Err(vec![Violation { path: String::new(), message }]);
    }
    let mut missing = Vec::new();
    let mut text = |key: &str| match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.as_str()),
        Some(Value::Null) | None => {
            missing.push(Violation { path: key.into(), message: "is required".into() });
            None
        }
        Some(other) => {
            let message = format!("must be text, not {}", show(other));
            missing.push(Violation { path: key.into(), message });
            None
        }
    };
    match (text("apiVersion"), text("kind")) {
        (Some(api_version), Some(kind)) => known(api_version, kind).map_err(|violation| vec![violation]),
        _ => Err(missing),
    }
}

fn known(api_version: &str, kind: &str) -> Result<Kind, Violation> {
    if let Some(found) = Kind::named(kind) {
        if found.api_versions().contains(&api_version) {
            return Ok(found);
        }
        let given = show(&Value::from(api_version));
        let message = format!("{kind} is read as {}, not as {given}", found.api_versions().join(" and "));
        return Err(Violation { path: "apiVersion".into(), message });
    }
    let hint = match nearest(kind, Kind::ALL.iter().map(|known| known.name())) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    let message = format!(
        "unknown kind {} of {}; known are {}{hint}",
        show(&Value::from(kind)),
        show(&Value::from(api_version)),
        words(&all_known()),
    );
    Err(Violation { path: "kind".into(), message })
}

/// The kinds that stand in manifests, those of one `apiVersion` together. Of nodes only clusters have any.
fn all_known() -> Vec<String> {
    let mut of_version: Vec<(&str, Vec<String>)> = vec![];
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Node) {
        let Some(version) = kind.api_versions().first() else { continue };
        match of_version.iter_mut().find(|(known, _)| known == version) {
            Some((_, kinds)) => kinds.push(kind.name().to_owned()),
            None => of_version.push((version, vec![kind.name().to_owned()])),
        }
    }
    of_version.into_iter().map(|(version, kinds)| format!("{} ({version})", words(&kinds))).collect()
}

/// `a, b and c`.
fn words(words: &[String]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        words => words.concat(),
    }
}
