//! The fair sharing of resources between namespaces. README.md has what is wanted, the model and the steps; `tests.rs` holds it
//! to the former.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// However many namespaces there are, each of the oldest has this part of the capacity: a hundredth.
pub const ASSURED: u64 = 100;

/// Amounts of each resource.
pub type Amounts<const N: usize> = [u64; N];

/// A unit that stands or falls as a whole.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// The owner, which is a namespace.
    pub owner: &'a str,
    /// The parts that it is made of, each once, as indices into the costs; others may need the same.
    pub parts: Vec<usize>,
}

/// The units that are taken, and what their owners are charged with.
#[derive(Clone, Debug, PartialEq)]
pub struct Allotment<'a, const N: usize> {
    /// The outcome of each unit, in their order; `Err`: the resource that it does not fit into.
    pub taken: Vec<Result<(), usize>>,
    /// The amounts that each owner is charged with: what it got, each part once.
    pub used: BTreeMap<&'a str, Amounts<N>>,
    /// The amounts that all got together.
    pub total: Amounts<N>,
}

/// Says which units fit into a capacity. They come in the order of precedence; `costs` are those of the parts.
pub fn allot<'a, const N: usize>(capacity: Amounts<N>, costs: &[Amounts<N>], units: &[Unit<'a>]) -> Allotment<'a, N> {
    let mut owners: Vec<Owner<'a, N>> = vec![];
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, unit) in units.iter().enumerate() {
        let number = *numbers.entry(unit.owner).or_insert_with(|| {
            owners.push(Owner { name: unit.owner, units: vec![], demand: [0; N], used: [0; N] });
            owners.len() - 1
        });
        owners[number].units.push(i);
    }
    let mut all = Held::new(costs);
    for unit in units {
        all.take(0, unit);
    }
    // Of each owner the parts that it holds, whoever else does.
    let mut own = Held::new(costs);
    if fits([0; N], all.total, capacity).is_ok() {
        for (number, owner) in owners.iter_mut().enumerate() {
            for unit in &owner.units {
                add(&mut owner.used, own.take(number, &units[*unit]));
            }
        }
        return outcome(vec![Ok(()); units.len()], &owners, all.total);
    }
    for (number, owner) in owners.iter_mut().enumerate() {
        for unit in &owner.units {
            add(&mut owner.demand, own.take(number, &units[*unit]));
        }
    }
    let level: Amounts<N> = std::array::from_fn(|r| {
        let mut demands: Vec<u64> = owners.iter().map(|owner| owner.demand[r]).collect();
        level(capacity[r], &mut demands).max(capacity[r] / ASSURED)
    });

    let (mut held, mut own) = (Held::new(costs), Held::new(costs));
    let mut taken: Vec<Result<(), usize>> = vec![Err(0); units.len()];
    for (number, owner) in owners.iter_mut().enumerate() {
        let entitled: Amounts<N> = std::array::from_fn(|r| owner.demand[r].min(level[r]));
        for i in &owner.units {
            let unit = &units[*i];
            taken[*i] = fits(owner.used, own.cost(number, unit), entitled)
                .and_then(|()| fits(held.total, held.cost(0, unit), capacity));
            if taken[*i].is_ok() {
                add(&mut owner.used, own.take(number, unit));
                held.take(0, unit);
            }
        }
    }
    surplus(capacity, units, &mut owners, &mut held, &mut taken);
    outcome(taken, &owners, held.total)
}

/// Gives what is left over to who has least, unit by unit.
fn surplus<const N: usize>(
    capacity: Amounts<N>,
    units: &[Unit<'_>],
    owners: &mut [Owner<'_, N>],
    held: &mut Held<'_, N>,
    taken: &mut [Result<(), usize>],
) {
    let waiting: Vec<Vec<usize>> =
        owners.iter().map(|o| o.units.iter().copied().filter(|unit| taken[*unit].is_err()).collect()).collect();
    let mut next = vec![0; owners.len()];
    // The least share first; of equal ones the older owner.
    let mut queue: BinaryHeap<Reverse<(u64, usize)>> =
        owners.iter().enumerate().map(|(number, owner)| Reverse((owner.share(capacity), number))).collect();
    while let Some(Reverse((_, number))) = queue.pop() {
        while let Some(unit) = waiting[number].get(next[number]).copied() {
            next[number] += 1;
            taken[unit] = fits(held.total, held.cost(0, &units[unit]), capacity);
            if taken[unit].is_ok() {
                add(&mut owners[number].used, held.take(0, &units[unit]));
                queue.push(Reverse((owners[number].share(capacity), number)));
                break;
            }
        }
    }
}

/// An owner of units.
struct Owner<'a, const N: usize> {
    name: &'a str,
    /// The units in the order of precedence.
    units: Vec<usize>,
    demand: Amounts<N>,
    used: Amounts<N>,
}

impl<const N: usize> Owner<'_, N> {
    /// The largest of its shares, in parts of 2^32.
    fn share(&self, capacity: Amounts<N>) -> u64 {
        let share = |(used, capacity): (&u64, &u64)| {
            let parts = (u128::from(*used) << 32) / u128::from((*capacity).max(1));
            u64::try_from(parts).unwrap_or(u64::MAX)
        };
        self.used.iter().zip(&capacity).map(share).max().unwrap_or_default()
    }
}

/// The parts that are held, by whom last.
struct Held<'c, const N: usize> {
    costs: &'c [Amounts<N>],
    by: Vec<Option<usize>>,
    total: Amounts<N>,
}

impl<'c, const N: usize> Held<'c, N> {
    fn new(costs: &'c [Amounts<N>]) -> Self {
        Self { costs, by: vec![None; costs.len()], total: [0; N] }
    }

    /// The cost of a unit beyond what `owner` holds.
    fn cost(&self, owner: usize, unit: &Unit<'_>) -> Amounts<N> {
        let mut cost = [0; N];
        let missing = unit.parts.iter().filter(|part| self.by.get(**part).is_some_and(|by| *by != Some(owner)));
        missing.for_each(|part| add(&mut cost, self.costs[*part]));
        cost
    }

    /// Holds it from now on; what it added.
    fn take(&mut self, owner: usize, unit: &Unit<'_>) -> Amounts<N> {
        let cost = self.cost(owner, unit);
        for part in &unit.parts {
            if let Some(by) = self.by.get_mut(*part) {
                *by = Some(owner);
            }
        }
        add(&mut self.total, cost);
        cost
    }
}

fn outcome<'a, const N: usize>(
    taken: Vec<Result<(), usize>>,
    owners: &[Owner<'a, N>],
    total: Amounts<N>,
) -> Allotment<'a, N> {
    Allotment { taken, used: owners.iter().map(|owner| (owner.name, owner.used)).collect(), total }
}

fn add<const N: usize>(sum: &mut Amounts<N>, more: Amounts<N>) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.saturating_add(more);
    }
}

/// Whether there is room; else the first resource of which there is none.
fn fits<const N: usize>(used: Amounts<N>, more: Amounts<N>, room: Amounts<N>) -> Result<(), usize> {
    // What costs nothing of a resource fits, however full that is.
    let over = (0..N).find(|r| more[*r] > 0 && used[*r].saturating_add(more[*r]) > room[*r]);
    over.map_or(Ok(()), Err)
}

/// The highest level such that the demands, each cut at it, add up to no more than the capacity.
pub fn level(capacity: u64, demands: &mut [u64]) -> u64 {
    demands.sort_unstable();
    let (mut left, mut count) = (capacity, demands.len() as u64);
    for demand in demands.iter() {
        let even = left / count.max(1);
        if *demand > even {
            return even;
        }
        left -= demand;
        count -= 1;
    }
    // Everyone has all that it wants.
    capacity
}

#[cfg(test)]
mod tests;
