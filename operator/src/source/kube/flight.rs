//! The former contents of objects that changed, for as long as they are held: the loop has the world that was planned
//! last, and plans another. Whoever changes all that it has, faster than that is planned, would have it held several
//! times.
//!
//! So there is a bound on what is held of former contents, too, which namespaces share. Who is beyond its share is put
//! off: its objects are held as they were, and read when the loop has planned what changed before. Policies come first,
//! so that no route is new while what guards it is not.
//!
//! Pure: worlds are told by their numbers.

use std::collections::{BTreeMap, BTreeSet};

use crds::Role;
use planner::{Kind, ObjectRef};

use crate::source::budget::owner;

/// Former contents, and who is put off.
#[derive(Debug)]
pub(super) struct Flight {
    most: u64,
    /// By object.
    former: BTreeMap<ObjectRef, Former>,
    /// The weight that each namespace has of it.
    owners: BTreeMap<String, u64>,
    /// By namespace, those that are to be read first before others.
    put_off: BTreeMap<String, BTreeSet<(Turn, ObjectRef)>>,
}

/// The former contents of an object.
#[derive(Debug, Default)]
struct Former {
    /// The first world that does not have it any more.
    until: u64,
    /// The weight of all former contents.
    total: u64,
    /// The weight of the heaviest one.
    largest: u64,
}

/// The order of objects that are put off; `None`: never put off.
type Turn = Option<bool>;

fn turn(kind: Kind) -> Turn {
    match kind.info().role {
        Role::Guard => Some(false),
        Role::Traffic | Role::Backend | Role::Endpoints => Some(true),
        // They are small, or permit something.
        Role::Base => None,
    }
}

impl Flight {
    /// No former contents yet, of at most so much.
    pub(super) fn new(most: u64) -> Self {
        Self { most, former: BTreeMap::new(), owners: BTreeMap::new(), put_off: BTreeMap::new() }
    }

    /// An object is another, or none, from the world of this number on; what it was has this weight.
    pub(super) fn leave(&mut self, id: &ObjectRef, until: u64, weight: u64) {
        if weight == 0 {
            return;
        }
        let former = self.former.entry(id.clone()).or_default();
        *former = Former { until, total: former.total + weight, largest: former.largest.max(weight) };
        *self.owners.entry(owner(id).to_owned()).or_default() += weight;
    }

    /// The world of this number was planned: what is let go, and what the heaviest of it weighs.
    pub(super) fn land(&mut self, world: u64) -> Vec<(ObjectRef, u64)> {
        let (landed, former) = std::mem::take(&mut self.former).into_iter().partition(|(_, f)| f.until <= world);
        let landed: BTreeMap<ObjectRef, Former> = landed;
        self.former = former;
        for (id, former) in &landed {
            if let Some(used) = self.owners.get_mut(owner(id)) {
                *used -= former.total;
            }
        }
        self.owners.retain(|_, used| *used > 0);
        landed.into_iter().map(|(id, former)| (id, former.largest)).collect()
    }

    /// Whether an object is to be held as it was, for now.
    pub(super) fn is_full(&self, id: &ObjectRef) -> bool {
        let waits = self.put_off.get(owner(id)).and_then(BTreeSet::first);
        turn(id.kind).is_some() && (self.has_much(owner(id)) || waits.is_some_and(|(first, _)| *first < turn(id.kind)))
    }

    /// Whether a namespace is beyond its share.
    fn has_much(&self, owner: &str) -> bool {
        self.owners.get(owner).is_some_and(|used| *used > self.most / self.owners.len() as u64)
    }

    /// An object is to be read later.
    pub(super) fn put_off(&mut self, id: &ObjectRef) {
        self.put_off.entry(owner(id).to_owned()).or_default().insert((turn(id.kind), id.clone()));
    }

    /// Whether any object is to be read later.
    pub(super) fn is_behind(&self) -> bool {
        !self.put_off.is_empty()
    }

    /// An object needs not be read any more.
    pub(super) fn take_up(&mut self, id: &ObjectRef) {
        if let Some(waiting) = self.put_off.get_mut(owner(id)) {
            waiting.remove(&(turn(id.kind), id.clone()));
            if waiting.is_empty() {
                self.put_off.remove(owner(id));
            }
        }
    }

    /// The objects to be read now, so many at most.
    pub(super) fn due(&self, at_most: usize) -> Vec<ObjectRef> {
        let waiting = self.put_off.iter().filter(|(owner, _)| !self.has_much(owner));
        let due = waiting.flat_map(|(_, waiting)| {
            let first = waiting.first().map(|(turn, _)| *turn);
            waiting.iter().take_while(move |(turn, _)| Some(*turn) == first).map(|(_, id)| id.clone())
        });
        due.take(at_most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: namespace.into(), name: name.into() }
    }

    fn route(namespace: &str, name: &str) -> ObjectRef {
        id(Kind::ApiRoute, namespace, name)
    }

    #[test]
    fn who_changes_much_at_once_is_put_off_until_that_is_planned() {
        let mut flight = Flight::new(100);
        let (a, b, other) = (route("crowd", "a"), route("crowd", "b"), route("shop", "a"));
        assert!(!flight.is_full(&a));
        flight.leave(&a, 1, 90);
        assert!(!flight.is_full(&b), "there is room");
        flight.leave(&a, 2, 20);
        assert!(flight.is_full(&a) && flight.is_full(&b) && !flight.is_full(&other));
        assert!(!flight.is_full(&id(Kind::ReferenceGrant, "crowd", "g")), "what it permitted it permits no more");
        flight.put_off(&b);
        assert!(flight.due(9).is_empty() && flight.is_behind());
        // Two share.
        flight.leave(&other, 2, 51);
        assert!(flight.is_full(&other));
        assert_eq!(flight.land(1), []);
        assert_eq!(flight.land(2), [(a, 90), (other.clone(), 51)]);
        assert!(!flight.is_full(&other) && !flight.is_full(&b));
        assert_eq!(flight.due(9), std::slice::from_ref(&b));
        flight.take_up(&b);
        assert!(flight.due(9).is_empty() && flight.owners.is_empty() && !flight.is_behind());
    }

    #[test]
    fn policies_come_before_what_they_may_guard() {
        let mut flight = Flight::new(100);
        let (policy, new) = (id(Kind::RatePolicy, "ns", "p"), route("ns", "r"));
        flight.leave(&new, 1, 101);
        flight.put_off(&new);
        flight.put_off(&policy);
        flight.land(1);
        assert_eq!(flight.due(9), std::slice::from_ref(&policy));
        assert!(flight.is_full(&new) && !flight.is_full(&policy));
        flight.take_up(&policy);
        assert!(!flight.is_full(&new));
        assert_eq!(flight.due(9), [new]);
    }
}
