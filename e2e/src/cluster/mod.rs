//! Sluice on a Kubernetes, as `cargo xtask test --cluster` tests it.
//!
//! - [`Api`]: the API server, in JSON; [`Resource`]: where it has which objects.
//! - [`Shell`]: what a user types: `kubectl` and `helm`, with the cluster's kubeconfig.

mod api;
pub mod grants;
mod resource;
mod shell;

pub use self::{
    api::{Api, Refusal},
    resource::Resource,
    shell::{Shell, project},
};
