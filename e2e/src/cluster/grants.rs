//! The CustomResourceDefinition of ReferenceGrant, which a cluster may have or not.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{Resource, Shell, Sluice};

const CRD: &str = "referencegrants.gateway.networking.k8s.io";

/// The definition; dropping it removes it, if it was not there before.
#[derive(Debug)]
pub struct Installed<'a> {
    shell: Option<&'a Shell>,
}

/// Sees to it that the definition is there.
pub fn installed(shell: &Shell) -> anyhow::Result<Installed<'_>> {
    let there = !shell.run(&format!("kubectl get crd {CRD} --ignore-not-found -o name"))?.is_empty();
    if !there {
        let file = file(shell)?;
        shell.run(&format!("kubectl apply --server-side -f {}", file.display()))?;
        established(shell)?;
    }
    Ok(Installed { shell: (!there).then_some(shell) })
}

/// Sees to it that the definition is there, in version `v1beta1` alone, as releases of Gateway API before 1.5 have it.
pub fn beta_only(sluice: &Sluice) -> anyhow::Result<Installed<'_>> {
    let shell = &sluice.shell;
    absent(shell)?;
    let file = file(shell)?;
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let definition =
        serde_yaml::from_multiple::<Value>(&text)?.into_iter().find(|document| document["kind"].is_string());
    let mut definition = definition.context("the file has no definition")?;
    let versions = definition["spec"]["versions"].as_array_mut().context("a definition without versions")?;
    versions.retain(|version| version["name"] == "v1beta1");
    let [beta] = versions.as_mut_slice() else { anyhow::bail!("the definition has no v1beta1") };
    beta["served"] = true.into();
    beta["storage"] = true.into();
    sluice.api.apply(Resource::CRDS, &definition, "e2e")?;
    established(shell)?;
    Ok(Installed { shell: Some(shell) })
}

/// Sees to it that the definition is not there.
pub fn absent(shell: &Shell) -> anyhow::Result<()> {
    shell.run(&format!("kubectl delete crd {CRD} --ignore-not-found --wait"))?;
    Ok(())
}

fn established(shell: &Shell) -> anyhow::Result<()> {
    shell.run(&format!("kubectl wait --for=condition=Established --timeout=30s crd/{CRD}")).map(drop)
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if let Some(shell) = self.shell {
            let _ = absent(shell);
        }
    }
}

/// The file, from the Go module that `e2e/cluster/gateway-api` pins.
fn file(shell: &Shell) -> anyhow::Result<PathBuf> {
    let said = shell.run("cd e2e/cluster/gateway-api && go mod download -json sigs.k8s.io/gateway-api")?;
    let module: Value = serde_json::from_str(&said)?;
    let folder = module["Dir"].as_str().context("`go mod download` names no folder")?;
    Ok(PathBuf::from(folder).join("config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml"))
}
