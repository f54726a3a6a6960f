//! The images that the cluster itself needs, from programs that were built here.

use std::path::PathBuf;

use super::{
    buildah::{Recipe, Store},
    files::{read, stamp, unless_built},
    folders,
    folders::Folders,
};

/// The program that holds a pod's namespaces: containerd.toml names it.
pub(super) const PAUSE: &str = "pause";
/// The name server: coredns.yaml names it.
pub(super) const COREDNS: &str = "coredns";
/// The server and client of the cluster's own test: hello.yaml names it.
pub(super) const HELLO: &str = "hello";

/// Builds the image of one static program, unless it was built from this very program.
pub(super) fn build(folders: &Folders, program: &str) -> anyhow::Result<PathBuf> {
    let file = folders::sources().join("Dockerfile");
    let inputs = format!("{}{}", read(&file)?, read(&stamp(&folders.program(program)))?);
    let archive = folders.archive(program);
    unless_built(&archive, &inputs, || {
        println!("building the image of {program}");
        let name = format!("localhost/sluice-{program}:test");
        let store = Store::at(&folders.cache().join("node-images"))?;
        let args = [("PROGRAM", program)];
        store.build(&Recipe { file: &file, target: None, context: &folders.build(), args: &args, name: &name })?;
        store.save(&name, &archive)?;
        store.remove()
    })?;
    Ok(archive)
}
