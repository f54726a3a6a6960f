//! The promises of the whole system, each held against the built programs. `cargo xtask e2e [FILTER]` runs them.
