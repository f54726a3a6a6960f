//! The start of a node: from an empty state folder to one that is Ready and resolves names.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    cleanup::{self, Kept},
    components::{
        ALL, DNS_ADDRESS, HOST_ADDRESS, KUBERNETES_ADDRESS, NODE_ADDRESS, NODE_NAME, PODS, SERVICES, WIRE_PREFIX,
    },
    create, folders,
    folders::Folders,
    images, own,
    own::Running,
    read, wait_for, write,
};
use crate::shell::Tool;

/// The machine's end of the wire to the node.
pub(super) const WIRE: &str = "sluice0";

/// The files of devcluster/node that the components read, with the addresses filled in.
const CONFIGS: [(&str, &str); 4] = [
    ("containerd.toml", "containerd.toml"),
    ("kubelet.yaml", "kubelet.yaml"),
    ("bridge.conflist", "cni/10-bridge.conflist"),
    ("coredns.yaml", "coredns.yaml"),
];

/// Starts the node in an empty state folder.
pub(super) fn boot(folders: &Folders) -> anyhow::Result<()> {
    addresses_free()?;
    let state = folders.state();
    for folder in ["cni", "lib", "log", "logs", "run"] {
        create(&state.join(folder))?;
    }
    for (from, to) in CONFIGS {
        let text = read(&folders::sources().join(from))?
            .replace("NODE_ADDRESS", NODE_ADDRESS)
            .replace("DNS_ADDRESS", DNS_ADDRESS)
            .replace("POD_RANGE", PODS)
            .replace("SNAPSHOTTER", own::snapshotter(folders)?);
        write(&state.join(to), &text)?;
    }
    let names = ["127.0.0.1", KUBERNETES_ADDRESS, "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    Tool::new(folders.program("pki")).args([&folders.pki()]).args([NODE_ADDRESS, NODE_NAME]).args(names).run()?;
    Kept::save(folders)?;
    // What overlays and bridges need, where they are modules; where they are built in there is nothing to load.
    let _ = Tool::new("modprobe").args(["--all", "overlay", "br_netfilter"]).capture();
    cleanup::create_cgroups()?;
    println!("starting the node");
    let running = start(folders)?;
    running.save(folders)?;
    lay_wire(&running)
}

/// Waits for every stage in turn. Each of them is quick when the cluster has been ready before.
pub(super) fn wait_until_ready(folders: &Folders) -> anyhow::Result<()> {
    let started = Instant::now();
    let stage = |what: &str, ready: &mut dyn FnMut() -> bool| {
        let alive = || Running::find(folders).is_some();
        wait_for(what, Duration::from_secs(120), || !alive() || ready())?;
        anyhow::ensure!(alive(), "the node ended");
        println!("  {what} after {:.1} s", started.elapsed().as_secs_f64());
        anyhow::Ok(())
    };
    let stages = || {
        stage("API server", &mut || kubectl(folders, &["get", "--raw", "/readyz"]).is_ok())?;
        let mut loaded = Ok(());
        stage("container runtime", &mut || {
            loaded = [images::PAUSE, images::COREDNS]
                .iter()
                .try_for_each(|image| own::import(folders, &folders.archive(image)).map(|_| ()));
            loaded.is_ok()
        })?;
        loaded?;
        let coredns = folders.state().join("coredns.yaml").display().to_string();
        kubectl(folders, &["apply", "--server-side", "--filename", &coredns])?;
        let node = ["get", "nodes", "--output", r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#];
        stage("node Ready", &mut || kubectl(folders, &node).is_ok_and(|text| text == "True"))?;
        let names =
            ["get", "deployment/coredns", "--namespace=kube-system", "--output=jsonpath={.status.readyReplicas}"];
        stage("name server", &mut || kubectl(folders, &names).is_ok_and(|text| text == "1"))?;
        // Every namespace gets its account a moment after it is there; pods are refused before.
        let account = ["get", "serviceaccount/default", "--namespace=default", "--output=name"];
        stage("service accounts", &mut || kubectl(folders, &account).is_ok())
    };
    stages().with_context(|| {
        format!("the cluster did not get ready; what its components say is in {}", folders.logs().display())
    })
}

/// Runs kubectl and gives what it wrote.
pub(super) fn kubectl(folders: &Folders, args: &[&str]) -> anyhow::Result<String> {
    let mut command = own::kubectl(folders);
    own::directly(&mut command);
    let output = command.args(args).env("KUBECONFIG", folders.kubeconfig()).stdin(Stdio::null()).output();
    let output = output.context("cannot run kubectl")?;
    let wrong = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`kubectl {}`: {}", args.join(" "), wrong.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts this very program as the node's first process; see `node`.
fn start(folders: &Folders) -> anyhow::Result<Running> {
    let log = File::create(folders.logs().join("node.log"))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut unshare = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--ipc", "--fork", "--mount-proc", "--"])
        .arg(program)
        .args(["cluster", "node", "--cache"])
        .arg(folders.cache())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot run unshare")?;
    let parent = unshare.id().to_string();
    let mut child = None;
    wait_for("first process of the node", Duration::from_secs(10), || {
        child = own::processes().find(|pid| own::stat(*pid, 1).is_some_and(|of| of == parent));
        child.is_some() || unshare.try_wait().is_ok_and(|ended| ended.is_some())
    })?;
    let log = || std::fs::read_to_string(folders.logs().join("node.log")).unwrap_or_default();
    let child = child.with_context(|| format!("namespaces of its own are not to be had here: {}", log()))?;
    Running::of(child)
}

/// A pair of interfaces: one end here, the other in the node; and the way to pods and Services through it.
fn lay_wire(running: &Running) -> anyhow::Result<()> {
    let ip = |words: String| Tool::new("ip").args(words.split_whitespace()).run();
    ip(format!("link add {WIRE} type veth peer name eth0 netns {}", running.pid))?;
    ip(format!("address add {HOST_ADDRESS}/{WIRE_PREFIX} dev {WIRE}"))?;
    ip(format!("link set {WIRE} up"))?;
    for range in [PODS, SERVICES] {
        ip(format!("route add {range} via {NODE_ADDRESS} dev {WIRE}"))?;
    }
    Ok(())
}

pub(super) fn wire_there() -> bool {
    Tool::new("ip").args(["link", "show", WIRE]).capture().is_ok_and(|(there, _)| there)
}

fn addresses_free() -> anyhow::Result<()> {
    let routes = Tool::new("ip").args(["-4", "route", "show", "root", ALL]).read()?;
    let addresses = Tool::new("ip").args(["-4", "-oneline", "address", "show", "to", ALL]).read()?;
    let taken = format!("{routes}{addresses}");
    anyhow::ensure!(taken.trim().is_empty(), "the cluster's addresses, {ALL}, are in use on this machine:\n{taken}");
    Ok(())
}
