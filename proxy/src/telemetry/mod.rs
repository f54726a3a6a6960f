//! What is known of requests once they are over: metrics, access log, load windows.
//!
//! The request path counts in places of its own thread (`sharded.rs`) that its rule already holds: no lock, no look-up,
//! no allocation but for lines of the access log.

mod access_log;
mod exposition;
mod histogram;
mod line;
mod load;
mod process;
mod routes;
mod sharded;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{Method, Version};
use snapshot::proto::LoadWindow;
use tokio::sync::broadcast;

pub use load::report;
pub use routes::RouteMetrics;
pub(crate) use sharded::{Counter, Sharded};

use crate::{
    Shared,
    config::{Rule, Settings},
};

/// The reason of a request that a policy rejected.
pub const RATE_LIMITED: &str = "rate_limited";
/// The reason of a request that was rejected for want of capacity.
pub const SHED: &str = "shed";

/// Everything that counts and logs.
pub struct Telemetry {
    routes: routes::Routes,
    load: load::Load,
    windows: load::Windows,
    log: access_log::AccessLog,
    /// Failed requests by reason and blame.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Connections ended for a flood, by its class.
    floods: Mutex<BTreeMap<&'static str, u64>>,
    /// WebSockets ended because their time was over, by which.
    websockets: Mutex<BTreeMap<&'static str, u64>>,
    /// Connections closed at once, because their client had as many as it may have.
    refused: AtomicU64,
    /// How often accepting paused for want of descriptors.
    paused: AtomicU64,
    /// How often the keeper started this proxy again.
    restarts: u64,
    started: SystemTime,
}

/// Who is to blame for a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client.
    Downstream,
    /// The backend.
    Upstream,
    /// The proxy or its configuration.
    Internal,
}

/// One request, over.
pub struct RequestRecord<'a> {
    /// When it was over.
    pub ended: Instant,
    /// The rule that served it; `None`: none matched.
    pub rule: Option<&'a Arc<Rule>>,
    /// The client's address, as text.
    pub client: &'a [u8],
    /// Its port.
    pub client_port: u16,
    /// The request's method.
    pub method: &'a Method,
    /// The request's path and query, as it came.
    pub target: &'a str,
    /// Host, as it came.
    pub host: &'a [u8],
    /// Protocol of the client's connection.
    pub version: Version,
    /// The final status; 0: the client got none.
    pub status: u16,
    /// `X-Request-Id`.
    pub request_id: &'a [u8],
    /// From the request's head to the response's end.
    pub duration: Duration,
    /// From the request's way upstream to the response's head; `None`: did not go upstream.
    pub upstream: Option<Duration>,
    /// Time the proxy itself added up to the response's head.
    pub added: Duration,
    /// Where it went.
    pub upstream_address: Option<SocketAddr>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// Why it failed or was answered by the proxy itself: a fixed word.
    pub reason: Option<&'static str>,
    /// Whose fault that is.
    pub blame: Option<Blame>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            routes: Default::default(),
            load: Default::default(),
            windows: Default::default(),
            log: Default::default(),
            failed: Mutex::default(),
            floods: Mutex::default(),
            websockets: Mutex::default(),
            refused: AtomicU64::default(),
            paused: AtomicU64::default(),
            restarts: 0,
            started: SystemTime::now(),
        }
    }
}

impl Telemetry {
    /// Of a proxy that crashed and was started again so many times.
    pub fn restarted(restarts: u64) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// A request's head arrived. Paired with exactly one [`Telemetry::closed`].
    pub fn opened(&self) {
        self.load.counters.own().opened.count();
    }

    /// A request is over: metrics, load window, access log (through a bounded queue that drops and counts).
    pub fn closed(&self, record: &RequestRecord<'_>) {
        record.rule.map_or(&self.routes.unmatched, |rule| &rule.metrics).closed(record);
        self.load.counters.own().closed(record);
        if let (Some(reason), Some(blame)) = (record.reason, record.blame) {
            // The lock is only for what fails.
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed.entry((reason, blame.as_str())).or_default() += 1;
        }
        self.log.closed(record);
    }

    /// A client connection was accepted.
    pub fn connected(&self) {
        self.load.counters.own().connected.count();
    }

    /// A client connection was ended because of a flood of what is no request.
    pub fn flooded(&self, class: &'static str) {
        *self.floods.lock().unwrap_or_else(PoisonError::into_inner).entry(class).or_default() += 1;
    }

    /// A WebSocket was ended because its time was over.
    pub fn websocket_over(&self, time: &'static str) {
        *self.websockets.lock().unwrap_or_else(PoisonError::into_inner).entry(time).or_default() += 1;
    }

    /// A client connection was closed at once, because its client had as many as it may have.
    pub fn connection_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Accepting paused for want of descriptors.
    pub fn accepting_paused(&self) {
        self.paused.fetch_add(1, Relaxed);
    }

    /// A client connection ended.
    pub fn disconnected(&self) {
        self.load.counters.own().disconnected.count();
    }

    /// The counters of a route (`namespace/name`), the same across pushes. Its series are there as long as they are held.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteMetrics> {
        self.routes.route(name)
    }

    /// Takes over the settings of a new configuration.
    pub fn configure(&self, settings: &Settings) {
        self.log.configure(settings.access_log_level, settings.access_log_sampling);
        self.routes.forget_unused();
    }

    /// Load windows, as they are closed by [`report`].
    pub fn windows(&self) -> broadcast::Receiver<Arc<LoadWindow>> {
        self.windows.subscribe()
    }

    /// The load windows of the last five minutes.
    pub fn last_windows(&self) -> Vec<LoadWindow> {
        self.windows.kept()
    }

    /// Waits until the access log is written.
    pub async fn flush(&self) {
        self.log.flush().await;
    }
}

impl Blame {
    /// The word for metrics and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Blame::Downstream => "downstream",
            Blame::Upstream => "upstream",
            Blame::Internal => "internal",
        }
    }
}

/// All metrics in Prometheus' text format.
pub fn metrics(shared: &Shared) -> String {
    exposition::metrics(shared)
}

#[cfg(test)]
mod tests;
