//! A cluster that is there already, and kind's.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::folders::Folders;
use crate::shell::Tool;

/// The file that `$KUBECONFIG` names, unless it is one that we wrote: then it is our cluster that is meant.
pub(super) fn kubeconfig(folders: &Folders) -> anyhow::Result<Option<PathBuf>> {
    let Some(value) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = std::env::split_paths(&value).next().unwrap_or_default();
    let ours = [folders.kubeconfig(), Kind::kubeconfig_in(folders)];
    if ours.contains(&path) {
        return Ok(None);
    }
    anyhow::ensure!(path.is_file(), "KUBECONFIG names {}, which is no file: unset it, or correct it", path.display());
    Ok(Some(path))
}

pub(super) fn check(kubeconfig: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(on_path("kubectl"), "install kubectl to use the cluster that KUBECONFIG names");
    let ready = ["get", "--raw", "/readyz", "--request-timeout=20s"];
    let (ready, output) = Tool::new("kubectl").args(["--kubeconfig"]).args([kubeconfig]).args(ready).capture()?;
    anyhow::ensure!(ready, "{output}\nthe cluster of {} does not answer", kubeconfig.display());
    println!("the cluster of {} is ready", kubeconfig.display());
    Ok(())
}

pub(super) fn load_image(kubeconfig: &Path, archive: &Path) -> anyhow::Result<()> {
    let context =
        Tool::new("kubectl").args(["--kubeconfig"]).args([kubeconfig]).args(["config", "current-context"]).read()?;
    let Some(name) = context.trim().strip_prefix("kind-") else {
        anyhow::bail!(
            "{} cannot be loaded into the cluster of {} (KUBECONFIG): push the image to a registry from which it pulls",
            archive.display(),
            kubeconfig.display()
        );
    };
    Tool::new("kind").args(["load", "image-archive", "--name", name]).args([archive]).run()
}

/// A cluster by kind: its name, its node image, and where its kubeconfig is.
pub(super) struct Kind {
    image: String,
    kubeconfig: PathBuf,
}

const NAME: &str = "sluice";

impl Kind {
    /// Only where nothing has to be fetched: kind, a container engine that runs, and a node image that it has.
    pub(super) fn find(folders: &Folders) -> Option<Kind> {
        if !on_path("kind") {
            return None;
        }
        let list = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=*/node"];
        let image = ["docker", "podman"].into_iter().filter(|engine| on_path(engine)).find_map(|engine| {
            let (listed, images) = Tool::new(engine).args(list).capture().ok().filter(|(listed, _)| *listed)?;
            node_image(&images).filter(|_| listed)
        })?;
        Some(Kind { image, kubeconfig: Kind::kubeconfig_in(folders) })
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn kubeconfig_in(folders: &Folders) -> PathBuf {
        folders.cache().join("kind.kubeconfig")
    }

    /// Whether our cluster is there.
    pub(super) fn is_up() -> anyhow::Result<bool> {
        Ok(Tool::new("kind").args(["get", "clusters"]).read()?.lines().any(|name| name == NAME))
    }

    pub(super) fn up(&self) -> anyhow::Result<()> {
        let kubeconfig = ["--name", NAME, "--kubeconfig"];
        if Kind::is_up()? {
            Tool::new("kind").args(["export", "kubeconfig"]).args(kubeconfig).args([&self.kubeconfig]).run()?;
            return check(&self.kubeconfig);
        }
        if let Some(folder) = self.kubeconfig.parent() {
            super::create(folder)?;
        }
        let create = ["create", "cluster", "--wait", "180s", "--image", &self.image];
        Tool::new("kind").args(create).args(kubeconfig).args([&self.kubeconfig]).run()
    }

    pub(super) fn down(&self) -> anyhow::Result<()> {
        Tool::new("kind").args(["delete", "cluster", "--name", NAME, "--kubeconfig"]).args([&self.kubeconfig]).run()?;
        // kind takes its own entries out of the file, and leaves the file.
        match std::fs::remove_file(&self.kubeconfig) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        Tool::new("kind").args(["load", "image-archive", "--name", NAME]).args([archive]).run()
    }
}

/// The first node image of kind's in a list of images.
fn node_image(images: &str) -> Option<String> {
    let name = |image: &&str| image.split_once(':').is_some_and(|(name, _)| name.ends_with("kindest/node"));
    images.lines().map(str::trim).find(name).map(str::to_owned)
}

/// Whether there is such a program.
pub(super) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Packages for administrators are in folders that a user's PATH often lacks.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_image_of_kind_is_found_among_others() {
        assert_eq!(node_image("shop/node:1\nkindest/node:v1.35.0\n").as_deref(), Some("kindest/node:v1.35.0"));
        assert_eq!(node_image("localhost/kindest/node:v1\n").as_deref(), Some("localhost/kindest/node:v1"));
        assert_eq!(node_image("node:20\n"), None);
    }

    #[test]
    fn a_program_is_found_or_not() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program-anywhere"));
    }
}
