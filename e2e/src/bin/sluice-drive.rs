//! `sluice-drive`: client and upstream in one thread, for benchmarks. See `e2e::drive`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    e2e::drive::main(&e2e::drive::Args::parse())
}
