//! Whoever speaks the protocols is understood, the same whichever of them is spoken on either side.
//!
//! - [`corpus`]: requests and responses from specifications and published reports, on every way through the gateway.
//! - [`grpc`]: grpc-go's own interoperability cases and loads, directly and through the gateway.
//! - [`h2spec`]: HTTP/2 frame by frame.
//!
//! Each prints its figures beside their goals: `cargo xtask e2e interop --long` shows them.

mod corpus;
mod grpc;
mod h2spec;

use std::fmt::Display;

/// One line of the report: what was measured, what came of it, and what is the goal.
fn figure(line: &str, figure: impl Display, goal: &str) {
    println!("interop | {line} | {figure} | {goal}");
}
