//! Running other programs: cargo, mostly.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

/// The profile for everything that carries load: see `[profile.e2e]` in Cargo.toml.
pub(crate) const PROFILE: &str = "e2e";

/// The folder with the root Cargo.toml.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts the binaries of [`PROFILE`].
pub(crate) fn bin_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir));
    target.join(PROFILE)
}

/// Builds every binary of the workspace in [`PROFILE`]; cargo shows its progress.
///
/// Always the whole workspace: with a subset cargo would choose other features for shared dependencies and build them
/// once more.
pub(crate) fn build_binaries() -> Tool {
    cargo(&["build", "--workspace", "--bins", "--profile", PROFILE])
}

/// A cargo command in the root folder.
pub(crate) fn cargo(args: &[&str]) -> Tool {
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(args)
}

/// Waits: nothing else is to be done meanwhile.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A program to run, which can be shown as one would type it.
pub(crate) struct Tool {
    command: Command,
    envs: Vec<(String, String)>,
}

impl Tool {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Tool {
        let mut command = Command::new(program);
        command.current_dir(root()).stdin(Stdio::null());
        Tool { command, envs: Vec::new() }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Tool {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Tool {
        self.command.env(key, value);
        self.envs.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it with this process's own output.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let status = self.command.status().with_context(|| format!("cannot run `{self}`"))?;
        anyhow::ensure!(status.success(), "`{self}` failed ({status})");
        Ok(())
    }

    /// Runs it and gives what it wrote to stdout.
    pub(crate) fn read(mut self) -> anyhow::Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{self}`"))?;
        anyhow::ensure!(output.status.success(), "`{self}` failed ({})", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it silently and gives whether it succeeded and all that it wrote.
    pub(crate) fn capture(self) -> anyhow::Result<(bool, String)> {
        let (succeeded, given, said) = self.outcome()?;
        Ok((succeeded, given + &said))
    }

    /// Runs it silently and gives whether it succeeded, and what it wrote to stdout and to stderr.
    pub(crate) fn outcome(mut self) -> anyhow::Result<(bool, String, String)> {
        let output = self.command.output().with_context(|| format!("cannot run `{self}`"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (key, value) in &self.envs {
            write!(text, "{key}={} ", quote(value))?;
        }
        let program = Path::new(self.command.get_program());
        text.push_str(&program.file_name().unwrap_or(program.as_os_str()).to_string_lossy());
        for arg in self.command.get_args() {
            text.push(' ');
            text.push_str(&quote(&arg.to_string_lossy()));
        }
        f.write_str(&text)
    }
}

/// A word as a shell reads it.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
