//! The folder of the built programs.

use std::path::PathBuf;

/// The path of a built program: in `SLUICE_BIN_DIR`, or next to the test that runs.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("SLUICE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            // target/PROFILE/deps/system-HASH, or target/PROFILE/sluice-...
            let mut folder = std::env::current_exe()?;
            folder.pop();
            if folder.ends_with("deps") {
                folder.pop();
            }
            folder
        }
    };
    let path = folder.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is not there: build the programs and run the tests with `cargo xtask e2e`",
        path.display()
    );
    Ok(path)
}

/// Builds the Go program of `package` that the module e2e/`module` pins; go itself sees whether there is anything to do.
pub fn go_program(module: &str, package: &str) -> anyhow::Result<PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let mut built = std::env::current_exe()?;
    built.set_file_name(module);
    let mut go = std::process::Command::new("go");
    go.args(["build", "-o"]).arg(&built).arg(package).current_dir(&folder).env("CGO_ENABLED", "0");
    let output =
        go.output().map_err(|error| anyhow::anyhow!("{module} is built with Go 1.26 or newer: go: {error}"))?;
    anyhow::ensure!(output.status.success(), "{package}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(built)
}
