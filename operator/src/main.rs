//! `sluice-operator`: see `--help`.

/// glibc gives each thread a heap of its own, and what one lets go there no other gets: of plans, which are made in whichever
/// thread is free, it keeps two or three times as much as there is.
#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

fn main() -> std::process::ExitCode {
    operator::cli::run()
}
