//! What all workers share. Counters, caches and pools live here or in the workers, outside the swapped configuration: a
//! push never resets them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{config::Config, telemetry::Telemetry, upstream::Endpoints};

/// Shared by every worker of the process.
pub struct Shared {
    /// What is executed; loaded once a request.
    pub config: ArcSwap<Config>,
    /// Metrics, access log, load windows.
    pub telemetry: Telemetry,
    /// Upstream endpoints with their load, across pushes.
    pub endpoints: Endpoints,
    /// Whether and how this proxy leaves.
    pub drain: watch::Sender<Drain>,
    /// The last order to shift load to others.
    pub rebalance: watch::Sender<Option<Rebalance>>,
}

/// Whether this proxy leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// It stays.
    #[default]
    Serving,
    /// It leaves: answers carry `Connection: close`, streams end behind GOAWAY, what is idle is closed last.
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
    pub since: std::time::Instant,
}

impl Shared {
    /// With nothing to execute yet.
    pub fn new(telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self {
            config: ArcSwap::from_pointee(Config::default()),
            telemetry,
            endpoints: Endpoints::default(),
            drain: watch::Sender::new(Drain::Serving),
            rebalance: watch::Sender::new(None),
        })
    }
}
