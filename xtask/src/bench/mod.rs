//! `cargo xtask bench`: what a request costs, beside nginx, HAProxy and Envoy in the same run.
//!
//! ```text
//!   core 1: sluice-drive (client and upstream)  ⇄  core 0: the subject, one worker
//! ```
//!
//! ```text
//! mod        the command; rounds, interleaved between the subjects
//! scenario   what is measured, and the goals
//! peers      where nginx, HAProxy and Envoy come from
//! subject    a running proxy: ours or a peer's      configs    what it is told
//! accounts   CPU time and memory, as the kernel counts them
//! round      one measurement
//! table      the ratios, for people, as JSON and as docs/benchmarks.md
//! ```

mod accounts;
mod configs;
mod peers;
mod round;
mod scenario;
mod subject;
mod table;

use std::path::PathBuf;

use anyhow::Context as _;
use devcluster::Folders;

use self::{
    peers::Peers,
    round::{Load, Sample},
    scenario::{Kind, PARTS, SCENARIOS, Scenario},
    subject::{Bench, Subject, Who},
    table::{Mode, Row},
};
use crate::{dist, shell};

#[derive(clap::Args)]
#[command(
    after_help = "The client and the upstream run on core 1, each subject on core 0 with one worker. A quiet machine \
    with two cores or more is needed, and root (nginx and HAProxy run in a Debian of their own)."
)]
pub(crate) struct Args {
    /// Only these scenarios, such as S1,S4.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Only these subjects beside sluice: nginx, haproxy, envoy.
    #[arg(long, value_delimiter = ',')]
    peer: Option<Vec<String>>,
    /// Measurements of each subject; medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Write the rows to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this sluice-proxy instead of the one that `cargo xtask dist` builds and the Dockerfiles ship.
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0 && args.seconds > 0.0, "--rounds and --seconds must be above 0");
    let groups = selected(&args.scenario)?;
    let folders = Folders::of_user()?;
    let _alone = folders.lock("bench")?;
    println!("building sluice");
    shell::cargo(&["build", "--locked", "--workspace", "--bins", "--release"]).run()?;
    let proxy = match &args.proxy_bin {
        Some(proxy) => proxy.clone(),
        None => dist::program(dist::Program::Proxy)?,
    };
    let peers = Peers::install(&folders.cache().join("bench"))?;
    let who = subjects(args.peer.as_deref())?;
    let bench = Bench::new(peers, proxy)?;
    let mut rows = vec![];
    for group in groups {
        for measured in measure(&bench, group, &who, args)? {
            println!("{:<4} {}", measured.scenario.name, measured.scenario.title);
            measured.rows.iter().for_each(|row| println!("       {}", row.line()));
            rows.extend(measured.rows);
        }
    }
    println!("\n{}", table::markdown(&rows));
    if let Some(path) = &args.json {
        std::fs::write(path, table::json(&rows)?).with_context(|| path.display().to_string())?;
    }
    // The page is of what is shipped.
    if args.scenario.is_empty() && args.peer.is_none() && args.proxy_bin.is_none() {
        let page = shell::root().join("docs/benchmarks.md");
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        table::write_page(&page, &rows, &bench.versions()?, &command)?;
        println!("written: {}", page.display());
    }
    Ok(())
}

/// The scenarios that are asked for, each with what it is compared to.
fn selected(names: &[String]) -> anyhow::Result<Vec<&'static [Scenario]>> {
    for name in names {
        let known = || SCENARIOS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
        let is_known = SCENARIOS.iter().any(|s| s.name.eq_ignore_ascii_case(name));
        anyhow::ensure!(is_known, "--scenario {name}: there are {}", known());
    }
    let wanted = |s: &Scenario| names.is_empty() || names.iter().any(|name| s.name.eq_ignore_ascii_case(name));
    let groups = SCENARIOS.chunk_by(|a, b| a.group() == b.group());
    Ok(groups.filter(|group| group.iter().any(wanted)).collect())
}

fn subjects(peers: Option<&[String]>) -> anyhow::Result<Vec<Who>> {
    let Some(peers) = peers else { return Ok(Who::ALL.to_vec()) };
    let find = |name: &String| {
        let found = Who::ALL.into_iter().find(|who| who.name() == name);
        found.with_context(|| format!("--peer {name}: there are nginx, haproxy, envoy"))
    };
    let mut who = vec![Who::Sluice];
    who.extend(peers.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?);
    who.dedup();
    Ok(who)
}

/// A scenario that was measured.
struct Measured {
    scenario: &'static Scenario,
    rows: Vec<Row>,
}

/// A subject in a scenario, while it is measured.
struct Running<'a> {
    scenario: &'static Scenario,
    load: &'a Load,
    subject: Subject,
    samples: Vec<Sample>,
}

/// Measures scenarios that are compared with each other: every subject runs all the time, and they take turns.
fn measure(bench: &Bench, group: &'static [Scenario], who: &[Who], args: &Args) -> anyhow::Result<Vec<Measured>> {
    let loads: Vec<Load> = group.iter().map(|scenario| bench.load(scenario)).collect::<anyhow::Result<_>>()?;
    let mut running = vec![];
    // The same subject in one scenario and the next follow each other, so that they meet the same machine.
    for &who in who {
        for (scenario, load) in group.iter().zip(&loads) {
            let subject = Subject::start(bench, who, scenario).with_context(|| scenario.name.to_owned())?;
            running.push(Running { scenario, load, subject, samples: vec![] });
        }
    }
    if group.iter().any(|scenario| scenario.kind == Kind::Idle) {
        round::settle();
        return by_scenario(group, &running, |r| Ok(Row::idle(r.scenario, r.subject.who, r.subject.memory()?)));
    }
    rounds(&mut running, args, 0.0)?;
    let closed = |r: &Running<'_>| Ok(Row::new(r.scenario, r.subject.who, &r.samples, Mode::Closed));
    let mut measured = by_scenario(group, &running, closed)?;
    let most = slowest(&running);
    for share in PARTS {
        let rate = share * most;
        rounds(&mut running, args, rate)?;
        let part = |r: &Running<'_>| Ok(Row::new(r.scenario, r.subject.who, &r.samples, Mode::Part { share, rate }));
        for (all, part) in measured.iter_mut().zip(by_scenario(group, &running, part)?) {
            all.rows.extend(part.rows);
        }
    }
    Ok(measured)
}

fn rounds(running: &mut [Running<'_>], args: &Args, rate: f64) -> anyhow::Result<()> {
    running.iter_mut().for_each(|r| r.samples.clear());
    for _ in 0..args.rounds {
        for r in &mut *running {
            let sample = round::run(r.load, &r.subject, r.scenario, rate, args.seconds);
            r.samples.push(sample.with_context(|| format!("{}: {}", r.scenario.name, r.subject.who.name()))?);
        }
    }
    Ok(())
}

/// Requests a second that the slower of nginx and HAProxy answers in a closed loop; ours, if neither runs.
fn slowest(running: &[Running<'_>]) -> f64 {
    let median = |r: &Running<'_>| table::median(r.samples.iter().map(|sample| sample.requests_per_s));
    let of = |who: &[Who]| running.iter().filter(|r| who.contains(&r.subject.who)).map(median).reduce(f64::min);
    of(&[Who::Nginx, Who::HaProxy]).or_else(|| of(&[Who::Sluice])).unwrap_or(1000.0)
}

fn by_scenario(
    group: &'static [Scenario],
    running: &[Running<'_>],
    row: impl Fn(&Running<'_>) -> anyhow::Result<Row>,
) -> anyhow::Result<Vec<Measured>> {
    let of = |scenario: &'static Scenario| {
        let rows = running.iter().filter(|r| r.scenario.name == scenario.name).map(&row).collect::<anyhow::Result<_>>();
        Ok(Measured { scenario, rows: rows? })
    };
    group.iter().map(of).collect()
}
