//! Counters that many threads write and few read: each thread has a place of its own, on its own cache lines, so that
//! counting costs a few ns and no worker waits for another.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// One `T` for each thread that counts, in the order in which they first do. The last one is shared by those for whom
/// there is none left.
pub(crate) struct Sharded<T>(Box<[Padded<T>]>);

#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self((0..shards()).map(|_| Padded::default()).collect())
    }
}

impl<T> Sharded<T> {
    /// The shard of this thread.
    pub(crate) fn own(&self) -> &T {
        &self.0[place()].0
    }

    /// Everyone's.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }

    /// The sum of one counter over all threads.
    pub(crate) fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.iter().map(|shard| counter(shard).get()).fold(0, u64::wrapping_add)
    }
}

/// A counter that is only ever reached by [`Sharded::own`], or else by [`place`]: one that threads share would lose
/// counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn count(&self) {
        self.add(1);
    }

    /// Adds some. What a thread has for itself, it need not lock: that would cost more than the rest of the counting.
    pub(crate) fn add(&self, number: u64) {
        if place() < shards() - 1 {
            self.0.store(self.0.load(Relaxed).wrapping_add(number), Relaxed);
        } else {
            self.0.fetch_add(number, Relaxed);
        }
    }

    /// The sum that the counter has come to.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The number of shards: one for each CPU, and one more.
pub(crate) fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(MOST) + 1)
}

/// Places beyond which threads share.
const MOST: usize = 32;

/// The place of this thread.
pub(crate) fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let place = PLACE.get();
    if place != usize::MAX {
        return place;
    }
    let place = next(&NEXT);
    PLACE.set(place);
    place
}

/// The next place that is free, or the one that is shared.
fn next(taken: &AtomicUsize) -> usize {
    taken.fetch_add(1, Relaxed).min(shards() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_place_is_shared() {
        let taken = AtomicUsize::default();
        let last = shards() - 1;
        let places: Vec<_> = (0..shards() + 3).map(|_| next(&taken)).collect();
        let expect: Vec<_> = (0..last).chain([last; 4]).collect();
        assert_eq!(places, expect);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Sharded::<Counter>::default();
        let threads = 2 * shards();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..10_000).for_each(|_| counter.own().count()));
            }
        });
        assert_eq!(counter.sum(|c| c), 10_000 * threads as u64);
    }
}
