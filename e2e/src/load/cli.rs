//! The command line of `sluice-load`.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use http::Method;

use super::{Load, Plan, Step};

/// The flags of `sluice-load`.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-load",
    version,
    about = "A load generator that tells every outcome apart",
    after_help = "EXAMPLES\n  \
        sluice-load --target 127.0.0.1:8080 --host shop.example --h1 64 --rate 2000 --duration 10s\n  \
        sluice-load agent --listen 0.0.0.0:9099    (runs loads for others: see e2e::agent)\n  \
        sluice-load --target 127.0.0.1:8080 --h1 64 --h2 8 --h2-streams 4 --ws 10 --steps 200:5s,3000:15s,200:10s --live\n\n\
        Exits with 1 when any request failed: no complete answer, or a 5xx that the upstream did not send."
)]
pub struct Args {
    /// Address or name to connect to, with the port. A name is looked up once.
    #[arg(long)]
    target: String,
    /// The Host header; the target's address by default.
    #[arg(long)]
    host: Option<String>,
    /// Path to request; repeatable, sent in turn.
    #[arg(long, default_value = "/")]
    path: Vec<String>,
    /// Request header as `name: value`; repeatable.
    #[arg(long, value_parser = header)]
    header: Vec<(String, String)>,
    /// Bytes of request body; more than 0 makes the requests POSTs, if no --method is given.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// Method of the requests: any but HEAD and CONNECT, whose answers have no bodies.
    #[arg(long, value_parser = method)]
    method: Option<Method>,
    /// Requests a second over all kept connections; 0 sends as fast as answers come.
    #[arg(long, default_value_t = 0.0, conflicts_with = "steps")]
    rate: f64,
    /// How long.
    #[arg(long, default_value = "10s", value_parser = duration, conflicts_with = "steps")]
    duration: Duration,
    /// The rate over time instead: RATE:DURATION,...
    #[arg(long, value_delimiter = ',', value_parser = step)]
    steps: Vec<Step>,
    /// Kept HTTP/1.1 connections.
    #[arg(long, default_value_t = 0)]
    h1: usize,
    /// New connections a second, each for one request (apart from --rate).
    #[arg(long, default_value_t = 0.0)]
    new_per_second: f64,
    /// Kept HTTP/2 connections.
    #[arg(long, default_value_t = 0)]
    h2: usize,
    /// Concurrent streams on each HTTP/2 connection.
    #[arg(long, default_value_t = 1)]
    h2_streams: usize,
    /// WebSockets that echo a message each 100 ms.
    #[arg(long, default_value_t = 0)]
    ws: usize,
    /// Path of the WebSockets.
    #[arg(long, default_value = "/ws")]
    ws_path: String,
    /// Speak TLS; needs --ca.
    #[arg(long, requires = "ca")]
    tls: bool,
    /// PEM file with the certificates to trust.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A request without a complete answer after this long has failed.
    #[arg(long, default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print a line each second (JSON with --json), on stderr.
    #[arg(long)]
    live: bool,
}

/// Runs `sluice-load`; true when nothing failed. SIGINT and SIGTERM end it early, with a report of what was done.
pub fn main(args: Args) -> anyhow::Result<bool> {
    let (json, live) = (args.json, args.live);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let load = Load::start(args.plan()?)?;
    let mut next = Instant::now() + Duration::from_secs(1);
    while !load.is_finished() && !stop.load(Ordering::Relaxed) {
        pause(Duration::from_millis(20));
        if live && Instant::now() >= next {
            next += Duration::from_secs(1);
            let live = load.live();
            if json {
                eprintln!("{}", serde_json::to_string(&live)?);
            } else {
                eprintln!(
                    "{:5.0} s  {:8.0}/s  p50 {:7.2} ms  p99 {:7.2} ms  limited {}  failed {}",
                    live.seconds, live.rps, live.latency.p50, live.latency.p99, live.limited, live.failed
                );
            }
        }
    }
    let report = load.stop()?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.failures() == 0)
}

impl Args {
    /// The plan that they say.
    pub fn plan(self) -> anyhow::Result<Plan> {
        let mut plan = Plan::new(resolve(&self.target)?, &self.host.unwrap_or(self.target));
        plan.paths = self.path;
        plan.headers = self.header;
        (plan.body, plan.method) = (self.body, self.method);
        plan.steps = self.steps;
        if plan.steps.is_empty() {
            plan.steps = vec![Step { rate: self.rate, duration: self.duration }];
        }
        plan.new_per_second = self.new_per_second;
        (plan.h1, plan.h2, plan.h2_streams) = (self.h1, self.h2, self.h2_streams);
        (plan.ws, plan.ws_path) = (self.ws, self.ws_path);
        plan.tls = self.ca.filter(|_| self.tls);
        plan.timeout = self.timeout;
        Ok(plan)
    }
}

/// The first address of a name or address with port.
pub fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    let found = target.to_socket_addrs().map_err(|error| anyhow::anyhow!("{target}: {error}; write NAME:PORT"))?;
    found.into_iter().next().ok_or_else(|| anyhow::anyhow!("{target}: the name has no address"))
}

#[allow(clippy::disallowed_methods)] // a thread of its own that has nothing else to do
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::HEAD | Method::CONNECT) => Err("its answers have no bodies, which this tool waits for".to_owned()),
        Ok(method) => Ok(method),
        Err(_) => Err(format!("{text:?} is no method; write it like PUT")),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn step(text: &str) -> Result<Step, String> {
    let (rate, time) = text.split_once(':').ok_or("write it as RATE:DURATION, like 3000:15s")?;
    let rate: f64 = rate.parse().map_err(|_| format!("{rate:?} is no rate; write requests a second"))?;
    if !(rate.is_finite() && rate >= 0.0) {
        return Err(format!("{rate} is no rate; write requests a second"));
    }
    Ok(Step { rate, duration: duration(time)? })
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write it like 500ms, 10s or 2m");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_durations_and_methods_are_read() {
        assert_eq!(step("3000:15s"), Ok(Step { rate: 3000.0, duration: Duration::from_secs(15) }));
        assert_eq!(step("0.5:250ms"), Ok(Step { rate: 0.5, duration: Duration::from_millis(250) }));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["15s", "-1:1s", "NaN:1s", "1:1", "1:1h", "1:-1s"] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
        assert_eq!(method("PUT"), Ok(Method::PUT));
        assert!(method("HEAD").is_err() && method("A B").is_err());
    }
}
