//! The load windows of this process, closed once a second.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use snapshot::{Key, proto::PolicyCount};
use tokio::time::{MissedTickBehavior, interval};

use super::{load::window, process};
use crate::Shared;

/// Length of a window.
const WINDOW_LENGTH: Duration = Duration::from_secs(1);

/// Closes a load window each second, for as long as the process lives.
pub async fn report(shared: Arc<Shared>, workers: u32) {
    let mut ticks = interval(WINDOW_LENGTH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = shared.telemetry.load.totals(process::cpu_us());
    let mut policies = policy_counts(&shared);
    let mut since = Instant::now();
    loop {
        ticks.tick().await;
        let (now, totals) = (Instant::now(), shared.telemetry.load.totals(process::cpu_us()));
        let counts = policy_counts(&shared);
        let mut window = window(&last, &totals, now - since);
        let changed = counts.iter().filter_map(|(policy, (checked, limited))| {
            let (checked_before, limited_before) = policies.get(policy).copied().unwrap_or_default();
            // A policy that came back counts from 0 again.
            let (checked, limited) = (checked.saturating_sub(checked_before), limited.saturating_sub(limited_before));
            (checked > 0).then(|| PolicyCount { policy: policy.to_string(), checked, limited })
        });
        window.policies = changed.collect();
        let (in_flight, connections) = shared.telemetry.load.open();
        window.in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
        window.connections = u32::try_from(connections).unwrap_or(u32::MAX);
        window.workers = workers;
        window.memory_bytes = process::memory_bytes();
        window.draining = shared.is_draining();
        shared.telemetry.windows.close(window);
        (last, policies, since) = (totals, counts, now);
    }
}

/// Requests that each policy decided, and those that it found against, since the process began.
fn policy_counts(shared: &Shared) -> BTreeMap<Key, (u64, u64)> {
    let mut counts = shared.limiters.policy_counts();
    counts.extend(shared.access.policy_counts());
    counts
}
