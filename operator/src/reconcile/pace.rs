//! Whose changes are planned at once. A plan takes longer the more there is in the cluster, and each is then pushed to
//! every proxy: whoever changes things all the time would keep all of them busy, and others waited for the plan under
//! way again and again.
//!
//! So a namespace owes for the plans that are made of its changes: its part of the time that a plan took, by how many of
//! the changed objects are its own. It pays back as time passes, and while it owes more than [`TOLERANCE`], its changes
//! begin no plan. They are in the next one that anybody else's begin. A plan of some milliseconds is paid back before the
//! next change comes: only where plans are long does this make a difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use planner::ObjectRef;

use crate::source::{Observed, SourceObject};

/// What a namespace's changes may take of the planner's time, as one part in so many.
const SHARE: u32 = 5;
/// The time in which what may be owed is paid back: changes that come together, plans of half a second, wait for nothing.
const TOLERANCE: Duration = Duration::from_millis(2500);
/// The longest wait of a namespace until its next plan begins, whatever its changes cost.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How many objects of each namespace changed; cluster-scoped ones are of the namespace "".
pub(super) type Causes = BTreeMap<String, u32>;

/// When each namespace owes nothing any more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    paid_at: BTreeMap<String, Instant>,
}

impl Pace {
    /// Charges a plan to those whose changes it was made for.
    pub(super) fn charge(&mut self, causes: &Causes, took: Duration, now: Instant) {
        self.paid_at.retain(|_, paid_at| *paid_at > now);
        let all: u32 = causes.values().sum();
        for (namespace, count) in causes {
            let part = took.mul_f64(f64::from(*count) / f64::from(all.max(1)));
            let paid_at = self.paid_at.entry(namespace.clone()).or_insert(now);
            *paid_at = (*paid_at + part * SHARE).min(now + TOLERANCE + MAX_WAIT);
        }
    }

    /// Whether changes of a namespace begin a plan now.
    pub(super) fn permits(&self, namespace: &str, now: Instant) -> bool {
        self.paid_at.get(namespace).is_none_or(|paid_at| *paid_at <= now + TOLERANCE)
    }

    /// Whether anything that changed begins a plan now. What changed and is no object (a document that is none, the
    /// cluster itself) does, too.
    pub(super) fn permits_any(&self, before: &Observed, after: &Observed, now: Instant) -> bool {
        let mut changed = changed(before, after).peekable();
        changed.peek().is_none() || changed.any(|id| self.permits(&id.namespace, now))
    }
}

/// How many objects of each namespace changed between two worlds, or wait since the last plan to be looked at.
pub(super) fn causes(before: &Observed, after: &Observed, waiting: &BTreeSet<ObjectRef>) -> Causes {
    let mut causes = Causes::new();
    for id in changed(before, after).chain(waiting) {
        match causes.get_mut(id.namespace.as_str()) {
            Some(count) => *count += 1,
            None => drop(causes.insert(id.namespace.clone(), 1)),
        }
    }
    causes
}

/// The objects that are in one of two worlds only, or are others in it.
fn changed<'a>(before: &'a Observed, after: &'a Observed) -> impl Iterator<Item = &'a ObjectRef> {
    let (mut before, mut after) = (before.objects.iter().peekable(), after.objects.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            match (before.peek(), after.peek()) {
                (Some((left, _)), Some((right, _))) if left < right => return before.next().map(|(id, _)| id),
                (Some((left, _)), Some((right, _))) if left > right => return after.next().map(|(id, _)| id),
                (None, None) => return None,
                _ => match (before.next(), after.next()) {
                    (Some((_, was)), Some((_, is))) if is_same(was, is) => {}
                    (was, is) => return is.or(was).map(|(id, _)| id),
                },
            }
        }
    })
}

fn is_same(was: &SourceObject, is: &SourceObject) -> bool {
    was.content == is.content && was.current.is_ok() == is.current.is_ok() && was.creation == is.creation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, u32)]) -> Causes {
        counts.iter().map(|(namespace, count)| ((*namespace).to_owned(), *count)).collect()
    }

    /// Who changes ten objects a second, with plans of 300 ms, begins a plan every 1.5 s; another's changes, one in
    /// 0.7 s, never wait, though what the busy one changed meanwhile is planned with each.
    #[test]
    fn who_changes_something_now_and_then_never_waits_for_who_always_does() {
        let (mut pace, start, took) = (Pace::default(), Instant::now(), Duration::from_millis(300));
        let mut begun_by_busy = 0;
        for tick in 0..6000_u32 {
            let now = start + Duration::from_millis(100) * tick;
            if tick % 7 == 0 {
                assert!(pace.permits("now-and-then", now), "{tick}");
                pace.charge(&of(&[("busy", 7), ("now-and-then", 1)]), took, now);
            } else if pace.permits("busy", now) {
                begun_by_busy += 1;
                pace.charge(&of(&[("busy", 1)]), took, now);
            }
        }
        assert!(begun_by_busy <= 3, "{begun_by_busy}: what is planned with others' changes counts as well");

        let (mut pace, mut begun) = (Pace::default(), 0);
        for tick in 0..600_u32 {
            let now = start + Duration::from_millis(100) * tick;
            if pace.permits("busy", now) {
                begun += 1;
                pace.charge(&of(&[("busy", 1)]), took, now);
            }
        }
        assert!((40..=43).contains(&begun), "{begun} in a minute");
    }

    #[test]
    fn no_plan_however_long_makes_a_namespace_wait_longer_than_it_may() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.charge(&of(&[("large", 1)]), Duration::from_secs(600), now);
        assert!(!pace.permits("large", now + MAX_WAIT - Duration::from_millis(1)));
        assert!(pace.permits("large", now + MAX_WAIT) && pace.permits("other", now));
    }

    #[test]
    fn plans_of_a_few_milliseconds_are_never_waited_for() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for tick in 0..1000_u32 {
            let now = start + Duration::from_millis(20) * tick;
            assert!(pace.permits("shop", now));
            pace.charge(&of(&[("shop", 1)]), Duration::from_millis(4), now);
        }
    }
}
