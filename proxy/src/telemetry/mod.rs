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
mod record;
mod report;
mod routes;
mod sharded;
mod waits;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use snapshot::proto::{AccessLogLevel, LoadWindow};
use tokio::sync::broadcast;

pub use exposition::metrics;
pub use record::{ErrorSource, RATE_LIMITED, RequestRecord, SHED, ServedBy};
pub use report::report;
pub use routes::RouteMetrics;
pub(crate) use sharded::{Counter, Sharded};
pub(crate) use waits::{AuthDecisions, Waiter};

/// Everything that counts and logs.
pub struct Telemetry {
    routes: routes::Routes,
    load: load::Load,
    windows: load::Windows,
    log: access_log::AccessLog,
    waits: waits::Waits,
    /// Decisions of external authorization, for all routes.
    pub(crate) auth_decisions: Arc<Sharded<AuthDecisions>>,
    /// Failed requests by reason and blame.
    failed: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Connections ended for a flood, by its class.
    floods: Mutex<BTreeMap<&'static str, u64>>,
    /// WebSockets ended because their time was over, by which.
    websockets: Mutex<BTreeMap<&'static str, u64>>,
    /// Connections closed at once, because their client had as many as it may have.
    refused: AtomicU64,
    /// Number of times that accepting paused for want of descriptors.
    paused: AtomicU64,
    /// Number of times that the keeper started this proxy again.
    restarts: u64,
    started: SystemTime,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            routes: Default::default(),
            load: Default::default(),
            windows: Default::default(),
            log: Default::default(),
            waits: Default::default(),
            auth_decisions: Arc::default(),
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
    /// Telemetry of a proxy that crashed and was started again so many times.
    pub fn restarted(restarts: u64) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// A request's head arrived. Paired with exactly one [`Telemetry::closed`].
    pub fn opened(&self) {
        self.load.counters.own().opened.count();
    }

    /// A request is over: metrics, load window, access log (through a bounded queue that drops and counts).
    pub fn closed(&self, record: &RequestRecord<'_>) {
        let route = record.rule.map_or(&self.routes.unmatched, |rule| rule.metrics);
        route.closed(record.status, record.duration, record.upstream);
        self.load.counters.own().closed(record);
        if let (Some(reason), Some(error_source)) = (record.reason, record.error_source) {
            // The lock is only for what fails.
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed.entry((reason, error_source.as_str())).or_default() += 1;
        }
        self.log.closed(record);
    }

    /// A filter has waited for others for so long; `resumed`: it went on then.
    pub(crate) fn waited(&self, filter: Waiter, time: Duration, resumed: bool) {
        self.waits.ended(filter, time, resumed);
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

    /// The counters of a route (`namespace/name`), the same across pushes. Its series are there as long as they are
    /// held.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteMetrics> {
        self.routes.route(name)
    }

    /// Takes over what a new configuration logs, the sampling in percent of the successful answers, and drops the series of
    /// routes that are gone.
    pub fn configure(&self, access_log_level: AccessLogLevel, access_log_sampling: u32) {
        self.log.configure(access_log_level, access_log_sampling);
        self.routes.forget_unused();
    }

    /// Load windows, as they are closed by [`report()`].
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

#[cfg(test)]
mod tests;
