//! What each target's signal is, over the whole fleet.

use crds::fleet::Target;
use snapshot::latency;

use super::windows::{Recent, Windows};
use crate::{Millis, fleet::FleetSettings};

/// Fewer requests than this say nothing of a 99th percentile.
const FEWEST_REQUESTS: u64 = 20;

/// What the proxies that report did lately, together.
#[derive(Debug)]
pub(super) struct Load {
    /// How many report and don't drain.
    pub(super) proxies: u32,
    requests_per_second: f64,
    /// In whole proxies: 2.5 is every worker thread of two and a half.
    cpu: f64,
    cores: f64,
    memory_bytes: f64,
    added_latency: Vec<u64>,
}

/// What one target measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) target: &'static str,
    /// In the target's unit, per replica.
    pub(super) value: Option<f64>,
    /// Over the target, in percent.
    pub(super) percent: Option<f64>,
    pub(super) demand: Demand,
}

/// How a signal follows the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Demand {
    /// Not measured: holds.
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
    let mut load = Load {
        proxies: 0,
        requests_per_second: 0.0,
        cpu: 0.0,
        cores: 0.0,
        memory_bytes: 0.0,
        added_latency: vec![0; latency::BUCKETS],
    };
    for Recent { seconds, requests, cpu, cores, memory_bytes, added_latency } in windows.all_recent(now) {
        load.proxies += 1;
        load.requests_per_second += requests / seconds;
        load.cpu += cpu;
        load.cores += cores;
        load.memory_bytes += memory_bytes as f64;
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
    let (name, measured) = match target {
        Target::Cpu { average_utilization } => {
            // 3 cores are the CPU of one and a half proxies that ask for 2.
            let whole = settings.cpu_cores.map_or(load.cpu, |cores| load.cores / cores);
            ("CPU", Some((whole, f64::from(*average_utilization) / 100.0, 100.0)))
        }
        Target::Memory { average_utilization } => {
            let share = settings.memory_bytes.map(|bytes| load.memory_bytes / bytes as f64);
            ("Memory", share.map(|share| (share, f64::from(*average_utilization) / 100.0, 100.0)))
        }
        Target::RequestRate { .. } => {
            let rate = settings.rates.get(&index);
            ("RequestRate", rate.map(|rate| (load.requests_per_second, *rate, 1.0)))
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
