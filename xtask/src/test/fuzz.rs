//! The fuzz targets of `proxy/fuzz`, each for a bounded time. The committed corpus alone is replayed by the ordinary tests.

use super::{Outcome, subcommand};
use crate::shell::{self, Tool};

const SECONDS: u32 = 60;

pub(super) fn run() -> anyhow::Result<Outcome> {
    let program = match subcommand("cargo-fuzz", true)? {
        Ok(program) => program,
        Err(skipped) => return Ok(skipped),
    };
    let folder = shell::root().join("proxy/fuzz");
    // The versions of the product. What the targets need beyond them is added.
    std::fs::copy(shell::root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let mut targets: Vec<String> = std::fs::read_dir(folder.join("corpus"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    targets.sort();
    for target in &targets {
        // What is new goes to the first folder; what is committed is only read.
        let found = format!("target/fuzz/corpus/{target}");
        std::fs::create_dir_all(shell::root().join(&found))?;
        let tool = Tool::new(&program)
            .args(["fuzz", "run", "--fuzz-dir", "proxy/fuzz", "--target-dir", "target/fuzz", target, &found])
            .args([format!("proxy/fuzz/corpus/{target}"), "--".to_owned()])
            .args([format!("-max_total_time={SECONDS}"), "-max_len=4096".to_owned(), "-timeout=10".to_owned()])
            // The sanitizers' flags, with the compiler that the product is built with.
            .env("RUSTC_BOOTSTRAP", "1");
        let repeat = tool.to_string();
        let (passed, output) = tool.capture()?;
        let end: Vec<&str> = output.lines().rev().take(60).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        anyhow::ensure!(passed, "{}\nrepeat it with: {repeat}", end.join("\n"));
    }
    Ok(Outcome::Done(format!("{SECONDS} s each: {}", targets.join(", "))))
}
