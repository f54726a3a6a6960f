//! The shell in which tests type what a user does.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// A shell in the folder of the project.
#[derive(Debug, Default)]
pub struct Shell {
    /// The commands that it evaluates first.
    env: String,
}

impl Shell {
    /// A shell in which `kubectl` and `helm` are those of the cluster that `cargo xtask cluster` means.
    pub fn open() -> anyhow::Result<Shell> {
        Ok(Shell { env: Shell::new().run(&format!("{} cluster env", xtask()))? })
    }

    /// A shell as a user opens it.
    pub fn new() -> Shell {
        Shell::default()
    }

    /// The cluster's kubeconfig.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        Ok(self.run("printenv KUBECONFIG")?.trim_end().into())
    }

    /// Runs a command line; gives what it printed on stdout. A failure is an error with all that it said.
    pub fn run(&self, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &format!("{}{line}", self.env)]).current_dir(project());
        let output = command.output().with_context(|| line.to_owned())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        anyhow::ensure!(output.status.success(), "$ {line}\n{said}{complained}({})", output.status);
        Ok(said)
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
