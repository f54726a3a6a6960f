//! `cargo xtask dist`: what a release consists of, in `target/dist`: the programs, what is in each of them ([`sbom`]), the chart,
//! and the checksums of all. The proxy is built with profile-guided optimisation ([`pgo`], [`training`], [`profdata`]); the
//! Dockerfiles build so, and `cargo xtask bench` measures that very program. How all is signed and published is in
//! docs/releasing.md.

mod pgo;
mod profdata;
mod sbom;
mod training;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use devcluster::{Folders, files};

use crate::{
    images,
    shell::{self, Tool, cargo},
};

#[derive(clap::Args)]
#[command(
    after_help = "The proxy's profile is counted on this machine, under half a minute of load. Building and training take some \
    ten minutes; without changes, nothing is built again."
)]
pub(crate) struct Args {
    /// Only this program, without the rest: what the Dockerfiles do.
    #[arg(long)]
    program: Option<Program>,
    /// Also the images, as docker archives, of these very programs; needs buildah.
    #[arg(long, conflicts_with = "program")]
    images: bool,
    /// What the images are based on, such as gcr.io/distroless/cc-debian12@sha256:...; by default on this machine's own
    /// libraries.
    #[arg(long, requires = "images", value_name = "IMAGE")]
    base: Option<String>,
}

/// A program of a release.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Program {
    #[value(name = "sluice-operator")]
    Operator,
    #[value(name = "sluice-proxy")]
    Proxy,
}

impl Program {
    const ALL: [Self; 2] = [Self::Operator, Self::Proxy];

    fn name(self) -> &'static str {
        match self {
            Self::Operator => "sluice-operator",
            Self::Proxy => "sluice-proxy",
        }
    }

    /// The package that it is built from.
    fn package(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Proxy => "proxy",
        }
    }
}

const SUMS: &str = "SHA256SUMS";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Whoever measures needs the same cores.
    let _alone = Folders::of_user()?.lock("bench")?;
    let folder = folder();
    if let Some(only) = args.program {
        println!("{}", program(only)?.display());
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let metadata = cargo(&["metadata", "--locked", "--format-version=1"]).read()?;
    let lock = files::read(&shell::root().join("Cargo.lock"))?;
    for of in Program::ALL {
        program(of)?;
        let bill = sbom::generate(&serde_json::from_str(&metadata)?, &lock, of.package())?;
        files::write(&folder.join(format!("{}.cdx.json", of.name())), &format!("{bill:#}\n"))?;
    }
    let helm = devcluster::helm_program(&Folders::of_user()?)?;
    let package = Tool::new(helm).args(["package", "charts/sluice", "--destination"]).args([&folder]);
    let (packaged, said) = package.capture()?;
    anyhow::ensure!(packaged, "helm package: {said}");
    if args.images {
        for image in images::release(&Folders::of_user()?, &folder, args.base.as_deref())? {
            println!("{image}");
        }
    }
    sum(&folder)?;
    println!("{}", folder.display());
    print!("{}", files::read(&folder.join(SUMS))?);
    Ok(())
}

/// A program as it is released, built if it is not there.
pub(crate) fn program(program: Program) -> anyhow::Result<PathBuf> {
    let built = match program {
        Program::Operator => {
            let (package, name) = (program.package(), program.name());
            cargo(&["build", "--locked", "--release", "--package", package, "--bin", name]).run()?;
            target().join("release").join(name)
        }
        Program::Proxy => pgo::proxy()?,
    };
    files::create(&folder())?;
    let stripped = folder().join(program.name());
    // Symbols are three quarters of some of them.
    Tool::new("strip").args(["--strip-all", "-o"]).args([&stripped, &built]).run()?;
    Ok(stripped)
}

/// The checksum of a file, in hexadecimal digits.
pub(crate) fn sha256(file: &Path) -> anyhow::Result<String> {
    let said = Tool::new("sha256sum").args(["--"]).args([file]).read()?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}

fn folder() -> PathBuf {
    target().join("dist")
}

fn target() -> PathBuf {
    shell::bin_dir().parent().map(Path::to_owned).unwrap_or_default()
}

/// The compiler, by what it says of itself.
struct Rustc {
    said: String,
}

impl Rustc {
    fn read() -> anyhow::Result<Self> {
        Ok(Self { said: Tool::new("rustc").args(["-vV"]).read()? })
    }

    fn host(&self) -> anyhow::Result<&str> {
        self.line("host: ")
    }

    /// The first number of its LLVM's version.
    fn llvm_major(&self) -> anyhow::Result<&str> {
        Ok(self.line("LLVM version: ")?.split('.').next().unwrap_or_default())
    }

    fn sysroot(&self) -> anyhow::Result<String> {
        Ok(Tool::new("rustc").args(["--print", "sysroot"]).read()?.trim().to_owned())
    }

    fn line(&self, name: &str) -> anyhow::Result<&str> {
        self.said
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("`rustc -vV` names no {name}"))
    }
}

/// Writes the checksums of all that is there, as `sha256sum --check` reads them.
fn sum(folder: &Path) -> anyhow::Result<()> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.sort();
    let program = ["sh", "-c", "cd \"$0\" && exec sha256sum -- \"$@\""];
    let tool = Tool::new(program[0]).args(&program[1..]).args([folder]).args(names);
    files::write(&folder.join(SUMS), &tool.read()?)
}
