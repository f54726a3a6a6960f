//! The project's own automation: `cargo xtask COMMAND`. One module for each command.

mod bench;
mod chart;
mod cli;
mod crds;
mod dist;
mod images;
mod quickstart;
#[cfg(test)]
mod security;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
