//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{bench, chart, crds, dist, images, quickstart, test, tidy};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Everything one does with this repository, as commands",
    after_help = "START HERE\n  \
        cargo xtask quickstart    a running gateway on this machine, in one command\n  \
        cargo xtask test          everything that must hold before a change is shared"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and run a gateway on this machine: two upstreams, the operator, a fleet of proxies.
    Quickstart(quickstart::Args),
    /// Run every check and test: format, tidy, clippy, unit, golden, property, doc and end-to-end tests.
    Test(test::Args),
    /// Build what the end-to-end tests need and run them, or those whose name contains FILTER.
    E2e(test::E2eArgs),
    /// A Kubernetes to run things on: yours, kind's, or a node built from source on this machine.
    Cluster(devcluster::Args),
    /// Build the images of the operator, the proxy and the tests' tools, for a cluster on this machine.
    Images(images::Args),
    /// Measure CPU per request, throughput and latency beside nginx, HAProxy and Envoy in the same run.
    Bench(bench::Args),
    /// Build what a release consists of, in target/dist: programs (the proxy with profile-guided optimisation), bills of
    /// materials, chart, images, checksums.
    Dist(dist::Args),
    /// Check what no other tool checks: import rules of the crates, sizes and heads of files.
    Tidy,
    /// Write what of charts/sluice is generated anew: definitions, schema, README, and what it gives in its testdata.
    Chart,
    /// Write crds/yaml/*.yaml anew from the types in crds/src, and the chart's copies of them.
    Crds,
}

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Quickstart(args) => return quickstart::run(&args),
        Command::Cluster(args) => return devcluster::run(&args),
        Command::Test(args) => test::run(&args),
        Command::E2e(args) => test::e2e(&args),
        Command::Images(args) => images::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Tidy => tidy::run(),
        Command::Chart => chart::run(),
        Command::Crds => crds::run(),
    }?;
    Ok(ExitCode::SUCCESS)
}
