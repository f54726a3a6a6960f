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

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use self::{
    peers::Peers,
    round::{Load, Sample},
    scenario::{Kind, SCENARIOS, Scenario},
    subject::{Bench, Subject, Who},
    table::{Mode, Row},
};
use crate::{cluster::Folders, pgo, shell};

/// Below this share of its core a subject was waiting, and what it did per request says less.
const BUSY: f64 = 0.95;
/// The common rate, as a share of what the slower of nginx and HAProxy can do.
const COMMON: f64 = 0.7;

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
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Write the rows to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Cargo's profile of what is built and measured.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Measure what is built, without building.
    #[arg(long)]
    no_build: bool,
    /// Measure the proxy that `cargo xtask pgo` builds, as releases should be.
    #[arg(long)]
    pgo: bool,
    /// Measure this sluice-proxy instead of the one that is built here.
    #[arg(long, value_name = "PATH", conflicts_with = "pgo")]
    proxy_bin: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0 && args.seconds > 0.0, "--rounds and --seconds must be above 0");
    let groups = selected(&args.scenario)?;
    let folders = Folders::of_user()?;
    let _alone = folders.lock("bench")?;
    if !args.no_build {
        println!("building sluice");
        shell::cargo(&["build", "--workspace", "--bins", "--profile", &args.profile]).run()?;
        if args.pgo {
            pgo::build()?;
        }
    }
    let proxy = if args.pgo { Some(pgo::program()?) } else { args.proxy_bin.clone() };
    let peers = Peers::install(&folders.cache().join("bench"))?;
    let who = subjects(args.peer.as_deref())?;
    let bench = Bench::new(Some(peers), &args.profile, proxy)?;
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
    if args.scenario.is_empty() && args.peer.is_none() {
        let page = shell::root().join("docs/benchmarks.md");
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        table::write_page(&page, &rows, &bench.versions()?, &command)?;
        println!("written: {}", page.display());
    }
    Ok(())
}

/// Those that are asked for, each with what it is compared to.
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

/// What a proxy that counts for the compiler should have met: the usual, kept and new connections, plain and encrypted.
const TRAINING: [&str; 8] = ["S1", "S2", "S2b", "S3", "S4", "S5r", "S8p", "S8t"];
const TRAINING_SECONDS: f64 = 2.0;

/// Puts a proxy under load, scenario by scenario; what it counted is written as it ends.
pub(crate) fn train(proxy: &Path) -> anyhow::Result<()> {
    let bench = Bench::new(None, "release", Some(proxy.to_owned()))?;
    for scenario in SCENARIOS.iter().filter(|scenario| TRAINING.contains(&scenario.name)) {
        let subject = Subject::start(&bench, Who::Sluice, scenario)?;
        let sample = round::run(&bench.load(scenario)?, &subject, scenario, 0.0, TRAINING_SECONDS)?;
        println!("  {:<4} {}: {:.0} requests a second", scenario.name, scenario.title, sample.requests_per_s);
    }
    Ok(())
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

/// One scenario, measured.
struct Measured {
    scenario: &'static Scenario,
    rows: Vec<Row>,
}

/// One subject in one scenario, while it is measured.
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
    let mode = match common_rate(&running) {
        None => Mode::Closed,
        Some(rate) => {
            rounds(&mut running, args, rate)?;
            Mode::Rate(rate)
        }
    };
    by_scenario(group, &running, |r| Ok(Row::new(r.scenario, r.subject.who, &r.samples, mode)))
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

/// The rate at which to measure again, because not every subject kept its core busy.
fn common_rate(running: &[Running<'_>]) -> Option<f64> {
    let median = |r: &Running<'_>, of: fn(&Sample) -> f64| table::median(r.samples.iter().map(of));
    if running.iter().all(|r| median(r, |s| s.busy) >= BUSY) {
        return None;
    }
    let of = |who: &[Who]| {
        let those = running.iter().filter(|r| who.contains(&r.subject.who));
        those.map(|r| median(r, |s| s.requests_per_s)).reduce(f64::min)
    };
    Some(COMMON * of(&[Who::Nginx, Who::HaProxy]).or_else(|| of(&[Who::Sluice])).unwrap_or(1000.0))
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
