//! The commands.

mod check;
mod columns;
mod crds;
mod get;
mod log;
mod plan;
mod refusals;
mod remove_fleet;
mod run;
mod standalone;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sluice's operator: compiles manifests into configuration, runs a fleet of proxies that serve it, scales the fleet with
/// load, and says what came of each manifest.
#[derive(Debug, Parser)]
#[command(name = "sluice-operator", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  sluice-operator plan --manifests DIR           are the manifests right, and what would run?
  sluice-operator standalone --manifests DIR     run a gateway on this machine
  sluice-operator run --help                     run in a cluster, as the chart does
  sluice-operator get apiroutes --manifests DIR  what came of each route?
  sluice-operator refusals --manifests DIR       what do proxies refuse to run?";

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Standalone(standalone::Args),
    Plan(plan::Args),
    Get(get::Args),
    Refusals(refusals::Args),
    Crds(crds::Args),
    Check(check::Args),
    RemoveFleet(remove_fleet::Args),
}

/// Why a command failed, for the one who typed it.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Standalone(args) => standalone::run(args),
        Command::Plan(args) => plan::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Refusals(args) => refusals::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Check(args) => check::run(&args),
        Command::RemoveFleet(args) => remove_fleet::run(&args),
    };
    done.unwrap_or_else(|error| {
        // Whoever reads our output has seen enough.
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("sluice-operator: {error}");
        ExitCode::FAILURE
    })
}
