//! Starts a whole gateway from a folder of manifests, reads what it says of itself, and stops everything it started.
//!
//! A test takes a [`Gateway`], writes manifests (text, as a user would: see [`manifests`]) and reads status files, admin
//! endpoints and `/proc`. Gateways carry real load on few cores, so [`Gateway::start`] holds a lock that lets one test
//! run at a time, whatever the number of test threads.

pub mod http;
pub mod manifests;
mod process;
mod programs;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

pub use self::{
    process::{Process, alive, fds, kill, rss, terminate},
    programs::{go_program, program},
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Options of starting a gateway; the default is what a user would run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Use the proxy that was built with fault switches, with these environment variables.
    pub fault: Option<Vec<(String, String)>>,
}

/// A running gateway: an operator with its proxies, in folders of its own.
#[derive(Debug)]
pub struct Gateway {
    operator: Option<Process>,
    manifests: TempDir,
    state: TempDir,
    options: Options,
    starts: u32,
    _alone: MutexGuard<'static, ()>,
}

/// A proxy, as the operator recorded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// The proxy's name, which ends with its place in the fleet.
    pub name: String,
    /// The proxy's process.
    pub pid: u32,
    /// The proxy's admin endpoint.
    pub admin: SocketAddr,
}

impl Gateway {
    /// Starts a gateway on these manifests (file name and content) and waits until its first proxy is ready.
    pub fn start(manifests: &[(&str, String)]) -> anyhow::Result<Gateway> {
        Gateway::start_with(manifests, Options::default())
    }

    /// Like [`Gateway::start`], with options.
    pub fn start_with(manifests: &[(&str, String)], options: Options) -> anyhow::Result<Gateway> {
        // A test that failed while it held the lock has stopped its gateway all the same.
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = |what: &str| tempfile::Builder::new().prefix(&format!("sluice-{what}-")).tempdir();
        let mut gateway = Gateway {
            operator: None,
            manifests: folder("manifests")?,
            state: folder("state")?,
            options,
            starts: 0,
            _alone: alone,
        };
        for (name, text) in manifests {
            gateway.write(name, text)?;
        }
        gateway.start_operator()?;
        gateway.wait_until("a proxy is ready", Duration::from_secs(30), |_, ready| ready > 0)?;
        Ok(gateway)
    }

    /// Starts an operator on the same folders, after the one before has ended.
    pub fn start_operator(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let log = self.state.path().join(format!("operator-{}.log", self.starts));
        let proxy = if self.options.fault.is_some() { "sluice-proxy-fault" } else { "sluice-proxy" };
        let mut command = std::process::Command::new(program("sluice-operator")?);
        command.arg("standalone").arg("--manifests").arg(self.manifests.path());
        command.arg("--state-dir").arg(self.state_dir()).arg("--proxy-bin").arg(program(proxy)?);
        command.envs(self.options.fault.clone().unwrap_or_default());
        self.operator = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Kills the operator with SIGKILL; its proxies go on.
    pub fn kill_operator(&mut self) -> anyhow::Result<()> {
        let mut operator = self.operator.take().context("no operator runs")?;
        operator.kill()
    }

    /// The operator's process.
    pub fn operator_pid(&self) -> anyhow::Result<u32> {
        Ok(self.operator.as_ref().context("no operator runs")?.pid())
    }

    /// Writes a manifest into the folder as a user's editor would: a new file in place of the old one.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.manifests.path().join(name);
        let draft = self.manifests.path().join(format!(".{name}.draft"));
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &path).with_context(|| path.display().to_string())
    }

    /// Deletes a manifest.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_file(self.manifests.path().join(name)).with_context(|| name.to_owned())
    }

    /// The folder of manifests.
    pub fn manifests_dir(&self) -> &Path {
        self.manifests.path()
    }

    /// The operator's state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// The operator's admin endpoint.
    pub fn operator_admin(&self) -> anyhow::Result<SocketAddr> {
        let path = self.state_dir().join("operator.json");
        address(&read_json(&path)?).with_context(|| format!("{}: no admin address", path.display()))
    }

    /// The proxies that run and whose admin ports the operator knows, by name.
    pub fn proxies(&self) -> Vec<Proxy> {
        let proxy = |(name, value): (String, Value)| Some(Proxy { name, pid: pid(&value)?, admin: address(&value)? });
        let mut proxies: Vec<_> = self.records().into_iter().filter_map(proxy).collect();
        proxies.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        proxies
    }

    /// The records of proxy processes that are alive, by name.
    fn records(&self) -> Vec<(String, Value)> {
        let Ok(entries) = std::fs::read_dir(self.state_dir().join("proxies")) else { return Vec::new() };
        let record = |entry: std::fs::DirEntry| {
            let name = entry.path().file_stem()?.to_string_lossy().into_owned();
            let value = read_json(&entry.path()).ok()?;
            pid(&value).is_some_and(alive).then_some((name, value))
        };
        entries.flatten().filter_map(record).collect()
    }

    /// The proxies that say of themselves that they are ready.
    pub fn ready_proxies(&self) -> Vec<Proxy> {
        let ready = |proxy: &Proxy| http::get(proxy.admin, "localhost", "/readyz").is_ok_and(|a| a.status == 200);
        self.proxies().into_iter().filter(ready).collect()
    }

    /// The content hash of the configuration that a proxy runs.
    pub fn revision(&self, proxy: &Proxy) -> anyhow::Result<String> {
        let config: Value = serde_json::from_str(&admin_get(proxy.admin, "/config")?)?;
        Ok(config["revision"].as_str().context("/config has no revision")?.to_owned())
    }

    /// An object's status as the operator last wrote it, `Null` if it has not. `kind` is the plural, as in `apiroutes`.
    pub fn status(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let path = self.state_dir().join("status").join(kind).join(namespace).join(format!("{name}.json"));
        read_json(&path).map_or(Value::Null, |value| value["status"].clone())
    }

    /// A condition of an object: its status, reason and message.
    pub fn condition(&self, kind: &str, namespace: &str, name: &str, condition: &str) -> Option<Condition> {
        let status = self.status(kind, namespace, name);
        let found = status["conditions"].as_array()?.iter().find(|c| c["type"] == condition)?.clone();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
    }

    /// Waits until exactly this many proxies run and all are ready.
    pub fn wait_for_proxies(&mut self, count: usize, within: Duration) -> anyhow::Result<Duration> {
        let what = format!("{count} proxies, all ready");
        self.wait_until(&what, within, |proxies, ready| (proxies, ready) == (count, count))
    }

    /// Waits until the numbers of running and of ready proxies are as wanted.
    fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        wanted: impl Fn(usize, usize) -> bool,
    ) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            self.check()?;
            let (proxies, ready) = (self.records().len(), self.ready_proxies().len());
            if wanted(proxies, ready) {
                return Ok(started.elapsed());
            }
            anyhow::ensure!(
                started.elapsed() < within,
                "{what}: not within {within:?}; there are {proxies}, {ready} of them ready\n{}",
                self.log_tail()
            );
            pause(Duration::from_millis(20));
        }
    }

    /// An error with the operator's last words when it is no longer there.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.operator.as_mut().and_then(Process::ended);
        match ended {
            Some(status) => Err(anyhow::anyhow!("the operator ended ({status})\n{}", self.log_tail())),
            None => Ok(()),
        }
    }

    /// The last lines of every log.
    pub fn log_tail(&self) -> String {
        let mut logs = BTreeMap::new();
        for folder in [self.state.path().to_owned(), self.state_dir(), self.state_dir().join("proxies")] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    logs.insert(entry.path(), std::fs::read_to_string(entry.path()).unwrap_or_default());
                }
            }
        }
        let tail = |text: &str| {
            text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        logs.iter().map(|(path, text)| format!("--- {}\n{}\n", path.display(), tail(text))).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        // The operator first: it would replace every proxy that ends.
        drop(self.operator.take());
        for (_, record) in self.records() {
            pid(&record).into_iter().for_each(kill);
        }
    }
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
}

/// GET on an admin endpoint; anything but 200 is an error.
pub fn admin_get(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = http::get(addr, "localhost", path)?;
    anyhow::ensure!(answer.status == 200, "{path} on {addr}: {} {}", answer.status, answer.body);
    Ok(answer.body)
}

/// The sum of a metric's series whose labels contain all of `labels` (each as `name="value"`); 0 if there is none.
pub fn metric(addr: SocketAddr, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let text = admin_get(addr, "/metrics")?;
    let mut sum = 0.0;
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, set) = series.split_once('{').unwrap_or((series, ""));
        if found == name && labels.iter().all(|label| set.contains(label)) {
            sum += value.parse::<f64>().unwrap_or(0.0);
        }
    }
    Ok(sum)
}

/// A loopback port that was free a moment ago. Ports are taken from below the ephemeral range, so that no outgoing
/// connection of the load takes one meanwhile.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..2000 {
        // Processes that run side by side start at different places.
        let first = 20_000 + (std::process::id() % 100) as u16 * 100;
        let port = first + *next % 10_000;
        *next += 1;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port on loopback between 20000 and 31000")
}

/// Waits until `done` gives something, or fails with `what` that did not come.
pub fn eventually<T>(what: &str, within: Duration, mut done: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = done() {
            return Ok(value);
        }
        anyhow::ensure!(started.elapsed() < within, "{what}: not within {within:?}");
        pause(Duration::from_millis(5));
    }
}

/// Sleeps. Tests are plain threads: the load runs on one of its own.
#[allow(clippy::disallowed_methods)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn pid(record: &Value) -> Option<u32> {
    u32::try_from(record["pid"].as_u64()?).ok()
}

fn address(value: &Value) -> Option<SocketAddr> {
    value["admin"].as_str()?.parse().ok()
}
