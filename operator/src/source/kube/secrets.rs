//! Secrets. A cluster may have thousands, with the keys of everybody, of which fleets and consumers refer to a few: so in
//! the namespaces that they refer to (namespaces.rs) only names and versions are watched, and only what one refers to is
//! read, no more of it than what is referred to, and held for as long as it is.
//!
//! An object refers by what it is now and by what is in force of it, which differ while it is broken. The former this finds
//! out itself, so that a world is not sent before what it refers to is read; the latter it is told by the loop. Between
//! them there is a time: what an object was a moment ago may come into force by a plan that is under way. So what one
//! dropped is held until the loop has planned the world that says so.
//!
//! Whether an object may refer to a Secret of another namespace is for the planner to say, once it is to be served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Object;
use planner::{
    Kind, ObjectRef,
    references::{self, SecretPart, SecretRef},
};

use super::referred::Referred;
use crate::source::InForce;

/// Which Secrets there are, and which are read. A change costs what it changes, however many are referred to: it is looked
/// at after each.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Each that there is, with its version.
    seen: BTreeMap<ObjectRef, Arc<str>>,
    /// The references of each object as it is now.
    referring: BTreeMap<ObjectRef, BTreeSet<SecretRef>>,
    in_force: BTreeSet<SecretRef>,
    /// The references that objects had before, by the number of the world in which they have them no more.
    dropped: BTreeMap<u64, BTreeSet<SecretRef>>,
    /// All of these together.
    referred: Referred,
    /// How many fleets there are in each namespace.
    fleets: BTreeMap<String, usize>,
    /// Each that was asked for.
    copies: BTreeMap<ObjectRef, Copy>,
    /// Those of them that were never read yet.
    unread: BTreeSet<ObjectRef>,
    /// Those of which there may be more, or less, to be read than was said last.
    due: BTreeSet<ObjectRef>,
    /// Whether other namespaces may be referred to than was said last.
    is_elsewhere: bool,
}

/// The namespaces of what is referred to.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    /// Those that have a fleet, and are referred to by fleets.
    pub(super) own: BTreeSet<&'a str>,
    /// Others that fleets refer to.
    pub(super) others: BTreeSet<&'a str>,
    /// Those that only consumers refer to, each to its own.
    pub(super) consumers: BTreeSet<&'a str>,
}

/// How far the content of one is.
#[derive(Debug)]
struct Copy {
    /// The version that was there when it was asked for: what comes is that or a later one.
    version: Arc<str>,
    /// The parts that were referred to then.
    parts: BTreeSet<SecretPart>,
    state: State,
    /// Whether the Secret is being read.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Asked,
    Failed,
    Read,
}

impl Secrets {
    /// Takes a Secret that a watch shows.
    pub(super) fn see(&mut self, id: ObjectRef, version: Arc<str>) {
        self.due.insert(id.clone());
        self.seen.insert(id, version);
    }

    /// Takes the end of a Secret.
    pub(super) fn lose(&mut self, id: &ObjectRef) {
        self.seen.remove(id);
        self.copies.remove(id);
        self.unread.remove(id);
    }

    /// The Secrets of a namespace for which the predicate holds: those that are seen, and those that were read while it was
    /// watched before, and may be gone since.
    pub(super) fn of(&self, namespace: &str, holds: impl Fn(&ObjectRef) -> bool) -> BTreeSet<ObjectRef> {
        let first = ObjectRef { kind: Kind::Secret, namespace: namespace.to_owned(), name: String::new() };
        let is_of_namespace = |id: &&ObjectRef| id.namespace == namespace;
        let seen = self.seen.range(first.clone()..).map(|(id, _)| id).take_while(is_of_namespace);
        let read = self.copies.range(first..).map(|(id, _)| id).take_while(is_of_namespace);
        seen.chain(read).filter(|id| holds(id)).cloned().collect()
    }

    /// Forgets a namespace that is watched no more.
    pub(super) fn forget(&mut self, namespace: &str) {
        for id in self.of(namespace, |_| true) {
            self.seen.remove(&id);
        }
    }

    /// The namespaces of what is referred to; `None`: they are those that were said last.
    pub(super) fn namespaces(&mut self) -> Option<Namespaces<'_>> {
        if !std::mem::take(&mut self.is_elsewhere) {
            return None;
        }
        let mut found = Namespaces::default();
        for (namespace, counts) in self.referred.namespaces() {
            let list = match (counts.of_fleets, self.fleets.contains_key(namespace)) {
                (0, _) => &mut found.consumers,
                (_, true) => &mut found.own,
                (_, false) => &mut found.others,
            };
            list.insert(namespace);
        }
        Some(found)
    }

    /// An object is this in the world of this number, the next; `None`: it is no more. What can't be read of it refers to
    /// nothing.
    pub(super) fn refer(&mut self, id: &ObjectRef, content: Option<&Object>, world: u64) {
        let now: Option<BTreeSet<SecretRef>> =
            content.map(|content| references::secrets(id, content).into_iter().collect());
        now.iter().flatten().for_each(|reference| self.add(reference));
        let is_there = now.is_some();
        let former = match now {
            Some(now) => self.referring.insert(id.clone(), now),
            None => self.referring.remove(id),
        };
        if id.kind == Kind::GatewayFleet && former.is_some() != is_there {
            self.count_fleet(&id.namespace, is_there);
        }
        // Before the first world is sent nobody knows a former version of the object, and that world waits for every Secret
        // that is held: what it dropped until then need not be held for anyone.
        let Some(former) = former.filter(|former| !former.is_empty()) else { return };
        if world > 1 {
            let dropped = self.dropped.entry(world).or_default();
            let (twice, once): (BTreeSet<_>, BTreeSet<_>) = former.into_iter().partition(|one| dropped.contains(one));
            dropped.extend(once);
            twice.iter().for_each(|reference| self.remove(reference));
        } else {
            former.iter().for_each(|reference| self.remove(reference));
        }
    }

    /// Takes the references of the contents in force, after the world of this number was planned.
    pub(super) fn in_force(&mut self, InForce { world, secrets, .. }: InForce) {
        let former = std::mem::take(&mut self.in_force);
        secrets.difference(&former).for_each(|reference| self.add(reference));
        former.difference(&secrets).for_each(|reference| self.remove(reference));
        self.in_force = secrets;
        let later = self.dropped.split_off(&(world + 1));
        let planned = std::mem::replace(&mut self.dropped, later);
        planned.values().flatten().for_each(|reference| self.remove(reference));
    }

    fn add(&mut self, reference: &SecretRef) {
        self.due.insert(reference.secret.clone());
        self.is_elsewhere |= self.referred.add(reference);
    }

    fn remove(&mut self, reference: &SecretRef) {
        self.due.insert(reference.secret.clone());
        self.is_elsewhere |= self.referred.remove(reference);
    }

    fn count_fleet(&mut self, namespace: &str, is_one_more: bool) {
        let count = self.fleets.entry(namespace.to_owned()).or_default();
        *count = if is_one_more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.fleets.remove(namespace);
        }
        self.is_elsewhere = true;
    }

    /// The Secrets to be read now, and those not to be held any longer. What is to be read counts as being read from
    /// then on.
    pub(super) fn due(&mut self) -> (Vec<ObjectRef>, Vec<ObjectRef>) {
        let (mut read, mut forget) = (vec![], vec![]);
        for id in std::mem::take(&mut self.due) {
            let parts = self.referred.parts(&id);
            let copy = self.copies.get(&id);
            if parts.is_empty() {
                if copy.is_some() {
                    self.copies.remove(&id);
                    self.unread.remove(&id);
                    forget.push(id);
                }
                continue;
            }
            let Some(version) = self.seen.get(&id) else { continue };
            let is_read = |copy: &Copy| copy.busy || (copy.version == *version && copy.parts == parts);
            if copy.is_some_and(is_read) {
                continue;
            }
            let state = copy.filter(|copy| parts.is_subset(&copy.parts)).map_or(State::Asked, |copy| copy.state);
            if state == State::Asked {
                self.unread.insert(id.clone());
            }
            self.copies.insert(id.clone(), Copy { version: Arc::clone(version), parts, state, busy: true });
            read.push(id);
        }
        (read, forget)
    }

    /// Takes a Secret that was read, or could not be and is tried again; returns the parts of it that are referred to, of
    /// those that were when it was asked for; none: it is not to be held.
    pub(super) fn read(&mut self, id: &ObjectRef, failed: bool) -> Vec<SecretPart> {
        let Some(copy) = self.copies.get_mut(id) else { return vec![] };
        self.due.insert(id.clone());
        copy.busy = failed;
        copy.state = match (failed, copy.state) {
            (true, State::Asked) => State::Failed,
            (true, state) => state,
            (false, _) => State::Read,
        };
        if !failed {
            self.unread.remove(id);
        }
        copy.parts.iter().cloned().collect()
    }

    /// Whether a read is under way that was not answered yet, but for what tenants alone refer to, who hold nobody's worlds
    /// up. Strictly: any read that did not succeed yet, so that the first world lacks nothing.
    pub(super) fn waits(&self, strictly: bool) -> bool {
        self.unread.iter().any(|id| match self.copies.get(id).map(|copy| copy.state) {
            Some(State::Asked) => strictly || self.referred.is_of_fleets(id),
            Some(State::Failed) => strictly,
            Some(State::Read) | None => false,
        })
    }
}

#[cfg(test)]
mod tests;
