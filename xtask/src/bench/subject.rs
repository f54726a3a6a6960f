//! A running proxy, ours or a peer's, alone on its core.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    accounts,
    configs::{self, Setup},
    peers::Peers,
    round::Load,
    scenario::{Kind, Scenario},
};
use crate::{
    dist,
    shell::{self, Tool},
};

/// The core of the subjects; core 1 is the client's and the upstream's.
const CORE: &str = "0";
/// A port that does not open within this time never will.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

/// The subjects of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Sluice,
    Nginx,
    HaProxy,
    Envoy,
}

impl Who {
    pub(super) const ALL: [Self; 4] = [Self::Sluice, Self::Nginx, Self::HaProxy, Self::Envoy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

/// The parts that all measurements share.
pub(super) struct Bench {
    peers: Peers,
    proxy: PathBuf,
    operator: PathBuf,
    tools: PathBuf,
    /// The address where the upstream listens.
    upstream: SocketAddr,
    certificate: TempDir,
}

impl Bench {
    pub(super) fn new(peers: Peers, proxy: PathBuf) -> anyhow::Result<Self> {
        let programs = shell::bin_dir().parent().context("no target folder")?.join("release");
        let certificate = TempDir::new()?;
        issue(certificate.path())?;
        let operator = programs.join("sluice-operator");
        Ok(Self { peers, proxy, operator, tools: programs, upstream: free_address()?, certificate })
    }

    /// The version of each subject, and the checksum of our proxy.
    pub(super) fn versions(&self) -> anyhow::Result<Vec<String>> {
        let ours = Tool::new(&self.proxy).args(["--version"]).capture()?.1.trim().to_owned();
        let ours = format!("{ours} (SHA-256 {})", dist::sha256(&self.proxy)?);
        Ok(std::iter::once(ours).chain(self.peers.versions()?).collect())
    }

    /// The client and upstream of a scenario.
    pub(super) fn load(&self, scenario: &Scenario) -> anyhow::Result<Load> {
        Load::new(&self.tools, self.upstream, &self.certificate.path().join("cert.pem"), scenario)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.certificate.path().join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

/// A self-signed certificate: P-256, for a year.
fn issue(folder: &Path) -> anyhow::Result<()> {
    let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
    let tool = Tool::new("openssl").args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let tool = tool.args(["-nodes", "-days", "365", "-subj", "/CN=bench.example"]);
    let tool =
        tool.args(["-addext", "subjectAltName=DNS:bench.example", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let tool = tool.args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), cert.as_os_str()]);
    let (done, output) = tool.capture()?;
    anyhow::ensure!(done, "openssl: {output}");
    let both = std::fs::read_to_string(&cert)? + &std::fs::read_to_string(&key)?;
    Ok(std::fs::write(folder.join("both.pem"), both)?)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A subject that runs. Dropped, it is ended.
pub(super) struct Subject {
    pub(super) who: Who,
    pub(super) address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Subject {
    pub(super) fn start(bench: &Bench, who: Who, scenario: &Scenario) -> anyhow::Result<Self> {
        let address = free_address()?;
        // nginx and HAProxy see only what is in their Debian.
        let (parent, inside) = match who {
            Who::Nginx | Who::HaProxy => (bench.peers.debian.join("tmp"), Some("/tmp")),
            Who::Sluice | Who::Envoy => (std::env::temp_dir(), None),
        };
        let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir_in(parent)?;
        let name = folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let seen = inside.map_or_else(|| folder.path().display().to_string(), |inside| format!("{inside}/{name}"));
        let setup = Setup { scenario, listen: address, upstream: bench.upstream, folder: &seen };
        let child = spawn(bench, who, &setup, folder.path())?;
        let mut subject = Self { who, address, child, folder };
        subject.opens().with_context(|| who.name())?;
        Ok(subject)
    }

    fn opens(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + OPENS_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                anyhow::bail!("it ended at once ({status}): {}", log.trim());
            }
            anyhow::ensure!(Instant::now() < until, "{} does not open", self.address);
            shell::pause(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The processes that carry requests.
    pub(super) fn pids(&self) -> Vec<u32> {
        let ours = |name: &str| self.who != Who::Sluice || name == "sluice-proxy";
        accounts::tree(self.child.id()).into_iter().filter(|(_, name)| ours(name)).map(|(pid, _)| pid).collect()
    }

    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        let bytes = accounts::memory(&self.pids());
        anyhow::ensure!(bytes > 0, "{}: no memory is accounted", self.who.name());
        Ok(bytes)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                for (pid, _) in accounts::tree(self.child.id()) {
                    let _ = Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL));
                }
                let _ = self.child.wait();
                return;
            }
            shell::pause(Duration::from_millis(20));
        }
    }
}

fn spawn(bench: &Bench, who: Who, setup: &Setup<'_>, folder: &Path) -> anyhow::Result<Child> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    if setup.scenario.tls {
        for name in ["cert.pem", "key.pem", "both.pem"] {
            write(name, bench.read(name)?)?;
        }
    }
    let mut command = Command::new("taskset");
    command.args(["-c", CORE]);
    let seen = setup.folder;
    match who {
        Who::Nginx => {
            write("nginx.conf", configs::nginx(setup))?;
            command.arg("chroot").arg(&bench.peers.debian).args(["nginx", "-c", &format!("{seen}/nginx.conf")]);
        }
        Who::HaProxy => {
            let (conf, map) = configs::haproxy(setup);
            write("haproxy.cfg", conf)?;
            write("routes.map", map)?;
            command.arg("chroot").arg(&bench.peers.debian).args([
                "haproxy",
                "-q",
                "-f",
                &format!("{seen}/haproxy.cfg"),
            ]);
        }
        Who::Envoy => {
            write("envoy.json", configs::envoy(setup).to_string())?;
            command.arg(&bench.peers.envoy).args(["-c", &format!("{seen}/envoy.json"), "--concurrency", "1"]);
            command.args(["--disable-hot-restart", "--log-level", "critical"]);
        }
        Who::Sluice => {
            let manifests = folder.join("manifests");
            std::fs::create_dir(&manifests)?;
            let (chain, key) = (bench.read("cert.pem")?, bench.read("key.pem")?);
            std::fs::write(manifests.join("all.yaml"), configs::sluice(setup, Some((&chain, &key))))?;
            command.arg(&bench.operator).arg("standalone").arg("--manifests").arg(&manifests);
            command.arg("--state-dir").arg(folder.join("state")).arg("--proxy-bin").arg(&bench.proxy);
        }
    }
    let log = std::fs::File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{}: taskset (util-linux) is needed", who.name()))
}

impl Scenario {
    /// HTTP/2 needs a client that speaks it.
    pub(super) fn is_http2(&self) -> bool {
        self.kind == Kind::Http2
    }
}
