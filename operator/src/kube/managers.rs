//! Edits by others of an object that the operator keeps: the fields that are not as they were applied, and their field
//! managers. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

/// Says, on each object that is kept, where it is defined: what is changed elsewhere does not stay.
pub const DEFINED_BY: &str = "sluice.dev/defined-by";
/// Most fields that are named.
const MAX_NAMED_FIELDS: usize = 5;

/// The fields that differ, and the managers that set them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Field managers, such as `kubectl-edit`; none: nobody has these fields, they were taken out.
    pub managers: Vec<String>,
    /// Paths of fields, such as `spec.scaling.maxReplicas`.
    pub fields: Vec<String>,
}

impl std::fmt::Display for Edit {
    /// `kubectl-edit changed spec.a and spec.b`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = if self.managers.is_empty() { "somebody".to_owned() } else { self.managers.join(", ") };
        let named = self.fields.iter().take(MAX_NAMED_FIELDS).map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(f, "{who} changed {}", if named.is_empty() { "it" } else { &named })?;
        match self.fields.len().checked_sub(MAX_NAMED_FIELDS).filter(|more| *more > 0) {
            Some(more) => write!(f, " and {more} more fields"),
            None => Ok(()),
        }
    }
}

/// The fields of an applied object that have another value in the live one; `None`: none. Only for objects that the API
/// server leaves as they were written.
pub fn of_values(applied: &Value, live: &Value, managed: &[ManagedFieldsEntry], own: &[&str]) -> Option<Edit> {
    let mut paths: Vec<Path> = vec![];
    differences(applied, live, &mut vec![], &mut paths);
    if paths.is_empty() {
        return None;
    }
    let others = others(managed, own);
    let mut managers = vec![];
    for (manager, fields) in others {
        if paths.iter().any(|path| owns(fields, path)) {
            managers.push(manager.to_owned());
        }
    }
    managers.sort();
    managers.dedup();
    Some(Edit { managers, fields: paths.iter().map(written).collect() })
}

/// Which of the fields that were applied others have: whoever changes a field takes it over.
pub fn of_owners(applied: &Value, managed: &[ManagedFieldsEntry], own: &[&str]) -> Option<Edit> {
    let mut leaves: Vec<Path> = vec![];
    differences(applied, &Value::Null, &mut vec![], &mut leaves);
    let mut edit = Edit::default();
    for (manager, fields) in others(managed, own) {
        let taken: Vec<String> = leaves.iter().filter(|path| owns(fields, path)).map(written).collect();
        if !taken.is_empty() {
            edit.managers.push(manager.to_owned());
            edit.fields.extend(taken);
        }
    }
    edit.managers.sort();
    edit.managers.dedup();
    (!edit.fields.is_empty()).then_some(edit)
}

/// A step of a path to a field.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// An item of a list, by its index and content.
    Item(usize, Value),
}

type Path = Vec<Step>;

/// The applied leaves that are not the same in the live object. What else that has is no difference.
fn differences(applied: &Value, live: &Value, at: &mut Path, found: &mut Vec<Path>) {
    match (applied, live) {
        (Value::Object(applied), live) if !applied.is_empty() => {
            for (key, value) in applied {
                // The name and the kind are what it is found by.
                if at.is_empty() && matches!(key.as_str(), "apiVersion" | "kind" | "status") {
                    continue;
                }
                at.push(Step::Member(key.clone()));
                differences(value, live.get(key).unwrap_or(&Value::Null), at, found);
                at.pop();
            }
        }
        (Value::Array(applied), live) if !applied.is_empty() => {
            let items = live.as_array().map_or(&[][..], Vec::as_slice);
            for (i, value) in applied.iter().enumerate() {
                at.push(Step::Item(i, value.clone()));
                let same = items.iter().find(|item| same_item(value, item)).or_else(|| items.get(i));
                differences(value, same.unwrap_or(&Value::Null), at, found);
                at.pop();
            }
        }
        (applied, live) if applied == live => {}
        // What is empty says nothing.
        (Value::Object(_) | Value::Array(_) | Value::Null, _) => {}
        _ => found.push(at.clone()),
    }
}

/// Whether two items of a list are one by their key.
fn same_item(applied: &Value, live: &Value) -> bool {
    ["name", "type", "uid", "port"].iter().any(|key| applied.get(key).is_some_and(|value| live.get(key) == Some(value)))
}

/// Whether a set of managed fields has this one, or what it is a part of as a whole.
fn owns(fields: &Value, path: &[Step]) -> bool {
    let Some((step, rest)) = path.split_first() else { return true };
    let Some(members) = fields.as_object() else { return false };
    let below = |value: &Value| rest.is_empty() || is_leaf(value) || owns(value, rest);
    match step {
        Step::Member(key) => members.get(&format!("f:{key}")).is_some_and(below),
        Step::Item(_, item) => members.iter().any(|(key, value)| {
            let keys = key.strip_prefix("k:").and_then(|keys| serde_json::from_str::<Value>(keys).ok());
            let fits = keys.as_ref().and_then(Value::as_object).is_some_and(|keys| {
                keys.iter().all(|(key, value)| item.get(key) == Some(value) || item.get(key).is_none())
            });
            fits && below(value)
        }),
    }
}

fn is_leaf(fields: &Value) -> bool {
    fields.as_object().is_some_and(serde_json::Map::is_empty)
}

/// The fields that others wrote, without the status.
fn others<'m>(managed: &'m [ManagedFieldsEntry], own: &[&str]) -> Vec<(&'m str, &'m Value)> {
    let written = managed.iter().filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    let of = |entry: &'m ManagedFieldsEntry| Some((entry.manager.as_deref()?, &entry.fields_v1.as_ref()?.0));
    written.filter_map(of).filter(|(manager, _)| !own.contains(manager)).collect()
}

fn written(path: &Path) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Member(key) if text.is_empty() => text.push_str(key),
            Step::Member(key) => text.extend([".", key]),
            Step::Item(i, _) => text.push_str(&format!("[{i}]")),
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // `json!({..})` reads best as an argument
mod tests {
    use serde_json::json;

    use super::*;

    fn managed(entries: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(entries).unwrap()
    }

    fn applied() -> Value {
        json!({
            "apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {"x": "1"}},
            "spec": {"scaling": {"minReplicas": 1, "maxReplicas": 4}, "listeners": [{"name": "http", "port": 80}], "none": {}},
        })
    }

    #[track_caller]
    fn check(live: Value, entries: Value, expect: Option<&str>) {
        let edit = of_values(&applied(), &live, &managed(entries), &["own"]);
        assert_eq!(edit.map(|edit| edit.to_string()).as_deref(), expect);
    }

    #[test]
    fn what_differs_is_named_with_who_has_it() {
        check(applied(), json!([]), None);
        let mut more = applied();
        more["spec"]["drain"] = json!({"timeout": "9s"});
        more["spec"]["listeners"][0]["hostname"] = json!("x");
        check(more, json!([]), None);
        let mut edited = applied();
        edited["spec"]["scaling"]["maxReplicas"] = json!(9);
        let entry =
            |manager: &str, fields: Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
        let fields = json!({"f:spec": {"f:scaling": {"f:maxReplicas": {}}}});
        let others = json!([
            entry("own", fields.clone()),
            entry("other", json!({"f:spec": {"f:drain": {}}})),
            entry("kubectl-edit", fields)
        ]);
        check(edited.clone(), others, Some("kubectl-edit changed spec.scaling.maxReplicas"));
        edited["spec"]["listeners"][0]["port"] = json!(81);
        let item = json!({"f:spec": {"f:listeners": {"k:{\"name\":\"http\"}": {"f:port": {}}}}});
        check(
            edited,
            json!([entry("argocd", item)]),
            Some("argocd changed spec.scaling.maxReplicas, spec.listeners[0].port"),
        );
        let mut less = applied();
        less["metadata"]["labels"] = json!({});
        check(less, json!([]), Some("somebody changed metadata.labels.x"));
        check(
            json!({}),
            json!([]),
            Some(
                "somebody changed metadata.name, metadata.labels.x, spec.scaling.minReplicas, spec.scaling.maxReplicas, spec.listeners[0].name and 1 more fields",
            ),
        );
    }

    #[test]
    fn whoever_changes_a_field_has_it() {
        let status = json!({"manager": "kubelet", "subresource": "status", "fieldsV1": {"f:spec": {"f:scaling": {}}}});
        let edit = json!({"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:scaling": {"f:minReplicas": {}}, "f:other": {}}}});
        let got = of_owners(&applied(), &managed(json!([status, edit])), &["own"]).unwrap();
        assert_eq!(got.to_string(), "kubectl-edit changed spec.scaling.minReplicas");
        assert_eq!(of_owners(&applied(), &managed(json!([status])), &["own"]), None);
    }
}
