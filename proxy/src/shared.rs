//! What all workers share. Counters, caches and pools live here or in the workers, outside the swapped configuration: a
//! push never resets them.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use arc_swap::ArcSwap;
use snapshot::{Hash, proto::Nack};
use tokio::sync::watch;

use crate::{
    config::Config,
    filter::{AccessPolicies, Limiters},
    memory::{Limit, Memory},
    telemetry::Telemetry,
    upstream::Endpoints,
};

/// Shared by every worker of the process.
pub struct Shared {
    /// The configuration that runs; loaded once a request.
    pub config: ArcSwap<Config>,
    /// Metrics, access log, load windows.
    pub telemetry: Telemetry,
    /// Upstream endpoints with their load, across pushes.
    pub endpoints: Endpoints,
    /// State of the rate limits, across pushes.
    pub limiters: Limiters,
    /// Access policies and what they count, across pushes; and the consumers that they know.
    pub access: AccessPolicies,
    /// Memory of this process that clients hold.
    pub memory: Arc<Memory>,
    /// Whether and how this proxy leaves.
    pub drain: watch::Sender<Drain>,
    /// The last order to shift load to others.
    pub rebalance: watch::Sender<Option<Rebalance>>,
    /// Outcome of the last push.
    pub status: watch::Sender<Status>,
    /// The report that `/connections` of the admin port shows; set once by the server.
    pub connections_report: OnceLock<Box<dyn Fn() -> serde_json::Value + Send + Sync>>,
}

/// Whether this proxy leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// The proxy stays.
    #[default]
    Serving,
    /// The proxy leaves: answers carry `Connection: close`, streams end behind GOAWAY, idle connections are closed
    /// last.
    Draining,
}

/// Carries more than its share: retires connections that carry `excess` of its load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebalance {
    /// Share of the load to shift, 0 to 1.
    pub excess: f64,
    /// Over this time.
    pub over: std::time::Duration,
    /// When the order came.
    pub since: Instant,
}

/// Outcome of the last push.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// A full snapshot runs (acknowledged, or the last good one from before a restart).
    pub ready: bool,
    /// Epoch of the last push.
    pub epoch: u64,
    /// Revision that was pushed last; it runs, but for what was nacked.
    pub pushed: Hash,
    /// Revision of what runs.
    pub running: Hash,
    /// Nacks that stand.
    pub nacks: Vec<Nack>,
}

impl Shared {
    /// State without a configuration yet, in a process whose memory limit is looked up.
    pub fn new(telemetry: Telemetry) -> Arc<Self> {
        Self::within(telemetry, Limit::find(None))
    }

    /// State without a configuration yet, in a process with this memory limit.
    pub fn within(telemetry: Telemetry, limit: Limit) -> Arc<Self> {
        Arc::new(Self {
            config: ArcSwap::from_pointee(Config::default()),
            telemetry,
            endpoints: Endpoints::default(),
            limiters: Limiters::default(),
            access: AccessPolicies::default(),
            memory: Memory::new(limit),
            drain: watch::Sender::new(Drain::Serving),
            rebalance: watch::Sender::new(None),
            status: watch::Sender::new(Status::default()),
            connections_report: OnceLock::new(),
        })
    }

    /// Whether it leaves.
    pub fn is_draining(&self) -> bool {
        *self.drain.borrow() == Drain::Draining
    }
}
