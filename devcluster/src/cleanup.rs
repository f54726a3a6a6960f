//! Down: an end to every process, and to all that does not end with them.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

use super::{
    boot::{WIRE, wire_there},
    create,
    folders::Folders,
    own,
    own::Running,
    read, wait_for, write,
};
use crate::shell::Tool;

const CGROUPS: &str = "/sys/fs/cgroup";
/// The cgroup of all pods: `cgroupRoot` in kubelet.yaml.
const CGROUP: &str = "sluice";

/// Takes away what a node has, or has left. To do it once more is no error.
pub(super) fn run(folders: &Folders) -> anyhow::Result<()> {
    if let Some(running) = Running::recorded(folders) {
        end(&running)?;
    }
    // The kernel takes it away with the node's network, a little later: whoever comes first.
    wait_for("end of the wire", Duration::from_secs(20), || {
        let _ = Tool::new("ip").args(["link", "delete", WIRE]).capture();
        !wire_there()
    })?;
    remove_cgroups()?;
    Kept::restore(folders)?;
    remove(&folders.state())
}

/// The kernel ends every process of a node whose first process ends. Others may have entered its namespaces since.
fn end(running: &Running) -> anyhow::Result<()> {
    for pid in running.processes() {
        own::kill(pid);
    }
    wait_for("end of the node's processes", Duration::from_secs(30), || running.processes().is_empty())
}

/// The cgroup's folder in each hierarchy of the first version, or in the only one of the second.
fn cgroups() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(CGROUP)];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    // Links are second names of the same hierarchy.
    let hierarchies = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    hierarchies.map(|entry| entry.path().join(CGROUP)).collect()
}

pub(super) fn create_cgroups() -> anyhow::Result<()> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        // The second version: what children may limit is said by their parents.
        let controllers = "+cpuset +cpu +memory +pids";
        write(&root.join("cgroup.subtree_control"), controllers).context("cgroup controllers are not ours to give")?;
        create(&root.join(CGROUP))?;
        return write(&root.join(CGROUP).join("cgroup.subtree_control"), controllers);
    }
    cgroups()
        .iter()
        .filter(|folder| folder.parent().is_some_and(|parent| parent.join("tasks").exists()))
        .try_for_each(|folder| create(folder))
}

fn remove_cgroups() -> anyhow::Result<()> {
    for folder in cgroups() {
        let mut problem = String::new();
        wait_for("end of the node's cgroups", Duration::from_secs(20), || match remove_cgroup(&folder) {
            Ok(()) => true,
            Err(error) => {
                problem = format!("{}: {error}", folder.display());
                false
            }
        })
        .with_context(|| problem)?;
    }
    Ok(())
}

/// The innermost first: a cgroup with children stays. Its files go with it.
fn remove_cgroup(folder: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

fn remove(state: &Path) -> anyhow::Result<()> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let inside = format!("{}/", state.display());
    let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|point| point.starts_with(&inside));
    if let Some(point) = mounted {
        anyhow::bail!("{point} is still mounted: unmount it, then run this again");
    }
    match std::fs::remove_dir_all(state) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| state.display().to_string()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Settings of the whole machine that the kubelet writes, as they were before.
pub(super) struct Kept;

const SETTINGS: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

impl Kept {
    pub(super) fn now() -> BTreeMap<String, String> {
        let setting = |name: &&str| Some(((*name).to_owned(), read(&path(name)).ok()?.trim().to_owned()));
        SETTINGS.iter().filter_map(setting).collect()
    }

    pub(super) fn save(folders: &Folders) -> anyhow::Result<()> {
        write(&Kept::record(folders), &serde_json::to_string(&Kept::now())?)
    }

    fn restore(folders: &Folders) -> anyhow::Result<()> {
        let Ok(text) = read(&Kept::record(folders)) else { return Ok(()) };
        let kept: BTreeMap<String, String> = serde_json::from_str(&text).context("the settings as they were")?;
        for (name, value) in kept.iter().filter(|(name, _)| SETTINGS.contains(&name.as_str())) {
            write(&path(name), value)?;
        }
        Ok(())
    }

    fn record(folders: &Folders) -> PathBuf {
        folders.state().join("settings.json")
    }
}

fn path(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}
