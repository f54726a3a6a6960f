//! Where the built programs are.

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
