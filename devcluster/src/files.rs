//! Files that are made, and made again only when what they are made from has changed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Reads a text; an error names the file.
pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Writes a text; an error names the file.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Creates a folder, and those above it, unless they are there; an error names it.
pub fn create(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Runs `make` unless the file is there and was made from the same inputs, which are kept beside it. Gives whether it ran.
pub fn unless_built(file: &Path, inputs: &str, make: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<bool> {
    let stamp = stamp(file);
    if file.exists() && read(&stamp).is_ok_and(|text| text == inputs) {
        return Ok(false);
    }
    create(file.parent().unwrap_or(file))?;
    make()?;
    write(&stamp, inputs)?;
    Ok(true)
}

/// The file that keeps the inputs of a built file.
pub fn stamp(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".inputs");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_made_again_only_from_other_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub").join("made");
        let make = |inputs: &str| unless_built(&file, inputs, || write(&file, inputs)).unwrap();
        assert!(make("a"));
        assert!(!make("a"));
        assert!(make("b"));
        assert_eq!(read(&file).unwrap(), "b");
        std::fs::remove_file(&file).unwrap();
        assert!(make("b"), "the file is gone, its stamp is not");
    }

    #[test]
    fn what_failed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made");
        assert!(unless_built(&file, "a", || anyhow::bail!("no")).is_err());
        assert!(unless_built(&file, "a", || write(&file, "")).unwrap());
    }
}
