//! helm says what the API server will say: of each manifest of a fleet in crds/testdata, of which every constraint and every
//! rule of the schema has one that it alone refuses, the chart refuses the same `fleet.spec`, and takes what is accepted.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::Context as _;
use devcluster::files;
use serde_json::{Map, Value, json};

use super::folder;
use crate::{shell, shell::Tool};

/// Cases that helm and the API server see differently, and why that is no harm.
const EXCEPTIONS: &[&str] = &[
    // The API server leaves out what is null; helm's schema wants what the field is.
    "fleet-ok-null-is-left-out",
];

/// A manifest of a fleet.
struct Case {
    name: String,
    spec: Value,
    refused: bool,
}

/// Tries all of them.
pub(super) fn check(helm: &Path) -> anyhow::Result<()> {
    let (cases, next) = (cases()?, AtomicUsize::new(0));
    anyhow::ensure!(cases.iter().filter(|case| case.refused).count() > 200, "the manifests of crds/testdata are gone");
    let defaults: Value = serde_yaml::from_str(&files::read(&folder().join("values.yaml"))?)?;
    let work = || {
        let mut wrong = vec![];
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            match refusal(helm, case, &defaults["fleet"]["spec"]) {
                Ok(said) if said.is_some() == case.refused => {}
                Ok(Some(said)) => wrong.push(format!("{}: refused, and the API server takes it: {said}", case.name)),
                Ok(None) => wrong.push(format!("{}: taken, and the API server refuses it", case.name)),
                Err(error) => wrong.push(format!("{}: {error:#}", case.name)),
            }
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|_| vec!["a worker failed".into()]))
            .collect()
    });
    anyhow::ensure!(
        wrong.is_empty(),
        "values.schema.json or templates/_fleet.tpl says something else than the API server:\n{}",
        wrong.join("\n")
    );
    Ok(())
}

/// The refusal by helm of a fleet of this spec alone; `None`: it takes it.
fn refusal(helm: &Path, case: &Case, defaults: &Value) -> anyhow::Result<Option<String>> {
    let values = tempfile::NamedTempFile::new()?;
    let values_text = json!({"fleet": {"spec": alone(&case.spec, defaults)}}).to_string();
    files::write(values.path(), &values_text)?;
    let args = ["template", "sluice", "charts/sluice", "--show-only", "templates/fleet.yaml", "--values"];
    let (taken, said) = Tool::new(helm).args(args).args([values.path()]).capture()?;
    Ok((!taken).then(|| said.trim().to_owned()))
}

/// A spec without what the chart's own values would add to it: to helm, null takes a default away.
fn alone(spec: &Value, defaults: &Value) -> Value {
    let (Value::Object(spec), Value::Object(defaults)) = (spec, defaults) else { return spec.clone() };
    let mut whole: Map<String, Value> = spec
        .iter()
        .map(|(key, value)| (key.clone(), alone(value, defaults.get(key).unwrap_or(&Value::Null))))
        .collect();
    for key in defaults.keys() {
        whole.entry(key.clone()).or_insert(Value::Null);
    }
    Value::Object(whole)
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = vec![];
    for entry in std::fs::read_dir(shell::root().join("crds/testdata"))? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".in.yaml").filter(|name| name.starts_with("fleet-")) else { continue };
        let manifest: Value = serde_yaml::from_str(&files::read(&path)?).with_context(|| name.to_owned())?;
        let refused = files::read(&path.with_file_name(format!("{name}.out")))?.starts_with("refused");
        // The rest of a manifest is not of values.
        if manifest["spec"].is_object() && !EXCEPTIONS.contains(&name) {
            cases.push(Case { name: name.to_owned(), spec: manifest["spec"].clone(), refused });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_charts_own_values_is_left() {
        let defaults =
            json!({"listeners": [1], "scaling": {"minReplicas": 2, "targets": []}, "service": {"type": "x"}});
        let got = alone(&json!({"listeners": [2], "scaling": {"minReplicas": 3}}), &defaults);
        let expect = json!({"listeners": [2], "scaling": {"minReplicas": 3, "targets": null}, "service": null});
        assert_eq!(got, expect);
    }

    #[test]
    fn every_exception_is_a_manifest() {
        for name in EXCEPTIONS {
            assert!(shell::root().join(format!("crds/testdata/{name}.in.yaml")).exists(), "{name} is gone");
        }
    }
}
