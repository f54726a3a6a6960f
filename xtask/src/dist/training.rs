//! The load that a proxy serves while it counts for the compiler: bodies from none to 200 KB, uploads, methods, redirects,
//! 404 and 429, kept and new connections, plain and encrypted, HTTP/1.1 and HTTP/2 to clients and backends, WebSockets, at
//! full speed and at part load. None of it is what `cargo xtask bench` measures: a program that was trained on its own test
//! would say little of how it does elsewhere.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use devcluster::files;
use rustix::process::{Pid, Signal, kill_process};

use crate::shell::{self, Tool};

const HOST: &str = "train.example";
const MANIFEST: &str = include_str!("training.yaml");
/// A port that does not open within this time never will.
const OPENS_WITHIN: Duration = Duration::from_secs(30);
/// The time that the operator may take to end its proxy, which writes down what it counted as it ends.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// A load of `sluice-load`.
struct Load {
    title: &'static str,
    tls: bool,
    paths: &'static [&'static str],
    arguments: &'static str,
}

const fn load(title: &'static str, paths: &'static [&'static str], arguments: &'static str) -> Load {
    Load { title, tls: false, paths, arguments }
}

const fn encrypted(title: &'static str, paths: &'static [&'static str], arguments: &'static str) -> Load {
    Load { tls: true, ..load(title, paths, arguments) }
}

const SMALL: &[&str] =
    &["/bytes/0", "/items/bytes/37?page=2&sort=name", "/bytes/700", "/users/1234/orders", "/status/204"];
const MIXED: &[&str] = &["/bytes/900", "/items/bytes/6000", "/bytes/23000", "/stream/3/0", "/bytes/200000"];
const REFUSED: &[&str] = &["/none", "/old/page", "/limited/x", "/status/404", "/%2e%2e/none", "/canary?canary=1"];
const HTTP2: &[&str] = &["/h2/bytes/300", "/h2/bytes/9000", "/h2/status/404"];

static LOADS: [Load; 14] = [
    load("HTTP/1.1, small", SMALL, "--h1 24 --duration 3s"),
    load("HTTP/1.1, small, part load", SMALL, "--h1 24 --rate 3000 --duration 3s"),
    load("HTTP/1.1, mixed sizes", MIXED, "--h1 24 --duration 3s"),
    load("HTTP/1.1, answered by the proxy", REFUSED, "--h1 24 --duration 2s --header x-tenant:a"),
    load(
        "HTTP/1.1, more fields",
        SMALL,
        "--h1 8 --rate 2000 --duration 2s --header x-canary:1 --header cookie:a=1;b=2 \
          --header accept:text/html,application/json --header accept-encoding:gzip --header x-internal:x",
    ),
    load("uploads", &["/upload"], "--h1 8 --body 1800 --duration 2s"),
    load("larger uploads, PUT", &["/upload"], "--h1 8 --body 120000 --method PUT --duration 2s"),
    load("DELETE", &["/items/status/204"], "--h1 8 --method DELETE --rate 1000 --duration 1s"),
    load("new connections, WebSockets", SMALL, "--new-per-second 1500 --ws 8 --duration 3s"),
    encrypted("HTTP/1.1 over TLS", SMALL, "--h1 24 --duration 3s"),
    encrypted(
        "HTTP/1.1 over TLS, new connections, mixed sizes",
        MIXED,
        "--h1 8 --rate 800 --new-per-second 300 --duration 3s",
    ),
    encrypted("HTTP/2 over TLS", SMALL, "--h2 6 --h2-streams 12 --duration 3s"),
    encrypted(
        "HTTP/2 over TLS, part load, uploads",
        &["/upload", "/bytes/5000"],
        "--h2 6 --h2-streams 12 --body 700 --rate 2500 --duration 3s",
    ),
    load("HTTP/2 to both sides", HTTP2, "--h1 8 --h2 4 --h2-streams 8 --rate 3000 --duration 3s"),
];

/// Puts a proxy under load, one after the other; what it counted is written as it ends. `programs`: where the operator and the
/// tools are.
pub(super) fn run(programs: &Path, proxy: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let mut echo = Command::new(programs.join("sluice-echo")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let told = echo.stdout.take().context("no output")?;
    let _echo = Running(echo);
    let line = BufReader::new(told).lines().next().context("sluice-echo said nothing")??;
    let echo_port = line.rsplit_once(':').context("sluice-echo names no port")?.1.to_owned();

    certificate(folder)?;
    let (http, https) = (free_port()?, free_port()?);
    let pem = |name: &str| {
        anyhow::Ok(files::read(&folder.join(name))?.lines().map(|line| format!("    {line}\n")).collect::<String>())
    };
    let manifest = MANIFEST
        .replace("$HTTPS", &https.to_string())
        .replace("$HTTP", &http.to_string())
        .replace("$ECHO", &echo_port)
        .replace("CHAIN\n", &pem("cert.pem")?)
        .replace("KEY\n", &pem("key.pem")?);
    let manifests = folder.join("manifests");
    files::create(&manifests)?;
    files::write(&manifests.join("all.yaml"), &manifest)?;
    let mut operator = Command::new(programs.join("sluice-operator"));
    operator.args(["standalone", "--manifests"]).arg(&manifests).arg("--state-dir").arg(folder.join("state"));
    operator.arg("--proxy-bin").arg(proxy).stdin(Stdio::null());
    let log = std::fs::File::create(folder.join("log"))?;
    let operator = operator.stdout(log.try_clone()?).stderr(log).spawn().context("sluice-operator")?;
    let mut operator = Running(operator);
    opens(http, &mut operator).with_context(|| files::read(&folder.join("log")).unwrap_or_default())?;

    for Load { title, tls, paths, arguments } in &LOADS {
        let target = format!("127.0.0.1:{}", if *tls { https } else { http });
        let mut tool = Tool::new(programs.join("sluice-load")).args(["--json", "--target", &target, "--host", HOST]);
        tool = paths.iter().fold(tool, |tool, path| tool.args(["--path", path])).args(arguments.split_whitespace());
        if *tls {
            tool = tool.args(["--tls", "--ca"]).args([folder.join("cert.pem")]);
        }
        // A request that fails, on a builder that is busy or emulated, spoils no profile.
        let (_, report, said) = tool.outcome()?;
        let report: serde_json::Value =
            serde_json::from_str(&report).with_context(|| format!("{title}: {report}{said}"))?;
        let (requests, failed) = (report["requests"].as_u64().unwrap_or(0), report["failed"].as_u64().unwrap_or(0));
        anyhow::ensure!(requests > 100 * failed, "{title}: of {requests} requests {failed} failed: {report}");
        println!("  {title}: {requests} requests");
    }
    operator.end().context("sluice-operator")
}

/// A self-signed certificate: P-256, for a day.
fn certificate(folder: &Path) -> anyhow::Result<()> {
    let tool = Tool::new("openssl").args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let subject = format!("subjectAltName=DNS:{HOST}");
    let tool = tool.args(["-nodes", "-days", "1", "-subj", &format!("/CN={HOST}"), "-addext", &subject]);
    let tool = tool.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
    let (done, output) =
        tool.args([folder.join("key.pem")]).args(["-out"]).args([folder.join("cert.pem")]).capture()?;
    anyhow::ensure!(done, "openssl: {output}");
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn opens(port: u16, operator: &mut Running) -> anyhow::Result<()> {
    let until = Instant::now() + OPENS_WITHIN;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = operator.0.try_wait()? {
            anyhow::bail!("the operator ended at once ({status})");
        }
        anyhow::ensure!(Instant::now() < until, "port {port} does not open");
        shell::pause(Duration::from_millis(50));
    }
    Ok(())
}

/// A program of ours. Dropped, it is ended: an operator ends its proxy, which would outlive an operator that is killed.
struct Running(Child);

impl Running {
    /// Asks it to end, and waits.
    fn end(mut self) -> anyhow::Result<()> {
        let status = self.stop().context("it does not end")?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }

    fn stop(&mut self) -> Option<ExitStatus> {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // One that has ended is no error.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            match self.0.try_wait() {
                Ok(None) if Instant::now() < until => shell::pause(Duration::from_millis(20)),
                ended => return ended.ok().flatten(),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop().is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
