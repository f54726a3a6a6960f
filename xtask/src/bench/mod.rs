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

use self::{
    peers::Peers,
    round::Sample,
    scenario::{Kind, SCENARIOS, Scenario},
    subject::{Bench, Subject, Who},
    table::{Mode, Row},
};
use crate::{cluster::Folders, shell};

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
    /// Measure this sluice-proxy instead of the one that is built here.
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.rounds > 0 && args.seconds > 0.0, "--rounds and --seconds must be above 0");
    let scenarios = selected(&args.scenario)?;
    let folders = Folders::of_user()?;
    let _alone = folders.lock("bench")?;
    if !args.no_build {
        println!("building sluice");
        shell::cargo(&["build", "--workspace", "--bins", "--profile", &args.profile]).run()?;
    }
    let peers = Peers::install(&folders.cache().join("bench"))?;
    let who = subjects(args.peer.as_deref())?;
    let bench = Bench::new(peers, &args.profile, args.proxy_bin.clone())?;
    let mut rows = vec![];
    for scenario in &scenarios {
        println!("{:<4} {}", scenario.name, scenario.title);
        let measured = measure(&bench, scenario, &who, args).with_context(|| scenario.name.to_owned())?;
        measured.iter().for_each(|row| println!("       {}", row.line()));
        rows.extend(measured);
    }
    println!("\n{}", table::markdown(&rows));
    if let Some(path) = &args.json {
        std::fs::write(path, table::json(&rows)?).with_context(|| path.display().to_string())?;
    }
    if args.scenario.is_empty() && args.peer.is_none() {
        let page = shell::root().join("docs/benchmarks.md");
        table::write_page(&page, &rows, &bench.versions()?, args.rounds, args.seconds)?;
        println!("written: {}", page.display());
    }
    Ok(())
}

fn selected(names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let known = || SCENARIOS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| SCENARIOS.iter().find(|s| s.name.eq_ignore_ascii_case(name));
    names.iter().map(|name| find(name).with_context(|| format!("--scenario {name}: there are {}", known()))).collect()
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

/// Measures one scenario: every subject runs all the time, and they take turns.
fn measure(bench: &Bench, scenario: &Scenario, who: &[Who], args: &Args) -> anyhow::Result<Vec<Row>> {
    let start = |who: &Who| Subject::start(bench, *who, scenario);
    let subjects: Vec<Subject> = who.iter().map(start).collect::<anyhow::Result<_>>()?;
    if scenario.kind == Kind::Idle {
        round::settle();
        return subjects.iter().map(|s| Ok(Row::idle(scenario, s.who, s.memory()?))).collect();
    }
    let load = bench.load(scenario)?;
    let rounds = |rate: f64| -> anyhow::Result<Vec<Vec<Sample>>> {
        let mut samples: Vec<Vec<Sample>> = vec![vec![]; subjects.len()];
        for _ in 0..args.rounds {
            for (subject, samples) in subjects.iter().zip(&mut samples) {
                let sample = round::run(&load, subject, scenario, rate, args.seconds);
                samples.push(sample.with_context(|| subject.who.name())?);
            }
        }
        Ok(samples)
    };
    let closed = rounds(0.0)?;
    let busy = |samples: &Vec<Sample>| table::median(samples.iter().map(|s| s.busy)) >= BUSY;
    if closed.iter().all(busy) {
        return Ok(rows(scenario, &subjects, &closed, Mode::Closed));
    }
    let rps = |wanted: Who| {
        let of = subjects.iter().zip(&closed).find(|(s, _)| s.who == wanted)?;
        Some(table::median(of.1.iter().map(|s| s.requests_per_s)))
    };
    let slower = [Who::Nginx, Who::HaProxy].into_iter().filter_map(rps).reduce(f64::min);
    let rate = COMMON * slower.or_else(|| rps(Who::Sluice)).unwrap_or(1000.0);
    Ok(rows(scenario, &subjects, &rounds(rate)?, Mode::Rate(rate)))
}

fn rows(scenario: &Scenario, subjects: &[Subject], samples: &[Vec<Sample>], mode: Mode) -> Vec<Row> {
    subjects.iter().zip(samples).map(|(s, samples)| Row::new(scenario, s.who, samples, mode)).collect()
}
