//! The first process of our own node. It runs in namespaces of its own for processes, mounts, network and IPC, so that
//! everything that the node starts, mounts or configures is gone with it: `/run`, `/var/lib` and `/var/log` are folders of the
//! cluster's state, its interfaces and iptables rules are invisible outside, and when this process is killed the kernel ends
//! all others.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, setsid, wait};

use super::{
    components::{self, Component, NODE_ADDRESS, SERVICES, WIRE_PREFIX},
    create,
    folders::Folders,
    packages, wait_for, write,
};
use crate::shell::{self, Tool};

pub(super) fn run(folders: &Folders) -> anyhow::Result<()> {
    // Not in the caller's session: closing its terminal must not end the cluster.
    setsid()?;
    anyhow::ensure!(
        std::process::id() == 1,
        "this is the first process of the node: `cargo xtask cluster up` starts it in namespaces of its own"
    );
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    mounts(folders)?;
    network()?;
    supervise()
}

fn mounts(folders: &Folders) -> anyhow::Result<()> {
    let mount = |args: &[&str], from: &Path, to: &Path| {
        create(to)?;
        Tool::new("mount").args(args).args([from, to]).run()
    };
    // Kubernetes wants mounts to travel between containers and the node; they must not travel further.
    Tool::new("mount").args(["--make-rprivate", "/"]).run()?;
    let state = folders.state();
    let run = state.join("run");
    mount(&["-t", "tmpfs", "-o", "mode=755"], Path::new("tmpfs"), &run)?;
    let own = run.join("sluice");
    mount(&["--bind"], &folders.build(), &own.join("bin"))?;
    mount(&["--bind"], &state, &own.join("state"))?;
    mount(&["--bind"], &packages::cni_plugins()?, &own.join("cni-bin"))?;
    create(&run.join("lock"))?;
    mount(&["--rbind"], &run, Path::new("/run"))?;
    // From here on by the new names: the old ones may be below /var/lib.
    for folder in ["lib", "log"] {
        mount(&["--bind"], &Path::new("/run/sluice/state").join(folder), &Path::new("/var").join(folder))?;
    }
    Tool::new("mount").args(["--make-rshared", "/"]).run()
}

/// The wire to the machine, which is laid from outside, and the settings that pods and Services need.
fn network() -> anyhow::Result<()> {
    let ip = |words: &str| Tool::new("ip").args(words.split_whitespace());
    wait_for("wire to the machine", Duration::from_secs(20), || {
        ip("link show eth0").capture().is_ok_and(|(there, _)| there)
    })?;
    ip("link set lo up").run()?;
    ip(&format!("address add {NODE_ADDRESS}/{WIRE_PREFIX} dev eth0")).run()?;
    ip("link set eth0 up").run()?;
    // The node's own processes reach Services too. The packet is rewritten before it leaves, but it needs a route first.
    ip(&format!("route add {SERVICES} dev eth0 src {NODE_ADDRESS}")).run()?;
    write(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")?;
    let bridged = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    write(bridged, "1")
        .context("Services between pods of one node need the kernel's br_netfilter: modprobe br_netfilter")
}

/// Starts the components and starts again what ends, for ever. What containers leave behind is reaped here too.
fn supervise() -> anyhow::Result<()> {
    let mut running: HashMap<Pid, Component> = HashMap::new();
    for component in components::all() {
        let ready = component.ready;
        running.insert(start(&component)?, component);
        if let Some(file) = ready {
            wait_for(file, Duration::from_secs(60), || Path::new(file).exists())?;
        }
    }
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if let Some(component) = running.remove(&pid) {
            println!("{} ended ({status:?}): started again", component.name);
            shell::pause(Duration::from_millis(500));
            running.insert(start(&component)?, component);
        }
    }
}

fn start(component: &Component) -> anyhow::Result<Pid> {
    let log = format!("/run/sluice/state/logs/{}.log", component.name);
    let log = OpenOptions::new().create(true).append(true).open(&log).with_context(|| log)?;
    let (program, args) = component.command.split_first().context("a component without a program")?;
    let child = Command::new(program)
        .args(args)
        .current_dir("/")
        // Not the caller's: a proxy that it names would get what the components say to each other.
        .env_clear()
        .envs([("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    Pid::from_raw(i32::try_from(child.id())?).context("a process without an id")
}
