//! Whose changes are planned at once. A plan takes longer the more there is in the cluster, and each is then pushed to
//! every proxy: whoever changes things all the time would keep all of them busy, and others waited for the plan under
//! way again and again.
//!
//! So a namespace owes for the plans that are made of its changes: its part of the time that a plan took, by how many of
//! the changed objects are its own. It pays back as time passes, and while it owes more than [`TOLERANCE`], its changes
//! begin no plan. They are in the next one that anybody else's begin. A plan of some milliseconds is paid back before the
//! next change comes: only where plans are long does this make a difference.
//!
//! Endpoints wait for nothing but what endpoints of their namespace cost: a pod that is gone must not be sent requests for as
//! long as somebody edits routes beside it. What they cost counts for the rest of their namespace, too, so that it takes no
//! more than one part in [`SHARE`] by having both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crds::Role;
use planner::{Kind, ObjectRef};

use crate::source::{Observed, SourceObject};

/// What a namespace's changes may take of the planner's time, as one part in so many.
const SHARE: u32 = 5;
/// The time in which what may be owed is paid back: changes that come together, plans of half a second, wait for nothing.
const TOLERANCE: Duration = Duration::from_millis(2500);
/// The longest wait of a namespace until its next plan begins, whatever its changes cost.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// What looking for changes may take of the loop's time, as one part in so many,
const LOOK_SHARE: u32 = 10;
/// unless that were a longer pause than this. (100,000 objects take some 10 ms.)
const MAX_LOOK_REST: Duration = Duration::from_millis(250);

/// How many objects of each namespace changed; cluster-scoped ones are of the namespace "".
pub(super) type Causes = BTreeMap<String, Changed>;

/// How many objects of a namespace changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) all: u32,
    /// How many of them are endpoints.
    pub(super) endpoints: u32,
}

/// When a namespace owes nothing any more.
#[derive(Clone, Copy, Debug)]
struct Debt {
    paid_at: Instant,
    /// The same of what its endpoints cost.
    endpoints_paid_at: Instant,
}

/// The debts of namespaces, and what changed that waits for them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    debts: BTreeMap<String, Debt>,
    look: Look,
}

/// The changes between two worlds, as they were looked for last.
#[derive(Debug, Default)]
struct Look {
    before: Weak<Observed>,
    after: Weak<Observed>,
    /// The namespaces that have changes, and whether of endpoints. None: what changed is no object (a document that is none,
    /// the cluster itself).
    changes: BTreeSet<(String, bool)>,
    /// Another world is not looked at before.
    rests_until: Option<Instant>,
}

impl Pace {
    /// Charges a plan to those whose changes it was made for.
    pub(super) fn charge(&mut self, causes: &Causes, took: Duration, now: Instant) {
        self.debts.retain(|_, debt| debt.paid_at > now);
        let all: u32 = causes.values().map(|changed| changed.all).sum();
        let part = |count: u32| took.mul_f64(f64::from(count) / f64::from(all.max(1))) * SHARE;
        let most = now + TOLERANCE + MAX_WAIT;
        for (namespace, changed) in causes {
            let none = Debt { paid_at: now, endpoints_paid_at: now };
            let debt = self.debts.entry(namespace.clone()).or_insert(none);
            debt.paid_at = (debt.paid_at + part(changed.all)).min(most);
            debt.endpoints_paid_at = (debt.endpoints_paid_at.max(now) + part(changed.endpoints)).min(most);
        }
    }

    /// Whether a change of an object of this kind and namespace begins a plan now.
    pub(super) fn permits(&self, kind: Kind, namespace: &str, now: Instant) -> bool {
        self.is_within_share(namespace, is_endpoints(kind), now)
    }

    fn is_within_share(&self, namespace: &str, is_endpoints: bool, now: Instant) -> bool {
        self.debts.get(namespace).is_none_or(|debt| {
            let paid_at = if is_endpoints { debt.endpoints_paid_at } else { debt.paid_at };
            paid_at <= now + TOLERANCE
        })
    }

    /// Whether anything that changed begins a plan now. What changed and is no object does, too. Two worlds are compared once;
    /// others no sooner than [`LOOK_SHARE`] says: until then those changes count that were found before, since they are in
    /// the latest world too.
    pub(super) fn permits_any(&mut self, before: &Arc<Observed>, after: &Arc<Observed>, now: Instant) -> bool {
        let is_of = |known: &Weak<Observed>, world: &Arc<Observed>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(world));
        let (is_same_plan, is_same_world) = (is_of(&self.look.before, before), is_of(&self.look.after, after));
        let rests = is_same_plan && self.look.rests_until.is_some_and(|until| now < until);
        if !(rests || is_same_plan && is_same_world) {
            let began = Instant::now();
            let found: BTreeSet<_> =
                changed(before, after).map(|id| (id.namespace.as_str(), is_endpoints(id.kind))).collect();
            let changes = found.into_iter().map(|(namespace, of)| (namespace.to_owned(), of)).collect();
            let rests_until = Some(now + (began.elapsed() * (LOOK_SHARE - 1)).min(MAX_LOOK_REST));
            self.look = Look { before: Arc::downgrade(before), after: Arc::downgrade(after), changes, rests_until };
        }
        let mut changes = self.look.changes.iter();
        self.look.changes.is_empty() || changes.any(|(namespace, of)| self.is_within_share(namespace, *of, now))
    }
}

fn is_endpoints(kind: Kind) -> bool {
    kind.info().role == Role::Endpoints
}

/// How many objects of each namespace changed between two worlds, or wait since the last plan to be looked at.
pub(super) fn causes(before: &Observed, after: &Observed, waiting: &BTreeSet<ObjectRef>) -> Causes {
    let mut causes = Causes::new();
    for id in changed(before, after).chain(waiting) {
        if !causes.contains_key(id.namespace.as_str()) {
            causes.insert(id.namespace.clone(), Changed::default());
        }
        if let Some(changed) = causes.get_mut(id.namespace.as_str()) {
            changed.all += 1;
            changed.endpoints += u32::from(is_endpoints(id.kind));
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
        let changed = |all: u32| Changed { all, endpoints: 0 };
        counts.iter().map(|(namespace, count)| ((*namespace).to_owned(), changed(*count))).collect()
    }

    fn permits(pace: &Pace, namespace: &str, now: Instant) -> bool {
        pace.permits(Kind::ApiRoute, namespace, now)
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
                assert!(permits(&pace, "now-and-then", now), "{tick}");
                pace.charge(&of(&[("busy", 7), ("now-and-then", 1)]), took, now);
            } else if permits(&pace, "busy", now) {
                begun_by_busy += 1;
                pace.charge(&of(&[("busy", 1)]), took, now);
            }
        }
        assert!(begun_by_busy <= 3, "{begun_by_busy}: what is planned with others' changes counts as well");

        let (mut pace, mut begun) = (Pace::default(), 0);
        for tick in 0..600_u32 {
            let now = start + Duration::from_millis(100) * tick;
            if permits(&pace, "busy", now) {
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
        assert!(!permits(&pace, "large", now + MAX_WAIT - Duration::from_millis(1)));
        assert!(permits(&pace, "large", now + MAX_WAIT) && permits(&pace, "other", now));
    }

    #[test]
    fn plans_of_a_few_milliseconds_are_never_waited_for() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for tick in 0..1000_u32 {
            let now = start + Duration::from_millis(20) * tick;
            assert!(permits(&pace, "shop", now));
            pace.charge(&of(&[("shop", 1)]), Duration::from_millis(4), now);
        }
    }

    /// Somebody edits routes all the time, and a pod of the same namespace goes.
    #[test]
    fn endpoints_do_not_wait_behind_routes() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.charge(&of(&[("shop", 9)]), Duration::from_secs(600), now);
        assert!(!permits(&pace, "shop", now) && pace.permits(Kind::EndpointSlice, "shop", now));
    }

    /// Nor is there anything to be had by both: plans of 300 ms, of which each could begin one in 1.5 s.
    #[test]
    fn endpoints_and_routes_together_take_no_more_than_a_share() {
        let (mut pace, start, took) = (Pace::default(), Instant::now(), Duration::from_millis(300));
        let (mut endpoints, mut routes) = (0, 0);
        for tick in 0..600_u32 {
            let now = start + Duration::from_millis(100) * tick;
            if pace.permits(Kind::EndpointSlice, "busy", now) {
                endpoints += 1;
                pace.charge(&[("busy".to_owned(), Changed { all: 1, endpoints: 1 })].into(), took, now);
            } else if permits(&pace, "busy", now) {
                routes += 1;
                pace.charge(&of(&[("busy", 1)]), took, now);
            }
        }
        assert!((40..=43).contains(&endpoints) && routes <= 1, "{endpoints}, {routes} in a minute");
    }

    /// A world with one object of each of these namespaces.
    fn world(namespaces: &[&str]) -> Arc<Observed> {
        let object = |namespace: &&str| {
            let id = ObjectRef { kind: Kind::ApiRoute, namespace: (*namespace).into(), name: "r".into() };
            let content = snapshot::Hash::of(namespace.as_bytes());
            let object =
                SourceObject { current: Err(vec![]), raw: None, generation: 1, content, origin: None, creation: None };
            (id, object)
        };
        Arc::new(Observed { objects: namespaces.iter().map(object).collect(), ..Observed::default() })
    }

    #[test]
    fn worlds_are_compared_once_and_others_no_sooner_than_that_may_take() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let (none, crowd, both) = (world(&[]), world(&["crowd"]), world(&["crowd", "shop"]));
        pace.charge(&of(&[("crowd", 1)]), Duration::from_secs(600), now);
        assert!(!pace.permits_any(&none, &crowd, now));
        // It would be found out by looking again.
        pace.look.changes.insert(("shop".into(), false));
        assert!(pace.permits_any(&none, &crowd, now));
        pace.look.changes.remove(&("shop".to_owned(), false));
        pace.look.rests_until = Some(now + Duration::from_millis(90));
        assert!(!pace.permits_any(&none, &both, now + Duration::from_millis(89)), "it rests");
        assert!(pace.permits_any(&none, &both, now + Duration::from_millis(90)));
        // Of another plan the changes are others, of which nothing is known yet.
        pace.look.rests_until = Some(now + Duration::from_secs(90));
        assert!(!pace.permits_any(&both, &world(&["shop"]), now), "the crowd's is gone");
        assert!(pace.permits_any(&crowd, &Arc::new(Observed::clone(&crowd)), now), "what differs is no object");
    }
}
