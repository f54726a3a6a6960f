//! A compiled rule: what the request path does with a request once the router has found it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    filter::Chain,
    telemetry::{RouteMetrics, ServedBy},
    upstream::ClusterSlot,
};

/// A rule of a route, compiled.
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// The rule's name.
    pub name: Arc<str>,
    /// Counters of the route.
    pub metrics: Arc<RouteMetrics>,
    /// Limits and filters, in the proxy's order.
    pub chain: Chain,
    /// From the request's head to the response's end.
    pub request_timeout: Option<Duration>,
    /// For one try at a backend, to the response's head.
    pub backend_timeout: Option<Duration>,
    /// Whether bodies are streams, of which a message may be long in coming.
    pub streams: bool,
    /// Where requests go.
    pub action: Action,
}

/// The action of a rule once its filters let a request pass.
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

impl Rule {
    /// The end of the time that a request has, whose head was complete then: for filters that wait, the backend and the
    /// response together.
    pub(crate) fn deadline(&self, started: Instant) -> Option<tokio::time::Instant> {
        self.request_timeout.map(|time| tokio::time::Instant::from_std(started + time))
    }

    /// The rule as metrics and log know it.
    pub fn served_by(&self) -> ServedBy<'_> {
        ServedBy { route: &self.route, rule: &self.name, metrics: &self.metrics }
    }
}
