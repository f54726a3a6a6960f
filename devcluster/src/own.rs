//! Our own node, from outside.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{boot, build, cleanup, components::ALL, folders::Folders, images, packages, read, write};

/// Installs what must be there before anything else, such as a look at the machine.
pub(super) fn prepare() -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "a node of our own needs root: run this as root, set KUBECONFIG to a cluster you have, or start Docker and install kind"
    );
    packages::install()
}

pub(super) fn up(folders: &Folders) -> anyhow::Result<()> {
    let started = Instant::now();
    prepare()?;
    build::all(folders)?;
    for image in [images::PAUSE, images::COREDNS, images::HELLO] {
        images::build(folders, image)?;
    }
    // Without its wire it is one whose start was interrupted.
    if Running::find(folders).is_none() || !boot::wire_there() {
        if folders.state().exists() {
            println!("what an earlier cluster left is cleared away");
        }
        cleanup::run(folders)?;
        boot::boot(folders)?;
    }
    boot::wait_until_ready(folders)?;
    println!("cluster ready after {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

pub(super) fn down(folders: &Folders) -> anyhow::Result<()> {
    let started = Instant::now();
    let there = folders.state().exists();
    cleanup::run(folders)?;
    if there {
        println!("cluster gone after {:.1} s", started.elapsed().as_secs_f64());
    } else {
        println!("there is no cluster");
    }
    Ok(())
}

/// Gives the images of a docker archive to the container runtime, and says which.
pub(super) fn load_image(folders: &Folders, archive: &Path) -> anyhow::Result<()> {
    import(folders, archive)?.lines().for_each(|line| println!("{line}"));
    Ok(())
}

/// Gives the images of a docker archive to the container runtime.
pub(super) fn import(folders: &Folders, archive: &Path) -> anyhow::Result<String> {
    let running = Running::find(folders).context("there is no cluster: run `cargo xtask cluster up`")?;
    let file = File::open(archive).with_context(|| archive.display().to_string())?;
    let import = ["ctr", "--namespace", "k8s.io", "images", "import", "--snapshotter", snapshotter(folders)?, "-"];
    let output = running
        .inside(&["--mount"])
        .args(import)
        .stdin(file)
        .stderr(Stdio::piped())
        .output()
        .context("cannot run nsenter")?;
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{}: {told}{wrong}", archive.display());
    Ok(told.into_owned())
}

/// The way in which containers share the files of their images. A machine that is a container itself often has an overlay
/// under the state folder, and the kernel puts none on top of another.
pub(super) fn snapshotter(folders: &Folders) -> anyhow::Result<&'static str> {
    const OVERLAY: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(folders.state())?.f_type;
    Ok(if kind == OVERLAY { "native" } else { "overlayfs" })
}

/// Our kubectl, with nothing said about the cluster yet.
pub(super) fn kubectl(folders: &Folders) -> Command {
    let mut command = Command::new(folders.program(build::KUBERNETES.name));
    command.arg("kubectl");
    command
}

/// Tells a client of our cluster that the way there is never through a proxy.
pub(super) fn directly(command: &mut Command) {
    command.envs(direct());
}

/// The variables that say so in an environment.
pub(super) fn direct() -> [(&'static str, String); 2] {
    ["NO_PROXY", "no_proxy"].map(|name| (name, format!("{ALL},{}", std::env::var(name).unwrap_or_default())))
}

/// The node's first process.
pub(super) struct Running {
    pub(super) pid: u32,
    /// The time of its start, by the kernel's clock: with the id it names one process for ever.
    started: String,
    /// The process's namespaces, as the kernel writes them.
    pub(super) namespaces: Vec<String>,
}

const NAMESPACES: [&str; 3] = ["pid", "mnt", "net"];

impl Running {
    pub(super) fn of(pid: u32) -> anyhow::Result<Running> {
        let started = start_time(pid).with_context(|| format!("process {pid} has ended"))?;
        let namespaces = NAMESPACES.iter().map(|kind| namespace(pid, kind).unwrap_or_default()).collect();
        Ok(Running { pid, started, namespaces })
    }

    /// The node's first process, if it runs.
    pub(super) fn find(folders: &Folders) -> Option<Running> {
        Running::recorded(folders).filter(|running| start_time(running.pid).is_some_and(|time| time == running.started))
    }

    /// The first process of the last node, which may have ended.
    pub(super) fn recorded(folders: &Folders) -> Option<Running> {
        let value: Value = serde_json::from_str(&read(&Running::record(folders)).ok()?).ok()?;
        let namespaces = value["namespaces"].as_array()?.iter().filter_map(|name| Some(name.as_str()?.to_owned()));
        Some(Running {
            pid: value["pid"].as_u64()?.try_into().ok()?,
            started: value["started"].as_str()?.to_owned(),
            namespaces: namespaces.collect(),
        })
    }

    pub(super) fn save(&self, folders: &Folders) -> anyhow::Result<()> {
        let value = json!({ "pid": self.pid, "started": self.started, "namespaces": self.namespaces });
        write(&Running::record(folders), &value.to_string())
    }

    fn record(folders: &Folders) -> std::path::PathBuf {
        folders.state().join("node.json")
    }

    /// A command in some of the node's namespaces; its program is still to be named.
    pub(super) fn inside(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string()).args(namespaces).arg("--");
        command
    }

    /// The processes in any of its namespaces.
    pub(super) fn processes(&self) -> Vec<u32> {
        let belongs = |pid: &u32| {
            let mut own = self.namespaces.iter().zip(NAMESPACES).filter(|(name, _)| !name.is_empty());
            own.any(|(name, kind)| namespace(*pid, kind).is_some_and(|other| other == *name))
        };
        processes().filter(belongs).collect()
    }
}

/// Ends a process of the node at once; one that has just ended is no error.
pub(super) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// All processes of the machine.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Field `index` of a process's stat, counted after its name (which may contain anything); none if it has ended.
pub(super) fn stat(pid: u32, index: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split_whitespace();
    let state = fields.clone().next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(index).map(str::to_owned)).flatten()
}

fn start_time(pid: u32) -> Option<String> {
    stat(pid, 19)
}

fn namespace(pid: u32, kind: &str) -> Option<String> {
    Some(std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.to_str()?.to_owned())
}
