//! The pace of requests: one open-loop schedule shared by all kept connections.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A rate for a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Requests a second; 0 is a closed loop.
    pub rate: f64,
    /// The time that the load lasts.
    pub duration: Duration,
}

/// A schedule further behind than this skips ahead and counts what it skipped as missed: after a stall of the server
/// the load goes on at its rate instead of delivering the whole stall at once. At 3000/s that is 3000 requests.
const MAX_BACKLOG: Duration = Duration::from_secs(1);

/// Timers fire up to a millisecond late. Lateness below this is the generator's own and not counted as latency; beyond
/// it the request waited for a free connection, which is.
const OWN_LATENESS: Duration = Duration::from_millis(3);

/// Hands out the times at which requests are due.
#[derive(Debug)]
pub(super) struct Pacer {
    schedule: Mutex<Schedule>,
}

#[derive(Debug)]
struct Schedule {
    steps: Vec<(Instant, f64)>, // when each step ends, and its rate
    current: usize,
    next: Instant,
    missed: f64,
}

impl Pacer {
    pub(super) fn new(start: Instant, steps: &[Step]) -> Pacer {
        let mut end = start;
        let steps = steps.iter().map(|step| {
            end += step.duration;
            (end, step.rate)
        });
        let steps = steps.collect();
        Pacer { schedule: Mutex::new(Schedule { steps, current: 0, next: start, missed: 0.0 }) }
    }

    /// Takes the next request's due time; in a closed loop that is now. `None`: the schedule is over.
    pub(super) fn take(&self, now: Instant) -> Option<Instant> {
        self.lock().take(now)
    }

    /// Changes the current step's rate.
    pub(super) fn set_rate(&self, now: Instant, rate: f64) {
        let mut schedule = self.lock();
        schedule.next = now;
        let current = schedule.current;
        if let Some(step) = schedule.steps.get_mut(current) {
            step.1 = rate;
        }
    }

    /// The number of due requests that were never sent because everything was busy for longer than the backlog allows.
    pub(super) fn missed(&self) -> u64 {
        self.lock().missed as u64
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Schedule {
    fn take(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let &(end, rate) = self.steps.get(self.current)?;
            if now >= end || self.next >= end {
                // Whatever was still due in a step that is over by the clock was missed.
                if rate > 0.0 && self.next < end {
                    self.missed += end.duration_since(self.next).as_secs_f64() * rate;
                }
                self.next = end.max(self.next);
                self.current += 1;
                continue;
            }
            if rate <= 0.0 {
                // A closed loop starts when its step does.
                return Some(now.max(self.next));
            }
            if let Some(behind) = now.checked_duration_since(self.next)
                && behind > MAX_BACKLOG
            {
                self.missed += (behind - MAX_BACKLOG).as_secs_f64() * rate;
                self.next = now - MAX_BACKLOG;
            }
            let due = self.next;
            self.next += Duration::from_secs_f64(1.0 / rate);
            return Some(due);
        }
    }
}

/// The moment from which a request's latency counts.
pub(super) fn counted_from(due: Instant, now: Instant) -> Instant {
    if now.saturating_duration_since(due) > OWN_LATENESS { due } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, seconds: u64) -> Step {
        Step { rate, duration: Duration::from_secs(seconds) }
    }

    fn drain(pacer: &Pacer, start: Instant) -> Vec<f64> {
        let mut now = start;
        let mut due = Vec::new();
        while let Some(at) = pacer.take(now) {
            now = now.max(at);
            due.push((at - start).as_secs_f64());
        }
        due
    }

    #[test]
    fn steps_follow_each_other_without_a_gap() {
        let start = Instant::now();
        let due = drain(&Pacer::new(start, &[step(2.0, 2), step(4.0, 1)]), start);
        assert_eq!(due, [0.0, 0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75]);
    }

    #[test]
    fn a_stall_is_skipped_and_counted() {
        let start = Instant::now();
        let pacer = Pacer::new(start, &[step(10.0, 10)]);
        assert_eq!(pacer.take(start), Some(start));
        // 5 s later the schedule is 4.9 s behind: 3.9 s of it are skipped.
        let now = start + Duration::from_secs(5);
        assert_eq!(pacer.take(now), Some(start + Duration::from_secs(4)));
        assert_eq!(pacer.missed(), 39);
    }

    #[test]
    fn an_overrun_step_ends_on_time() {
        let start = Instant::now();
        let pacer = Pacer::new(start, &[step(10.0, 1)]);
        assert_eq!(pacer.take(start + Duration::from_secs(1)), None);
        assert_eq!(pacer.missed(), 10);
    }

    #[test]
    fn a_closed_loop_is_always_due() {
        let start = Instant::now();
        let pacer = Pacer::new(start, &[step(0.0, 1)]);
        let now = start + Duration::from_millis(300);
        assert_eq!(pacer.take(now), Some(now));
        assert_eq!(pacer.take(start + Duration::from_secs(2)), None);
    }
}
