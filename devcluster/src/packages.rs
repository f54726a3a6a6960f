//! Debian's packages.

use std::path::{Path, PathBuf};

use super::given::on_path;
use crate::shell::Tool;

/// A program, and the package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("buildah", "buildah"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// Folders where distributions put the CNI plugins.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Installs what is missing.
pub(super) fn install() -> anyhow::Result<()> {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if cni_plugins().is_err() {
        missing.push("containernetworking-plugins");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    anyhow::ensure!(on_path("apt-get"), "missing: {list} (Debian's names); install them with your package manager");
    println!("installing {list}");
    let steps: [&[&str]; 2] = [&["update"], &["install", "--yes", "--no-install-recommends"]];
    for (step, packages) in steps.into_iter().zip([&[][..], &missing]) {
        let apt = Tool::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(step).args(packages);
        let repeat = apt.to_string();
        let (done, output) = apt.capture()?;
        anyhow::ensure!(done, "{output}\nrepeat it with: {repeat}");
    }
    Ok(())
}

/// The folder with the CNI plugins.
pub(super) fn cni_plugins() -> anyhow::Result<PathBuf> {
    CNI_FOLDERS
        .iter()
        .map(Path::new)
        .find(|folder| folder.join("bridge").exists())
        .map(Path::to_owned)
        .ok_or_else(|| anyhow::anyhow!("no CNI plugins in {}", CNI_FOLDERS.join(" or ")))
}
