//! `sluice-operator`: see `--help`.

fn main() -> std::process::ExitCode {
    operator::cli::run()
}
