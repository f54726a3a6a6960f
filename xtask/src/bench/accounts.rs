//! CPU time and memory of a process and all that it started, as the kernel counts them.

use std::{collections::BTreeMap, fs, ops::Sub};

/// CPU time since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cpu {
    /// The CPU time in nanoseconds, as the scheduler counts (`/proc/PID/task/*/schedstat`).
    pub(super) total: u64,
    /// The time in user code, in clock ticks: only good for the share of each.
    pub(super) user: u64,
    pub(super) sys: u64,
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, other: Cpu) -> Cpu {
        let Cpu { total, user, sys } = other;
        Cpu { total: self.total - total, user: self.user.saturating_sub(user), sys: self.sys.saturating_sub(sys) }
    }
}

/// The CPU time of these processes.
pub(super) fn cpu(pids: &[u32]) -> Cpu {
    let mut sum = Cpu::default();
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum.total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ticks = |nth: usize| fields(&stat).nth(nth).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        // Fields 14 and 15 of proc(5); `fields` begins with the third.
        sum.user += ticks(11);
        sum.sys += ticks(12);
    }
    sum
}

/// Proportional set size in bytes: pages that are shared count for their share.
pub(super) fn memory(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    pids.iter().map(of).sum()
}

/// A process and all that it started, with what each is called.
pub(super) fn tree(root: u32) -> Vec<(u32, String)> {
    let mut children: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
    let mut found = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let name = stat.split_once('(').and_then(|(_, rest)| Some(rest.rsplit_once(')')?.0.to_owned()));
        let (Some(name), Some(parent)) = (name, fields(&stat).nth(1).and_then(|text| text.parse().ok())) else {
            continue;
        };
        if pid == root {
            found.push((pid, name));
        } else {
            children.entry(parent).or_default().push((pid, name));
        }
    }
    let mut next = 0;
    while let Some((pid, _)) = found.get(next) {
        let more = children.remove(pid).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_accounts() {
        let me = std::process::id();
        assert_eq!(tree(me)[0].0, me);
        let before = cpu(&[me]);
        let mut x = 1u64;
        for i in 0..20_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        assert!((cpu(&[me]) - before).total > 1_000_000, "{x}");
        assert!(memory(&[me]) > 100 << 10);
    }
}
