//! Whatever a document holds, [`crds::admit`] answers: it neither panics nor says nothing.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not see as tests

mod support;

use std::fs;

use crds::{Kind, admit};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value};
use support::{inputs, json};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_value(value in any_json()) {
        answered(value)?;
    }

    #[test]
    fn any_value_of_a_known_kind(kind in select(kinds()), spec in any_json(), metadata in any_json()) {
        let (api_version, kind) = kind;
        let document = [("apiVersion", api_version.into()), ("kind", kind.into()), ("spec", spec), ("metadata", metadata)];
        answered(document.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into())?;
    }

    #[test]
    fn any_damage_to_a_good_one(
        mut value in select(good()),
        damage in vec((any::<prop::sample::Index>(), damage()), 1..4),
    ) {
        for (place, damage) in damage {
            let count = nodes(&mut value);
            apply(&mut value, place.index(count), &damage);
        }
        answered(value)?;
    }
}

/// Each kind with each `apiVersion` that is read.
fn kinds() -> Vec<(&'static str, &'static str)> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| kind.api_versions().iter().map(move |version| (*version, kind.name())))
        .collect()
}

/// Words that lead somewhere: field names, values that parse, values that nearly do.
const WORDS: &[&str] = &[
    "",
    "-",
    "/",
    "//",
    "/a/../b",
    "*",
    "*.a",
    "a.b",
    "5s",
    "99999h99999h99999h99999h",
    "0s",
    "1.5s",
    "127.0.0.1:80",
    "[::1]:99999",
    "[:]:1",
    "[::1]",
    "1.1.1.1:",
    "4k",
    "0",
    "1e9",
    "CPU",
    "cpu",
    "10.0.0.0/8",
    "::/129",
    "Selector",
    "selector",
    "Exists",
    "operator",
    "matchLabels",
    "sluice.dev/x",
    "template",
    "service",
    "PathPrefix",
    "RequestRedirect",
    "URLRewrite",
    "ReplacePrefixMatch",
    "ApiRoute",
    "name",
    "port",
    "type",
    "spec",
    "metadata",
    "status",
    "labels",
    "rules",
    "backendRefs",
    "matches",
    "path",
    "value",
    "filters",
    "listeners",
    "scaling",
    "targets",
    "limits",
    "data",
    "a\r\nb",
    "é",
    "\u{0}",
    "٣s",
    "İ",
];

#[derive(Clone, Debug)]
enum Damage {
    Replace(Value),
    Remove,
    Repeat,
    Rename(String),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any_json().prop_map(Damage::Replace),
        4 => scalar().prop_map(Damage::Replace),
        2 => Just(Damage::Remove),
        2 => Just(Damage::Repeat),
        2 => text().prop_map(Damage::Rename),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((text(), inner), 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => select(WORDS).prop_map(str::to_owned), 1 => any::<String>(), 1 => "[a-z]{0,300}"]
}

/// The manifests of testdata that are accepted.
fn good() -> Vec<Value> {
    inputs()
        .into_iter()
        .map(|path| serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        .filter(|value: &Value| admit(value.clone()).is_ok())
        .collect()
}

fn answered(value: Value) -> Result<(), TestCaseError> {
    let violations = match admit(value) {
        Ok(object) => {
            prop_assert_eq!(admit(json(&object)), Ok(object), "admitting it again changes it");
            return Ok(());
        }
        Err(violations) => violations,
    };
    prop_assert!(!violations.is_empty() && violations.len() <= 20);
    for violation in violations {
        prop_assert!(!violation.message.is_empty());
        let line = violation.to_string();
        prop_assert!(line.len() < 2_000, "{} bytes", line.len());
        prop_assert!(!line.contains(['\n', '\r']), "{line:?}");
        prop_assert!(!line.contains("cannot be read") && !line.contains("cannot be checked"), "{line}");
    }
    Ok(())
}

/// The number of members and items in all of a value.
fn nodes(value: &mut Value) -> usize {
    let mut count = 0;
    each_parent(value, &mut |parent| {
        count += match parent {
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
    });
    count.max(1)
}

/// Damages the `place`th member or item.
fn apply(value: &mut Value, place: usize, damage: &Damage) {
    let mut left = place;
    let mut done = false;
    each_parent(value, &mut |parent| {
        if done {
            return;
        }
        match parent {
            Value::Array(items) if left < items.len() => {
                done = true;
                match damage {
                    Damage::Replace(with) => items[left] = with.clone(),
                    Damage::Remove => drop(items.remove(left)),
                    Damage::Repeat | Damage::Rename(_) => items.push(items[left].clone()),
                }
            }
            Value::Object(members) if left < members.len() => {
                done = true;
                let Some(key) = members.keys().nth(left).cloned() else { return };
                match damage {
                    Damage::Replace(with) => drop(members.insert(key, with.clone())),
                    Damage::Remove => drop(members.remove(&key)),
                    Damage::Rename(to) => {
                        let old = members.remove(&key).unwrap_or_default();
                        members.insert(to.clone(), old);
                    }
                    Damage::Repeat => drop(members.insert(format!("{key}s"), Value::Null)),
                }
            }
            Value::Array(items) => left -= items.len(),
            Value::Object(members) => left -= members.len(),
            _ => {}
        }
    });
}

fn each_parent(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each_parent(item, visit)),
        Value::Object(members) => members.values_mut().for_each(|member| each_parent(member, visit)),
        _ => {}
    }
}
