//! The CustomResourceDefinition of ReferenceGrant, which a cluster may have or not.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::Shell;

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
        shell.run(&format!("kubectl wait --for=condition=Established --timeout=30s crd/{CRD}"))?;
    }
    Ok(Installed { shell: (!there).then_some(shell) })
}

/// Sees to it that the definition is not there.
pub fn absent(shell: &Shell) -> anyhow::Result<()> {
    shell.run(&format!("kubectl delete crd {CRD} --ignore-not-found --wait"))?;
    Ok(())
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
