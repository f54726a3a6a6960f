//! `cargo xtask cluster check`: up, down, up, down. Each time everything that tests need of a cluster is tried, and after
//! each end the machine is as it was before.
//!
//! [`Machine`] is what is compared; a session that brings a cluster up compares it too.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    boot::kubectl,
    cleanup::Kept,
    components::{DNS_ADDRESS, ZONE},
    folders::{self, Folders},
    images, own,
    own::Running,
    read, wait_for,
};
use crate::shell::Tool;

/// The time that `up` may take when everything has been built.
const QUICK: Duration = Duration::from_secs(30);
const SPACE: &str = "--namespace=sluice-check";

pub(super) fn run(folders: &Folders) -> anyhow::Result<()> {
    anyhow::ensure!(!folders.state().exists(), "there is a cluster: take it down first (`cargo xtask cluster down`)");
    own::prepare()?;
    for turn in ["first", "second"] {
        println!("== the {turn} time");
        let before = Machine::now()?;
        let started = Instant::now();
        turn_up(folders).and_then(|()| exercise(folders))?;
        println!("tried in {:.1} s", started.elapsed().as_secs_f64());
        if turn == "second" {
            recover(folders)?;
        }
        own::down(folders)?;
        own::down(folders)?;
        before.expect_same()?;
    }
    println!("nothing is left: processes, mounts, interfaces, routes, iptables rules, cgroups, settings are as before");
    Ok(())
}

fn turn_up(folders: &Folders) -> anyhow::Result<()> {
    let built = folders.program(super::build::KUBERNETES.name).exists();
    let started = Instant::now();
    own::up(folders)?;
    let took = started.elapsed();
    anyhow::ensure!(
        !built || took < QUICK,
        "up took {:.1} s with everything built; it may take {QUICK:?}",
        took.as_secs_f64()
    );
    let started = Instant::now();
    own::up(folders)?;
    let took = started.elapsed();
    anyhow::ensure!(took < QUICK, "up took {:.1} s with the cluster there", took.as_secs_f64());
    Ok(())
}

/// Pods, a Deployment, traffic to pods and by Service, names, logs, exec, an image that was loaded.
fn exercise(folders: &Folders) -> anyhow::Result<()> {
    own::load_image(folders, &folders.archive(images::HELLO))?;
    let manifest = folders::sources().join("hello.yaml").display().to_string();
    kubectl(folders, &["apply", "--server-side", "--filename", &manifest])?;
    kubectl(folders, &["rollout", "status", "deployment/hello", SPACE, "--timeout=90s"])?;
    kubectl(folders, &["wait", "pod/client", "--for=condition=Ready", SPACE, "--timeout=60s"])?;
    let pods = words(&kubectl(
        folders,
        &["get", "pods", "--selector=app=hello", SPACE, "--output=jsonpath={.items[*].metadata.name}"],
    )?);
    anyhow::ensure!(pods.len() == 2, "two pods of the Deployment were expected, there are {pods:?}");
    println!("Deployment: {pods:?} run");

    let client = |args: &[&str]| {
        let exec = ["exec", "client", SPACE, "--", "/program"];
        kubectl(folders, &[&exec[..], args].concat())
    };
    for pod in &pods {
        let address = kubectl(folders, &["get", "pod", pod, SPACE, "--output=jsonpath={.status.podIP}"])?;
        let answer = client(&["ask", &format!("http://{address}:8080/")])?;
        anyhow::ensure!(answer.trim() == format!("hello from {pod}"), "{address} is {pod}, and answered {answer:?}");
    }
    println!("pod to pod: both answer");

    let service = kubectl(folders, &["get", "service/hello", SPACE, "--output=jsonpath={.spec.clusterIP}"])?;
    for (what, host) in
        [("ClusterIP", service.as_str()), ("name", "hello"), ("full name", "hello.sluice-check.svc.cluster.local")]
    {
        let mut seen = BTreeSet::new();
        // New rules reach the kernel a moment after the pods are ready.
        wait_for(&format!("answers of both pods by {what}"), Duration::from_secs(30), || {
            seen.extend(client(&["ask", &format!("http://{host}/")]));
            seen.len() >= pods.len()
        })?;
        let expected: BTreeSet<_> = pods.iter().map(|pod| format!("hello from {pod}\n")).collect();
        anyhow::ensure!(seen == expected, "by {what}: {seen:?} answered, {expected:?} was expected");
        println!("Service by {what}: both pods answer");
    }
    let resolved = client(&["resolve", "hello.sluice-check.svc.cluster.local"])?;
    anyhow::ensure!(resolved.trim() == service, "hello resolved to {resolved:?}, not {service}");
    let outside = client(&["resolve", "name.invalid"]);
    anyhow::ensure!(outside.is_err(), "{DNS_ADDRESS} resolved a name outside of the cluster");
    println!("names: the Service's address; none outside");

    let slices = ["get", "endpointslices", "--selector=kubernetes.io/service-name=hello", SPACE];
    let zone = kubectl(folders, &[&slices[..], &["--output=jsonpath={.items[0].endpoints[0].zone}"]].concat())?;
    anyhow::ensure!(zone == ZONE, "the endpoints' zone is {zone:?}, not {ZONE}");
    println!("EndpointSlices: endpoints have a zone");

    let logs = kubectl(folders, &["logs", &pods[0], SPACE])?;
    anyhow::ensure!(logs.contains("serves on :8080"), "logs: {logs:?}");
    println!("logs and exec: as expected");

    kubectl(folders, &["delete", "pod", &pods[0], SPACE, "--wait=true", "--timeout=60s"])?;
    kubectl(folders, &["rollout", "status", "deployment/hello", SPACE, "--timeout=60s"])?;
    println!("a deleted pod is replaced");
    Ok(())
}

/// A component that dies is started again; a node that dies is replaced by the next `up`.
fn recover(folders: &Folders) -> anyhow::Result<()> {
    let node = || Running::find(folders).context("the node ended");
    let api_server = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).nth(1) == Some(b"kube-apiserver")
    };
    let api_server = || anyhow::Ok(node()?.processes().into_iter().find(api_server));
    let first = api_server()?.context("no API server runs")?;
    own::kill(first);
    wait_for("another API server", Duration::from_secs(30), || {
        api_server().is_ok_and(|now| now.is_some_and(|now| now != first))
    })?;
    own::up(folders)?;
    kubectl(folders, &["get", "deployment/hello", SPACE])?;
    println!("API server killed: started again, nothing forgotten");

    own::kill(node()?.pid);
    wait_for("end of the node", Duration::from_secs(30), || Running::find(folders).is_none())?;
    own::up(folders)?;
    let forgotten = kubectl(folders, &["get", "deployment/hello", SPACE]).is_err();
    anyhow::ensure!(forgotten, "a new node was expected, the old one's objects are there");
    println!("node killed: replaced by the next up");
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The parts of a machine that a cluster changes.
#[derive(PartialEq)]
pub(super) struct Machine(Vec<(&'static str, BTreeSet<String>)>);

impl Machine {
    pub(super) fn now() -> anyhow::Result<Machine> {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let tool = |program: &str, args: &[&str]| Tool::new(program).args(args).read();
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
        let cgroups = tool("find", &["/sys/fs/cgroup", "-type", "d", "-path", "*sluice*"])?;
        // Two families: rules of either would be seen by all that this machine sends.
        let rules = ["iptables-save", "ip6tables-save"].map(|program| tool(program, &[]).map(|text| rules(&text)));
        let [v4, v6] = rules;
        let settings = Kept::now().into_iter().map(|(name, value)| format!("{name}={value}"));
        let forward = read(Path::new("/proc/sys/net/ipv4/ip_forward"))?;
        Ok(Machine(vec![
            ("processes", processes()),
            ("mounts", mounts),
            ("interfaces", lines(tool("ip", &["-oneline", "-brief", "link", "show"])?)),
            ("routes", lines(tool("ip", &["-4", "route", "show", "table", "all"])?)),
            ("iptables rules", v4?),
            ("ip6tables rules", v6?),
            ("cgroups", lines(cgroups)),
            ("settings", settings.chain([format!("forward={forward}")]).collect()),
        ]))
    }

    fn expect_same(&self) -> anyhow::Result<()> {
        let changes = self.changes()?;
        anyhow::ensure!(changes.is_empty(), "after `down` the machine is not as before: {changes:#?}");
        Ok(())
    }

    /// Changes since: what is there now and was not (`+`), and what is there no longer (`-`), each with what it is.
    fn changes(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let now = Machine::now()?;
        let mut all = Vec::new();
        for ((what, before), (_, after)) in self.0.iter().zip(&now.0) {
            all.extend(after.difference(before).map(|line| (*what, format!("+ {line}"))));
            all.extend(before.difference(after).map(|line| (*what, format!("- {line}"))));
        }
        Ok(all)
    }

    /// Fails when a cluster has left something. While tests run, others use the machine as well: what bears no mark of ours
    /// is only told.
    pub(super) fn expect_nothing_of_ours(&self) -> anyhow::Result<String> {
        let (ours, others): (Vec<_>, Vec<_>) =
            self.changes()?.into_iter().partition(|(what, line)| is_ours(what, line));
        anyhow::ensure!(ours.is_empty(), "after `down` something of the cluster is left: {ours:#?}");
        let lines: Vec<_> = others.iter().map(|(what, line)| format!("by others, meanwhile: {what} {line}")).collect();
        Ok(lines.join("\n"))
    }
}

/// Names, our addresses, kube-proxy's chains; and the settings that a kubelet writes, which hardly anybody else touches.
fn is_ours(what: &str, line: &str) -> bool {
    let marked = ["sluice", "10.213.", "KUBE-"].iter().any(|mark| line.contains(mark));
    marked || (what == "settings" && !line.contains("forward="))
}

/// Chains and rules without their counters.
fn rules(text: &str) -> BTreeSet<String> {
    let of_interest = |line: &&str| line.starts_with([':', '-']);
    text.lines().filter(of_interest).map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect()
}

/// The programs of a cluster that run, by name: others come and go while this runs.
fn processes() -> BTreeSet<String> {
    let names = ["containerd", "containerd-shim", "runc", "etcd", "kubernetes", "coredns", "unshare", "program"];
    let name = |pid: u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let file = program.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned();
        names.iter().any(|name| file.starts_with(name)).then(|| format!("{pid} {}", program.display()))
    };
    own::processes().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_leaves_is_told_from_what_others_do() {
        for (what, line) in [
            ("mounts", "+ /root/.cache/sluice/cluster/lib/kubelet/pods/a"),
            ("routes", "+ 10.213.0.0/24 via 10.213.255.2 dev sluice0"),
            ("iptables rules", "+ -A KUBE-SERVICES -j RETURN"),
            ("settings", "- kernel/panic=0"),
        ] {
            assert!(is_ours(what, line), "{what} {line}");
        }
        for (what, line) in [("interfaces", "+ veth1 UP"), ("settings", "+ forward=1"), ("mounts", "- /mnt/stick")] {
            assert!(!is_ours(what, line), "{what} {line}");
        }
    }
}
