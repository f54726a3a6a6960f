//! `sluice-proxy`: one proxy of a fleet.

use std::process::ExitCode;

use clap::Parser;
use proxy::cli;

#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    cli::run(cli::Options::parse())
}
