//! Images without a daemon, a registry, or anything of the kernel that a container lacks.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{files, shell::Tool};

/// A store of images that lives as long as one build: `vfs` copies every layer, and needs nothing of the kernel.
pub struct Store {
    folder: PathBuf,
}

/// An image to build.
pub struct Recipe<'a> {
    /// The Dockerfile.
    pub file: &'a Path,
    /// The stage to build; none: the last one.
    pub target: Option<&'a str>,
    /// The folder that it copies from.
    pub context: &'a Path,
    /// The build arguments.
    pub args: &'a [(&'a str, &'a str)],
    /// The image's name.
    pub name: &'a str,
}

impl Store {
    /// An empty store in a new folder.
    pub fn at(folder: &Path) -> anyhow::Result<Store> {
        // What an interrupted build left is of no use.
        remove(folder)?;
        files::create(folder)?;
        Ok(Store { folder: folder.to_owned() })
    }

    /// Builds an image; `save` writes it.
    pub fn build(&self, recipe: &Recipe<'_>) -> anyhow::Result<()> {
        // The same content gives the same image: nothing in it says when it was built.
        let mut bud = self.buildah().args(["bud", "--quiet", "--isolation", "chroot", "--timestamp", "0"]);
        for (key, value) in recipe.args {
            bud = bud.args(["--build-arg", &format!("{key}={value}")]);
        }
        if let Some(target) = recipe.target {
            bud = bud.args(["--target", target]);
        }
        quietly(bud.args(["--tag", recipe.name, "--file"]).args([recipe.file, recipe.context]))
    }

    /// Writes an image as a docker archive.
    pub fn save(&self, name: &str, archive: &Path) -> anyhow::Result<()> {
        // buildah refuses to write over an archive.
        match std::fs::remove_file(archive) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| archive.display().to_string());
            }
            Ok(()) | Err(_) => {}
        }
        let target = format!("docker-archive:{}:{name}", archive.display());
        quietly(self.buildah().args(["push", "--quiet", name, &target]))
    }

    /// Removes the store, with every image in it.
    pub fn remove(self) -> anyhow::Result<()> {
        remove(&self.folder)
    }

    fn buildah(&self) -> Tool {
        Tool::new("buildah")
            .args(["--storage-driver", "vfs", "--root"])
            .args([self.folder.join("root")])
            .args(["--runroot"])
            .args([self.folder.join("run")])
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| folder.display().to_string()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn quietly(tool: Tool) -> anyhow::Result<()> {
    let repeat = tool.to_string();
    let (done, output) = tool.capture()?;
    anyhow::ensure!(done, "{output}\n`{repeat}` failed");
    Ok(())
}
