//! Running cargo, and what it builds.

use std::path::PathBuf;

pub(crate) use devcluster::shell::{Tool, pause, root};

/// The profile for everything that carries load: see `[profile.e2e]` in Cargo.toml.
pub(crate) const PROFILE: &str = "e2e";

/// The folder where cargo puts the binaries of [`PROFILE`].
pub(crate) fn bin_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir));
    target.join(PROFILE)
}

/// Builds every binary of the workspace in [`PROFILE`]; cargo shows its progress.
///
/// Always the whole workspace: with a subset cargo would choose other features for shared dependencies and build them
/// once more.
pub(crate) fn build_binaries() -> Tool {
    cargo(&["build", "--workspace", "--bins", "--profile", PROFILE])
}

/// A cargo command in the root folder.
pub(crate) fn cargo(args: &[&str]) -> Tool {
    Tool::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(args)
}
