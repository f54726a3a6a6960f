//! The signal of each target, over the whole fleet.

use crds::fleet::Target;
use snapshot::latency;

use super::windows::{Recent, Windows};
use crate::{Millis, fleet::FleetSettings};

/// Fewer requests than this say nothing of a 99th percentile.
const FEWEST_REQUESTS: u64 = 20;
/// The replicas at their target that one proxy's report counts for at most, so that a false one makes no large fleet. One
/// that really carries more makes it grow to as many at once, and further as connections move to them.
const MOST_OF_ONE: f64 = 10.0;

/// The load of the proxies that report, together.
#[derive(Debug)]
pub(super) struct Load {
    /// The number of those that report and don't drain.
    pub(super) proxies: u32,
    each: Vec<One>,
    added_latency: Vec<u64>,
}

/// The load of one of them.
#[derive(Clone, Copy, Debug)]
struct One {
    requests_per_second: f64,
    /// Share of its worker threads.
    cpu: f64,
    cores: f64,
    memory_bytes: f64,
}

/// The measurement of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) target: &'static str,
    /// The value in the target's unit, per replica.
    pub(super) value: Option<f64>,
    /// Over the target, in percent.
    pub(super) percent: Option<f64>,
    pub(super) demand: Demand,
}

/// The way in which a signal follows the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Demand {
    /// No measurement: the number holds.
    NoData,
    /// The load is that of so many replicas at their target, however many carry it now.
    Replicas(f64),
    /// Measured over target. What more replicas will make of it is not known.
    Ratio(f64),
    /// Too few requests to need anything.
    Idle,
}

/// Sums up the fleet.
pub(super) fn load(windows: &Windows, now: Millis) -> Load {
    let mut load = Load { proxies: 0, each: vec![], added_latency: vec![0; latency::BUCKETS] };
    for Recent { seconds, requests, cpu, cores, memory_bytes, added_latency } in windows.all_recent(now) {
        load.proxies += 1;
        let requests_per_second = requests / seconds;
        load.each.push(One { requests_per_second, cpu, cores, memory_bytes: memory_bytes as f64 });
        for (sum, n) in load.added_latency.iter_mut().zip(added_latency) {
            *sum = sum.saturating_add(n);
        }
    }
    load
}

/// Reads every target. `carriers`: replicas that carry the load.
pub(super) fn read(settings: &FleetSettings, load: &Load, carriers: u32) -> Vec<Reading> {
    let targets = settings.spec.scaling.targets.iter().enumerate();
    targets.map(|(i, target)| reading(settings, load, f64::from(carriers), i, target)).collect()
}

fn reading(settings: &FleetSettings, load: &Load, carriers: f64, index: usize, target: &Target) -> Reading {
    // Total in the target's unit, the target, and what turns them into the unit shown.
    let sum = |target: f64, unit: f64, of: &dyn Fn(&One) -> f64| {
        let total = load.each.iter().map(|one| of(one).min(MOST_OF_ONE * target)).sum::<f64>();
        (total, target, unit)
    };
    let (name, measured) = match target {
        Target::Cpu { average_utilization } => {
            // 3 cores are the CPU of one and a half proxies that ask for 2.
            let share = |one: &One| settings.cpu_cores.map_or(one.cpu, |cores| one.cores / cores);
            ("CPU", Some(sum(f64::from(*average_utilization) / 100.0, 100.0, &share)))
        }
        Target::Memory { average_utilization } => {
            let target = f64::from(*average_utilization) / 100.0;
            let whole = settings.memory_bytes.map(|bytes| bytes as f64);
            ("Memory", whole.map(|whole| sum(target, 100.0, &|one| one.memory_bytes / whole)))
        }
        Target::RequestRate { .. } => {
            let rate = settings.rates.get(&index);
            ("RequestRate", rate.map(|rate| sum(*rate, 1.0, &|one| one.requests_per_second)))
        }
        Target::ProxyLatency { percentile, value } => return latency(load, *percentile, value.as_millis() as f64),
    };
    match measured.filter(|(_, target, _)| load.proxies > 0 && *target > 0.0) {
        None => Reading { target: name, value: None, percent: None, demand: Demand::NoData },
        Some((total, target, unit)) => Reading {
            target: name,
            value: Some(total / carriers * unit),
            percent: Some(total / carriers / target * 100.0),
            demand: Demand::Replicas(total / target),
        },
    }
}

fn latency(load: &Load, percentile: u32, target_ms: f64) -> Reading {
    let none = Reading { target: "ProxyLatency", value: None, percent: None, demand: Demand::NoData };
    if load.proxies == 0 || target_ms <= 0.0 {
        return none;
    }
    let requests = load.added_latency.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    let quantile = latency::quantile_us(&load.added_latency, f64::from(percentile.min(100)) / 100.0);
    match quantile.filter(|_| requests >= FEWEST_REQUESTS) {
        None => Reading { demand: Demand::Idle, ..none },
        Some(us) => {
            let ms = us as f64 / 1e3;
            Reading {
                value: Some(ms),
                percent: Some(ms / target_ms * 100.0),
                demand: Demand::Ratio(ms / target_ms),
                ..none
            }
        }
    }
}
