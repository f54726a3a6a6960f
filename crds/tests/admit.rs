//! `testdata/X.in.yaml` is one manifest, `testdata/X.out` the verdict on it: `accepted` and the object with its defaults,
//! or `refused` and every violation. Adding a file adds a test; UPDATE=1 writes the verdicts anew.

#![allow(clippy::unwrap_used)] // helpers of tests, which clippy does not see as tests

mod support;

use std::{env, fs};

use crds::admit;
use serde_json::Value;
use support::{inputs, json};

#[test]
fn verdicts() {
    let mut wrong = Vec::new();
    let inputs = inputs();
    assert!(inputs.len() > 100, "the manifests are gone");
    for input in &inputs {
        let output = input.with_extension("").with_extension("out");
        let verdict = verdict(&fs::read_to_string(input).unwrap());
        if env::var_os("UPDATE").is_some() {
            fs::write(&output, verdict).unwrap();
        } else if fs::read_to_string(&output).ok().as_deref() != Some(&verdict) {
            wrong.push(format!("{}:\n{verdict}", output.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "other verdicts than in testdata; if they are right, run UPDATE=1 cargo test -p crds --test admit\n\n{}",
        wrong.join("\n")
    );
}

/// Each verdict is the same however often it is asked: nothing depends on the order of a hash map.
#[test]
fn verdicts_are_stable() {
    for input in inputs() {
        let text = fs::read_to_string(input).unwrap();
        assert_eq!(verdict(&text), verdict(&text));
    }
}

/// What was admitted is admitted again, unchanged: defaults are filled in once.
#[test]
fn admitting_is_idempotent() {
    for input in inputs() {
        let value: Value = serde_yaml::from_str(&fs::read_to_string(&input).unwrap()).unwrap();
        if let Ok(object) = admit(value) {
            assert_eq!(admit(json(&object)).as_ref(), Ok(&object), "{}", input.display());
        }
    }
}

/// Each CEL rule refuses a manifest here, with its own words.
#[test]
fn every_rule_has_a_manifest() {
    let verdicts: String = inputs().iter().map(|input| verdict(&fs::read_to_string(input).unwrap())).collect();
    let mut words = Vec::new();
    for definition in crds::definitions() {
        messages(&serde_json::to_value(definition).unwrap(), &mut words);
    }
    assert!(words.len() > 40, "the rules are gone");
    let missing: Vec<_> = words.iter().filter(|message| !verdicts.contains(message.as_str())).collect();
    assert!(missing.is_empty(), "no manifest in testdata is refused with {missing:#?}");
}

/// What the rules of a schema say; of a message expression, every text in it.
fn messages(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("message", Value::String(text)) => words.push(text.clone()),
                    ("messageExpression", Value::String(text)) => {
                        words.extend(text.split('\'').skip(1).step_by(2).map(str::to_owned));
                    }
                    _ => messages(value, words),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| messages(item, words)),
        _ => {}
    }
}

fn verdict(yaml: &str) -> String {
    match admit(serde_yaml::from_str(yaml).unwrap()) {
        Ok(object) => format!("accepted\n{}", serde_yaml::to_string(&json(&object)).unwrap()),
        Err(violations) => {
            let lines: Vec<_> = violations.iter().map(|violation| format!("{violation}\n")).collect();
            format!("refused\n{}", lines.concat())
        }
    }
}
