//! `cargo xtask quickstart`: a whole gateway on this machine, and a look at it while it works.

mod children;
mod demo;
mod http;
mod manifests;
mod view;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::{
    children::{Child, Gateway},
    demo::Verdict,
    manifests::Ports,
    view::{Look, View},
};
use crate::shell;

/// The time from starting the operator until the first proxy serves.
const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Drive a burst of load through the gateway so that the fleet grows and shrinks, then stop.
    #[arg(long)]
    demo: bool,
    /// The port of the gateway.
    #[arg(long, default_value_t = manifests::PORT)]
    port: u16,
    /// The port of upstream `a`; `b` takes the next one.
    #[arg(long, default_value_t = manifests::UPSTREAM_PORT)]
    upstream_port: u16,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let ports = Ports::new(args.port, args.upstream_port)?;
    for (port, flag) in ports.all() {
        free(port, flag)?;
    }
    println!("building (the first time takes some minutes) ...");
    shell::build_binaries().run()?;

    let folder = tempfile::Builder::new().prefix("sluice-quickstart-").tempdir()?;
    let manifests = manifests::prepare(&ports, folder.path())?;
    let bins = shell::bin_dir();
    let upstreams = Child::start(
        "upstreams",
        std::process::Command::new(bins.join("sluice-echo"))
            .args(["--listen", &local(ports.upstream_a).to_string(), "--name", "a"])
            .args(["--listen", &local(ports.upstream_b).to_string(), "--name", "b"]),
        &folder.path().join("upstreams.log"),
    )?;
    let mut gateway = Gateway::start(&bins, &manifests, folder.path())?;
    let outcome = serve(args, &ports, &mut gateway, &manifests, &stop);
    println!("stopping: the gateway drains, then the upstreams end");
    gateway.stop();
    upstreams.stop(Duration::from_secs(1));
    if outcome.is_err() {
        // What the operator said stays readable.
        println!("the logs are in {}", folder.keep().display());
    }
    let Some(verdict) = outcome? else { return Ok(ExitCode::SUCCESS) };
    println!("{}", verdict.line);
    Ok(if verdict.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the gateway serves, then shows it until it is stopped or the demo is through.
fn serve(
    args: &Args,
    ports: &Ports,
    gateway: &mut Gateway,
    manifests: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Verdict>> {
    let started = Instant::now();
    let target = local(ports.gateway);
    while !(serves(target) && settled(&View::new().look(gateway))) {
        gateway.check()?;
        anyhow::ensure!(
            started.elapsed() < READY_WITHIN,
            "the gateway did not answer on {target} within {READY_WITHIN:?}\n{}",
            gateway.log_tail()
        );
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        shell::pause(Duration::from_millis(50));
    }
    println!("ready after {:.1} s\n", started.elapsed().as_secs_f64());
    explain(ports.gateway, manifests);
    if args.demo {
        return demo::run(target, gateway, stop).map(Some);
    }
    let mut view = View::new();
    while !stop.load(Ordering::Relaxed) {
        gateway.check()?;
        let look = view.look(gateway);
        println!("{}", view.show(&look));
        pause_until(Instant::now() + Duration::from_secs(1), stop);
    }
    Ok(None)
}

fn explain(port: u16, manifests: &Path) {
    let curl = format!("curl -H 'host: api.shop.example' http://127.0.0.1:{port}");
    println!("try, in another terminal:");
    println!("  {curl}/orders/7                      # upstream a, one time in ten b");
    println!("  {curl}/v1/stock/7                    # upstream b sees /stock/7");
    println!("  for i in 1 2 3 4 5 6 7; do {curl}/limited -so /dev/null -w '%{{http_code}} '; done   # 429 after five");
    println!("  edit {}/*.yaml and ask again: changes are live at once", manifests.display());
    println!("Ctrl-C stops everything.\n");
}

/// The operator has seen every proxy that it wants become ready.
fn settled(look: &Look) -> bool {
    look.ready.is_some_and(|ready| ready > 0) && look.ready == look.desired
}

/// A request that a route answers has been through the whole gateway.
fn serves(target: SocketAddr) -> bool {
    http::request(target, "api.shop.example", "/orders/ready").is_ok_and(|answer| answer.status == 200)
}

fn free(port: u16, flag: &str) -> anyhow::Result<()> {
    TcpListener::bind(local(port)).map(drop).with_context(|| {
        format!("port {port} of 127.0.0.1 is busy: stop the program that listens there, or choose another with {flag}")
    })
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Sleeps in short steps so that Ctrl-C is answered at once.
fn pause_until(at: Instant, stop: &AtomicBool) {
    while Instant::now() < at && !stop.load(Ordering::Relaxed) {
        shell::pause(Duration::from_millis(20));
    }
}
