//! The processes of a pod, as this machine has them if it is the pod's node.

use std::fs;

/// The processes with a program's name in the pod with this uid, in the order of their ids within it: the first process of a
/// container comes first. None where the node is another machine.
pub fn processes(uid: &str, program: &str) -> Vec<u32> {
    let (with, without) = (format!("pod{uid}"), format!("pod{}", uid.replace('-', "_")));
    let inner = |pid: u32| {
        let read = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let cgroup = read("cgroup");
        if !(cgroup.contains(&with) || cgroup.contains(&without)) || read("comm").trim_end() != program {
            return None;
        }
        // Its id in each namespace, the innermost last.
        let status = read("status");
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        ids.split_ascii_whitespace().next_back()?.parse::<u32>().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<(u32, u32)> = pids.filter_map(|pid| Some((inner(pid)?, pid))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}
