//! The promises of Sluice on a Kubernetes, each held against a real one: `cargo xtask test --cluster` runs them.
//!
//! Counts are asserted exactly. Times are asserted at ten times the goal, because the machine that runs this may be busy;
//! with `SLUICE_LONG` set (`--long`) at the goal itself.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, like tests

mod schema;
