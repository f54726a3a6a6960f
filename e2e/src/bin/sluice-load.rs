//! `sluice-load`: a load generator that tells every outcome apart. See `e2e::load`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    let clean = e2e::load::main(e2e::load::Args::parse())?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
