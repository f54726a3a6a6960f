//! What is known of requests once they are over: metrics, access log, load windows.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Version};

use crate::config::Rule;

/// Counters of one rule, their label sets resolved when the rule was compiled.
#[derive(Default)]
pub struct RouteMetrics {}

/// Everything that counts and logs.
pub struct Telemetry {
    windows: tokio::sync::broadcast::Sender<Arc<snapshot::proto::LoadWindow>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { windows: tokio::sync::broadcast::Sender::new(16) }
    }
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
    /// The rule that served it; `None`: none matched.
    pub rule: Option<&'a Arc<Rule>>,
    /// The client.
    pub client: SocketAddr,
    /// The request's method.
    pub method: &'a Method,
    /// The request's path and query, as it came.
    pub target: &'a str,
    /// Host, as it came.
    pub host: &'a str,
    /// Protocol of the client's connection.
    pub version: Version,
    /// The final status; 0: the client got none.
    pub status: u16,
    /// `X-Request-Id`.
    pub request_id: &'a str,
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

/// Closes a load window each second.
pub async fn report(_shared: Arc<crate::Shared>) {
    std::future::pending().await
}

impl Telemetry {
    /// For so many worker threads.
    pub fn new(_workers: usize) -> Self {
        Self::default()
    }

    /// Load windows as they are closed.
    pub fn windows(&self) -> tokio::sync::broadcast::Receiver<Arc<snapshot::proto::LoadWindow>> {
        self.windows.subscribe()
    }

    /// Those of the last five minutes.
    pub fn last_windows(&self) -> Vec<snapshot::proto::LoadWindow> {
        vec![]
    }

    /// All metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        String::new()
    }

    /// Waits until the access log is written.
    pub async fn flush(&self) {}

    /// The counters of a route, the same across pushes.
    pub fn route(&self, _name: &Arc<str>) -> Arc<RouteMetrics> {
        Arc::default()
    }

    /// Drops the series of all routes but these.
    pub fn retain_routes(&self, _names: &std::collections::BTreeSet<String>) {}

    /// Takes over the settings of a new configuration.
    pub fn configure(&self, _settings: &crate::config::Settings, _revision: snapshot::Hash) {}

    /// A request's head arrived. Paired with exactly one [`Telemetry::closed`].
    pub fn opened(&self) {}

    /// A request is over: metrics, load window, access log (through a bounded queue that drops and counts).
    pub fn closed(&self, _record: &RequestRecord<'_>) {}

    /// A client connection was accepted.
    pub fn connected(&self) {}

    /// A client connection ended.
    pub fn disconnected(&self) {}
}
