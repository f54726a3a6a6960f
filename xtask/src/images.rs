//! `cargo xtask images`: the project's images from the programs of the `e2e` profile, as docker archives.
//!
//! They are built by the `runtime` targets of the Dockerfiles, on a base of this machine's own libraries: no registry is asked.
//!
//! - [`base`]: that base.
//! - [`buildah`]: how an image is built and written; the cluster's own images are built so too.

mod base;
pub(crate) mod buildah;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::Context as _;
use buildah::{Recipe, Store};

use crate::{
    cluster::{self, Folders},
    files::{self, unless_built},
    shell::{self, Tool},
};

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

const BASE: &str = "localhost/sluice-base:dev";
/// No image may have more megabytes, its base included. What tests run is built without link-time optimisation, which makes it
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
        cluster::load(&folders, &built.into_iter().map(|image| image.archive).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// An image that is there now.
pub(crate) struct Built {
    name: &'static str,
    pub(crate) archive: PathBuf,
    mb: f64,
    /// None: it was there before.
    took: Option<Duration>,
}

impl std::fmt::Display for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "localhost/{}:dev {:>5.1} MB, ", self.name, self.mb)?;
        match self.took {
            Some(took) => write!(f, "built in {:.1} s", took.as_secs_f64()),
            None => f.write_str("as it was"),
        }
    }
}

/// Builds the images whose programs, libraries or Dockerfiles have changed, and gives all.
pub(crate) fn build(folders: &Folders) -> anyhow::Result<Vec<Built>> {
    let _alone = folders.lock("images")?;
    let programs: Vec<PathBuf> =
        IMAGES.iter().flat_map(|image| image.programs).map(|name| shell::bin_dir().join(name)).collect();
    for program in &programs {
        anyhow::ensure!(program.is_file(), "{}: not built; leave out --no-build", program.display());
    }
    let libraries = base::libraries(&programs)?;
    let scratch = Scratch { folder: folders.cache().join("images"), store: std::cell::OnceCell::new(), libraries };
    let mut all = Vec::new();
    for image in &IMAGES {
        let started = Instant::now();
        let archive = folders.archive(image.name);
        let made = unless_built(&archive, &inputs(image, &scratch.libraries)?, || scratch.make(image, &archive))?;
        let mb = megabytes(&archive)?;
        anyhow::ensure!(mb <= MAX_MB, "{}: an image may have {MAX_MB} MB, it has {mb:.1}", image.name);
        all.push(Built { name: image.name, archive, mb, took: made.then(|| started.elapsed()) });
    }
    scratch.remove()?;
    Ok(all)
}

/// What one run of builds needs, made when the first image needs it.
struct Scratch {
    folder: PathBuf,
    store: std::cell::OnceCell<Store>,
    libraries: std::collections::BTreeSet<PathBuf>,
}

impl Scratch {
    fn make(&self, image: &Image, archive: &Path) -> anyhow::Result<()> {
        let store = self.store()?;
        let context = self.folder.join(image.name);
        files::create(&context)?;
        for program in image.programs {
            // Symbols are three quarters of some of them.
            let (from, to) = (shell::bin_dir().join(program), context.join(program));
            Tool::new("strip").args(["--strip-all", "-o"]).args([&to, &from]).run()?;
        }
        let name = format!("localhost/{}:dev", image.name);
        let args = [("BASE", BASE), ("VERSION", env!("CARGO_PKG_VERSION"))];
        let file = shell::root().join(image.file);
        store.build(&Recipe { file: &file, target: Some("runtime"), context: &context, args: &args, name: &name })?;
        store.save(&name, archive)
    }

    /// The store, with the base in it.
    fn store(&self) -> anyhow::Result<&Store> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::at(&self.folder)?;
        let base = self.folder.join("base");
        let file = base::lay_out(&base, &self.libraries)?;
        let root = base.join("root");
        store.build(&Recipe { file: &file, target: None, context: &root, args: &[], name: BASE })?;
        Ok(self.store.get_or_init(|| store))
    }

    fn remove(self) -> anyhow::Result<()> {
        self.store.into_inner().map_or(Ok(()), Store::remove)
    }
}

/// All that decides what is in an image.
fn inputs(image: &Image, libraries: &std::collections::BTreeSet<PathBuf>) -> anyhow::Result<String> {
    let mut text = format!("{BASE} {}\n", env!("CARGO_PKG_VERSION"));
    let programs = image.programs.iter().map(|name| shell::bin_dir().join(name));
    for file in programs.chain(libraries.iter().cloned()) {
        let metadata = std::fs::metadata(&file).with_context(|| file.display().to_string())?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
        writeln!(text, "{} {} {modified}", file.display(), metadata.len())?;
    }
    text.push_str(&files::read(&shell::root().join(image.file))?);
    Ok(text)
}

#[allow(clippy::cast_precision_loss)] // shown with one decimal
fn megabytes(file: &Path) -> anyhow::Result<f64> {
    Ok(std::fs::metadata(file)?.len() as f64 / 1e6)
}
