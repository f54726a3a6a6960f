//! The holders of hostnames, where the age of routes does not tell them: as text, in a file of the state folder or a
//! ConfigMap.

use std::path::PathBuf;

use planner::{Holds, holds::Kept};

use super::file;

/// As it is written; empty: nothing is to be known.
pub fn text(holds: &Holds) -> String {
    let kept = holds.kept();
    if kept.is_empty() { String::new() } else { serde_json::to_string(&kept).unwrap_or_default() }
}

/// Reads it. What can't be read is as if no operator had been before: the older route has a hostname.
pub fn parse(text: &str) -> Vec<Kept> {
    if text.is_empty() {
        return vec![];
    }
    let parsed = serde_json::from_str(text);
    parsed.unwrap_or_else(|error| {
        tracing::warn!(%error, "who had which hostname is not understood: the older routes have them");
        vec![]
    })
}

/// Keeps a file equal to it.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    written: String,
}

impl File {
    /// The holders that an earlier operator left.
    pub fn load(path: PathBuf) -> (Self, Vec<Kept>) {
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let kept = parse(&written);
        (Self { path, written }, kept)
    }

    /// Writes the file when it would differ.
    pub fn save(&mut self, holds: &Holds) {
        let text = text(holds);
        if text == self.written {
            return;
        }
        match file::write(&self.path, text.as_bytes()) {
            Ok(()) => self.written = text,
            Err(error) => tracing::error!(path = %self.path.display(), %error, "can't write who has which hostname"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hostnames.json");
        std::fs::write(&path, "[{").unwrap();
        let (mut file, kept) = File::load(path.clone());
        assert!(kept.is_empty());
        file.save(&Holds::default());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        assert!(File::load(path).1.is_empty());
    }
}
