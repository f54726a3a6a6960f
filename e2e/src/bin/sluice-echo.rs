//! `sluice-echo`: a small upstream for trying the gateway out. See `e2e::echo`.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    e2e::echo::main(&e2e::echo::Args::parse())
}
