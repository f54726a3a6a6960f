//! Whole-system tests of Sluice, and the tools they are made of.
//!
//! ```text
//!   load ──HTTP/1.1, HTTP/2, WebSocket──► gateway under test ──► echo (a real upstream)
//!                                              ▲
//!   tests/*.rs ── harness::Gateway ── spawns ──┘  (the built sluice-operator and sluice-proxy binaries)
//! ```
//!
//! - [`agent`]: runs loads and single requests for others, where it is: in a pod. Also `sluice-load agent`.
//! - [`echo`]: the upstream. Also the program `sluice-echo`.
//! - [`load`]: a load generator that tells every outcome apart. Also the program `sluice-load`.
//! - `cluster` (feature `cluster`): the same on a Kubernetes.
//! - [`drive`]: client and upstream in one thread, for benchmarks. Also the program `sluice-drive`.
//! - [`harness`]: starts a gateway from a folder of manifests, reads what it reports, and stops everything it started.
//!
//! Nothing here links against the gateway's own crates: the tests see what a user of the binaries sees.

pub mod agent;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod drive;
pub mod echo;
pub mod harness;
pub mod load;
