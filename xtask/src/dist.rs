//! `cargo xtask dist`: what a release consists of, in `target/dist`: the programs, what is in each of them ([`sbom`]), the chart,
//! and the checksums of all. How that is signed and published is in docs/releasing.md.

mod sbom;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{
    cluster::{self, Folders},
    files,
    shell::{self, Tool, cargo},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take the programs from this folder, as they are, instead of building them: such as those of `cargo xtask pgo`.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// A program, and the package that it is built from.
const PROGRAMS: [(&str, &str); 2] = [("sluice-operator", "operator"), ("sluice-proxy", "proxy")];
const SUMS: &str = "SHA256SUMS";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = target().join("dist");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    files::create(&folder)?;
    let built = match &args.programs {
        Some(programs) => programs.clone(),
        None => {
            for (program, package) in PROGRAMS {
                cargo(&["build", "--locked", "--release", "--package", package, "--bin", program]).run()?;
            }
            target().join("release")
        }
    };
    let metadata = cargo(&["metadata", "--locked", "--format-version=1"]).read()?;
    let lock = files::read(&shell::root().join("Cargo.lock"))?;
    for (program, package) in PROGRAMS {
        // Symbols are three quarters of some of them.
        Tool::new("strip").args(["--strip-all", "-o"]).args([folder.join(program), built.join(program)]).run()?;
        let bill = sbom::generate(&serde_json::from_str(&metadata)?, &lock, package)?;
        files::write(&folder.join(format!("{program}.cdx.json")), &format!("{bill:#}\n"))?;
    }
    let helm = cluster::helm_program(&Folders::of_user()?)?;
    let package = Tool::new(helm).args(["package", "charts/sluice", "--destination"]).args([&folder]);
    let (packaged, said) = package.capture()?;
    anyhow::ensure!(packaged, "helm package: {said}");
    sum(&folder)?;
    println!("{}", folder.display());
    Ok(())
}

fn target() -> PathBuf {
    shell::bin_dir().parent().map(Path::to_owned).unwrap_or_default()
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
