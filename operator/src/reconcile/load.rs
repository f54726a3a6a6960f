//! The load of proxies over the last seconds, and sums over a fleet: what is shown, and what rebalancing compares. What the
//! scaler needs it keeps itself. Of what proxies say, sums are kept, not messages.

use std::collections::{BTreeMap, VecDeque};

use planner::Millis;
use serde::Serialize;
use snapshot::{
    Key, latency,
    proto::{LoadWindow, PolicyCount},
};

/// A window that ended longer ago says nothing of now.
const FRESH_MS: u64 = 3_000;
/// Most windows of one proxy that are fresh: twice as many as there are of one second, and one more.
const MAX_WINDOWS: usize = 8;
/// A window that begins so long before one that is known was told by a clock that was set back since.
const SET_BACK_MS: u64 = 600_000;
/// The length of a slot in which counts of policies are summed up; there are [`SLOTS`].
const SLOT_MS: u64 = 10_000;
const SLOTS: u64 = 6;
/// Most policies that are counted before it is known what is published.
const MAX_POLICIES: usize = 10_000;

/// Recent windows of one proxy, without what policies counted.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// With the time at which each arrived, or would have if the proxy had told it at once.
    windows: VecDeque<(Millis, LoadWindow)>,
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
    /// Takes up a window that arrived then; false when it is known already (a proxy that redials tells its last five
    /// minutes).
    pub fn take(&mut self, window: &LoadWindow, arrived: Millis) -> bool {
        if let Some((_, last)) = self.windows.back() {
            if last.start_unix_ms > window.start_unix_ms.saturating_add(SET_BACK_MS) {
                self.windows.clear();
            } else if window.start_unix_ms <= last.start_unix_ms {
                return false;
            }
        }
        self.windows.push_back((arrived, LoadWindow { policies: vec![], ..window.clone() }));
        while self.windows.len() > MAX_WINDOWS {
            self.windows.pop_front();
        }
        true
    }

    /// Requests per second of late; `None`: not known.
    pub fn rate(&self, now: Millis) -> Option<f64> {
        let add = |(n, ms): (u64, u64), w: &LoadWindow| (n + w.admitted + w.shed, ms + u64::from(w.duration_ms));
        let (count, ms) = self.fresh(now).fold((0, 0), add);
        (ms > 0).then(|| per_second(count, ms))
    }

    /// Client connections at the end of the last window.
    pub fn connections(&self) -> u32 {
        self.windows.back().map_or(0, |(_, window)| window.connections)
    }

    fn fresh(&self, now: Millis) -> impl Iterator<Item = &LoadWindow> {
        let fresh = self.windows.iter().filter(move |(arrived, _)| arrived.0.saturating_add(FRESH_MS) > now.0);
        fresh.map(|(_, window)| window)
    }
}

fn per_second(count: u64, ms: u64) -> f64 {
    count as f64 * 1000.0 / ms as f64
}

/// The sum over proxies, each over its own fresh windows.
pub fn totals<'a>(loads: impl Iterator<Item = &'a Load>, now: Millis) -> Totals {
    let mut totals = Totals::default();
    let mut added = vec![0u64; latency::BUCKETS];
    for load in loads {
        let windows: Vec<_> = load.fresh(now).collect();
        let ms: u64 = windows.iter().map(|w| u64::from(w.duration_ms)).sum();
        let Some(last) = windows.last().filter(|_| ms > 0) else { continue };
        let rate = |count: fn(&LoadWindow) -> u64| per_second(windows.iter().map(|w| count(w)).sum(), ms);
        totals.rps += rate(|w| w.admitted + w.limited + w.shed);
        totals.limited_per_second += rate(|w| w.limited);
        totals.errors_per_second += rate(|w| w.errors);
        totals.cpu_percent += rate(|w| w.cpu_us) / 10_000.0;
        totals.in_flight = totals.in_flight.saturating_add(last.in_flight);
        totals.connections = totals.connections.saturating_add(last.connections);
        for count in windows.iter().flat_map(|w| &w.added_latency) {
            if let Some(bucket) = added.get_mut(count.bucket as usize) {
                *bucket = bucket.saturating_add(count.count);
            }
        }
    }
    totals.p99_ms = latency::quantile_us(&added, 0.99).map(|us| us as f64 / 1000.0);
    totals
}

/// Requests checked against and found over the limits of each policy.
type Sums = BTreeMap<Key, (u64, u64)>;

/// The counts of policies in the last minute, over all proxies.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// By number, the newest last.
    slots: VecDeque<(u64, Sums)>,
}

impl Policies {
    /// Adds what a window counts of policies that are published; of a fleet of which that is not known yet, of any.
    pub fn take(&mut self, counts: &[PolicyCount], arrived: Millis, is_published: Option<&dyn Fn(&Key) -> bool>) {
        let number = arrived.0 / SLOT_MS;
        let newest = self.slots.back().map_or(number, |(newest, _)| (*newest).max(number));
        if number + SLOTS <= newest || counts.is_empty() {
            return;
        }
        let at = self.slots.partition_point(|(n, _)| *n < number);
        if self.slots.get(at).is_none_or(|(n, _)| *n != number) {
            self.slots.insert(at, (number, Sums::new()));
        }
        while self.slots.front().is_some_and(|(n, _)| n + SLOTS <= newest) {
            self.slots.pop_front();
        }
        let Some((_, sums)) = self.slots.iter_mut().find(|(n, _)| *n == number) else { return };
        for PolicyCount { policy, checked, limited } in counts {
            let Ok(key) = policy.parse::<Key>() else { continue };
            if !is_published.map_or(sums.len() < MAX_POLICIES, |is_published| is_published(&key)) {
                continue;
            }
            let sum = sums.entry(key).or_default();
            *sum = (sum.0.saturating_add(*checked), sum.1.saturating_add(*limited));
        }
    }

    /// The sums of the last minute.
    pub fn sums(&self, now: Millis) -> Sums {
        let mut all = Sums::new();
        let recent = self.slots.iter().filter(|(number, _)| number + SLOTS > now.0 / SLOT_MS);
        for (key, (checked, limited)) in recent.flat_map(|(_, sums)| sums) {
            let sum = all.entry(key.clone()).or_default();
            *sum = (sum.0.saturating_add(*checked), sum.1.saturating_add(*limited));
        }
        all
    }
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

    /// Takes a window up at its end.
    fn take(load: &mut Load, window: &LoadWindow) -> bool {
        load.take(window, Millis(window.start_unix_ms + 1000))
    }

    #[test]
    fn windows_count_once_and_age() {
        let mut load = Load::default();
        assert_eq!(load.rate(Millis(5_000)), None);
        assert!(take(&mut load, &window(1_000, 100)));
        assert!(take(&mut load, &window(2_000, 200)));
        assert!(!take(&mut load, &window(1_000, 100)));
        assert_eq!(load.rate(Millis(3_000)), Some(150.0));
        assert_eq!(load.rate(Millis(5_500)), Some(200.0));
        assert_eq!(load.rate(Millis(9_000)), None);
        for i in 0..1000 {
            take(&mut load, &window(3_000 + i * 10, 1));
        }
        assert!(load.windows.len() <= MAX_WINDOWS);
        assert!(load.windows.iter().all(|(_, window)| window.policies.is_empty()), "sums are kept, not messages");
    }

    /// A clock that was far ahead, by a fault or on purpose, hides nothing of what is said later.
    #[test]
    fn whatever_a_proxys_clock_says() {
        let mut load = Load::default();
        assert!(load.take(&window(1 << 48, 1), Millis(1_000)));
        assert!(load.take(&window(5_000, 70), Millis(6_000)));
        assert_eq!((load.rate(Millis(6_500)), load.rate(Millis(60_000))), (Some(70.0), None));
    }

    #[test]
    fn sums_of_a_fleet() {
        let (mut a, mut b) = (Load::default(), Load::default());
        take(&mut a, &window(1_000, 100));
        take(&mut b, &window(1_000, 300));
        let sum = totals([&a, &b].into_iter(), Millis(2_000));
        assert_eq!((sum.rps, sum.limited_per_second, sum.cpu_percent, sum.connections), (420.0, 20.0, 100.0, 14));
        assert!(sum.p99_ms.is_some_and(|ms| (1.0..1.3).contains(&ms)), "{sum:?}");
        assert_eq!(totals([&a].into_iter(), Millis(60_000)), Totals::default());
    }

    #[test]
    fn policies_are_summed_up_over_a_minute() {
        let count = |name: &str| PolicyCount { policy: format!("RatePolicy/a/{name}"), checked: 20, limited: 10 };
        let key = |name: &str| format!("RatePolicy/a/{name}").parse::<Key>().unwrap();
        let mut policies = Policies::default();
        let is_published = |key: &Key| key.as_str() != "RatePolicy/a/made-up";
        let garbage = PolicyCount { policy: "?".into(), ..PolicyCount::default() };
        for second in 0..120 {
            let counts = [count("b"), count("made-up"), garbage.clone()];
            policies.take(&counts, Millis(second * 1000), Some(&is_published));
        }
        assert_eq!(policies.sums(Millis(119_000)), BTreeMap::from([(key("b"), (1200, 600))]));
        assert_eq!(policies.sums(Millis(150_000)), BTreeMap::from([(key("b"), (400, 200))]));
        assert_eq!(policies.sums(Millis(300_000)), BTreeMap::new());
        // What was long ago does not come back, and sums end where numbers do.
        policies.take(&[count("b")], Millis(10_000), Some(&is_published));
        let huge = PolicyCount { checked: u64::MAX, limited: u64::MAX, ..count("c") };
        policies.take(&[huge.clone(), huge], Millis(119_000), Some(&is_published));
        assert_eq!(
            policies.sums(Millis(119_000)),
            BTreeMap::from([(key("b"), (1200, 600)), (key("c"), (u64::MAX, u64::MAX))])
        );
        assert!(policies.slots.len() as u64 <= SLOTS);
        // Before anything is published, it is bounded still.
        let many: Vec<_> = (0..2 * MAX_POLICIES).map(|i| count(&i.to_string())).collect();
        policies.take(&many, Millis(200_000), None);
        assert_eq!(policies.sums(Millis(200_000)).len(), MAX_POLICIES);
    }
}
