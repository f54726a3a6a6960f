//! `cargo xtask images`: the project's images from the programs of the `e2e` profile, as docker archives.
//!
//! They are built by the `runtime` targets of the Dockerfiles, on a base of this machine's own libraries: no registry is asked.
//!
//! - [`base`]: that base.
//! - [`buildah`](devcluster::buildah): how an image is built and written; the cluster's own images are built so too.

mod base;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::Context as _;
use devcluster::{
    Folders,
    buildah::{Recipe, Store},
    files::{self, unless_built},
};

use crate::shell::{self, Tool};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Give them to the cluster, which must be up.
    #[arg(long)]
    load: bool,
    /// Take the programs that the last build left, as they are.
    #[arg(long)]
    no_build: bool,
}

/// An image of ours.
struct Image {
    name: &'static str,
    file: &'static str,
    programs: &'static [&'static str],
}

const IMAGES: [Image; 3] = [
    Image { name: "sluice-operator", file: "Dockerfile.operator", programs: &["sluice-operator"] },
    Image { name: "sluice-proxy", file: "Dockerfile.proxy", programs: &["sluice-proxy"] },
    Image { name: "sluice-e2e", file: "e2e/Dockerfile", programs: &["sluice-echo", "sluice-load"] },
];

/// The base of this machine's own libraries.
const BASE: &str = "localhost/sluice-base:dev";
/// The most megabytes of an image, its base included. What tests run is built without link-time optimisation, which makes it
/// larger by a third than what a release has.
const MAX_MB: f64 = 48.0;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folders = Folders::of_user()?;
    if !args.no_build {
        shell::build_binaries().run()?;
    }
    let built = build(&folders)?;
    built.iter().for_each(|image| println!("{image}"));
    if args.load {
        devcluster::load(&folders, &built.into_iter().map(|image| image.archive).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// An image that is there now.
pub(crate) struct Built {
    name: String,
    pub(crate) archive: PathBuf,
    mb: f64,
    /// The time that it took; `None`: it was there before.
    took: Option<Duration>,
}

impl std::fmt::Display for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:>5.1} MB, ", self.name, self.mb)?;
        match self.took {
            Some(took) => write!(f, "built in {:.1} s", took.as_secs_f64()),
            None => f.write_str("as it was"),
        }
    }
}

/// Builds the images whose programs, libraries or Dockerfiles have changed, and gives all.
pub(crate) fn build(folders: &Folders) -> anyhow::Result<Vec<Built>> {
    let archive = |image: &Image| folders.archive(image.name);
    Scratch::new(folders, shell::bin_dir(), None, "dev", "unknown").all(&IMAGES, archive)
}

/// Builds the images of a release from the programs in this folder, into it. `base`: of the machine's own libraries if none is
/// named.
pub(crate) fn release(folders: &Folders, folder: &Path, base: Option<&str>) -> anyhow::Result<Vec<Built>> {
    let archive = |image: &Image| folders.archive(&format!("{}-release", image.name));
    let revision = Tool::new("git").args(["rev-parse", "HEAD"]).read()?;
    let scratch = Scratch::new(folders, folder.to_owned(), base, env!("CARGO_PKG_VERSION"), revision.trim());
    let built = scratch.all(&IMAGES[..2], archive)?;
    for (image, made) in IMAGES.iter().zip(&built) {
        let to = folder.join(format!("{}.image.tar", image.name));
        std::fs::copy(&made.archive, &to).with_context(|| to.display().to_string())?;
    }
    Ok(built)
}

/// The parts that one run of builds shares, made when the first image needs them.
struct Scratch<'a> {
    folders: &'a Folders,
    /// The folder of the programs.
    programs: PathBuf,
    /// The base image; `None`: the machine's own libraries.
    base: Option<&'a str>,
    tag: &'static str,
    /// The commit.
    revision: String,
    folder: PathBuf,
    store: std::cell::OnceCell<Store>,
}

impl<'a> Scratch<'a> {
    fn new(folders: &'a Folders, programs: PathBuf, base: Option<&'a str>, tag: &'static str, revision: &str) -> Self {
        let (folder, revision) = (folders.cache().join("images"), revision.to_owned());
        Self { folders, programs, base, tag, revision, folder, store: std::cell::OnceCell::new() }
    }

    fn all(self, images: &[Image], archive: impl Fn(&Image) -> PathBuf) -> anyhow::Result<Vec<Built>> {
        let _alone = self.folders.lock("images")?;
        let programs: Vec<PathBuf> = images.iter().flat_map(|image| self.programs(image)).collect();
        for program in &programs {
            anyhow::ensure!(program.is_file(), "{}: not built; leave out --no-build", program.display());
        }
        let libraries = if self.base.is_none() { base::libraries(&programs)? } else { BTreeSet::new() };
        let mut all = Vec::new();
        for image in images {
            let (started, archive) = (Instant::now(), archive(image));
            let inputs = self.inputs(image, &libraries)?;
            let made = unless_built(&archive, &inputs, || self.make(image, &libraries, &archive))?;
            let mb = megabytes(&archive)?;
            anyhow::ensure!(mb <= MAX_MB, "{}: an image may have {MAX_MB} MB, it has {mb:.1}", image.name);
            all.push(Built { name: self.name(image), archive, mb, took: made.then(|| started.elapsed()) });
        }
        self.store.into_inner().map_or(Ok(()), Store::remove)?;
        Ok(all)
    }

    fn make(&self, image: &Image, libraries: &BTreeSet<PathBuf>, archive: &Path) -> anyhow::Result<()> {
        let store = self.store(libraries)?;
        let context = self.folder.join(image.name);
        files::create(&context)?;
        for program in self.programs(image) {
            // Symbols are three quarters of some of them; those of a release have none, and stay as they are, bit for bit.
            let to = context.join(program.file_name().unwrap_or_default());
            Tool::new("strip").args(["--strip-all", "-o"]).args([&to, &program]).run()?;
        }
        let args = [
            ("BASE", self.base.unwrap_or(BASE)),
            ("VERSION", env!("CARGO_PKG_VERSION")),
            ("REVISION", &*self.revision),
        ];
        let (file, name) = (shell::root().join(image.file), self.name(image));
        store.build(&Recipe { file: &file, target: Some("runtime"), context: &context, args: &args, name: &name })?;
        store.save(&name, archive)
    }

    fn name(&self, image: &Image) -> String {
        format!("localhost/{}:{}", image.name, self.tag)
    }

    fn programs(&self, image: &Image) -> impl Iterator<Item = PathBuf> {
        image.programs.iter().map(|name| self.programs.join(name))
    }

    /// The store, with the base in it.
    fn store(&self, libraries: &BTreeSet<PathBuf>) -> anyhow::Result<&Store> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::at(&self.folder)?;
        if self.base.is_none() {
            let base = self.folder.join("base");
            let file = base::lay_out(&base, libraries)?;
            let root = base.join("root");
            store.build(&Recipe { file: &file, target: None, context: &root, args: &[], name: BASE })?;
        }
        Ok(self.store.get_or_init(|| store))
    }

    /// All that decides what is in an image.
    fn inputs(&self, image: &Image, libraries: &BTreeSet<PathBuf>) -> anyhow::Result<String> {
        let mut text = format!("{} {} {}\n", self.base.unwrap_or(BASE), env!("CARGO_PKG_VERSION"), self.revision);
        for file in self.programs(image).chain(libraries.iter().cloned()) {
            let metadata = std::fs::metadata(&file).with_context(|| file.display().to_string())?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
            writeln!(text, "{} {} {modified}", file.display(), metadata.len())?;
        }
        text.push_str(&files::read(&shell::root().join(image.file))?);
        Ok(text)
    }
}

#[allow(clippy::cast_precision_loss)] // shown with one decimal
fn megabytes(file: &Path) -> anyhow::Result<f64> {
    Ok(std::fs::metadata(file)?.len() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo reads every crate of the workspace, whichever of them it compiles.
    #[test]
    fn image_builders_are_given_every_crate() {
        let read = |name: &str| files::read(&shell::root().join(name)).unwrap();
        let (manifest, ignored) = (read("Cargo.toml"), read(".dockerignore"));
        let (_, members) = manifest.split_once("members = [").unwrap();
        let members = members.split_once(']').unwrap().0.split(',').map(|name| name.trim().trim_matches('"'));
        let members: Vec<_> = members.filter(|name| !name.is_empty()).collect();
        assert!(members.len() > 5);
        for name in members.into_iter().chain([".cargo", "Cargo.toml", "Cargo.lock"]) {
            assert!(ignored.lines().any(|line| line == format!("!{name}")), ".dockerignore has no !{name}");
        }
    }
}
