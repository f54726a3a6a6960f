//! What a user types.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use tempfile::TempDir;

/// A shell in the folder of the project in which `kubectl` and `helm` are those of the cluster.
#[derive(Debug)]
pub struct Shell {
    bin: TempDir,
    kubeconfig: PathBuf,
}

impl Shell {
    /// A shell for the cluster that `cargo xtask cluster` means.
    pub fn open() -> anyhow::Result<Shell> {
        let bin = tempfile::Builder::new().prefix("sluice-shell-").tempdir()?;
        for program in ["kubectl", "helm"] {
            let path = bin.path().join(program);
            fs::write(&path, format!("#!/bin/sh\nexec {} cluster {program} -- \"$@\"\n", xtask()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let mut shell = Shell { bin, kubeconfig: PathBuf::new() };
        let said = shell.run(&format!("{} cluster kubeconfig", xtask()))?;
        shell.kubeconfig = said.lines().last().context("no cluster: run `cargo xtask cluster up`")?.into();
        Ok(shell)
    }

    /// The cluster's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs a command line; gives what it printed on stdout. A failure is an error with all that it said.
    pub fn run(&self, line: &str) -> anyhow::Result<String> {
        let output = self.command(line)?.output().with_context(|| line.to_owned())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        anyhow::ensure!(output.status.success(), "$ {line}\n{said}{complained}({})", output.status);
        Ok(said)
    }

    /// The command line, to be started.
    pub fn command(&self, line: &str) -> anyhow::Result<Command> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.bin.path().to_owned()).chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", line]).current_dir(project());
        command.env("PATH", std::env::join_paths(path)?);
        Ok(command)
    }
}

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// `cargo xtask` names itself to the tests it runs; without it, cargo finds it.
fn xtask() -> String {
    std::env::var("SLUICE_XTASK").unwrap_or_else(|_| "cargo xtask".to_owned())
}
