//! What the request path executes: compiled once from a snapshot, swapped as a whole.
//!
//! ```text
//!  push ─► store.rs  check, prepare each resource, nack what can't run ─► apply.rs  open ports
//!                                                                           │
//!  ArcSwap<Config> ◄─ compile.rs  what did not change is taken over ◄───────┘
//! ```

mod apply;
mod clusters;
mod compile;
mod fault;
pub mod last_good;
mod policies;
mod route;
mod settings;
mod store;
mod tls;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use snapshot::Hash;

pub use apply::{Applier, ApplyError, Ports};
pub use compile::{Built, Compiler};
pub use settings::{Http2Limits, Settings};
pub use store::{PORT_UNAVAILABLE, Refused, Staged, Store};

use clusters::Clusters;
use policies::Policies;

use crate::{filter::Chain, router::Router, telemetry::RouteMetrics, upstream::Endpoint};

/// Everything a proxy executes.
#[derive(Default)]
pub struct Config {
    /// Revision of the content that runs (what was pushed, less what was nacked).
    pub revision: Hash,
    /// Epoch of the push.
    pub epoch: u64,
    /// Settings of the fleet.
    pub settings: Settings,
    /// What is served on each port that is opened.
    pub ports: BTreeMap<u16, Arc<Port>>,
}

/// One port: its listeners' certificates and routes.
pub struct Port {
    /// The port that clients know.
    pub port: u16,
    /// TLS with SNI and ALPN (h2, http/1.1), when any listener of the port is HTTPS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Which rule serves a request.
    pub router: Router,
}

/// One rule of a route, compiled.
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// The rule's name.
    pub name: Arc<str>,
    /// Its counters.
    pub metrics: Arc<RouteMetrics>,
    /// Limits and filters, in the proxy's order.
    pub chain: Chain,
    /// From the request's head to the response's end.
    pub request_timeout: Option<Duration>,
    /// For one try at a backend, to the response's head.
    pub backend_timeout: Option<Duration>,
    /// Its bodies are streams.
    pub streams: bool,
    /// Where requests go.
    pub action: Action,
}

/// What a rule does once its filters let a request pass.
pub enum Action {
    /// Proxies to a backend.
    Forward(Backends),
    /// Answers 500, and why.
    Unavailable(Arc<str>),
}

/// Weighted clusters.
pub struct Backends {
    /// Each cluster with the sum of all weights up to and including its own.
    pub(crate) choices: Box<[(u64, Arc<ClusterSlot>)]>,
}

impl Backends {
    /// The cluster for a random number; `None` when all weights are 0.
    pub fn pick(&self, random: u64) -> Option<&Arc<ClusterSlot>> {
        let total = self.choices.last().map_or(0, |(sum, _)| *sum);
        let point = random.checked_rem(total)?;
        self.choices.iter().find(|(sum, _)| point < *sum).map(|(_, cluster)| cluster)
    }
}

/// A cluster's place: its endpoints change without touching the rules that name it.
pub struct ClusterSlot {
    /// The cluster's key.
    pub key: snapshot::Key,
    /// `None`: the snapshot lacks it; requests get 500.
    pub cluster: ArcSwapOption<Cluster>,
}

/// Endpoints to balance over. Those that terminate are left out while others are there.
pub struct Cluster {
    /// None: requests get 503.
    pub endpoints: Vec<Arc<Endpoint>>,
}
