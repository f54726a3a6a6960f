//! `cargo xtask crds`: the generated YAML of the custom resource definitions.

use crate::{chart, shell};

/// The crate's own test compares the committed files with what the types say; with `UPDATE=1` it writes them.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::cargo(&["test", "--quiet", "--package", "crds", "--test", "generated"]).env("UPDATE", "1").run()?;
    chart::write()?;
    println!("crds/yaml and charts/sluice are up to date with crds/src");
    Ok(())
}
