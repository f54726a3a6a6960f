//! The health that Argo CD shows of our objects: argocd/health.lua, run for the objects of its testdata by the interpreter
//! of Argo CD.

use std::{fs::File, path::Path, process::Command};

use anyhow::Context as _;
use devcluster::{Program, files};
use serde_json::Value;

use super::folder;

/// The interpreter of Argo CD with what it gives to health scripts.
pub(crate) const PROGRAM: Program = Program { name: "health", module: "e2e/cluster/health", package: "." };

pub(crate) fn check(health: &Path) -> anyhow::Result<()> {
    let script = folder().join("argocd/health.lua");
    let cases: Vec<Value> = serde_yaml::from_str(&files::read(&folder().join("argocd/testdata/health.yaml"))?)?;
    let objects: Vec<&Value> = cases.iter().map(|case| &case["object"]).collect();
    let input = tempfile::NamedTempFile::new()?;
    files::write(input.path(), &serde_json::to_string(&objects)?)?;
    let output = Command::new(health).arg(&script).stdin(File::open(input.path())?).output();
    let output = output.with_context(|| health.display().to_string())?;
    anyhow::ensure!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Vec<&str> = said.lines().collect();
    let expect: Vec<&str> = cases.iter().filter_map(|case| case["expect"].as_str()).collect();
    anyhow::ensure!(!expect.is_empty() && said == expect, "{}:\n{said:#?}\nexpected:\n{expect:#?}", script.display());
    Ok(())
}
