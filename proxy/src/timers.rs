//! Streams of one connection that wait for something: each is woken when its time is over.
//!
//! They share the worker's tick as connections do: a timer for each would cost more than the rest of its bookkeeping.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Waker,
    time::Duration,
};

use slab::Slab;

/// Seconds of a worker's life, for what need not be more exact: its ticks, counted. A late one makes what is waited for
/// later, never earlier.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU32);

impl Clock {
    pub(crate) fn second(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, second: u32) {
        self.0.store(second, Ordering::Relaxed);
    }
}

/// The second at which waiting ends. Never too early: one that was begun counts whole, and the one under way not at all.
pub(crate) fn until(since: u32, limit: Duration) -> u32 {
    let seconds = u32::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    since.saturating_add(seconds).saturating_add(1)
}

/// Who is to be woken, and when.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Slab<Wait>>);

#[derive(Debug)]
struct Wait {
    /// Not before this second of the worker's clock.
    until: u32,
    waker: Waker,
}

impl Waits {
    /// Has `waker` woken once, at a second; in the place that it has, if it has one. Answers its place.
    pub(crate) fn set(&self, place: Option<usize>, until: u32, waker: &Waker) -> usize {
        let mut waits = self.lock();
        match place.and_then(|place| Some((place, waits.get_mut(place)?))) {
            Some((place, wait)) => {
                wait.until = until;
                wait.waker.clone_from(waker);
                place
            }
            None => waits.insert(Wait { until, waker: waker.clone() }),
        }
    }

    /// Gives a place up.
    pub(crate) fn remove(&self, place: usize) {
        self.lock().try_remove(place);
    }

    /// Called once a second.
    pub(crate) fn tick(&self, second: u32) {
        for (_, wait) in self.lock().iter_mut().filter(|(_, wait)| wait.until <= second) {
            wait.until = u32::MAX;
            wait.waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::{ArcWake, waker};
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl ArcWake for Count {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn each_is_woken_in_its_time() {
        let waits = Waits::default();
        let [a, b] = [0, 0].map(|_| Arc::<Count>::default());
        let woken = || (a.0.load(Relaxed), b.0.load(Relaxed));
        let first = waits.set(None, 3, &waker(a.clone()));
        let second = waits.set(None, 5, &waker(b.clone()));
        waits.tick(2);
        assert_eq!(woken(), (0, 0));
        waits.tick(3);
        waits.tick(4);
        assert_eq!(woken(), (1, 0));
        assert_eq!(waits.set(Some(first), 6, &waker(a.clone())), first);
        waits.tick(5);
        assert_eq!(woken(), (1, 1));
        waits.remove(second);
        waits.tick(6);
        assert_eq!(woken(), (2, 1));
        waits.remove(first);
        assert!(waits.lock().is_empty());
    }

    #[test]
    fn nobody_is_given_less_time_than_allowed() {
        let ends = [1, 999, 1000, 1001].map(|ms| until(7, Duration::from_millis(ms)));
        assert_eq!(ends, [9, 9, 9, 10]);
        assert_eq!(until(7, Duration::MAX), u32::MAX);
    }
}
