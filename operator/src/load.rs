//! The load of a proxy over the last minute, and sums over a fleet: what is shown, and what rebalancing compares. What
//! the scaler needs it keeps itself.

use std::collections::{BTreeMap, VecDeque};

use planner::Millis;
use serde::Serialize;
use snapshot::{
    Key, latency,
    proto::{LoadWindow, PolicyCount},
};

/// How far back windows are kept, in milliseconds, and how many at most.
const KEPT_MS: u64 = 60_000;
const MOST: usize = 128;
/// A window that ended longer ago says nothing of now.
const FRESH_MS: u64 = 3_000;

/// Recent windows of one proxy.
#[derive(Clone, Debug, Default)]
pub struct Load {
    windows: VecDeque<LoadWindow>,
}

/// A fleet's load over the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Requests per second: admitted, rejected and shed.
    pub rps: f64,
    /// The 99th percentile of the time that proxies added; `None`: no requests.
    pub p99_ms: Option<f64>,
    /// CPU of all proxies, in percent of one core.
    pub cpu_percent: f64,
    /// Rejected by policies, per second.
    pub limited_per_second: f64,
    /// Answered 5xx by proxies themselves, per second.
    pub errors_per_second: f64,
    /// Requests that are being served.
    pub in_flight: u32,
    /// Client connections.
    pub connections: u32,
}

impl Load {
    /// Takes up a window; false when it is known already (a proxy that redials tells its last five minutes).
    pub fn take(&mut self, window: &LoadWindow) -> bool {
        if self.windows.back().is_some_and(|last| window.start_unix_ms <= last.start_unix_ms) {
            return false;
        }
        self.windows.push_back(window.clone());
        let oldest = window.start_unix_ms.saturating_sub(KEPT_MS);
        while self.windows.len() > MOST || self.windows.front().is_some_and(|w| w.start_unix_ms < oldest) {
            self.windows.pop_front();
        }
        true
    }

    /// Requests per second of late; `None`: not known.
    pub fn rate(&self, now: Millis) -> Option<f64> {
        let (count, ms) = self.fresh(now).fold((0, 0), |(n, ms), w| (n + w.admitted + w.shed, ms + w.duration_ms));
        (ms > 0).then(|| per_second(count, ms))
    }

    /// Client connections at the end of the last window.
    pub fn connections(&self) -> u32 {
        self.windows.back().map_or(0, |w| w.connections)
    }

    fn fresh(&self, now: Millis) -> impl Iterator<Item = &LoadWindow> {
        self.windows.iter().filter(move |w| w.start_unix_ms + u64::from(w.duration_ms) + FRESH_MS > now.0)
    }
}

fn per_second(count: u64, ms: u32) -> f64 {
    count as f64 * 1000.0 / f64::from(ms)
}

/// The sum over proxies, each over its own fresh windows.
pub fn totals<'a>(loads: impl Iterator<Item = &'a Load>, now: Millis) -> Totals {
    let mut totals = Totals::default();
    let mut added = vec![0; latency::BUCKETS];
    for load in loads {
        let windows: Vec<_> = load.fresh(now).collect();
        let ms: u32 = windows.iter().map(|w| w.duration_ms).sum();
        let Some(last) = windows.last().filter(|_| ms > 0) else { continue };
        let rate = |count: fn(&LoadWindow) -> u64| per_second(windows.iter().map(|w| count(w)).sum(), ms);
        totals.rps += rate(|w| w.admitted + w.limited + w.shed);
        totals.limited_per_second += rate(|w| w.limited);
        totals.errors_per_second += rate(|w| w.errors);
        totals.cpu_percent += rate(|w| w.cpu_us) / 10_000.0;
        totals.in_flight += last.in_flight;
        totals.connections += last.connections;
        for count in windows.iter().flat_map(|w| &w.added_latency) {
            if let Some(bucket) = added.get_mut(count.bucket as usize) {
                *bucket += count.count;
            }
        }
    }
    totals.p99_ms = latency::quantile_us(&added, 0.99).map(|us| us as f64 / 1000.0);
    totals
}

/// Requests checked against and found over each policy's limits, in the last minute.
pub fn policies<'a>(loads: impl Iterator<Item = &'a Load>) -> BTreeMap<Key, (u64, u64)> {
    let mut sums: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for PolicyCount { policy, checked, limited } in loads.flat_map(|load| &load.windows).flat_map(|w| &w.policies) {
        if let Ok(key) = policy.parse() {
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + checked, sum.1 + limited);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use snapshot::proto::LatencyCount;

    use super::*;

    fn window(start: u64, admitted: u64) -> LoadWindow {
        LoadWindow {
            start_unix_ms: start,
            duration_ms: 1000,
            admitted,
            limited: 10,
            cpu_us: 500_000,
            connections: 7,
            added_latency: vec![LatencyCount { bucket: latency::bucket(1000) as u32, count: admitted }],
            policies: vec![PolicyCount { policy: "RatePolicy/a/b".into(), checked: 20, limited: 10 }],
            ..LoadWindow::default()
        }
    }

    #[test]
    fn windows_count_once_and_age() {
        let mut load = Load::default();
        assert_eq!(load.rate(Millis(5_000)), None);
        assert!(load.take(&window(1_000, 100)));
        assert!(load.take(&window(2_000, 200)));
        assert!(!load.take(&window(1_000, 100)));
        assert_eq!(load.rate(Millis(3_000)), Some(150.0));
        assert_eq!(load.rate(Millis(5_500)), Some(200.0));
        assert_eq!(load.rate(Millis(9_000)), None);
        for i in 0..1000 {
            load.take(&window(3_000 + i * 10, 1));
        }
        assert!(load.windows.len() <= MOST);
    }

    #[test]
    fn sums_of_a_fleet() {
        let (mut a, mut b) = (Load::default(), Load::default());
        a.take(&window(1_000, 100));
        b.take(&window(1_000, 300));
        let sum = totals([&a, &b].into_iter(), Millis(2_000));
        assert_eq!((sum.rps, sum.limited_per_second, sum.cpu_percent, sum.connections), (420.0, 20.0, 100.0, 14));
        assert!(sum.p99_ms.is_some_and(|ms| (1.0..1.3).contains(&ms)), "{sum:?}");
        assert_eq!(policies([&a, &b].into_iter()), BTreeMap::from([("RatePolicy/a/b".parse().unwrap(), (40, 20))]));
        assert_eq!(totals([&a].into_iter(), Millis(60_000)), Totals::default());
    }
}
