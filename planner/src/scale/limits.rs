//! The bounds on how fast the number may change: stabilization and policies, as in `autoscaling/v2`.

use std::collections::VecDeque;

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules};

use crate::{Millis, fleet::FleetSettings, model::quantity};

/// The longest stabilization window and the longest period that the schema allows.
const MAX_WINDOW_MS: u64 = 3_600_000;
const MAX_PERIOD_MS: u64 = 1_800_000;
/// Most changes remembered; one a second for half an hour is 1,800.
const MAX_CHANGES: usize = 4_096;
/// The stabilization windows where `behavior` has none: up at once, down after five minutes (`autoscaling/v2`).
const UP_WINDOW_S: i32 = 0;
const DOWN_WINDOW_S: i32 = 300;
const TOLERANCE: f64 = 0.1;
/// Up to four times as many, or four more, within what is measured over: 1 → 5 → 20, the second step on new figures.
const UP_PERIOD_S: i32 = 3;
const UP_PERCENT: i32 = 300;
const UP_PODS: i32 = 4;

/// The recommendations and the numbers wanted lately.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The recommendations, one a second.
    recommended: VecDeque<Recommended>,
    /// Time and new number.
    changes: VecDeque<(Millis, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Recommended {
    second: u64,
    least: u32,
    most: u32,
}

/// `spec.scaling.behavior` of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a>(Option<&'a HPAScalingRules>);

impl<'a> Rules<'a> {
    pub(super) fn up(settings: &'a FleetSettings) -> Self {
        Self(settings.spec.scaling.behavior.as_ref().and_then(|b| b.scale_up.as_ref()))
    }

    pub(super) fn down(settings: &'a FleetSettings) -> Self {
        Self(settings.spec.scaling.behavior.as_ref().and_then(|b| b.scale_down.as_ref()))
    }

    /// A ratio this close to 1 changes nothing.
    pub(super) fn tolerance(self) -> f64 {
        self.0.and_then(|r| r.tolerance.as_ref()).and_then(|t| quantity::parse(&t.0)).unwrap_or(TOLERANCE)
    }

    fn window_ms(self, default: i32) -> u64 {
        let seconds = self.0.and_then(|r| r.stabilization_window_seconds).unwrap_or(default);
        (u64::try_from(seconds).unwrap_or(0) * 1000).min(MAX_WINDOW_MS)
    }

    fn select(self) -> &'a str {
        self.0.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max")
    }

    fn policies(self) -> Option<&'a Vec<HPAScalingPolicy>> {
        self.0.and_then(|r| r.policies.as_ref()).filter(|policies| !policies.is_empty())
    }
}

impl History {
    /// Notes a recommendation.
    pub(super) fn recommend(&mut self, n: u32, now: Millis) {
        let second = now.0 / 1000;
        match self.recommended.back_mut() {
            // A clock that steps back counts into the newest second: the order stays.
            Some(last) if last.second >= second => {
                (last.least, last.most) = (last.least.min(n), last.most.max(n));
            }
            _ => self.recommended.push_back(Recommended { second, least: n, most: n }),
        }
        let oldest = second.saturating_sub(MAX_WINDOW_MS / 1000);
        while self.recommended.front().is_some_and(|r| r.second < oldest) {
            self.recommended.pop_front();
        }
    }

    /// Notes what is wanted from now on.
    pub(super) fn want(&mut self, n: u32, now: Millis) {
        if self.changes.back().is_none_or(|(_, last)| *last != n) {
            self.changes.push_back((now, n));
        }
        // The newest change before the longest period says what was wanted when it began.
        while self.changes.len() > MAX_CHANGES
            || self.changes.get(1).is_some_and(|(at, _)| now.since(*at).as_millis() as u64 >= MAX_PERIOD_MS)
        {
            self.changes.pop_front();
        }
    }

    /// Holds a number against flapping: grows to the least, shrinks to the most recommended within each direction's
    /// window.
    pub(super) fn stabilize(&self, base: u32, newest: u32, settings: &FleetSettings, now: Millis) -> u32 {
        let within = |ms: u64| {
            let oldest = now.0.saturating_sub(ms) / 1000;
            let held = ms > 0;
            self.recommended.iter().rev().take_while(move |r| held && r.second >= oldest)
        };
        let up = within(Rules::up(settings).window_ms(UP_WINDOW_S)).map(|r| r.least).fold(newest, u32::min);
        let down = within(Rules::down(settings).window_ms(DOWN_WINDOW_S)).map(|r| r.most).fold(newest, u32::max);
        if base < up {
            up
        } else if base > down {
            down
        } else {
            base
        }
    }

    /// Bounds a change by the policies of its direction.
    pub(super) fn bound(&self, base: u32, n: u32, settings: &FleetSettings, now: Millis) -> u32 {
        if n > base {
            n.min(self.most(base, Rules::up(settings), now))
        } else {
            n.max(self.least(base, Rules::down(settings), now))
        }
    }

    fn most(&self, base: u32, rules: Rules<'_>, now: Millis) -> u32 {
        if rules.select() == "Disabled" {
            return base;
        }
        let policy = |type_: &str, value| HPAScalingPolicy { period_seconds: UP_PERIOD_S, type_: type_.into(), value };
        let default = vec![policy("Percent", UP_PERCENT), policy("Pods", UP_PODS)];
        let limits = rules.policies().unwrap_or(&default).iter().map(|policy| {
            let (start, value) = (self.at_start(policy, base, now), u32::try_from(policy.value).unwrap_or(0));
            match policy.type_.as_str() {
                "Percent" => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as u32,
                _ => start.saturating_add(value),
            }
        });
        let limit = if rules.select() == "Min" { limits.min() } else { limits.max() };
        limit.unwrap_or(base).max(base)
    }

    fn least(&self, base: u32, rules: Rules<'_>, now: Millis) -> u32 {
        if rules.select() == "Disabled" {
            return base;
        }
        // Where nothing is said, all at once: the stabilization window was the wait.
        let Some(policies) = rules.policies() else { return 0 };
        let limits = policies.iter().map(|policy| {
            let (start, value) = (self.at_start(policy, base, now), u32::try_from(policy.value).unwrap_or(0));
            match policy.type_.as_str() {
                "Percent" => (f64::from(start) * (1.0 - f64::from(value.min(100)) / 100.0)) as u32,
                _ => start.saturating_sub(value),
            }
        });
        let limit = if rules.select() == "Min" { limits.max() } else { limits.min() };
        limit.unwrap_or(base).min(base)
    }

    /// The number that was wanted when a policy's period began.
    fn at_start(&self, policy: &HPAScalingPolicy, base: u32, now: Millis) -> u32 {
        let period = u64::try_from(policy.period_seconds).unwrap_or(0) * 1000;
        let before = self.changes.iter().rev().find(|(at, _)| now.0.saturating_sub(at.0) >= period);
        before.or(self.changes.front()).map_or(base, |(_, n)| *n)
    }
}
