//! Violations: what is wrong, where, and the words for it.

use std::{cmp::Ordering, collections::HashSet, fmt};

use serde_json::Value;

use crate::Kind;

/// Most violations that are reported of one document.
const MAX_VIOLATIONS: usize = 20;

/// A fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, such as `spec.rules[0].backendRefs[1].port`. Empty for the document as a whole.
    pub path: String,
    /// The fault, and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// The violations found so far.
pub(super) struct Violations {
    found: Vec<Violation>,
    secret: bool,
    /// A find that makes the CEL rules pointless or costly to ask: a missing or mistyped field, a list beyond its bound.
    /// The API server blocks on the same.
    pub(super) blocking: bool,
    /// Paths of objects that hold unknown fields: what is missing there is probably what was misspelt.
    pub(super) misspelt: Vec<String>,
}

impl Violations {
    pub(super) fn new(kind: Kind) -> Self {
        Self { found: Vec::new(), secret: kind == Kind::Secret, blocking: false, misspelt: Vec::new() }
    }

    pub(super) fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(Violation { path: path.into(), message: message.into() });
    }

    pub(super) fn paths(&self) -> HashSet<String> {
        self.found.iter().map(|violation| violation.path.clone()).collect()
    }

    /// A value for a message; nothing of a Secret is ever shown.
    pub(super) fn show(&self, value: &Value) -> String {
        if self.secret && value.is_string() { "the given text".into() } else { show(value) }
    }

    /// Ok if nothing was found; else the violations in the order of their paths.
    pub(super) fn into_result(mut self) -> Result<(), Vec<Violation>> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by(|a, b| by_path(&a.path, &b.path).then_with(|| a.message.cmp(&b.message)));
        self.found.dedup();
        if self.found.len() > MAX_VIOLATIONS {
            let rest = self.found.len() - (MAX_VIOLATIONS - 1);
            self.found.truncate(MAX_VIOLATIONS - 1);
            self.push("", format!("and {rest} more problems"));
        }
        Err(self.found)
    }
}

/// Orders paths so that `rules[2]` stands before `rules[10]`, whatever order the checks found them in.
fn by_path(a: &str, b: &str) -> Ordering {
    let parts = |path: &'_ str| -> Vec<(Option<u64>, String)> {
        path.split(['.', '[', ']'])
            .filter(|part| !part.is_empty())
            .map(|part| (part.parse().ok(), part.to_owned()))
            .collect()
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}

/// A value in a message: short, on one line.
pub(super) fn show(value: &Value) -> String {
    const MAX: usize = 60;
    match value {
        Value::String(text) if text.chars().nth(MAX).is_some() => {
            format!("{:?}...", text.chars().take(MAX).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        scalar => scalar.to_string(),
    }
}

/// The one of `known` that is so near to `given` that it was probably meant.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > 64 {
        return None;
    }
    let lower = given.to_lowercase();
    known
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The path of a member: `spec.rules`, or `metadata.labels[app.kubernetes.io/name]` where the key is no plain word.
pub(super) fn member(path: &str, key: &str) -> String {
    const MAX: usize = 80;
    let plain =
        !key.is_empty() && key.len() <= MAX && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", key.chars().filter(|c| !c.is_control()).take(MAX).collect::<String>()),
    }
}

/// The path of an item.
pub(super) fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_ordered_as_people_read_them() {
        let mut paths = ["spec.rules[10]", "spec.rules[2].name", "metadata.name", "spec.rules[2]", ""];
        paths.sort_by(|a, b| by_path(a, b));
        assert_eq!(paths, ["", "metadata.name", "spec.rules[2]", "spec.rules[2].name", "spec.rules[10]"]);
    }

    #[test]
    fn nearest_only_when_near() {
        let known = ["backendRefs", "matches", "name", "timeouts"];
        let near = |given| nearest(given, known.into_iter());
        assert_eq!(near("backendRef"), Some("backendRefs"));
        assert_eq!(near("backendrefs"), Some("backendRefs"));
        assert_eq!(near("timeout"), Some("timeouts"));
        assert_eq!(near("destination"), None);
        assert_eq!(near(&"x".repeat(100_000)), None);
    }

    #[test]
    fn values_are_shown_short() {
        assert_eq!(show(&Value::from("a\nb")), r#""a\nb""#);
        assert_eq!(show(&Value::from("é".repeat(100))).chars().count(), 65);
    }

    #[test]
    fn at_most_twenty() {
        let mut violations = Violations::new(Kind::ApiRoute);
        for i in 0..30 {
            violations.push(item("spec.rules", i), "is bad");
        }
        let found = violations.into_result().unwrap_err();
        assert_eq!(found.len(), 20);
        assert_eq!(found[19].to_string(), "and 11 more problems");
    }
}
