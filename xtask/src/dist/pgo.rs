//! The proxy with profile-guided optimisation: an instrumented one serves loads on this machine's loopback
//! ([`super::training`]), and what it counted tells the compiler which paths are hot. That takes two builds of the proxy and
//! half a minute, and gives a program that spends about a third less outside the kernel.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context as _;
use devcluster::files;

use super::{Rustc, profdata, training};
use crate::shell::{self, Tool};

/// The program, built unless nothing has changed since it was.
pub(super) fn proxy() -> anyhow::Result<PathBuf> {
    let rustc = Rustc::read()?;
    let folder = super::target().join("pgo");
    let program = folder.join("sluice-proxy");
    files::unless_built(&program, &inputs(&rustc)?, || build(&rustc, &folder, &program))?;
    Ok(program)
}

fn build(rustc: &Rustc, folder: &Path, program: &Path) -> anyhow::Result<()> {
    let profdata = profdata::program(rustc)?;
    let (raw, profile) = (folder.join("raw"), folder.join("proxy.profdata"));
    println!("building what drives load, and the proxy that counts");
    shell::cargo(&["build", "--locked", "--workspace", "--bins", "--release"]).run()?;
    let host = rustc.host()?;
    let counting = compile(&folder.join("train"), host, &format!("-Cprofile-generate={}", raw.display()))?;
    // What an earlier program counted says nothing of this one.
    remove(&raw)?;
    training::run(&super::target().join("release"), &counting)?;
    let merge = Tool::new(&profdata).args(["merge".as_ref(), "-o".as_ref(), profile.as_os_str(), raw.as_os_str()]);
    merge.run()?;
    println!("building the proxy with what was counted");
    // Cargo does not look into profiles: what was built with an earlier one would stay.
    remove(&folder.join("use"))?;
    let built = compile(&folder.join("use"), host, &format!("-Cprofile-use={}", profile.display()))?;
    std::fs::copy(&built, program).with_context(|| built.display().to_string())?;
    Ok(())
}

/// The inputs that decide what is built: the compiler, its flags, and the sources of the proxy and of how it is trained.
fn inputs(rustc: &Rustc) -> anyhow::Result<String> {
    let mut text = rustc.said.clone();
    // They may say for which processor: what was built so must not be taken for a release's.
    let mut told: Vec<_> = std::env::vars().filter(|(name, _)| is_of_cargo(name)).collect();
    told.sort();
    told.iter().try_for_each(|(name, value)| writeln!(text, "{name}={value}"))?;
    let mut next: Vec<PathBuf> = [
        "Cargo.toml",
        "Cargo.lock",
        "proxy/Cargo.toml",
        "proxy/src",
        "snapshot",
        "transport",
        "limits",
        "jwt",
        "allocator",
        "xtask/src/dist",
    ]
    .map(|name| shell::root().join(name))
    .to_vec();
    while let Some(path) = next.pop() {
        let metadata = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            let mut entries: Vec<PathBuf> =
                std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
            entries.sort();
            next.extend(entries);
            continue;
        }
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
        writeln!(text, "{} {} {modified}", path.display(), metadata.len())?;
    }
    Ok(text)
}

/// Whether a variable tells cargo or rustc what to build.
fn is_of_cargo(name: &str) -> bool {
    ["RUSTC", "RUSTFLAGS", "CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_ENCODED_", "CARGO_TARGET_"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| folder.display().to_string()),
        _ => Ok(()),
    }
}

/// Compiles the proxy into a folder of its own, so that no other build is compiled anew for its flags.
fn compile(folder: &Path, host: &str, flags: &str) -> anyhow::Result<PathBuf> {
    // Encoded, they may hold paths with spaces.
    let others = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = others.split_whitespace().chain([flags]).collect::<Vec<_>>().join("\x1f");
    // With a target named, what runs while compiling is compiled without the flags.
    let build = ["build", "--locked", "--release", "--package", "proxy", "--bin", "sluice-proxy", "--target", host];
    let build = shell::cargo(&build).env("CARGO_ENCODED_RUSTFLAGS", &flags);
    build.env("CARGO_TARGET_DIR", &folder.display().to_string()).run()?;
    Ok(folder.join(host).join("release/sluice-proxy"))
}
