//! What a new operator needs to know of a proxy process: `proxies/NAME.json`.

use std::path::{Path, PathBuf};

use planner::FleetRef;
use serde::{Deserialize, Serialize};

use crate::state::file;

/// One proxy process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) fleet: FleetRef,
    pub(super) slot: u32,
    pub(super) pid: u32,
    /// Against pid reuse.
    pub(super) start_time: u64,
    /// Where its admin port listens; empty until it has attached.
    pub(super) admin: String,
    pub(super) template_hash: u64,
    /// Told to leave.
    pub(super) draining: bool,
}

impl Record {
    pub(super) fn path(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.json"))
    }

    pub(super) fn save(&self, folder: &Path) {
        let path = Self::path(folder, &self.name);
        let text = serde_json::to_string(self).unwrap_or_default();
        if let Err(error) = file::write(&path, text.as_bytes()) {
            // A later operator would not know this process, and find its ports busy.
            tracing::error!(path = %path.display(), %error, "can't record a proxy");
        }
    }

    pub(super) fn remove(folder: &Path, name: &str) {
        let path = Self::path(folder, name);
        if let Err(error) = file::remove(&path) {
            tracing::error!(path = %path.display(), %error, "can't remove the record of a proxy");
        }
    }

    /// Every record of the folder; one that can't be read is no process that we can name.
    pub(super) fn load_all(folder: &Path) -> Vec<Record> {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let json = files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        json.filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok()).collect()
    }
}
