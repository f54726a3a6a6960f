//! Counters of routes. A rule holds its route's from the time it is compiled, so a request looks nothing up.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use super::{
    histogram::{Counts, Histogram},
    sharded::{place, shards},
};

/// Classes of answers, by the first digit of their status; 0: the client got none.
pub(crate) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of one route, the same for all its rules and across pushes. They are there once the route served a request:
/// of 10,000 routes many serve none.
#[derive(Default)]
pub struct RouteMetrics {
    shards: OnceLock<Box<[Shard]>>,
}

/// The counts of one thread. A histogram is there once it counted something: of 10,000 routes most have one or two.
#[derive(Default)]
struct Shard {
    durations: [OnceLock<Box<Histogram>>; CLASSES.len()],
    upstream: OnceLock<Box<Histogram>>,
}

/// The counters of all routes that have rules. With the last rule of a route, its series go.
#[derive(Default)]
pub(crate) struct Routes {
    by_name: Mutex<HashMap<Arc<str>, Weak<RouteMetrics>>>,
    /// Requests that no rule matched.
    pub(crate) unmatched: RouteMetrics,
}

impl RouteMetrics {
    /// Counts one request.
    pub(super) fn closed(&self, status: u16, duration: Duration, upstream: Option<Duration>) {
        let shards = self.shards.get_or_init(|| (0..shards()).map(|_| Shard::default()).collect());
        let shard = &shards[place()];
        shard.durations[class(status)].get_or_init(Box::default).observe(duration);
        if let Some(upstream) = upstream {
            shard.upstream.get_or_init(Box::default).observe(upstream);
        }
    }

    /// Durations by class of the answer.
    pub(super) fn durations(&self, class: usize) -> Counts {
        self.shards().filter_map(|shard| shard.durations[class].get()).map(Box::as_ref).collect()
    }

    /// Times until the upstream's response began.
    pub(super) fn upstream(&self) -> Counts {
        self.shards().filter_map(|shard| shard.upstream.get()).map(Box::as_ref).collect()
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.get().into_iter().flatten()
    }
}

impl Routes {
    pub(super) fn route(&self, name: &Arc<str>) -> Arc<RouteMetrics> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = by_name.get(name).and_then(Weak::upgrade) {
            return metrics;
        }
        let metrics = Arc::<RouteMetrics>::default();
        by_name.insert(Arc::clone(name), Arc::downgrade(&metrics));
        metrics
    }

    /// By name.
    pub(super) fn list(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = vec![];
        by_name.retain(|name, metrics| {
            let metrics = metrics.upgrade();
            list.extend(metrics.iter().map(|metrics| (Arc::clone(name), Arc::clone(metrics))));
            metrics.is_some()
        });
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// Forgets the names of routes that are gone.
    pub(super) fn forget_unused(&self) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, metrics| metrics.strong_count() > 0);
    }
}

fn class(status: u16) -> usize {
    let class = usize::from(status / 100);
    if class < CLASSES.len() { class } else { 0 }
}
