//! What README.md wants, of arbitrary units; and a few that can be followed by hand.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One resource, units of one part each.
#[track_caller]
fn check(capacity: u64, units: &[(&str, u64)], expect: &[bool]) {
    let costs: Vec<[u64; 1]> = units.iter().map(|(_, cost)| [*cost]).collect();
    let units: Vec<_> = units.iter().enumerate().map(|(i, (owner, _))| Unit { owner, parts: vec![i] }).collect();
    let taken: Vec<bool> = allot([capacity], &costs, &units).taken.iter().map(Result::is_ok).collect();
    assert_eq!(taken, expect);
}

#[test]
fn by_hand() {
    check(10, &[("a", 5), ("b", 5)], &[true, true]);
    // Who came first may use what others leave, and gives it back: its youngest.
    check(10, &[("a", 4), ("a", 4), ("a", 2)], &[true; 3]);
    check(10, &[("a", 4), ("a", 4), ("a", 2), ("b", 4)], &[true, false, true, true]);
    // Who wants less than its share leaves the rest to the others.
    check(12, &[("a", 5), ("a", 5), ("b", 2), ("c", 5)], &[true, false, true, true]);
    // A large one is passed over, and does not keep out what comes after it.
    check(10, &[("a", 11), ("a", 6), ("a", 4)], &[false, true, true]);
    // Nothing is left out that fits, though the level is 5.
    check(10, &[("a", 7), ("b", 3), ("b", 3)], &[true, true, false]);
}

#[test]
fn what_is_shared_is_held_once() {
    // A service of 6 that three namespaces use, and 1 for each route.
    let (costs, unit) = ([[6], [1], [1], [1]], |owner, own| Unit { owner, parts: vec![0, own] });
    let units = [unit("a", 1), unit("b", 2), unit("c", 3)];
    let allotment = allot([9], &costs, &units);
    assert_eq!((allotment.taken, allotment.total), (vec![Ok(()); 3], [9]));
    // One more does not fit; what it is charged does not depend on who holds the service.
    assert_eq!(allot([8], &costs, &units).taken, [Ok(()), Ok(()), Err(0)]);
}

#[test]
fn a_thousand_namespaces_do_not_push_out_the_first_hundred() {
    let mut owners: Vec<String> = (0..100).map(|i| format!("old{i}")).collect();
    owners.extend((0..1000).map(|i| format!("new{i}")));
    // Each of the old ones has 10 routes, and there is room for a thousand.
    let old = owners.iter().take(100).flat_map(|owner| std::iter::repeat_n(owner, 10));
    let units: Vec<_> = old.chain(owners.iter().skip(100)).map(|owner| Unit { owner, parts: vec![] }).collect();
    let units: Vec<_> = units.into_iter().enumerate().map(|(i, unit)| Unit { parts: vec![i], ..unit }).collect();
    let taken = allot([1000], &vec![[1]; units.len()], &units).taken;
    assert!(taken.iter().take(1000).all(Result::is_ok) && taken.iter().skip(1000).all(Result::is_err));
}

#[test]
fn levels() {
    #[track_caller]
    fn check(capacity: u64, demands: &[u64], expect: u64) {
        assert_eq!(level(capacity, &mut demands.to_vec()), expect);
    }
    check(10, &[], 10);
    check(10, &[4, 5], 10);
    check(10, &[20, 20], 5);
    check(10, &[20, 2, 20], 4);
    check(10, &[u64::MAX, 0], 10);
    check(0, &[1], 0);
}

#[test]
fn a_hundred_thousand_units_are_no_work() {
    let count = 100_000;
    let costs = vec![[1, 700]; count];
    let units: Vec<_> = (0..count)
        .map(|i| Unit { owner: NAMES[i % 6], parts: if i == 0 { vec![0] } else { vec![i, i / 2] } })
        .collect();
    // Of the parts, each of which two units need, half are taken.
    let allotment = allot([count as u64 / 2, u64::MAX], &costs, &units);
    assert_eq!(allotment.total[0], count as u64 / 2);
}

/// Costs of parts, and units of them: whose, and which.
type Case = (Vec<[u64; 2]>, Vec<(usize, BTreeSet<usize>)>);

fn cases() -> impl Strategy<Value = Case> {
    let costs = proptest::collection::vec((0..20u64, 0..20u64).prop_map(|(a, b)| [a, b]), 1..16);
    let parts = proptest::collection::btree_set(0..16usize, 1..4);
    (costs, proptest::collection::vec((0..6usize, parts), 0..24)).prop_map(|(costs, mut units)| {
        units.iter_mut().for_each(|(_, parts)| parts.retain(|part| *part < costs.len()));
        (costs, units)
    })
}

fn units(units: &[(usize, BTreeSet<usize>)]) -> Vec<Unit<'static>> {
    units.iter().map(|(owner, parts)| Unit { owner: NAMES[*owner], parts: parts.iter().copied().collect() }).collect()
}

fn sum<'u>(costs: &[[u64; 2]], units: impl Iterator<Item = &'u Unit<'static>>) -> [u64; 2] {
    let parts: BTreeSet<usize> = units.flat_map(|unit| unit.parts.iter().copied()).collect();
    parts.iter().fold([0, 0], |[a, b], part| [a + costs[*part][0], b + costs[*part][1]])
}

proptest! {
    #[test]
    fn fair((costs, case) in cases(), capacity in (0..120u64, 0..120u64)) {
        let (capacity, units) = ([capacity.0, capacity.1], units(&case));
        let allotment = allot(capacity, &costs, &units);
        let is_taken = |i: &usize| allotment.taken[*i].is_ok();
        let of = |owner: &str| -> Vec<usize> { (0..units.len()).filter(|i| units[*i].owner == owner).collect() };

        // Never more than there is, and what is said of it is so.
        let total = sum(&costs, (0..units.len()).filter(is_taken).map(|i| &units[i]));
        prop_assert_eq!(total, allotment.total);
        prop_assert!((0..2).all(|r| total[r] <= capacity[r]));
        // Nothing is left out that fits beside all that is taken.
        for (i, unit) in units.iter().enumerate().filter(|(i, _)| !is_taken(i)) {
            let more = sum(&costs, [&units[i]].into_iter());
            prop_assert!((0..2).any(|r| total[r] + more[r] > capacity[r]), "{unit:?} fits");
        }
        // Who wants no more than an even share has all of it.
        let owners: BTreeSet<&str> = units.iter().map(|unit| unit.owner).collect();
        for owner in &owners {
            let wants = sum(&costs, of(owner).into_iter().map(|i| &units[i]));
            let is_modest = (0..2).all(|r| wants[r] <= capacity[r] / owners.len() as u64);
            prop_assert!(!is_modest || of(owner).iter().all(is_taken), "{owner} is refused");
        }
        prop_assert_eq!(allot(capacity, &costs, &units), allotment, "the same is not the same");
    }

    #[test]
    fn what_another_adds_takes_nothing_from_who_is_within_its_share(
        (costs, case) in cases(), more in proptest::collection::vec((0..20u64, 0..20u64), 1..20), at in any::<prop::sample::Index>(),
    ) {
        let capacity = [60, 60];
        let before = units(&case);
        let owners: BTreeSet<&str> = before.iter().map(|unit| unit.owner).chain(["a"]).collect();
        // Namespace `a` adds units of whatever age.
        let (mut all_costs, mut after) = (costs.clone(), before.clone());
        for (x, y) in more {
            all_costs.push([x, y]);
            after.insert(at.index(after.len() + 1), Unit { owner: "a", parts: vec![all_costs.len() - 1] });
        }
        let after_taken = allot(capacity, &all_costs, &after).taken;
        for owner in NAMES.into_iter().filter(|owner| *owner != "a") {
            let wants = sum(&costs, before.iter().filter(|unit| unit.owner == owner));
            if (0..2).all(|r| wants[r] <= capacity[r] / owners.len() as u64) {
                let kept = after.iter().zip(&after_taken).filter(|(unit, _)| unit.owner == owner);
                prop_assert!(kept.clone().all(|(_, taken)| taken.is_ok()), "{owner} lost something");
            }
        }
    }
}
