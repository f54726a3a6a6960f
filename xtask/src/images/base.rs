//! The base of the images that are built here: what a Rust program needs of the system at run time, taken from this very
//! system, so that its glibc is the one that the programs were linked with. Published images use a distroless base instead:
//! see `ARG BASE` in the Dockerfiles.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use devcluster::files;

use crate::shell::Tool;

/// The users of the image: root has no shell.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
const RECIPE: &str = "FROM scratch\nENV PATH=/usr/local/bin\nCOPY / /\nUSER 65532:65532\n";

/// The shared libraries of some programs and the loader, by the paths under which the loader finds them.
pub(super) fn libraries(programs: &[PathBuf]) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let (read, output) = Tool::new("ldd").args([program]).capture()?;
        anyhow::ensure!(read, "{}: ldd: {}", program.display(), output.trim());
        found.extend(listed(&output).with_context(|| program.display().to_string())?);
    }
    Ok(found)
}

/// The folder of the base image's files, laid out anew, and its recipe.
pub(super) fn lay_out(folder: &Path, libraries: &BTreeSet<PathBuf>) -> anyhow::Result<PathBuf> {
    for library in libraries {
        // By the loader's path, not where its links lead: the content is what `copy` reads there.
        let to = folder.join("root").join(library.strip_prefix("/").unwrap_or(library));
        files::create(to.parent().unwrap_or(folder))?;
        std::fs::copy(library, &to).with_context(|| library.display().to_string())?;
    }
    let root = folder.join("root");
    for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP), ("etc/nsswitch.conf", NSSWITCH)] {
        let path = root.join(path);
        files::create(path.parent().unwrap_or(folder))?;
        files::write(&path, text)?;
    }
    let temporary = root.join("tmp");
    files::create(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o1777))?;
    let recipe = folder.join("Dockerfile");
    files::write(&recipe, RECIPE)?;
    Ok(recipe)
}

/// The libraries that `ldd` lists: `name => /path (address)`, or `/path (address)` for the loader; what the kernel provides
/// has no path.
fn listed(output: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in output.lines().map(str::trim) {
        anyhow::ensure!(!line.ends_with("not found"), "{line}");
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        if let Some((path, _)) = path.split_once(" (").filter(|(path, _)| path.starts_with('/')) {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_read_from_ldd() {
        let output = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let expect = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(listed(output).unwrap(), expect);
        assert!(listed("\tstatically linked\n").unwrap().is_empty());
        assert!(listed("\tlibssl.so.3 => not found\n").is_err());
    }
}
