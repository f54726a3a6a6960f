//! The record of a proxy process for the next operator: `proxies/NAME.json`. It is there before the process is: an
//! operator that is killed at any moment leaves no process that the next one does not find.

use std::{
    io,
    path::{Path, PathBuf},
};

use planner::FleetRef;
use serde::{Deserialize, Serialize};

use super::{child::Child, slot::handover_socket};
use crate::state::file;

/// The record of one proxy process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) fleet: FleetRef,
    pub(super) slot: u32,
    /// `None`: about to be started.
    #[serde(flatten)]
    pub(super) process: Option<Process>,
    /// Where its admin port listens; empty until it has attached.
    pub(super) admin: String,
    pub(super) template_hash: u64,
    /// Whether the proxy was told to leave.
    pub(super) draining: bool,
}

/// A process for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Against pid reuse.
    pub(super) start_time: u64,
}

impl Record {
    pub(super) fn path(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.json"))
    }

    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        let path = Self::path(folder, &self.name);
        let text = serde_json::to_string(self).unwrap_or_default();
        file::write(&path, text.as_bytes())
            .map_err(|error| io::Error::new(error.kind(), format!("its record {}: {error}", path.display())))
    }

    /// The process, while it lives.
    pub(super) fn child(&self, folder: &Path) -> Option<Child> {
        match self.process {
            Some(Process { pid, start_time }) => Child::adopt(pid, start_time),
            // The operator ended before it knew; the process has the one path that no other was given.
            None => Child::find(handover_socket(folder, &self.name).as_os_str().as_encoded_bytes()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = FleetRef { namespace: "ns".into(), name: "f".into() };
        for process in [None, Some(Process { pid: 7, start_time: 9 })] {
            let (name, admin) = ("f-0".to_owned(), "127.0.0.1:1".to_owned());
            let fleet = fleet.clone();
            let record = Record { name, fleet, slot: 0, process, admin, template_hash: u64::MAX, draining: true };
            record.save(dir.path()).unwrap();
            let text = std::fs::read_to_string(Record::path(dir.path(), "f-0")).unwrap();
            assert_eq!(text.contains("\"pid\":7"), process.is_some(), "{text}");
            assert_eq!(Record::load_all(dir.path()), [record]);
        }
    }
}
