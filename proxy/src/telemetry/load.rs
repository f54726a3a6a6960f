//! What the scaler needs to know, counted by all workers and closed into a window each second.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use snapshot::{
    latency,
    proto::{LatencyCount, LoadWindow},
};
use tokio::sync::broadcast;

use super::{
    record::{RATE_LIMITED, RequestRecord, SHED},
    sharded::{Counter, Sharded},
};
/// Number of windows that `Hello` brings: five minutes.
const KEPT_WINDOWS: usize = 300;
/// Windows that a stream may be behind before it misses some.
const MAX_LAG_WINDOWS: usize = 64;

/// Counters since the process began.
#[derive(Default)]
pub(super) struct Load {
    pub(super) counters: Sharded<Counters>,
}

/// The counts of one thread.
pub(super) struct Counters {
    admitted: Counter,
    limited: Counter,
    shed: Counter,
    errors: Counter,
    failed: Counter,
    pub(super) opened: Counter,
    pub(super) closed: Counter,
    pub(super) connected: Counter,
    pub(super) disconnected: Counter,
    added: [Counter; latency::BUCKETS],
    pub(super) added_sum_us: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            admitted: Counter::default(),
            limited: Counter::default(),
            shed: Counter::default(),
            errors: Counter::default(),
            failed: Counter::default(),
            opened: Counter::default(),
            closed: Counter::default(),
            connected: Counter::default(),
            disconnected: Counter::default(),
            added: std::array::from_fn(|_| Counter::default()),
            added_sum_us: Counter::default(),
        }
    }
}

impl Counters {
    pub(super) fn closed(&self, record: &RequestRecord<'_>) {
        self.closed.count();
        match record.reason {
            Some(RATE_LIMITED) => return self.limited.count(),
            Some(SHED) => return self.shed.count(),
            Some(_) if record.status >= 500 => self.errors.count(),
            _ => {}
        }
        self.admitted.count();
        if record.status >= 500 {
            self.failed.count();
        }
        let added_us = u64::try_from(record.added.as_micros()).unwrap_or(u64::MAX);
        self.added[latency::bucket(added_us)].count();
        self.added_sum_us.add(added_us);
    }
}

impl Load {
    /// Requests and connections that are open.
    pub(super) fn open(&self) -> (u64, u64) {
        // What is closed is read first, so that nothing seems closed before it was opened.
        let (closed, disconnected) = (self.counters.sum(|c| &c.closed), self.counters.sum(|c| &c.disconnected));
        let (opened, connected) = (self.counters.sum(|c| &c.opened), self.counters.sum(|c| &c.connected));
        (opened.saturating_sub(closed), connected.saturating_sub(disconnected))
    }

    /// Times that the proxy added, by bucket of [`latency`].
    pub(super) fn added(&self) -> Vec<u64> {
        (0..latency::BUCKETS).map(|bucket| self.counters.sum(|c| &c.added[bucket])).collect()
    }

    pub(super) fn totals(&self, cpu_us: u64) -> Totals {
        Totals {
            admitted: self.counters.sum(|c| &c.admitted),
            limited: self.counters.sum(|c| &c.limited),
            shed: self.counters.sum(|c| &c.shed),
            errors: self.counters.sum(|c| &c.errors),
            failed: self.counters.sum(|c| &c.failed),
            added: self.added(),
            cpu_us,
        }
    }
}

/// Counters at a moment.
#[derive(Default)]
pub(super) struct Totals {
    admitted: u64,
    limited: u64,
    shed: u64,
    errors: u64,
    failed: u64,
    added: Vec<u64>,
    cpu_us: u64,
}

/// Closed windows: for the stream that is open, and for the next `Hello`.
pub(super) struct Windows {
    sender: broadcast::Sender<Arc<LoadWindow>>,
    kept: Mutex<VecDeque<Arc<LoadWindow>>>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(MAX_LAG_WINDOWS), kept: Mutex::default() }
    }
}

impl Windows {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<LoadWindow>> {
        self.sender.subscribe()
    }

    pub(super) fn kept(&self) -> Vec<LoadWindow> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|window| LoadWindow::clone(window)).collect()
    }

    pub(super) fn close(&self, window: LoadWindow) {
        let window = Arc::new(window);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_WINDOWS {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&window));
        drop(kept);
        // Nobody listens while the operator is away.
        let _ = self.sender.send(window);
    }
}

/// The window between two moments of the counters.
pub(super) fn window(before: &Totals, after: &Totals, duration: Duration) -> LoadWindow {
    let start = SystemTime::now().checked_sub(duration).and_then(|start| start.duration_since(UNIX_EPOCH).ok());
    let added = after.added.iter().zip(&before.added).enumerate().filter(|(_, (after, before))| after > before);
    LoadWindow {
        start_unix_ms: start.map_or(0, |start| start.as_millis() as u64),
        duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
        admitted: after.admitted - before.admitted,
        limited: after.limited - before.limited,
        shed: after.shed - before.shed,
        errors: after.errors - before.errors,
        failed: after.failed - before.failed,
        cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
        added_latency: added
            .map(|(bucket, (after, before))| LatencyCount { bucket: bucket as u32, count: after - before })
            .collect(),
        ..LoadWindow::default()
    }
}
