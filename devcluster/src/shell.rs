//! Running other programs.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

/// The folder with the root Cargo.toml.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Waits: nothing else is to be done meanwhile.
#[allow(clippy::disallowed_methods)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A program to run, which can be shown as one would type it.
pub struct Tool {
    command: Command,
    envs: Vec<(String, String)>,
}

impl Tool {
    /// The program alone, which runs in [`root`] and has no input.
    pub fn new(program: impl AsRef<OsStr>) -> Tool {
        let mut command = Command::new(program);
        command.current_dir(root()).stdin(Stdio::null());
        Tool { command, envs: Vec::new() }
    }

    /// The program with these arguments after those that it has.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Tool {
        self.command.args(args);
        self
    }

    /// The program with a variable in its environment.
    pub fn env(mut self, key: &str, value: &str) -> Tool {
        self.command.env(key, value);
        self.envs.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs the program with this process's own output.
    pub fn run(mut self) -> anyhow::Result<()> {
        let status = self.command.status().with_context(|| format!("cannot run `{self}`"))?;
        anyhow::ensure!(status.success(), "`{self}` failed ({status})");
        Ok(())
    }

    /// Runs the program and gives what it wrote to stdout.
    pub fn read(mut self) -> anyhow::Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{self}`"))?;
        anyhow::ensure!(output.status.success(), "`{self}` failed ({})", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the program silently and gives whether it succeeded and all that it wrote.
    pub fn capture(self) -> anyhow::Result<(bool, String)> {
        let (succeeded, given, said) = self.outcome()?;
        Ok((succeeded, given + &said))
    }

    /// Runs the program silently and gives whether it succeeded, and what it wrote to stdout and to stderr.
    pub fn outcome(mut self) -> anyhow::Result<(bool, String, String)> {
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
