//! Coarse timers: timers that ring at a second of their worker's clock, kept in one slab for each connection.
//!
//! A stalled peer, an idle connection, a body that does not move: such timeouts are set with every request, nearly
//! always cancelled, and need not be exact. A timer of the runtime costs a place in a sorted structure, behind a lock
//! that is the whole worker's. Here setting one is a lock that nobody else wants, and a slot that the stream keeps, since
//!
//! - time is the worker's [`Clock`], which its tick (`server/housekeeping.rs`) moves on once a second: reading it is one load;
//! - a timer that is set again later is not touched: it wakes its task before the time, which then sets it anew;
//! - the tick looks at all slots of a connection. There are as many as it has streams that wait, some hundred at most.
//!
//! A timeout never ends early, and up to two seconds late. Timeouts that users set (`timeouts` of a rule) are exact:
//! they are timers of the runtime.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::Waker,
    time::Duration,
};

use slab::Slab;

/// The seconds of a worker's life: its ticks, counted. A late one makes what is waited for
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

/// The second at which waiting ends. Never too early: one that was begun counts whole, and the one under way not at
/// all.
pub(crate) fn until(since: u32, limit: Duration) -> u32 {
    let seconds = u32::try_from(limit.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    since.saturating_add(seconds).saturating_add(1)
}

/// The timers of one connection's streams.
#[derive(Debug, Default)]
pub(crate) struct StreamTimers(Mutex<Slab<Slot>>);

#[derive(Debug)]
struct Slot {
    /// The slot's timer does not ring before this second of the worker's clock.
    until: u32,
    waker: Waker,
}

/// A timer of one stream. A slot that its owner does not cancel wakes a task for nothing, and goes with the connection.
#[derive(Debug, Default)]
pub(crate) struct StreamTimer(Option<Armed>);

#[derive(Clone, Copy, Debug)]
struct Armed {
    slot: usize,
    until: u32,
}

impl StreamTimers {
    /// Has `timer` wake `waker` at `until` at the latest. A timer that rings earlier is left as it is, with its waker:
    /// a stream's task stays the same.
    pub(crate) fn arm(&self, timer: &mut StreamTimer, now: u32, until: u32, waker: &Waker) {
        if timer.0.is_none_or(|armed| armed.until > until || armed.until <= now) {
            let slot = self.set(timer.0.map(|armed| armed.slot), until, waker);
            timer.0 = Some(Armed { slot, until });
        }
    }

    /// Gives the slot of `timer` up.
    pub(crate) fn cancel(&self, timer: &mut StreamTimer) {
        if let Some(armed) = timer.0.take() {
            self.lock().try_remove(armed.slot);
        }
    }

    /// Schedules `waker` for `until`, in place of what is scheduled in `slot`, if there is one. Returns the slot.
    fn set(&self, slot: Option<usize>, until: u32, waker: &Waker) -> usize {
        let mut slots = self.lock();
        match slot.and_then(|number| Some((number, slots.get_mut(number)?))) {
            Some((number, slot)) => {
                slot.until = until;
                slot.waker.clone_from(waker);
                number
            }
            None => slots.insert(Slot { until, waker: waker.clone() }),
        }
    }

    /// Rings the timers whose second has come. Called once a second.
    pub(crate) fn tick(&self, second: u32) {
        for (_, slot) in self.lock().iter_mut().filter(|(_, slot)| slot.until <= second) {
            slot.until = u32::MAX;
            slot.waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Slot>> {
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
    fn each_timer_rings_in_its_time() {
        let timers = StreamTimers::default();
        let [a, b] = [0, 0].map(|_| Arc::<Count>::default());
        let [mut first, mut second] = <[StreamTimer; 2]>::default();
        let rang = || (a.0.load(Relaxed), b.0.load(Relaxed));
        timers.arm(&mut first, 0, 3, &waker(a.clone()));
        timers.arm(&mut second, 0, 5, &waker(b.clone()));
        timers.tick(2);
        assert_eq!(rang(), (0, 0));
        timers.tick(3);
        timers.tick(4);
        assert_eq!(rang(), (1, 0));
        // Set anew where it stood.
        timers.arm(&mut first, 4, 6, &waker(a.clone()));
        assert_eq!(timers.lock().len(), 2);
        timers.tick(5);
        assert_eq!(rang(), (1, 1));
        timers.cancel(&mut second);
        timers.tick(6);
        assert_eq!(rang(), (2, 1));
        timers.cancel(&mut first);
        assert!(timers.lock().is_empty());
    }

    #[test]
    fn a_timer_that_rings_earlier_is_left() {
        let (timers, count) = (StreamTimers::default(), Arc::<Count>::default());
        let (mut timer, waker) = (StreamTimer::default(), waker(count.clone()));
        timers.arm(&mut timer, 0, 4, &waker);
        timers.arm(&mut timer, 1, 9, &waker);
        timers.tick(4);
        assert_eq!(count.0.load(Relaxed), 1);
        timers.arm(&mut timer, 4, 9, &waker);
        timers.arm(&mut timer, 4, 7, &waker);
        timers.tick(7);
        assert_eq!(count.0.load(Relaxed), 2);
    }

    #[test]
    fn nobody_is_given_less_time_than_allowed() {
        let ends = [1, 999, 1000, 1001].map(|ms| until(7, Duration::from_millis(ms)));
        assert_eq!(ends, [9, 9, 9, 10]);
        assert_eq!(until(7, Duration::MAX), u32::MAX);
    }
}
