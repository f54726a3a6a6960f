//! Where the operator may run fleets, and where it knows what there is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::watch::KINDS;

/// The namespaces that are watched one by one; or all, of which everything is known from the beginning.
#[derive(Debug, Default)]
pub(super) struct Namespaces(Option<BTreeMap<String, Watched>>);

/// How far the watches of a namespace are.
#[derive(Debug)]
struct Watched {
    /// Kinds that were not listed yet.
    unlisted: BTreeSet<&'static str>,
    /// Kinds that the operator may not watch now, and what the API server says.
    refused: BTreeMap<String, String>,
}

impl Namespaces {
    pub(super) fn new(namespaces: Option<&BTreeSet<String>>) -> Self {
        let watched = || Watched { unlisted: KINDS.into(), refused: BTreeMap::new() };
        Self(namespaces.map(|all| all.iter().map(|namespace| (namespace.clone(), watched())).collect()))
    }

    /// Whether all namespaces are watched at once.
    pub(super) fn are_all(&self) -> bool {
        self.0.is_none()
    }

    /// Takes that a kind was listed. Returns whether that was not known.
    pub(super) fn known(&mut self, namespace: &str, kind: &str) -> bool {
        self.get(namespace).is_some_and(|watched| watched.unlisted.remove(kind))
    }

    /// Takes that a kind may not be watched, as the API server says; or that it may. Returns whether that is a change.
    pub(super) fn refused(&mut self, namespace: &str, kind: &str, said: Option<String>) -> bool {
        let Some(watched) = self.get(namespace) else { return false };
        match said {
            Some(said) => watched.refused.insert(kind.to_owned(), said).is_none(),
            None => watched.refused.remove(kind).is_some(),
        }
    }

    /// Whether everything that there is of fleets in a namespace is known. Where the operator may not run any, nothing is.
    pub(super) fn is_known(&self, namespace: &str) -> bool {
        let is_known = |watched: &Watched| watched.unlisted.is_empty();
        self.0.as_ref().is_none_or(|all| all.get(namespace).is_some_and(is_known))
    }

    /// The first kind that may not be watched in a namespace, and what the API server says.
    pub(super) fn refusal(&self, namespace: &str) -> Option<(&str, &str)> {
        let (kind, said) = self.0.as_ref()?.get(namespace)?.refused.first_key_value()?;
        Some((kind, said))
    }

    fn get(&mut self, namespace: &str) -> Option<&mut Watched> {
        self.0.as_mut()?.get_mut(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_itself() {
        let mut namespaces = Namespaces::new(Some(&["a".to_owned(), "b".to_owned()].into()));
        for kind in KINDS {
            assert!(!namespaces.is_known("a"));
            assert!(namespaces.known("a", kind) && !namespaces.known("a", kind));
        }
        assert!(namespaces.is_known("a") && !namespaces.is_known("b") && !namespaces.is_known("elsewhere"));
        assert!(namespaces.refused("b", "pods", Some("no".into())));
        assert!(!namespaces.refused("b", "pods", Some("still no".into())), "said once");
        assert_eq!(namespaces.refusal("b"), Some(("pods", "still no")));
        assert_eq!(namespaces.refusal("a"), None);
        // What was listed once stays known: its watch goes on when the right comes back.
        assert!(namespaces.refused("a", "pods", Some("no".into())) && namespaces.is_known("a"));
        assert!(namespaces.refused("a", "pods", None) && namespaces.refusal("a").is_none());
        assert!(Namespaces::default().is_known("anywhere") && Namespaces::default().are_all());
    }
}
