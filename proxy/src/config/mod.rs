//! What the request path executes: compiled once from a snapshot, swapped as a whole.
//!
//! ```text
//!  push ─► snapshot_store.rs  check, prepare each resource, nack what can't run ─► apply.rs  open ports
//!                                                                                    │
//!  ArcSwap<Config> ◄─ compile.rs  what did not change is taken over ◄────────────────┘
//! ```

mod apply;
mod clusters;
mod compile;
mod consumers;
mod fault;
pub mod last_good;
mod policies;
mod route;
mod settings;
mod snapshot_store;
mod tls;

use std::{collections::BTreeMap, sync::Arc};

use snapshot::Hash;

pub use apply::{Applier, ApplyError, Ports};
pub use compile::{Built, Compiler};
pub use settings::Settings;
pub use snapshot_store::{Refused, SnapshotStore, Staged};

use crate::{consumers::Consumers, router::Router};

/// Everything a proxy executes.
#[derive(Default)]
pub struct Config {
    /// Revision of the content that runs (what was pushed, less what was nacked).
    pub revision: Hash,
    /// Epoch of the push.
    pub epoch: u64,
    /// Settings of the fleet.
    pub settings: Settings,
    /// Who calls.
    pub consumers: Arc<Consumers>,
    /// Ports by the number that is opened.
    pub ports: BTreeMap<u16, Arc<Port>>,
}

/// A port: its listeners' certificates and routes.
pub struct Port {
    /// The port that clients know.
    pub port: u16,
    /// TLS with SNI and ALPN (h2, http/1.1), when any listener of the port is HTTPS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Router to the rule that serves a request.
    pub router: Router,
}
