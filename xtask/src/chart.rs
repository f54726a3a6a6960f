//! `cargo xtask chart`: what of charts/sluice is generated.
//!
//! - the custom resource definitions, as they stand in crds/yaml
//! - [`scan`]: what scanners find in it, each with a reason
//! - [`schema`]: values.schema.json, with the schema of a GatewayFleet's spec in it
//! - files/fleet-defaults.json: what templates/_fleet.tpl must know of the defaults of that schema
//! - [`readme`]: README.md, with a table of the values
//! - [`health`]: the health script for Argo CD; nothing of it is generated
//! - [`hostile`]: values that look like YAML give nothing but themselves
//! - [`rendered`]: testdata, what the chart gives for some sets of values
//! - [`refused`]: what it refuses; nothing of it is generated

pub(crate) mod health;
pub(crate) mod hostile;
#[cfg(test)]
mod policies;
mod readme;
mod refused;
pub(crate) mod rendered;
pub(crate) mod scan;
mod schema;

use std::path::{Path, PathBuf};

use devcluster::{Folders, files};
use serde_json::Value;

use crate::shell;

pub(crate) fn run() -> anyhow::Result<()> {
    write()?;
    println!("charts/sluice is up to date with crds/yaml and values.yaml");
    let helm = devcluster::helm_program(&Folders::of_user()?)?;
    for name in rendered::update(&helm)? {
        println!("charts/sluice/testdata/{name} written anew: read the diff");
    }
    Ok(())
}

/// Writes what can be generated without helm.
pub(crate) fn write() -> anyhow::Result<()> {
    for (path, content) in generated()? {
        let path = folder().join(path);
        files::create(path.parent().unwrap_or(&path))?;
        files::write(&path, &content)?;
    }
    Ok(())
}

/// Every generated file and its content.
fn generated() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for (name, text) in definitions()? {
        all.push((Path::new("files/crds").join(name), text));
    }
    let values = files::read(&folder().join("values.yaml"))?;
    let prose = files::read(&folder().join("README.in.md"))?;
    all.push(("README.md".into(), readme::generate(&prose, &values)?));
    let frame: Value = serde_json::from_str(&files::read(&folder().join("values.schema.in.json"))?)?;
    let fleet = serde_yaml::from_str(&files::read(&shell::root().join("crds/yaml/gatewayfleets.yaml"))?)?;
    all.push(("values.schema.json".into(), schema::generate(frame, &fleet)?));
    all.push(("files/fleet-defaults.json".into(), schema::defaults(&fleet)?));
    Ok(all)
}

/// Names and content of the files of crds/yaml.
fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(shell::root().join("crds/yaml"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push((name, files::read(&path)?));
    }
    all.sort();
    Ok(all)
}

fn folder() -> PathBuf {
    shell::root().join("charts/sluice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        for (path, content) in generated().unwrap() {
            let there = files::read(&folder().join(&path)).unwrap_or_default();
            assert!(there == content, "charts/sluice/{} is stale: run `cargo xtask chart`", path.display());
        }
    }

    #[test]
    fn there_are_no_other_definitions() {
        let expect: Vec<_> = definitions().unwrap().into_iter().map(|(name, _)| name).collect();
        let there = std::fs::read_dir(folder().join("files/crds")).unwrap();
        let mut there: Vec<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        assert_eq!(there, expect);
    }

    #[test]
    fn the_chart_has_the_version_of_the_programs() {
        let chart: Value = serde_yaml::from_str(&files::read(&folder().join("Chart.yaml")).unwrap()).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}
