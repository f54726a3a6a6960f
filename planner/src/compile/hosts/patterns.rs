//! Values by hostname pattern: a name, `*.` and a name, or empty for any host. What lies above a name is found in as many
//! steps as it has labels, however many patterns there are.

use std::collections::HashMap;

/// Values by pattern.
pub(super) struct Patterns<V> {
    /// Wildcards without their `*`, so that they begin with a dot.
    values: HashMap<Box<str>, V>,
    /// Bit n: some wildcard has n labels; the last bit: that many or more.
    depths: u128,
}

impl<V> Default for Patterns<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), depths: 0 }
    }
}

impl<V> Patterns<V> {
    pub(super) fn get(&self, pattern: &str) -> Option<&V> {
        self.values.get(key(pattern))
    }

    pub(super) fn set(&mut self, pattern: &str, value: V) {
        self.note(pattern);
        self.values.insert(key(pattern).into(), value);
    }

    pub(super) fn entry(&mut self, pattern: &str) -> &mut V
    where
        V: Default,
    {
        self.note(pattern);
        self.values.entry(key(pattern).into()).or_default()
    }

    fn note(&mut self, pattern: &str) {
        if let Some(suffix) = pattern.strip_prefix('*') {
            self.depths |= bit(labels(suffix));
        }
    }

    /// The wildcards that cover a pattern and are not it, without their `*`, the most specific first.
    pub(super) fn above<'p>(&'p self, pattern: &'p str) -> impl Iterator<Item = (&'p str, &'p V)> {
        let name = pattern.strip_prefix("*.").unwrap_or(pattern);
        let mut depth = labels(name);
        let suffixes = name.match_indices('.').map(move |(dot, _)| {
            depth -= 1;
            (&name[dot..], depth + 1)
        });
        let known = suffixes.filter(|(_, depth)| self.depths & bit(*depth) != 0);
        known.filter_map(|(suffix, _)| Some((suffix, self.values.get(suffix)?)))
    }

    /// The pattern itself, then what is above it.
    pub(super) fn covering<'p>(&'p self, pattern: &'p str) -> impl Iterator<Item = (&'p str, &'p V)> {
        self.get(pattern).map(|value| (key(pattern), value)).into_iter().chain(self.above(pattern))
    }

    /// The most specific that covers a pattern; "any host" covers all.
    pub(super) fn most_specific<'p>(&'p self, pattern: &'p str) -> Option<(&'p str, &'p V)> {
        self.covering(pattern).next().or_else(|| Some(("", self.values.get("")?)))
    }

    /// Every pattern as it was given.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, &V)> {
        let written = |key: &str| if key.starts_with('.') { format!("*{key}") } else { key.to_owned() };
        self.values.iter().map(move |(key, value)| (written(key), value))
    }
}

/// Whether the wildcard of this suffix is somebody's domain: `*.com` is nobody's.
pub(super) fn decides(suffix: &str) -> bool {
    labels(suffix) >= 2
}

fn key(pattern: &str) -> &str {
    pattern.strip_prefix('*').unwrap_or(pattern)
}

/// The labels behind the first dot of a suffix, or the dots of a name.
fn labels(suffix: &str) -> usize {
    suffix.bytes().filter(|b| *b == b'.').count()
}

fn bit(depth: usize) -> u128 {
    1 << depth.min(127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expect: &[&str]) {
        let mut patterns = Patterns::default();
        for pattern in ["", "a.example", "*.example", "*.b.example", "*.x.b.example", "b.example"] {
            patterns.set(pattern, ());
        }
        assert_eq!(patterns.above(pattern).map(|(suffix, ())| suffix).collect::<Vec<_>>(), expect, "{pattern}");
    }

    #[test]
    fn what_is_above_comes_nearest_first() {
        check("y.x.b.example", &[".x.b.example", ".b.example", ".example"]);
        check("*.x.b.example", &[".b.example", ".example"]);
        check("b.example", &[".example"]);
        check("*.b.example", &[".example"]);
        check("*.example", &[]);
        check("example", &[]);
        check("", &[]);
    }

    #[test]
    fn the_most_specific_covers() {
        let mut patterns = Patterns::default();
        for pattern in ["*", "*.example", "a.example"] {
            patterns.set(pattern, pattern);
        }
        let found = |pattern| patterns.most_specific(pattern).map(|(_, value)| *value);
        assert_eq!(found("a.example"), Some("a.example"));
        assert_eq!(found("*.a.example"), Some("*.example"));
        assert_eq!(found("*.example"), Some("*.example"));
        assert_eq!(found("example"), Some("*"));
        assert_eq!(found(""), Some("*"));
        let mut all: Vec<String> = patterns.all().map(|(pattern, _)| pattern).collect();
        all.sort();
        assert_eq!(all, ["", "*.example", "a.example"]);
    }

    #[test]
    fn a_single_label_is_nobodys_domain() {
        assert!(!decides(".com") && decides(".shop.example"));
    }
}
