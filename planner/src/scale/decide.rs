//! Signals → replicas: the most demanding target wins, within the bounds.

use std::time::Duration;

use crds::fleet::ScalingMode;

use super::{
    Decision, Observed, Scaler, Signal,
    limits::Rules,
    signals::{self, Demand, Reading},
};
use crate::{Millis, fleet::FleetSettings};

/// The time after its start for which a scaler only grows: proxies that it takes over are still attaching.
const BEGINNING: Duration = Duration::from_secs(10);
/// Latency is read again so long after the last new proxy is Ready: connections move over 10 s, and 3 s are measured.
const SETTLED: Duration = Duration::from_secs(15);
/// Latency grows the fleet by no more than this at a time: 1000 % of the target asks for twice the replicas, not ten times.
const LATENCY_GROWTH: f64 = 2.0;
/// Below this share of the target, latency can do with one less.
const LATENCY_SPARE: f64 = 0.5;

/// The inputs of weighing the targets.
struct DecisionInputs<'a> {
    settings: &'a FleetSettings,
    /// Replicas wanted until now.
    base: u32,
    /// Every Ready proxy reports.
    complete: bool,
    /// Every wanted proxy has been Ready for a while.
    settled: bool,
}

pub(super) fn decide(scaler: &mut Scaler, settings: &FleetSettings, observed: Observed, now: Millis) -> Decision {
    scaler.windows.prune(now);
    let began = *scaler.began.get_or_insert(now);
    let beginning = now.since(began) < BEGINNING;
    let mut base = scaler.wanted.unwrap_or(observed.current);
    if beginning {
        base = base.max(observed.current);
    }
    if observed.ready == base && observed.current == base {
        scaler.settled_since.get_or_insert(now);
    } else {
        scaler.settled_since = None;
    }

    let load = signals::load(&scaler.windows, now);
    // A proxy that starts reports before it is Ready; it carries nothing yet.
    let readings = signals::read(settings, &load, load.proxies.min(observed.ready).max(1));
    let inputs = DecisionInputs {
        settings,
        base,
        complete: load.proxies >= observed.ready,
        settled: scaler.settled_since.is_some_and(|since| now.since(since) >= SETTLED),
    };
    let signals: Vec<Signal> = readings.iter().map(|reading| inputs.signal(reading)).collect();
    let driver = signals.iter().filter(|s| s.replicas.is_some()).max_by(|a, b| demand(a).total_cmp(&demand(b)));
    let driven_by = driver.and_then(|s| Some(format!("{}={:.0}%", s.target, s.percent?)));

    let scaling = &settings.spec.scaling;
    let (computed, why) = managed(scaler, &inputs, &signals, beginning, now);
    let (desired, reason) = match scaling.mode {
        ScalingMode::Managed => (computed, why),
        ScalingMode::DryRun => {
            let desired = clamp(base, settings);
            (desired, format!("dry run: stays at {desired}; Managed would be {computed}: {why}"))
        }
        ScalingMode::Paused => {
            let desired = clamp(base, settings);
            (desired, format!("paused: stays at {desired}"))
        }
        ScalingMode::External => match scaling.replicas {
            Some(replicas) => {
                let desired = clamp(replicas, settings);
                let within = if desired == replicas { "" } else { ", held within minReplicas and maxReplicas" };
                (desired, format!("external: spec.scaling.replicas is {replicas}{within}"))
            }
            None => {
                let desired = clamp(base, settings);
                (desired, format!("external: stays at {desired} until spec.scaling.replicas is written"))
            }
        },
    };
    scaler.wanted = Some(desired);
    scaler.history.want(desired, now);
    Decision { desired, current: observed.current, driven_by, reason, signals }
}

/// The decision of mode Managed.
fn managed(
    scaler: &mut Scaler,
    inputs: &DecisionInputs<'_>,
    signals: &[Signal],
    beginning: bool,
    now: Millis,
) -> (u32, String) {
    let (settings, base) = (inputs.settings, inputs.base);
    let missing: Vec<&str> = signals.iter().filter(|s| s.replicas.is_none()).map(|s| s.target.as_str()).collect();
    let most = signals.iter().filter_map(|s| s.replicas.map(|n| (n, s))).max_by_key(|(n, _)| *n);
    // A signal without data might ask for what there is: it holds.
    let raw = most.map_or(base, |(n, _)| if missing.is_empty() { n } else { n.max(base) });
    let raw = if beginning { raw.max(base) } else { raw };
    let recommended = clamp(raw, settings);
    scaler.history.recommend(recommended, now);
    let stabilized = scaler.history.stabilize(base, recommended, settings, now);
    let desired = clamp(scaler.history.bound(base, stabilized, settings, now), settings);

    let because = match most {
        Some((_, Signal { target, percent: Some(percent), .. })) => {
            format!("{target} is at {percent:.0}% of its target")
        }
        _ => "there is hardly any load".to_owned(),
    };
    let most = settings.spec.scaling.max_replicas;
    let reason = if desired > base && raw < desired {
        format!("grows from {base} to minReplicas {desired}")
    } else if desired > base && raw > most && desired == most {
        format!("grows from {base} to maxReplicas {desired}, though {raw} were better: {because}")
    } else if desired > base && raw > desired {
        format!("grows from {base} to {desired}, and on to {raw} as behavior allows: {because}")
    } else if desired > base {
        format!("grows from {base} to {desired}: {because}")
    } else if desired < base {
        format!("shrinks from {base} to {desired}: {because}")
    } else if !missing.is_empty() {
        format!("stays at {base}: no data for {}", missing.join(", "))
    } else if raw > base && base == most {
        format!("stays at maxReplicas {base}, though {raw} were better: {because}")
    } else if raw > base {
        format!("stays at {base}, and grows to {raw} when behavior allows: {because}")
    } else if raw < base && recommended == base {
        format!("stays at minReplicas {base}: {because}")
    } else if raw < base {
        format!("stays at {base}, and shrinks to {recommended} when behavior allows: {because}")
    } else {
        format!("stays at {base}: {because}")
    };
    (desired, reason)
}

/// minReplicas 2 and maxReplicas 20 make 2 of 0 and 20 of 31.
pub(super) fn clamp(n: u32, settings: &FleetSettings) -> u32 {
    let (least, most) = (settings.spec.scaling.min_replicas, settings.spec.scaling.max_replicas);
    n.min(most).max(least)
}

/// Orders signals by what they ask for, those that ask for the same by how near they are to more.
fn demand(signal: &Signal) -> f64 {
    let percent = signal.percent.unwrap_or(0.0);
    f64::from(signal.replicas.unwrap_or(0)) + percent / (1.0 + percent)
}

impl DecisionInputs<'_> {
    fn signal(&self, reading: &Reading) -> Signal {
        let replicas = match reading.demand {
            Demand::NoData => None,
            Demand::Replicas(n) => self.carrying(n),
            Demand::Ratio(ratio) => self.at_ratio(ratio),
            // 1, not 0: the last replica waits for the first request.
            Demand::Idle => self.complete.then_some(1),
        };
        let round = |value: f64| (value * 100.0).round() / 100.0;
        Signal {
            target: reading.target.to_owned(),
            percent: reading.percent.map(round),
            value: reading.value.map(round),
            replicas,
        }
    }

    /// A load of 2.6 replicas asks for 3. It is the same load however many are still starting, so that nothing is asked
    /// for twice.
    fn carrying(&self, n: f64) -> Option<u32> {
        // 1.96 of 2 is close enough; of 3 it is not, and 2 would do.
        let ratio = n / f64::from(self.base.max(1));
        let asked = if self.close(ratio) { self.base } else { ceil(n) };
        self.unless_missing(asked)
    }

    /// Latency says that something must change, not how much.
    fn at_ratio(&self, ratio: f64) -> Option<u32> {
        let asked = if !self.settled {
            self.base
        } else if ratio > 1.0 && !self.close(ratio) {
            ceil(f64::from(self.base) * ratio.min(LATENCY_GROWTH))
        } else if ratio < LATENCY_SPARE {
            self.base.saturating_sub(1).max(1)
        } else {
            self.base
        };
        self.unless_missing(asked)
    }

    /// The replicas that are asked for, while some don't report: what the others carry is only the least there is, enough to
    /// grow, never to shrink. When that is no more than what is wanted, nothing is known.
    fn unless_missing(&self, asked: u32) -> Option<u32> {
        (self.complete || asked > self.base).then_some(asked)
    }

    fn close(&self, ratio: f64) -> bool {
        let (up, down) = (Rules::up(self.settings).tolerance(), Rules::down(self.settings).tolerance());
        // Just above either bound, for what arithmetic adds: 1.1000000000000001 is 10 %.
        ratio <= 1.0 + up + 1e-9 && ratio >= 1.0 - down - 1e-9
    }
}

/// Whole replicas; 2.0000000001 is 2.
pub(super) fn ceil(n: f64) -> u32 {
    ((n - 1e-9).ceil() as u32).max(1)
}
