//! The last five minutes of load of each proxy.

use std::collections::{BTreeMap, VecDeque};

use snapshot::{latency, proto::LoadWindow, report};

use crate::Millis;

/// The time for which windows are kept.
const KEPT_MS: i64 = 300_000;
/// Most windows of one proxy: 5 min at twice the usual one a second.
const MAX_WINDOWS: usize = 600;
/// Most proxies: twice the largest fleet, for those that come while others leave.
const MAX_PROXIES: usize = 2_000;
/// The time that is measured over: long enough to be steady, short enough that growth begins within 5 s of a step in load (one
/// window of 1 s under way, 3 s of measuring, 1 s to decide).
const RECENT_MS: i64 = 3_000;
/// A proxy that was silent for longer has no data: five reports missed.
const SILENT_MS: i64 = 5_000;

/// Load of every proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    proxies: BTreeMap<String, Proxy>,
}

#[derive(Clone, Debug, Default)]
struct Proxy {
    /// The windows in the order of time, no two of one start.
    windows: VecDeque<Window>,
}

#[derive(Clone, Debug)]
struct Window {
    /// The start on the proxy's clock.
    start: i64,
    end: i64,
    /// The arrival, less `end`: the way, and the skew of the clocks.
    lag: i64,
    load: LoadWindow,
}

/// The recent load of one proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    /// Time measured.
    pub(super) seconds: f64,
    /// Admitted and shed for capacity.
    pub(super) requests: f64,
    /// CPU seconds over seconds of the worker threads, 0 to 1.
    pub(super) cpu: f64,
    /// CPU seconds a second.
    pub(super) cores: f64,
    /// Resident now.
    pub(super) memory_bytes: u64,
    /// Time added, by bucket.
    pub(super) added_latency: Vec<u64>,
}

impl Windows {
    /// Takes up a window, unless it is known (a proxy that attaches anew tells its last five minutes again).
    pub(super) fn push(&mut self, proxy: &str, load: &LoadWindow, now: Millis) {
        if !self.proxies.contains_key(proxy) && self.proxies.len() >= MAX_PROXIES {
            return;
        }
        let Some(load) = report::plausible(LoadWindow { policies: vec![], ..load.clone() }) else { return };
        let start = i64::try_from(load.start_unix_ms).unwrap_or(i64::MAX / 4);
        let end = start + i64::from(load.duration_ms);
        let lag = millis(now) - end;
        let windows = &mut self.proxies.entry(proxy.to_owned()).or_default().windows;
        // Its clock was set back: what it said by the other would hide all that it says from now on.
        if windows.back().is_some_and(|w| w.end > end + 2 * KEPT_MS) {
            windows.clear();
        }
        let at = windows.partition_point(|w| w.start < start);
        if windows.get(at).is_some_and(|w| w.start == start) {
            return;
        }
        windows.insert(at, Window { start, end, lag, load });
        while windows.len() > MAX_WINDOWS
            || windows.front().zip(windows.back()).is_some_and(|(old, new)| old.end < new.end - KEPT_MS)
        {
            windows.pop_front();
        }
        // Latency is read of recent windows only, and is nine tenths of the size.
        let newest = windows.back().map_or(0, |w| w.end);
        for window in windows.iter_mut().rev().skip_while(|w| w.end > newest - 2 * RECENT_MS) {
            if std::mem::take(&mut window.load.added_latency).is_empty() {
                break;
            }
        }
    }

    /// Every window with the time at which it arrived, or would have if its proxy had dialled then; in this order.
    pub(super) fn by_arrival(&self) -> Vec<(Millis, &str, &LoadWindow)> {
        let of_one = |(name, proxy)| {
            let (name, proxy): (&String, &Proxy) = (name, proxy);
            let skew = proxy.clock_skew().unwrap_or_default();
            let arrived = move |w: &Window| Millis(u64::try_from(w.end + skew).unwrap_or_default());
            proxy.windows.iter().map(move |w| (arrived(w), name.as_str(), &w.load))
        };
        let mut all: Vec<_> = self.proxies.iter().flat_map(of_one).collect();
        all.sort_by_key(|(arrived, ..)| *arrived);
        all
    }

    pub(super) fn forget(&mut self, proxy: &str) {
        self.proxies.remove(proxy);
    }

    /// Forgets proxies that have been silent for longer than windows are kept.
    pub(super) fn prune(&mut self, now: Millis) {
        self.proxies.retain(|_, proxy| proxy.silence(now).is_some_and(|ms| ms < KEPT_MS));
    }

    /// The recent load of each proxy that reports and does not drain.
    pub(super) fn all_recent(&self, now: Millis) -> Vec<Recent> {
        self.proxies.values().filter_map(|proxy| proxy.recent(now)).collect()
    }

    /// The recent load of one proxy; `None` when it is silent or drains.
    pub(super) fn recent(&self, proxy: &str, now: Millis) -> Option<Recent> {
        self.proxies.get(proxy)?.recent(now)
    }
}

impl Proxy {
    /// Time since the newest window ended, whatever the two clocks say: the window that was fastest to arrive shows how
    /// far they are apart.
    fn silence(&self, now: Millis) -> Option<i64> {
        Some(millis(now) - (self.windows.back()?.end + self.clock_skew()?))
    }

    /// The clock skew, and the shortest way.
    fn clock_skew(&self) -> Option<i64> {
        self.windows.iter().map(|w| w.lag).min()
    }

    fn recent(&self, now: Millis) -> Option<Recent> {
        let newest = self.windows.back().filter(|w| !w.load.draining)?;
        if self.silence(now)? > SILENT_MS {
            return None;
        }
        let mut recent = Recent {
            memory_bytes: newest.load.memory_bytes,
            added_latency: vec![0; latency::BUCKETS],
            ..Recent::default()
        };
        let mut worker_seconds = 0.0;
        // A window counts when most of it lies within: of 1 s windows always three.
        for window in self.windows.iter().rev().take_while(|w| w.start + w.end > 2 * (newest.end - RECENT_MS)) {
            let (load, seconds) = (&window.load, f64::from(window.load.duration_ms) / 1e3);
            recent.seconds += seconds;
            recent.requests += load.admitted as f64 + load.shed as f64;
            worker_seconds += seconds * f64::from(load.workers);
            recent.cpu += load.cpu_us as f64 / 1e6;
            for count in &load.added_latency {
                if let Some(bucket) = recent.added_latency.get_mut(count.bucket as usize) {
                    *bucket = bucket.saturating_add(count.count);
                }
            }
        }
        recent.cores = recent.cpu / recent.seconds;
        recent.cpu /= worker_seconds;
        (recent.seconds > 0.0).then_some(recent)
    }
}

fn millis(now: Millis) -> i64 {
    i64::try_from(now.0).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_700_000_000_000;

    fn load(second: u64, admitted: u64) -> LoadWindow {
        LoadWindow {
            start_unix_ms: T0 + second * 1000,
            duration_ms: 1000,
            admitted,
            workers: 2,
            cpu_us: admitted * 1000,
            ..LoadWindow::default()
        }
    }

    fn at(second: u64) -> Millis {
        Millis(T0 + second * 1000)
    }

    #[test]
    fn the_last_three_seconds_count_once() {
        let mut windows = Windows::default();
        for (second, admitted) in [(0, 900), (1, 10), (3, 30), (2, 20), (2, 99)] {
            windows.push("a", &load(second, admitted), at(second + 1));
        }
        let recent = windows.recent("a", at(4)).unwrap();
        assert_eq!((recent.seconds, recent.requests), (3.0, 60.0));
        assert!((recent.cpu - 0.06 / 6.0).abs() < 1e-9, "{}", recent.cpu);
    }

    #[test]
    fn silent_and_draining_proxies_have_no_data() {
        let mut windows = Windows::default();
        windows.push("a", &load(0, 1), at(1));
        assert!(windows.recent("a", at(6)).is_some());
        assert_eq!(windows.recent("a", at(7)), None);
        windows.push("a", &LoadWindow { draining: true, ..load(6, 1) }, at(7));
        assert_eq!(windows.recent("a", at(7)), None);
        windows.prune(at(310));
        assert!(windows.proxies.is_empty());
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_make_a_proxy_silent() {
        for apart in [-3600, 3600] {
            let mut windows = Windows::default();
            for second in 0..10u64 {
                windows.push("a", &load(second, 1), at((10_000 + second as i64 + apart) as u64));
            }
            assert!(windows.recent("a", at((10_012 + apart) as u64)).is_some());
            assert_eq!(windows.recent("a", at((10_015 + apart) as u64)), None);
        }
    }

    /// A proxy whose clock was far in the future, by a fault or on purpose, is heard again once it is right.
    #[test]
    fn a_clock_that_is_set_back_does_not_make_a_proxy_silent() {
        let mut windows = Windows::default();
        windows.push("a", &LoadWindow { start_unix_ms: u64::MAX, ..load(0, 1) }, at(1));
        for second in 10..13 {
            windows.push("a", &load(second, 7), at(second + 1));
        }
        assert_eq!(windows.recent("a", at(13)).map(|recent| recent.requests), Some(21.0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut windows = Windows::default();
        for second in 0..5_000 {
            windows.push("a", &load(second, 1), at(second));
        }
        assert!(windows.proxies["a"].windows.len() <= 301);
        for i in 0..5_000 {
            windows.push("b", &LoadWindow { start_unix_ms: T0 + i, ..load(0, 1) }, at(1));
            windows.push(&format!("p{i}"), &load(0, 1), at(1));
        }
        assert_eq!(windows.proxies["b"].windows.len(), MAX_WINDOWS);
        assert_eq!(windows.proxies.len(), MAX_PROXIES);
        windows.push("a", &LoadWindow { start_unix_ms: u64::MAX, duration_ms: u32::MAX, ..load(0, 1) }, at(1));
        windows.push("c", &LoadWindow { duration_ms: 0, ..load(0, 1) }, at(1));
    }
}
