//! `sluice-load`: a load generator that tells every outcome apart. See `e2e::load`; `sluice-load agent` is `e2e::agent`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> anyhow::Result<ExitCode> {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|word| word == "agent") {
        args.remove(1);
        e2e::agent::main(&e2e::agent::Args::parse_from(args))?;
        return Ok(ExitCode::SUCCESS);
    }
    let clean = e2e::load::main(e2e::load::Args::parse())?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
