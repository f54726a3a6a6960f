//! `cargo xtask pgo`: the proxy with profile-guided optimisation, as releases should be built.
//!
//! An instrumented proxy serves the loads of `cargo xtask bench` on this machine's loopback; what it counted tells the
//! compiler which paths are hot. It takes two builds of the proxy and some 40 seconds, and gives a program that spends
//! about a third less outside the kernel.
//!
//! `llvm-profdata` of rustc's own LLVM version is needed: `rustup component add llvm-tools`, or Debian's `llvm-NN`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{
    bench,
    cluster::Folders,
    files,
    shell::{self, Tool},
};

pub(crate) fn run() -> anyhow::Result<()> {
    // Whoever measures needs the same cores.
    let _alone = Folders::of_user()?.lock("bench")?;
    let proxy = build()?;
    println!("{}", proxy.display());
    Ok(())
}

/// Where the program is once it is built: alone, so that the folder can be what an image is built from.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join("out/sluice-proxy"))
}

/// Builds it.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let rustc = Tool::new("rustc").args(["-vV"]).read()?;
    let profdata = profdata(&rustc)?;
    let folder = folder()?;
    let (raw, profile) = (folder.join("raw"), folder.join("proxy.profdata"));
    println!("building what drives load, and the proxy that counts");
    shell::cargo(&["build", "--workspace", "--bins", "--release"]).run()?;
    let host = line(&rustc, "host: ")?;
    let counting = compile(&folder.join("train"), host, &format!("-Cprofile-generate={}", raw.display()))?;
    // What an earlier program counted says nothing of this one.
    remove(&raw)?;
    bench::train(&counting)?;
    let merge = Tool::new(&profdata).args(["merge".as_ref(), "-o".as_ref(), profile.as_os_str(), raw.as_os_str()]);
    merge.run()?;
    println!("building the proxy with what was counted");
    // Cargo does not look into profiles: what was built with an earlier one would stay.
    remove(&folder.join("use"))?;
    let built = compile(&folder.join("use"), host, &format!("-Cprofile-use={}", profile.display()))?;
    let program = program()?;
    files::create(&folder.join("out"))?;
    std::fs::copy(&built, &program).with_context(|| built.display().to_string())?;
    Ok(program)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| folder.display().to_string()),
        _ => Ok(()),
    }
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(shell::bin_dir().parent().context("no target folder")?.join("pgo"))
}

/// Compiles the proxy into a folder of its own, so that no other build is compiled anew for its flags.
fn compile(folder: &Path, host: &str, flags: &str) -> anyhow::Result<PathBuf> {
    // Encoded, they may hold paths with spaces.
    let others = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = others.split_whitespace().chain([flags]).collect::<Vec<_>>().join("\x1f");
    // With a target named, what runs while compiling is compiled without the flags.
    let build = shell::cargo(&["build", "--release", "--package", "proxy", "--bin", "sluice-proxy", "--target", host]);
    build.env("CARGO_ENCODED_RUSTFLAGS", &flags).env("CARGO_TARGET_DIR", &folder.display().to_string()).run()?;
    Ok(folder.join(host).join("release/sluice-proxy"))
}

/// The tool that fits rustc: profiles of another version can't be read.
fn profdata(rustc: &str) -> anyhow::Result<PathBuf> {
    let version = line(rustc, "LLVM version: ")?;
    let major = version.split('.').next().unwrap_or_default();
    let sysroot = Tool::new("rustc").args(["--print", "sysroot"]).read()?;
    let component = format!("{}/lib/rustlib/{}/bin/llvm-profdata", sysroot.trim(), line(rustc, "host: ")?);
    let debian = format!("/usr/lib/llvm-{major}/bin/llvm-profdata");
    let found = [component, debian].map(PathBuf::from).into_iter().find(|path| path.exists());
    found.with_context(|| {
        format!(
            "no llvm-profdata of LLVM {major}, which this rustc needs: `rustup component add llvm-tools`, or \
             Debian's llvm-{major}"
        )
    })
}

fn line<'a>(rustc: &'a str, name: &str) -> anyhow::Result<&'a str> {
    rustc.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("`rustc -vV` names no {name}"))
}
