//! `cargo xtask tidy`: what no other tool checks.
//!
//! - [`imports`]: what each crate may depend on and name, so that the pure crates stay pure.
//! - [`floors`]: which modules of a crate may use which others of it.
//! - [`files`]: sizes, module docs, and the shape of the documentation.

mod files;
mod floors;
mod imports;
mod paths;

use anyhow::Context as _;

use crate::shell::{self, Tool};

pub(crate) fn run() -> anyhow::Result<()> {
    for note in check()? {
        println!("note: {note}");
    }
    println!("tidy");
    Ok(())
}

/// Checks everything and gives what is worth a note; problems are an error that lists them all.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let files = tracked()?;
    let mut findings = Findings::default();
    imports::check(&files, &mut findings)?;
    floors::check(&files, &mut findings)?;
    files::check(&files, &mut findings)?;
    let Findings { problems, notes } = findings;
    anyhow::ensure!(
        problems.is_empty(),
        "{}\n{} to tidy; repeat it with: cargo xtask tidy",
        problems.join("\n"),
        problems.len()
    );
    Ok(notes)
}

#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    notes: Vec<String>,
}

/// The files of the repository, those not yet added included, relative to its root.
fn tracked() -> anyhow::Result<Vec<String>> {
    let list = Tool::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .read()
        .context("tidy looks at the files that git knows: run it in a checkout")?;
    let root = shell::root();
    // Deleted but not yet committed: listed, but no longer there.
    let there = |path: &&str| !path.is_empty() && root.join(path).is_file();
    Ok(list.split('\0').filter(there).map(str::to_owned).collect())
}
