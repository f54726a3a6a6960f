//! `sluice-proxy`: one proxy of a fleet.

use clap::Parser;
use proxy::cli;

fn main() -> anyhow::Result<()> {
    cli::run(cli::Options::parse())
}
