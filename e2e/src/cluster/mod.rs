//! Sluice on a Kubernetes, as `cargo xtask test --cluster` tests it.
//!
//! - [`Shell`]: what a user types, with the cluster's `kubectl` and `helm` or without.
//! - [`Api`]: the API server, in JSON; [`Resource`]: where it has which objects.
//! - [`sluice`]: the release of the chart, installed once for all tests of a process; [`cluster`]: without it.
//! - [`Place`]: a namespace for one test, with a fleet, an upstream, and an [`Agent`] that sends from a pod.
//! - [`processes`]: what runs in a pod, where its node is this machine.
//! - [`grants`]: the definition of ReferenceGrant, which a cluster may have or not.

mod agent;
mod api;
pub mod grants;
mod place;
mod processes;
mod release;
mod resource;
mod shell;

pub use self::{
    agent::{Agent, RemoteLoad},
    api::{Api, Refusal},
    place::{FLEET, Fleet, HOST, Place, UPSTREAM, names},
    processes::processes,
    release::{Alone, Condition, OPERATOR, RELEASE, SYSTEM, Sluice, cluster, condition, sluice},
    resource::Resource,
    shell::{Shell, project},
};
