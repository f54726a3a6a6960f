//! The cluster for as long as tests need it: one that was up before stays, one that was not goes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{
    Cluster, check, check::Machine, choose, create, down, folders::Folders, given::Kind, kubeconfig, kubectl,
    load_images, own, own::Running, up, write,
};
use crate::shell::Tool;

/// What tells why something failed, and is gone with the cluster.
const TOLD: [(&str, &[&str]); 5] = [
    ("pods", &["get", "pods,services,deployments", "--all-namespaces", "--output=wide"]),
    (
        "sluice",
        &["get", "gatewayfleets,apiroutes,ratepolicies,accesspolicies,consumers", "--all-namespaces", "--output=yaml"],
    ),
    ("events", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]),
    (
        "operator",
        &["logs", "--all-namespaces", "--selector=app.kubernetes.io/name=sluice-operator", "--tail=-1", "--prefix"],
    ),
    (
        "proxies",
        &["logs", "--all-namespaces", "--selector=app.kubernetes.io/name=sluice-proxy", "--tail=-1", "--prefix"],
    ),
];

/// A cluster that is up.
pub(crate) struct Session {
    folders: Folders,
    cluster: Cluster,
    /// It was not up before: it goes at the end.
    ours: bool,
    /// The machine before a node of our own was on it.
    before: Option<Machine>,
}

impl Session {
    /// Has a cluster that is ready. When that fails, what was begun is taken down again.
    pub(crate) fn begin() -> anyhow::Result<Session> {
        let folders = Folders::of_user()?;
        let _alone = folders.lock("cluster")?;
        let cluster = choose(&folders)?;
        let ours = !is_up(&cluster, &folders)?;
        let before = if ours && matches!(cluster, Cluster::Own) {
            own::prepare()?;
            // What an interrupted `up` left is cleared away by the next, and is not to be found again.
            (!folders.state().exists()).then(Machine::now).transpose()?
        } else {
            None
        };
        let session = Session { folders, cluster, ours, before };
        match up(&session.cluster, &session.folders) {
            Ok(()) => Ok(session),
            Err(error) => Err(session.give_up(error)),
        }
    }

    /// `cargo xtask cluster check` where nobody has a cluster, or why not. Nothing stays up, whatever happens.
    pub(crate) fn check() -> anyhow::Result<Result<(), &'static str>> {
        let folders = Folders::of_user()?;
        let _alone = folders.lock("cluster")?;
        let cluster = choose(&folders)?;
        if !matches!(cluster, Cluster::Own) {
            return Ok(Err("it is about a node of our own, and another cluster is used here"));
        }
        if folders.state().exists() {
            return Ok(Err("a cluster is up, and may be somebody's"));
        }
        let session = Session { folders, cluster, ours: true, before: None };
        check::run(&session.folders).map(Ok).map_err(|error| session.give_up(error))
    }

    /// Keeps what a cluster that failed says, and takes it down.
    fn give_up(&self, error: anyhow::Error) -> anyhow::Error {
        // Why it failed says more than whatever goes wrong from here on.
        let logs = self.keep_logs();
        if let Err(wrong) = down_if(self) {
            println!("what was brought up could not be taken down: {wrong:#}");
        }
        match logs {
            Ok(folder) => error.context(format!("what the cluster says of itself is in {}", folder.display())),
            Err(_) => error,
        }
    }

    /// Gives it the images of docker archives.
    pub(crate) fn load(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        match self.cluster {
            // Without a word: the stage's own line says what there is.
            Cluster::Own => archives.iter().try_for_each(|archive| own::import(&self.folders, archive).map(|_| ())),
            Cluster::Given(_) | Cluster::Kind(_) => load_images(&self.cluster, &self.folders, archives),
        }
    }

    /// Fails when an operator runs in it. Operators watch all namespaces: beside one that is installed, it and the tests of
    /// the operator itself would make, change and delete the same objects.
    pub(crate) fn ensure_no_operator(&self) -> anyhow::Result<()> {
        let mut command = kubectl(&self.cluster, &self.folders)?;
        command.args(["get", "deployments", "--all-namespaces", "--selector=app.kubernetes.io/name=sluice-operator"]);
        let output = command
            .args(["--output=jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {end}"])
            .output()?;
        let (found, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "kubectl get deployments: {complaint}");
        anyhow::ensure!(
            found.is_empty(),
            "an operator is installed in this cluster: {}. The operator's own tests need one without: uninstall it \
             (of tests that were ended: `cargo xtask cluster helm -- uninstall sluice --namespace sluice-system --wait`), or \
             leave the stage out",
            found.trim_end()
        );
        Ok(())
    }

    /// What programs that talk to it find in their environment.
    pub(crate) fn env(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let path = kubeconfig(&self.cluster, &self.folders)?;
        let mut env = vec![("KUBECONFIG", path.display().to_string())];
        if matches!(self.cluster, Cluster::Own) {
            env.extend(own::direct());
        }
        Ok(env)
    }

    /// Writes down what the cluster says of itself, and gives the folder. What it can't say is left out.
    pub(crate) fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let folder = self.folders.cache().join("failed");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        create(&folder)?;
        if matches!(self.cluster, Cluster::Own) {
            for (from, to) in [(self.folders.logs(), "components"), (self.folders.state().join("log/pods"), "pods")] {
                // Files may come and go while they are copied.
                let _ = copy(&from, &folder.join(to));
            }
        }
        for (name, args) in TOLD {
            // It may be that it never answered.
            let Ok(mut command) = kubectl(&self.cluster, &self.folders) else { break };
            let output = command.args(args).args(["--request-timeout=20s"]).stdin(Stdio::null()).output();
            let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
            write(&folder.join(format!("{name}.txt")), &String::from_utf8_lossy(&text))?;
        }
        Ok(folder)
    }

    /// Takes the cluster down if it was not up before, which leaves nothing of it; says which, and what changed meanwhile.
    pub(crate) fn end(self) -> anyhow::Result<String> {
        let _alone = self.folders.lock("cluster")?;
        down_if(&self)?;
        match self.before {
            Some(before) => before.expect_nothing_of_ours(),
            None if self.ours => Ok(String::new()),
            None => Ok("it was up before, and stays".to_owned()),
        }
    }
}

fn down_if(session: &Session) -> anyhow::Result<()> {
    if session.ours { down(&session.cluster, &session.folders) } else { Ok(()) }
}

fn is_up(cluster: &Cluster, folders: &Folders) -> anyhow::Result<bool> {
    match cluster {
        Cluster::Given(_) => Ok(true),
        Cluster::Kind(_) => Kind::is_up(),
        Cluster::Own => Ok(Running::find(folders).is_some()),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (copied, output) = Tool::new("cp").args(["--recursive", "--dereference"]).args([from, to]).capture()?;
    anyhow::ensure!(copied, "{output}");
    Ok(())
}
