//! Label selectors, and the labels of namespaces that they are held to.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::LabelSelector};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// The label that each namespace has by itself.
const NAME: &str = "kubernetes.io/metadata.name";

/// A valid label selector: all of its requirements hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    In(BTreeSet<String>),
    /// Also holds when there is no such label.
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Checks a selector; the error is the member at fault and a message.
    pub(crate) fn new(selector: &LabelSelector) -> Result<Self, (String, String)> {
        let equal = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In([value.clone()].into()) });
        let mut requirements: Vec<_> = equal.collect();
        for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            let operator = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                (operator @ ("In" | "NotIn" | "Exists" | "DoesNotExist"), none) => {
                    let message = format!("the operator {operator} {} values", if none { "needs" } else { "takes no" });
                    return Err((format!("matchExpressions[{i}].values"), message));
                }
                (operator, _) => {
                    let message = format!("must be In, NotIn, Exists or DoesNotExist, not {operator:?}");
                    return Err((format!("matchExpressions[{i}].operator"), message));
                }
            };
            requirements.push(Requirement { key: expression.key.clone(), operator });
        }
        Ok(Self(requirements))
    }

    /// Whether labels fit; an empty selector fits all.
    pub(crate) fn fits(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement { key, operator }| {
            let value = labels.get(key);
            match operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Whether the namespace of that name fits, whose labels are those that are known.
    pub(crate) fn fits_namespace(&self, name: &str, labels: Option<&Labels>) -> bool {
        match labels {
            Some(labels) if labels.contains_key(NAME) => self.fits(labels),
            labels => {
                let mut labels = labels.cloned().unwrap_or_default();
                labels.insert(NAME.to_owned(), name.to_owned());
                self.fits(&labels)
            }
        }
    }
}

/// The labels of a namespace.
pub(super) fn labels(namespace: &core::Namespace) -> Labels {
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    // The API server sets it, whatever the manifest says.
    labels.insert(NAME.to_owned(), namespace.metadata.name.clone().unwrap_or_default());
    labels
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!({..})` reads best as an argument
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn selector(value: Value) -> Result<Selector, (String, String)> {
        Selector::new(&serde_json::from_value(value).unwrap())
    }

    #[track_caller]
    fn check(value: Value, expect: bool) {
        let labels = [("team", "edge"), ("env", "prod"), ("empty", "")];
        let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert_eq!(selector(value.clone()).unwrap().fits(&labels), expect, "{value}");
    }

    fn expression(key: &str, operator: &str, values: Value) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn selectors() {
        check(json!({}), true);
        check(json!({"matchLabels": {"team": "edge", "empty": ""}}), true);
        check(json!({"matchLabels": {"team": "edge", "env": "test"}}), false);
        check(json!({"matchLabels": {"other": ""}}), false);
        check(expression("team", "In", json!(["a", "edge"])), true);
        check(expression("other", "In", json!(["edge"])), false);
        check(expression("team", "NotIn", json!(["edge"])), false);
        check(expression("other", "NotIn", json!(["edge"])), true);
        check(expression("empty", "Exists", json!(null)), true);
        check(expression("other", "Exists", json!([])), false);
        check(expression("empty", "DoesNotExist", json!(null)), false);
        check(expression("other", "DoesNotExist", json!(null)), true);
    }

    #[test]
    fn what_is_no_selector() {
        for (operator, values, field) in [
            ("In", json!([]), "matchExpressions[0].values"),
            ("Exists", json!(["a"]), "matchExpressions[0].values"),
            ("Is", json!(["a"]), "matchExpressions[0].operator"),
        ] {
            assert_eq!(selector(expression("a", operator, values)).unwrap_err().0, field, "{operator}");
        }
    }

    #[test]
    fn a_namespace_has_its_name_as_label() {
        let named = selector(json!({"matchLabels": {NAME: "shop"}})).unwrap();
        assert!(named.fits_namespace("shop", None) && !named.fits_namespace("other", None));
        let written = [(NAME.to_owned(), "shop".to_owned())].into();
        assert!(named.fits_namespace("shop", Some(&written)));
        let namespace = json!({"metadata": {"name": "mine", "labels": {NAME: "shop"}}});
        assert!(!named.fits(&labels(&serde_json::from_value(namespace).unwrap())));
    }
}
