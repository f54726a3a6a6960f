//! `cargo xtask cluster env`: kubectl and helm by their names, in the shell that evaluates what it prints.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::Context as _;

use super::{Cluster, create, folders::Folders, helm, kubeconfig, kubectl, own, read, write};
use crate::shell::quote;

/// The cluster's kubeconfig, the way to it, and a PATH with both programs.
pub(super) fn env(cluster: &Cluster, folders: &Folders) -> anyhow::Result<String> {
    let kubeconfig = kubeconfig(cluster, folders)?;
    let folder = folders.commands();
    create(&folder)?;
    put(&folder.join("kubectl"), &kubectl(cluster, folders)?)?;
    put(&folder.join("helm"), &helm(cluster, folders)?)?;
    let mut text = format!("export KUBECONFIG={}\n", quote(&kubeconfig.display().to_string()));
    if matches!(cluster, Cluster::Own) {
        for (name, value) in own::direct() {
            text += &format!("export {name}={}\n", quote(&value));
        }
    }
    Ok(text + &format!("export PATH={}:\"$PATH\"\n", quote(&folder.display().to_string())))
}

/// A script that becomes a program of ours. One that is on the PATH anyway gets none: it would find itself.
fn put(file: &Path, command: &Command) -> anyhow::Result<()> {
    let program = Path::new(command.get_program());
    if program.is_relative() {
        let _ = std::fs::remove_file(file);
        return Ok(());
    }
    let words = std::iter::once(program.as_os_str()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quote(&word.to_string_lossy())).collect();
    let text = format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "));
    // Somebody may be running it: it is replaced only by another.
    if !read(file).is_ok_and(|there| there == text) {
        write(file, &text)?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(file, executable).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_becomes_the_program_with_its_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("say");
        let mut command = Command::new("/bin/echo");
        command.arg("it's");
        put(&file, &command).unwrap();
        let said = Command::new(&file).args(["two words", "*"]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), "it's two words *\n");
        put(&file, &Command::new("echo")).unwrap();
        assert!(!file.exists(), "it would run itself");
    }
}
