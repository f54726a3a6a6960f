//! How much memory the process may have, and how much it uses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::param::page_size;

/// Value that is no limit: a control group of version 1 without one says how many bytes there are pages for.
const UNLIMITED_BYTES: u64 = 1 << 60;
/// Part of the machine's memory that a process without a limit is content with: there are others on it.
const MACHINE_DIVISOR: u64 = 4;
/// Limit when none can be found.
const FALLBACK_BYTES: u64 = 256 << 20;

/// The memory that the process may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    bytes: u64,
    of: Of,
}

/// The owner of a limit: what counts against it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    /// The process alone.
    Process,
    /// A control group of version 2, in this folder: all of its processes, and what the kernel holds for them.
    Group2(PathBuf),
    /// A control group of version 1.
    Group1(PathBuf),
}

impl Limit {
    /// The lowest of what was told, and what control groups allow; else a part of the machine's.
    pub fn find(told: Option<u64>) -> Self {
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::lowest(told, groups(&group, Path::new("/sys/fs/cgroup")), machine_bytes(&machine))
    }

    /// So many bytes, for the process alone.
    pub fn of_process(bytes: u64) -> Self {
        Self { bytes, of: Of::Process }
    }

    fn lowest(told: Option<u64>, groups: Vec<Self>, machine: Option<u64>) -> Self {
        let found = told.map(Self::of_process).into_iter().chain(groups);
        // A limit above what the machine has is none.
        let found = found.filter(|limit| machine.is_none_or(|machine| limit.bytes <= machine));
        found
            .min_by_key(|limit| limit.bytes)
            .unwrap_or_else(|| Self::of_process(machine.map_or(FALLBACK_BYTES, |bytes| bytes / MACHINE_DIVISOR)))
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that count against it now; 0 when that can't be found out.
    pub(super) fn used(&self) -> u64 {
        match &self.of {
            Of::Process => resident(),
            Of::Group2(folder) => group_uses(folder, "memory.current", "inactive_file"),
            Of::Group1(folder) => group_uses(folder, "memory.usage_in_bytes", "total_inactive_file"),
        }
        .unwrap_or(0)
    }
}

/// The control groups with a limit that this process is in, by what `/proc/self/cgroup` says.
fn groups(text: &str, root: &Path) -> Vec<Limit> {
    let mut found = vec![];
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // Within a container the path may be the one outside: then the group is what is mounted.
        let own = top.join(path.trim_start_matches('/'));
        let own = if own.is_dir() { own } else { top.clone() };
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&top)) {
            let Some(bytes) = number(&folder.join(file)).filter(|bytes| *bytes < UNLIMITED_BYTES) else { continue };
            let of = if controllers.is_empty() { Of::Group2 } else { Of::Group1 };
            found.push(Limit { bytes, of: of(folder.to_owned()) });
        }
    }
    found
}

/// The memory that a group uses, but for what the kernel can do without: files that it has read and nobody reads now.
fn group_uses(folder: &Path, file: &str, reclaimable: &str) -> Option<u64> {
    let used = number(&folder.join(file))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix(reclaimable)?.trim().parse().ok());
    Some(used.saturating_sub(files.unwrap_or(0)))
}

fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * page_size() as u64)
}

/// `max` is none.
fn number(path: &Path) -> Option<u64> {
    let text: io::Result<String> = fs::read_to_string(path);
    text.ok()?.trim().parse().ok()
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_lowest_limit_holds_and_what_counts_against_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(
            root,
            &[
                ("memory.max", "max\n"),
                ("pod/memory.max", "536870912\n"),
                ("pod/memory.current", "300\n"),
                ("pod/memory.stat", "anon 100\ninactive_file 100\nactive_file 1\n"),
                ("pod/proxy/memory.max", "max\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/a/memory.limit_in_bytes", "1073741824\n"),
                ("memory/a/memory.usage_in_bytes", "500\n"),
                ("memory/a/memory.stat", "inactive_file 3\ntotal_inactive_file 400\n"),
            ],
        );
        let second = groups("0::/pod/proxy\n", root);
        assert_eq!(second, [Limit { bytes: 512 << 20, of: Of::Group2(root.join("pod")) }]);
        assert_eq!(second[0].used(), 200);
        let first = groups("9:name=systemd:/\n4:cpu,memory:/a\n0::/\n", root);
        assert_eq!(first, [Limit { bytes: 1 << 30, of: Of::Group1(root.join("memory/a")) }]);
        assert_eq!(first[0].used(), 100);
        // The path as it is outside of the container.
        assert_eq!(groups("0::/kubepods/pod1\n", &root.join("pod"))[0].bytes, 512 << 20);
        assert_eq!(groups("no such line\n", root), []);

        let lowest = |told, groups: &[Limit], machine| Limit::lowest(told, groups.to_vec(), machine).bytes;
        assert_eq!(lowest(Some(100 << 20), &second, Some(8 << 30)), 100 << 20);
        assert_eq!(lowest(Some(1 << 30), &second, Some(8 << 30)), 512 << 20);
        assert_eq!(lowest(None, &second, Some(256 << 20)), 64 << 20);
        assert_eq!(lowest(None, &[], Some(8 << 30)), 2 << 30);
        assert_eq!(lowest(None, &[], None), FALLBACK_BYTES);
    }

    #[test]
    fn this_process_has_a_limit_and_uses_some_of_it() {
        let limit = Limit::find(Some(512 << 20));
        assert!(limit.bytes() <= 512 << 20 && limit.bytes() > 1 << 20);
        assert!(Limit::of_process(1 << 30).used() > 1 << 20);
        assert_eq!(machine_bytes("MemTotal:       24685044 kB\nMemFree: 1 kB\n"), Some(24_685_044 << 10));
    }
}
