//! How a fleet's objects are found: by labels that everything of it has.

use std::collections::BTreeMap;

/// Everything of any fleet.
pub(super) const OURS: &str = "app.kubernetes.io/managed-by=sluice-operator,app.kubernetes.io/name=sluice-proxy";
/// Holds the fleet's name.
pub(super) const FLEET: &str = "sluice.dev/fleet";
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";

/// The labels of every object of a fleet.
pub(super) fn all(fleet: &str) -> BTreeMap<String, String> {
    let value = value(fleet);
    let labels =
        [(NAME, "sluice-proxy"), (MANAGED_BY, "sluice-operator"), (INSTANCE, value.as_str()), (FLEET, value.as_str())];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The selector of a fleet's pods. A Deployment's never changes.
pub(super) fn selector(fleet: &str) -> BTreeMap<String, String> {
    [(NAME.to_owned(), "sluice-proxy".to_owned()), (FLEET.to_owned(), value(fleet))].into()
}

/// A fleet's name as a label's value; the same as in the selector that its status shows.
pub(super) fn value(fleet: &str) -> String {
    planner::fleet::label_value(fleet)
}

/// A user's labels or annotations with ours over them.
pub(super) fn over(users: &BTreeMap<String, String>, ours: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = users.clone();
    all.extend(ours);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_distinct() {
        assert_eq!(value("default"), "default");
        assert_eq!(value(&"a".repeat(63)), "a".repeat(63));
        let (one, other) = (value(&format!("{}b", "a".repeat(70))), value(&format!("{}c", "a".repeat(70))));
        assert!(one.len() == 63 && other.len() == 63 && one != other, "{one} {other}");
        // A cut at a dot would leave `.-`.
        assert!(!value(&format!("{}.{}", "a".repeat(51), "b".repeat(30))).contains(".-"));
    }

    #[test]
    fn ours_win() {
        let users = [("sluice.dev/fleet".to_owned(), "other".to_owned()), ("team".to_owned(), "a".to_owned())].into();
        let both = over(&users, all("f"));
        assert_eq!((both[FLEET].as_str(), both["team"].as_str(), both.len()), ("f", "a", 5));
    }
}
