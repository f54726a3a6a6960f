//! Which slots begin and which leave: towards the planned number, and one by one towards a changed template.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use planner::FleetPlan;

use super::{Settings, slot::Slot};
use crate::fleet::ProxyReport;

/// The changes of one step.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    begin: u32,
    /// Names of those that leave.
    leave: Vec<String>,
}

/// A slot that is not leaving, as far as the choice depends on it.
#[derive(Debug)]
struct Candidate {
    name: String,
    number: u32,
    current: bool,
    ready: bool,
    rate: f64,
}

/// Adds slots to the fleet and tells slots to leave.
pub(super) fn roll(
    slots: &mut BTreeMap<String, Slot>,
    plan: &FleetPlan,
    reports: &BTreeMap<String, ProxyReport>,
    settings: &Settings,
    now: Instant,
) {
    let staying = slots.values().filter(|slot| slot.fleet == plan.fleet && !slot.is_draining());
    let candidates = staying.map(|slot| {
        let report = reports.get(&slot.name).filter(|_| slot.pid().is_some()).cloned().unwrap_or_default();
        // A slot whose process crashed starts the next one from the current template.
        let current = slot.pid().is_none() || slot.template_hash == plan.template_hash;
        Candidate { name: slot.name.clone(), number: slot.number, current, ready: report.ready, rate: report.rate }
    });
    let step = step(candidates.collect(), plan.replicas as usize);
    for name in &step.leave {
        if let Some(slot) = slots.get_mut(name) {
            slot.drain(settings, plan.drain.timeout.std(), now);
        }
    }
    slots.retain(|_, slot| !slot.is_over());
    for _ in 0..step.begin {
        let slot = Slot::new(plan, free_number(slots, &plan.fleet.name));
        slots.insert(slot.name.clone(), slot);
    }
}

/// The least number whose name no process has: fleets of one name in two namespaces count together.
fn free_number(slots: &BTreeMap<String, Slot>, fleet: &str) -> u32 {
    let taken: BTreeSet<u32> = slots.values().filter(|slot| slot.fleet.name == fleet).map(|slot| slot.number).collect();
    (0..).find(|n| !taken.contains(n)).unwrap_or_default()
}

fn step(mut slots: Vec<Candidate>, replicas: usize) -> Step {
    // Those that can best be spared last: what serves nothing yet leaves first, then the old template, then the least
    // loaded, the newest of equals.
    slots.sort_by(|a, b| {
        let key = |c: &Candidate| (c.ready, c.current);
        key(b).cmp(&key(a)).then(b.rate.total_cmp(&a.rate)).then(a.number.cmp(&b.number))
    });
    let outdated = slots.iter().filter(|c| !c.current).count();
    let settled = slots.iter().filter(|c| c.current).all(|c| c.ready);
    // While the template changes there is one more: its place is taken before anyone leaves. With 3 replicas, 2 of them
    // outdated and all Ready: 4, and once the new one is Ready an outdated one leaves.
    let target = if replicas > 0 && outdated > 0 { replicas + 1 } else { replicas };
    let mut step = Step::default();
    if slots.len() < replicas {
        step.begin = (replicas - slots.len()) as u32;
    } else if slots.len() > target {
        step.leave = slots.split_off(target).into_iter().map(|c| c.name).collect();
    } else if outdated > 0 && slots.len() == target && settled {
        step.leave.extend(slots.iter().rfind(|c| !c.current).map(|c| c.name.clone()));
    } else if outdated > 0 && slots.len() < target && settled {
        step.begin = 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots as words of letters: `c`urrent or `o`utdated, `r`eady or `n`ot; then the rate.
    #[track_caller]
    fn check(slots: &str, replicas: usize, begin: u32, leave: &[&str]) {
        let candidates = slots.split_whitespace().zip(0..).map(|(word, number)| Candidate {
            name: format!("{number}"),
            number,
            current: word.starts_with('c'),
            ready: &word[1..2] == "r",
            rate: word[2..].parse().unwrap_or_default(),
        });
        let expect = Step { begin, leave: leave.iter().map(ToString::to_string).collect() };
        assert_eq!(step(candidates.collect(), replicas), expect, "{slots} for {replicas}");
    }

    #[test]
    fn numbers() {
        check("", 3, 3, &[]);
        check("cr cr cr", 3, 0, &[]);
        check("cr cn cr", 5, 2, &[]);
        check("cr5 cr1 cr9", 2, 0, &["1"]);
        check("cr5 cn cr0", 2, 0, &["1"]);
        check("cr cr cr", 1, 0, &["1", "2"]);
        check("cr cr", 0, 0, &["0", "1"]);
    }

    #[test]
    fn a_changed_template_restarts_one_by_one() {
        check("or or", 2, 1, &[]);
        check("or or cn", 2, 0, &[]);
        check("or or cr", 2, 0, &["1"]);
        check("or cr", 2, 1, &[]);
        check("or cr cn", 2, 0, &[]);
        check("or cr cr", 2, 0, &["0"]);
        check("cr cr", 2, 0, &[]);
        // The number has precedence, and old ones leave first.
        check("or or cr", 1, 0, &["1"]);
        check("or or", 0, 0, &["0", "1"]);
        check("on or", 3, 1, &[]);
    }
}
