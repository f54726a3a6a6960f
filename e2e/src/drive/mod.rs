//! Client and upstream in one thread, as cheap as they can be: for measuring what stands between the two.
//!
//! `sluice-load` tells every outcome apart; this tool only counts, with no more system calls than the requests need, so
//! that one core of it keeps a proxy busy on another. It prints `begin` when the warm-up is over and one line of JSON at
//! the end of the measured time: whoever measures the proxy reads its accounts at these two moments.

mod client;
mod schedule;
mod upstream;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use mio::{Events, Poll, Token};
use serde::Serialize;

use self::{client::Clients, schedule::Schedule, upstream::Upstream};

/// The command line of `sluice-drive`.
#[derive(Debug, Parser)]
#[command(name = "sluice-drive", version, about = "Client and upstream in one thread, for benchmarks")]
pub struct Args {
    /// Where the upstream listens.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Bytes of each of the upstream's bodies.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Where the client connects.
    #[arg(long)]
    target: Option<SocketAddr>,
    /// The Host header, and the server name over TLS.
    #[arg(long, default_value = "bench.example")]
    host: String,
    /// What is asked for.
    #[arg(long, default_value = "/")]
    path: String,
    /// The status that every answer must have.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Connections at one time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Each request comes on a connection of its own.
    #[arg(long)]
    new: bool,
    /// Speak TLS 1.3 (X25519, no resumption) and trust the certificates in this PEM file.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Requests a second; 0 sends as fast as answers come.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Seconds before the measured time.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that are measured; 0: only be the upstream, until killed.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// The counts within the measured time.
#[derive(Debug, Default, Serialize)]
struct Report {
    requests: u64,
    /// Connections that broke, and answers of another status.
    errors: u64,
    seconds: f64,
    p50_us: u64,
    p99_us: u64,
}

/// Tokens of the upstream's connections count up from here; the client's are below.
const UPSTREAM: usize = 1 << 20;
/// The most errors: with more there is nothing to measure.
const MAX_ERRORS: u64 = 1000;

/// Runs `sluice-drive`.
pub fn main(args: &Args) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut upstream = match args.listen {
        Some(address) => Some(Upstream::listen(address, args.bytes, poll.registry())?),
        None => None,
    };
    let mut clients = match args.target {
        Some(target) if args.seconds > 0.0 => Some(Clients::new(target, args)?),
        _ => None,
    };
    let mut schedule = Schedule::new(args.rate);
    let start = Instant::now();
    let begin = start + Duration::from_secs_f64(args.warmup);
    let end = begin + Duration::from_secs_f64(args.seconds);
    let mut begun = None;
    let mut events = Events::with_capacity(1024);
    loop {
        let now = Instant::now();
        if let Some(clients) = &mut clients {
            if begun.is_none() && now >= begin {
                clients.reset();
                begun = Some(now);
                say("begin")?;
            }
            if let (Some(begun), true) = (begun, now >= end) {
                let report = clients.report(now - begun);
                return say(&serde_json::to_string(&report)?);
            }
            anyhow::ensure!(clients.errors() < MAX_ERRORS, "{}", clients.last_error());
            clients.send_due(&mut schedule, now, poll.registry())?;
        }
        // With a rate this spins: a timer would wake too late, and the core is ours.
        let timeout = if args.rate > 0.0 { Duration::ZERO } else { Duration::from_millis(100) };
        match poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.context("poll")?,
        }
        for event in &events {
            let Token(token) = event.token();
            if token >= UPSTREAM {
                if let Some(upstream) = &mut upstream {
                    upstream.ready(token - UPSTREAM, poll.registry())?;
                }
            } else if let Some(clients) = &mut clients {
                clients.ready(token, &mut schedule, poll.registry())?;
            }
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// TLS 1.3 with X25519 and nothing kept between connections.
fn tls(ca: &std::path::Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())? {
        roots.add(certificate?)?;
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
