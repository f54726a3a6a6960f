//! The one release of the chart that all tests share.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;

use super::{Api, Resource, Shell};

/// The namespace of the release.
pub const SYSTEM: &str = "sluice-system";
/// The name of the release.
pub const RELEASE: &str = "sluice";
/// The label of every namespace that tests make.
pub(super) const OURS: &str = "sluice.dev/e2e";
/// The operator's Deployment, Service and Lease.
pub const OPERATOR: &str = "sluice-operator";

/// Lines of each part of a dump that are printed.
const DUMP_LINES: usize = 40;

static SLUICE: Mutex<Option<Sluice>> = Mutex::new(None);

/// A cluster, and what was installed on it.
pub struct Sluice {
    /// What a user types.
    pub shell: Shell,
    /// The API server.
    pub api: Api,
    installed: bool,
}

/// The cluster, for one test at a time.
pub struct Alone(MutexGuard<'static, Option<Sluice>>);

/// The cluster, without anything of ours but what another test of this process installed.
pub fn cluster() -> anyhow::Result<Alone> {
    // A test that failed while it held this has told so; what it made is taken down by the next.
    let mut guard = SLUICE.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        let shell = Shell::open()?;
        let api = Api::connect(&shell.kubeconfig()?)?;
        let sluice = Sluice { shell, api, installed: false };
        // Of an earlier run, perhaps of other programs under the same name.
        sluice.uninstall()?;
        sluice.clear()?;
        *guard = Some(sluice);
    }
    Ok(Alone(guard))
}

/// The cluster with Sluice on it: installed by the first test that asks, then kept.
pub fn sluice() -> anyhow::Result<Alone> {
    let mut alone = cluster()?;
    let sluice = alone.0.as_mut().context("the cluster is there")?;
    if !sluice.installed {
        // What a failed install left.
        sluice.uninstall()?;
        let started = Instant::now();
        // The definitions are there, of another test or of a developer.
        sluice.shell.run(&format!(
            "helm install {RELEASE} charts/sluice --namespace {SYSTEM} --create-namespace \
             --take-ownership --force-conflicts --values e2e/cluster/values.yaml --set rbac.scope=Cluster --wait --timeout 3m"
        ))?;
        sluice.fleet_is_programmed(SYSTEM, "default")?;
        sluice.installed = true;
        println!("installed in {:.1?}", started.elapsed());
    }
    Ok(alone)
}

impl Deref for Alone {
    type Target = Sluice;

    #[allow(clippy::expect_used)] // `cluster` fills it
    fn deref(&self) -> &Sluice {
        self.0.as_ref().expect("a cluster")
    }
}

impl Alone {
    /// Takes the release away, with its namespace.
    pub fn without_release(&mut self) -> anyhow::Result<()> {
        self.uninstall()?;
        if let Some(sluice) = self.0.as_mut() {
            sluice.installed = false;
        }
        Ok(())
    }
}

impl Sluice {
    fn uninstall(&self) -> anyhow::Result<()> {
        let wait = "--ignore-not-found --wait --timeout 3m";
        self.shell.run(&format!("helm uninstall {RELEASE} --namespace {SYSTEM} {wait}"))?;
        self.gone(SYSTEM)
    }

    /// Deletes what tests of an earlier run left.
    fn clear(&self) -> anyhow::Result<()> {
        let left = self.api.list(Resource::NAMESPACES, "", OURS)?;
        let mut names = left.iter().filter_map(|namespace| namespace["metadata"]["name"].as_str());
        names.try_for_each(|name| self.gone(name))
    }

    /// Deletes a namespace and waits until it is gone.
    pub fn gone(&self, namespace: &str) -> anyhow::Result<()> {
        self.api.delete(Resource::NAMESPACES, "", namespace, None)?;
        self.api.eventually(&format!("namespace {namespace} is gone"), Duration::from_secs(120), |api| {
            Ok(api.get(Resource::NAMESPACES, "", namespace)?.is_none().then_some(()))
        })
    }

    /// Waits until a fleet is there and Programmed; gives its status.
    pub fn fleet_is_programmed(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let what = format!("fleet {namespace}/{name} is Programmed");
        self.api.eventually(&what, Duration::from_secs(90), |api| {
            let Some(fleet) = api.get(Resource::GATEWAY_FLEETS, namespace, name)? else { return Ok(None) };
            let programmed = condition(&fleet, "Programmed").is_some_and(|c| c.status == "True");
            let status = &fleet["status"];
            Ok((programmed && status["readyReplicas"].as_u64() > Some(0)).then(|| status.clone()))
        })
    }

    /// The identity of the operator that leads: the name of its pod, `_`, and what tells its process from others.
    pub fn leader(&self) -> anyhow::Result<String> {
        let lease = self.api.get(Resource::LEASES, SYSTEM, OPERATOR)?.context("the operator has no Lease")?;
        Ok(lease["spec"]["holderIdentity"].as_str().context("nobody holds the Lease")?.to_owned())
    }

    /// Saves what the objects of a namespace and the operator say, and names the file. The end of each part is printed, for
    /// whoever has only the output.
    pub fn dump(&self, namespace: &str) -> PathBuf {
        let kinds = "gatewayfleets,apiroutes,ratepolicies,accesspolicies,consumers,configmaps,deployments,jobs,pods,services,endpointslices,events";
        let mut text = String::new();
        let mut add = |title: &str, said: anyhow::Result<String>| {
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = said.lines().collect();
            eprintln!("===== {title}\n{}", lines[lines.len().saturating_sub(DUMP_LINES)..].join("\n"));
            text += &format!("\n===== {title}\n{said}\n");
        };
        for namespace in [namespace, SYSTEM] {
            for line in [
                format!("kubectl get {kinds} --namespace {namespace} --output wide"),
                format!(
                    "kubectl describe gatewayfleets,apiroutes,ratepolicies,accesspolicies,consumers,pods --namespace {namespace}"
                ),
            ] {
                add(&line, self.shell.run(&line));
            }
            for pod in self.api.list(Resource::PODS, namespace, "").unwrap_or_default() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                add(&format!("log of {namespace}/{name}"), self.api.log(namespace, name, false));
                let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
                if restarts > Some(0) {
                    add(&format!("log of {namespace}/{name} before"), self.api.log(namespace, name, true));
                }
            }
        }
        let file = std::env::temp_dir().join(format!("sluice-e2e-{namespace}.txt"));
        if let Err(error) = std::fs::write(&file, &text) {
            eprintln!("{}: {error}\n{text}", file.display());
        }
        file
    }
}

/// A condition of an object's status.
pub fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let found = object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        since: text("lastTransitionTime"),
        current: found["observedGeneration"] == object["metadata"]["generation"],
    })
}

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The fixed word.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// When the status last changed.
    pub since: String,
    /// Whether it is about the object as it is now.
    pub current: bool,
}
