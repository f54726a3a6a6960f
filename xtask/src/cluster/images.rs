//! The images that the cluster itself needs, from programs that were built here.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    build::{stamp, unless_built},
    folders,
    folders::Folders,
    read,
};
use crate::shell::Tool;

/// What holds a pod's namespaces: containerd.toml names it.
pub(super) const PAUSE: &str = "pause";
/// The name server: coredns.yaml names it.
pub(super) const COREDNS: &str = "coredns";
/// The server and client of the cluster's own test: hello.yaml names it.
pub(super) const HELLO: &str = "hello";

/// Builds the image of one static program, unless it was built from this very program.
pub(super) fn build(folders: &Folders, program: &str) -> anyhow::Result<PathBuf> {
    let recipe = folders::sources().join("Dockerfile");
    let inputs = format!("{}{}", read(&recipe)?, read(&stamp(&folders.program(program)))?);
    let archive = folders.archive(program);
    unless_built(&archive, &inputs, || {
        println!("building the image of {program}");
        let store = folders.cache().join("images");
        let made = bud(folders, &recipe, &store, program);
        std::fs::remove_dir_all(&store).with_context(|| store.display().to_string())?;
        made
    })?;
    Ok(archive)
}

fn bud(folders: &Folders, recipe: &Path, store: &Path, program: &str) -> anyhow::Result<()> {
    let name = format!("localhost/sluice-{program}:test");
    let argument = format!("PROGRAM={program}");
    let bud = buildah(store)
        .args(["bud", "--quiet", "--isolation", "chroot", "--build-arg", &argument, "--tag", &name, "--file"])
        .args([recipe, &folders.build()]);
    quietly(bud)?;
    let archive = folders.archive(program);
    // buildah refuses to write over an archive.
    match std::fs::remove_file(&archive) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| archive.display().to_string());
        }
        Ok(()) | Err(_) => {}
    }
    let target = format!("docker-archive:{}:{name}", archive.display());
    quietly(buildah(store).args(["push", "--quiet", &name, &target]))
}

/// vfs needs nothing of the kernel; the store is a folder of ours, removed afterwards.
fn buildah(store: &Path) -> Tool {
    Tool::new("buildah")
        .args(["--storage-driver", "vfs", "--root"])
        .args([store.join("root")])
        .args(["--runroot"])
        .args([store.join("run")])
}

fn quietly(tool: Tool) -> anyhow::Result<()> {
    let repeat = tool.to_string();
    let (done, output) = tool.capture()?;
    anyhow::ensure!(done, "{output}\n`{repeat}` failed");
    Ok(())
}
