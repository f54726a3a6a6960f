//! The command line, and the life of the process: start, serve, leave.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Shared, admin,
    config::{Applier, Ports},
    control::{self, Address, Identity, Operator, Patience},
    keeper::{self, Kept},
    memory::{self, Limit},
    server::{Server, ServerOptions, SocketSource},
    shared::Drain,
    telemetry::{self, Telemetry},
};

/// One proxy of a Sluice fleet. It takes its configuration from the operator.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-proxy", version)]
pub struct Options {
    /// Where the operator listens: `unix:PATH`, or `https://HOST:PORT` in a cluster
    #[arg(long)]
    pub control: Address,
    /// In a cluster: the service account token, of audience `sluice`, by which this proxy enrols
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// In a cluster: the certificate authorities that operators are trusted by, in PEM
    #[arg(long)]
    pub ca_file: Option<PathBuf>,
    /// Unix socket where listening sockets are taken over; without it, ports are opened by the proxy itself
    #[arg(long)]
    pub sockets: Option<PathBuf>,
    /// Unix socket where this proxy hands its own listening sockets to a new operator
    #[arg(long)]
    pub handover: Option<PathBuf>,
    /// Name of this proxy, unique among the living
    #[arg(long)]
    pub name: String,
    /// The GatewayFleet: NAMESPACE/NAME
    #[arg(long)]
    pub fleet: String,
    /// Worker threads; as many as there are CPUs unless set
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub workers: Option<u16>,
    /// Memory that this process may have, in bytes; else, and at most, what its control group allows, or without one a
    /// quarter of the machine's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub memory: Option<u64>,
    /// Where everything about this proxy is shown, to clients on loopback; to others, only whether it is ready. Port 0
    /// takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub admin: SocketAddr,
    /// Where /metrics and /healthz are served besides, to whoever reaches it
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Folder for the last-good file, from which a restarted proxy serves while the operator is away
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// Runs the proxy as a child of this process, which holds its ports open and starts it again when it crashes, up to
    /// three times in a minute: for containers
    #[arg(long, conflicts_with = "sockets")]
    pub keep: bool,
    /// The keeper's word to its child: how often that was started again
    #[arg(long, hide = true, value_name = "RESTARTS", conflicts_with_all = ["keep", "sockets"])]
    pub kept: Option<u64>,
}

/// A proxy that was started again and has no configuration after this long leaves the ports to nobody: they refuse
/// then, so that clients go to other proxies.
const LEFT: Duration = Duration::from_secs(10);

/// Runs until the process shall end.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var("SLUICE_LOG")
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    // stdout is the access log's.
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    if options.keep {
        return keeper::run();
    }
    let kept = options.kept.map(|_| Kept::take_over()).transpose().context("--kept: only a keeper starts this")?;
    serve(options, kept.map(Arc::new))?;
    Ok(ExitCode::SUCCESS)
}

fn serve(options: Options, kept: Option<Arc<Kept>>) -> anyhow::Result<()> {
    let Options { control, token_file, ca_file, .. } = options.clone();
    let operator = Operator::new(control, token_file, ca_file).map_err(anyhow::Error::msg)?;
    let workers =
        options.workers.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from);
    let restarts = options.kept.unwrap_or_default();
    let shared = Shared::within(Telemetry::restarted(restarts), Limit::find(options.memory));
    let sockets = match (&options.sockets, kept) {
        (Some(path), _) => SocketSource::Handover(path.clone()),
        (None, Some(kept)) => SocketSource::Kept(kept),
        (None, None) => SocketSource::Bind,
    };
    let server_options = ServerOptions { workers, sockets, handover: options.handover.clone() };
    let server = Server::start(Arc::clone(&shared), server_options).context("the workers do not start")?;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().thread_name("control").build().context("the control runtime does not start")?;
    let done = runtime.block_on(supervise(options, operator, workers, shared, server));
    // Compiling may be under way; it is of no use any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

/// Everything but requests: control stream, admin port, signals.
async fn supervise(
    options: Options,
    operator: Operator,
    workers: usize,
    shared: Arc<Shared>,
    server: Arc<Server>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let admin = admin::serve(Arc::clone(&shared), options.admin, admin::Port::Admin).await;
    let admin = admin.with_context(|| format!("--admin {}: does not open", options.admin))?;
    if let Some(address) = options.metrics {
        let metrics = admin::serve(Arc::clone(&shared), address, admin::Port::Metrics).await;
        metrics.with_context(|| format!("--metrics {address}: does not open"))?;
    }
    let restarts = options.kept.unwrap_or_default();
    tracing::info!(proxy = options.name, fleet = options.fleet, %admin, workers, restarts, "started");
    tokio::spawn(telemetry::report(Arc::clone(&shared), u32::try_from(workers).unwrap_or(u32::MAX)));
    tokio::spawn(memory::watch(Arc::clone(&shared.memory)));
    let identity = Identity { name: options.name, fleet: options.fleet, admin };
    let patience = if restarts > 0 { Patience::Restarted } else { Patience::Started };
    tokio::spawn({
        let (shared, server) = (Arc::clone(&shared), Arc::clone(&server));
        async move {
            let applier = Applier::start(Arc::clone(&shared), server, options.state);
            Box::pin(control::run(shared, applier, identity, operator, patience)).await;
        }
    });
    if restarts > 0 {
        let (shared, server) = (Arc::clone(&shared), Arc::clone(&server));
        tokio::spawn(async move {
            tokio::time::sleep(LEFT).await;
            if !shared.status.borrow().ready {
                tracing::warn!("no configuration yet: ports that were left open are closed");
                server.forget_left();
            }
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => return Ok(()),
    }
    tracing::info!("draining");
    shared.drain.send_replace(Drain::Draining);
    tokio::select! {
        () = server.drained() => tracing::info!("drained"),
        _ = terminate.recv() => tracing::warn!("ended by a second signal while draining"),
        _ = interrupt.recv() => tracing::warn!("ended by a second signal while draining"),
    }
    shared.telemetry.flush().await;
    Ok(())
}

impl Ports for Server {
    fn open(
        &self,
        ports: &std::collections::BTreeSet<u16>,
    ) -> impl Future<Output = std::collections::BTreeMap<u16, std::io::Error>> + Send {
        Server::open(self, ports)
    }

    fn serve(&self, ports: &std::collections::BTreeSet<u16>) {
        Server::serve(self, ports);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(extra: &[&str], expect: Result<(), &str>) {
        let least = ["sluice-proxy", "--name", "p-0", "--fleet", "ns/default"];
        let got = Options::try_parse_from(least.iter().chain(extra)).map(drop).map_err(|e| e.to_string());
        match expect {
            Ok(()) => got.unwrap(),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
        }
    }

    #[test]
    fn options() {
        check(&["--control", "unix:/run/c.sock"], Ok(()));
        check(&["--control", "unix:/run/c.sock", "--workers", "2", "--admin", "[::1]:0", "--state", "s"], Ok(()));
        check(&[], Err("--control"));
        check(&["--control", "https://sluice-operator.sluice-system.svc:9443"], Ok(()));
        check(&["--control", "http://x:1"], Err("never plaintext"));
        check(&["--control", "x"], Err("is neither unix:PATH nor https://HOST:PORT"));
        check(&["--control", "unix:/c", "--workers", "0"], Err("--workers"));
        check(&["--control", "unix:/c", "--memory", "536870912"], Ok(()));
        check(&["--control", "unix:/c", "--memory", "0"], Err("--memory"));
        check(&["--control", "unix:/c", "--keep"], Ok(()));
        check(&["--control", "unix:/c", "--keep", "--sockets", "/s"], Err("--sockets"));
    }
}
