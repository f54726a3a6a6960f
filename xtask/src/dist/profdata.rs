//! `llvm-profdata`, which turns what an instrumented program counted into what the compiler reads. It must be of the very
//! LLVM that rustc has: profiles of another version can't be read.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::shell::Tool;

/// The program, installed if it is not there: as a component of rustup's toolchain, or as Debian's package.
pub(super) fn program(rustc: &super::Rustc) -> anyhow::Result<PathBuf> {
    let major = rustc.llvm_major()?;
    let debian = format!("llvm-{major}");
    let places = [
        format!("{}/lib/rustlib/{}/bin/llvm-profdata", rustc.sysroot()?, rustc.host()?),
        format!("/usr/lib/{debian}/bin/llvm-profdata"),
    ];
    let find = || places.iter().map(PathBuf::from).find(|path| path.exists());
    if let Some(found) = find() {
        return Ok(found);
    }
    println!("installing llvm-profdata of LLVM {major}");
    let apt = |args: &[&str]| Tool::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args);
    let ways = [
        vec![Tool::new("rustup").args(["component", "add", "llvm-tools"])],
        vec![apt(&["update"]), apt(&["install", "--yes", "--no-install-recommends", &debian])],
    ];
    let mut said = String::new();
    for way in ways {
        for tool in way {
            let name = tool.to_string();
            match tool.capture() {
                Ok((true, _)) => {}
                Ok((false, output)) => said += &format!("{name}: {}\n", output.trim()),
                Err(error) => said += &format!("{error:#}\n"),
            }
        }
        if let Some(found) = find() {
            return Ok(found);
        }
    }
    None.with_context(|| {
        format!(
            "{said}no llvm-profdata of LLVM {major}, which this rustc needs: `rustup component add llvm-tools`, or \
             Debian's {debian}"
        )
    })
}
