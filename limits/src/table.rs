//! The states of all keys, within bounds: a set-associative table in shards, each under its own lock.
//!
//! A bucket that is full again is the same as one that was never used, so its place is free. Only when all places of a
//! set hold buckets that are not full, and the shard is at its bound, a state is given up: that of the bucket that
//! would be full first.

use std::{
    array,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::key::{Key, KeyBuilder, Seeds};

/// Shards, each with a lock.
const SHARDS: usize = 256;
/// Places of a set: at half load, one set in 250 overflows.
const WAYS: usize = 16;
/// Sets that are gone through under one lock: some 10 µs.
const SETS_AT_ONCE: usize = 64;

/// States by key.
pub struct Table {
    seeds: Seeds,
    shards: Box<[Shard]>,
    /// Sets of a shard at its bound.
    most_sets: usize,
    evicted: AtomicU64,
    changing: Mutex<()>,
}

/// On its own cache lines: shards are locked by different threads.
#[repr(align(128))]
struct Shard(Mutex<Vec<Set>>);

/// The keys that share a few bits.
#[derive(Clone, Default)]
struct Set {
    /// 0: a free place.
    tags: [u64; WAYS],
    checks: [u32; WAYS],
    values: [Value; WAYS],
}

/// A bucket's state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Value {
    /// In ticks of the rate that wrote it.
    pub(crate) state: u64,
    /// When it is as good as new: full, in nearly all cases.
    pub(crate) free_us: u64,
    /// Which rate wrote it.
    pub(crate) version: u32,
}

impl Table {
    /// For at most `keys` keys whose buckets are not full. Takes memory (40 bytes a place) as it is used.
    pub fn new(keys: usize) -> Self {
        let most_sets = keys.div_ceil(SHARDS * WAYS).next_power_of_two();
        let shards = (0..SHARDS).map(|_| Shard(Mutex::default())).collect();
        Self { seeds: Seeds::random(), shards, most_sets, evicted: AtomicU64::new(0), changing: Mutex::default() }
    }

    /// Begins a key. Keys of different namespaces differ.
    pub fn key(&self, namespace: u64) -> KeyBuilder<'_> {
        KeyBuilder::new(&self.seeds, namespace)
    }

    /// How many states were given up to stay within bounds: each let a key begin with a full bucket too early.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// How many places hold a state, full buckets among them.
    pub fn len(&self) -> usize {
        let sets = |shard: &Shard| shard.lock(|sets| sets.iter().map(|set| set.used()).sum::<usize>());
        self.shards.iter().map(sets).sum()
    }

    /// Whether no place holds a state.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Held while limits change: no two changes at a time.
    pub(crate) fn changes(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces each state for which `replace` has another, some at a time: requests pass in between.
    pub(crate) fn replace(&self, replace: impl Fn(Value) -> Option<Value>) {
        for shard in &self.shards {
            let mut done = 0;
            // Sets that split meanwhile do so upwards: what was not seen yet is not missed.
            while shard.lock(|sets| {
                let some = sets.iter_mut().skip(done).take(SETS_AT_ONCE);
                some.for_each(|set| set.replace(&replace));
                done += SETS_AT_ONCE;
                done < sets.len()
            }) {}
        }
    }

    /// Shows a key's state to `update` and keeps what it gives. The lock of the key's shard is held meanwhile.
    pub(crate) fn update<R>(
        &self,
        key: Key,
        now_us: u64,
        update: impl FnOnce(Option<Value>) -> (R, Option<Value>),
    ) -> R {
        // The upper bits choose the shard, the lower ones the set.
        let shard = &self.shards[(key.tag >> 56) as usize % SHARDS];
        shard.lock(|sets| {
            let found = find(sets, key);
            let (result, next) = update(found.map(|(set, way)| sets[set].values[way]));
            match (found, next) {
                (_, None) => {}
                (Some((set, way)), Some(value)) => sets[set].values[way] = value,
                (None, Some(value)) => self.insert(sets, key, value, now_us),
            }
            result
        })
    }

    fn insert(&self, sets: &mut Vec<Set>, key: Key, value: Value, now_us: u64) {
        if sets.is_empty() {
            sets.push(Set::default());
        }
        loop {
            let set = index(sets.len(), key);
            if let Some(way) = sets[set].free(now_us) {
                return sets[set].put(way, key, value);
            }
            if sets.len() >= self.most_sets {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                let way = sets[set].first_full();
                return sets[set].put(way, key, value);
            }
            grow(sets);
        }
    }
}

impl Shard {
    fn lock<R>(&self, work: impl FnOnce(&mut Vec<Set>) -> R) -> R {
        // Nothing within panics half-way through a change.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn used(&self) -> usize {
        self.tags.iter().filter(|tag| **tag != 0).count()
    }

    /// A place that is free, or whose bucket is full.
    fn free(&self, now_us: u64) -> Option<usize> {
        (0..WAYS).find(|way| self.tags[*way] == 0 || self.values[*way].free_us <= now_us)
    }

    /// The bucket that will be full first.
    fn first_full(&self) -> usize {
        (0..WAYS).min_by_key(|way| self.values[*way].free_us).unwrap_or(0)
    }

    fn replace(&mut self, replace: impl Fn(Value) -> Option<Value>) {
        for (tag, value) in self.tags.iter().zip(&mut self.values) {
            if *tag != 0
                && let Some(other) = replace(*value)
            {
                *value = other;
            }
        }
    }

    fn put(&mut self, way: usize, key: Key, value: Value) {
        (self.tags[way], self.checks[way], self.values[way]) = (key.tag, key.check, value);
    }
}

fn index(sets: usize, key: Key) -> usize {
    // A power of two.
    key.tag as usize & (sets - 1)
}

fn find(sets: &[Set], key: Key) -> Option<(usize, usize)> {
    let set = index(sets.len().max(1), key);
    let place = sets.get(set)?;
    // All places are compared, which the compiler does several at a time; hardly ever is there a second match.
    let matches: [bool; WAYS] = array::from_fn(|way| place.tags[way] == key.tag && place.checks[way] == key.check);
    matches.iter().position(|m| *m).map(|way| (set, way))
}

/// Twice as many sets; each splits in two.
fn grow(sets: &mut Vec<Set>) {
    let half = sets.len();
    sets.resize(2 * half, Set::default());
    let (low, high) = sets.split_at_mut(half);
    for (low, high) in low.iter_mut().zip(high) {
        for way in 0..WAYS {
            if low.tags[way] as usize & half != 0 {
                high.tags[way] = std::mem::take(&mut low.tags[way]);
                high.checks[way] = low.checks[way];
                high.values[way] = low.values[way];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn put(table: &Table, number: u64, free_us: u64, now_us: u64) {
        let value = Value { state: number, free_us, version: 1 };
        table.update(key(table, number), now_us, |_| ((), Some(value)));
    }

    fn state(table: &Table, number: u64) -> Option<u64> {
        table.update(key(table, number), 0, |value| (value.map(|v| v.state), None))
    }

    fn key(table: &Table, number: u64) -> Key {
        let mut builder = table.key(1);
        builder.part(&number.to_le_bytes());
        builder.finish()
    }

    #[test]
    fn grows_and_keeps_everything() {
        let table = Table::new(1 << 20);
        assert!(table.is_empty());
        (0..100_000).for_each(|n| put(&table, n, 10, 0));
        assert_eq!(table.len(), 100_000);
        assert!((0..100_000).all(|n| state(&table, n) == Some(n)));
        assert_eq!(state(&table, 100_000), None);
        assert_eq!(table.evicted(), 0);
    }

    #[test]
    fn places_of_full_buckets_are_used_again() {
        let table = Table::new(10_000);
        for round in 0..20 {
            (0..3_000).for_each(|n| put(&table, round * 3_000 + n, 10 * (round + 1), 10 * round));
        }
        assert_eq!(table.evicted(), 0);
        assert!(table.len() <= 16_384, "{}", table.len());
    }

    #[test]
    fn over_the_bound_what_is_full_first_is_given_up() {
        let table = Table::new(SHARDS * WAYS);
        // Twice as many as there are places; the later ones are full later.
        let keys = 2 * (SHARDS * WAYS) as u64;
        (0..keys).for_each(|n| put(&table, n, 1_000 + n, 0));
        let held = table.len() as u64;
        assert!(held <= keys / 2 && held + table.evicted() == keys, "{held} held, {} evicted", table.evicted());
        let late = (keys - 1_000..keys).filter(|n| state(&table, *n).is_some()).count();
        let early = (0..1_000).filter(|n| state(&table, *n).is_some()).count();
        assert!(late > 900 && early < 200, "{late} {early}");
    }

    #[test]
    fn states_are_replaced_while_the_table_grows() {
        let table = Table::new(1 << 22);
        (0..100_000).for_each(|n| put(&table, n, 10, 0));
        thread::scope(|scope| {
            let table = &table;
            scope.spawn(move || (100_000..400_000).for_each(|n| put(table, n, 10, 0)));
            let other =
                |value: Value| (value.state < 100_000).then_some(Value { state: value.state + (1 << 32), ..value });
            scope.spawn(move || table.replace(other));
        });
        assert!((0..100_000).all(|n| state(&table, n) == Some(n + (1 << 32))));
        assert!((100_000..400_000).all(|n| state(&table, n) == Some(n)));
    }

    #[test]
    fn nothing_given_nothing_kept() {
        let table = Table::new(1);
        assert!(table.update(key(&table, 1), 0, |value| (value.is_none(), None)));
        assert!(table.is_empty());
    }
}
