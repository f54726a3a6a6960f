//! The problems of a plan, as they are found.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::check::Unfit;

use super::{Problem, Severity};
use crate::world::{ObjectRef, World};

/// Problems of one kind that are told of one object; of the others, how many there are. An object may have thousands of
/// references.
const MAX_ALIKE: usize = 7;

/// Problems, and where each object stands that has one.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    world: &'a World,
    list: Vec<Problem>,
    /// Objects whose last accepted content stands in for the current one.
    fallbacks: BTreeSet<ObjectRef>,
    /// How many there are of each kind.
    counts: BTreeMap<ObjectRef, Vec<(&'static str, Severity, usize)>>,
}

impl<'a> Problems<'a> {
    /// Begins with the problems of documents that are no object.
    pub(crate) fn new(world: &'a World) -> Self {
        Self { world, list: world.strays.clone(), fallbacks: BTreeSet::new(), counts: BTreeMap::new() }
    }

    /// Adds a finding in an object.
    pub(crate) fn push(&mut self, object: &ObjectRef, severity: Severity, finding: Unfit) {
        let Unfit { field, reason, message } = finding;
        self.find(object, severity, reason, || (field, message));
    }

    /// Adds a finding in an object; its field and message are made only if it is told.
    fn find(
        &mut self,
        object: &ObjectRef,
        severity: Severity,
        reason: &'static str,
        finding: impl FnOnce() -> (String, String),
    ) {
        if self.count(object, reason, severity) > MAX_ALIKE {
            return;
        }
        let (field, mut message) = finding();
        let origin = self.world.objects.get(object).and_then(|entry| entry.origin.clone());
        if self.fallbacks.contains(object) {
            message.push_str(" (in the content accepted last, which is in force)");
        }
        self.list.push(Problem { object: Some(object.clone()), origin, field, reason, message, severity });
    }

    /// How many of a kind there are in an object, with this one.
    fn count(&mut self, object: &ObjectRef, reason: &'static str, severity: Severity) -> usize {
        if !self.counts.contains_key(object) {
            self.counts.insert(object.clone(), vec![]);
        }
        let Some(kinds) = self.counts.get_mut(object) else { return 0 };
        if let Some((.., count)) = kinds.iter_mut().find(|(known, of, _)| (*known, *of) == (reason, severity)) {
            *count += 1;
            return *count;
        }
        kinds.push((reason, severity, 1));
        1
    }

    /// From now on, findings in an object are in its last accepted content.
    pub(crate) fn falls_back(&mut self, object: &ObjectRef) {
        self.fallbacks.insert(object.clone());
    }

    /// Adds a finding that leaves the rest of the object in use.
    pub(crate) fn degraded(
        &mut self,
        object: &ObjectRef,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.push(object, Severity::Degraded, Unfit::new(field, reason, message));
    }

    /// Adds one of what may be thousands of findings: their fields and messages are made only if they are told.
    pub(crate) fn degraded_by(
        &mut self,
        object: &ObjectRef,
        reason: &'static str,
        finding: impl FnOnce() -> (String, String),
    ) {
        self.find(object, Severity::Degraded, reason, finding);
    }

    /// Tells the owner of an object something that changes nothing of it.
    pub(crate) fn told(
        &mut self,
        object: &ObjectRef,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.push(object, Severity::Told, Unfit::new(field, reason, message));
    }

    /// All of them, in the order of objects.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        for (object, kinds) in self.counts {
            for (reason, severity, count) in kinds.into_iter().filter(|(.., count)| *count > MAX_ALIKE) {
                let origin = self.world.objects.get(&object).and_then(|entry| entry.origin.clone());
                let message = format!("and {} more of this kind", count - MAX_ALIKE);
                let (object, field) = (Some(object.clone()), String::new());
                self.list.push(Problem { object, origin, field, reason, message, severity });
            }
        }
        self.list.sort_by(|a, b| a.object.cmp(&b.object));
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, problem::reason};

    #[test]
    fn of_many_alike_some_are_told_and_all_are_counted() {
        let object = |name: &str| ObjectRef { kind: Kind::ApiRoute, namespace: "a".into(), name: name.into() };
        let world = World::default();
        let mut problems = Problems::new(&world);
        for i in 0..1000 {
            problems.degraded(&object("many"), format!("spec.rules[{i}]"), reason::BACKEND_NOT_FOUND, "none");
        }
        problems.degraded(&object("many"), "spec", reason::CONFLICTED, "older");
        problems.degraded(&object("one"), "spec", reason::BACKEND_NOT_FOUND, "none");
        let told = problems.into_sorted();
        let shown = |name: &str| told.iter().filter(|p| p.object.as_ref().is_some_and(|o| o.name == name)).count();
        assert_eq!((shown("many"), shown("one")), (MAX_ALIKE + 2, 1));
        assert!(told.iter().any(|p| p.message == "and 993 more of this kind" && p.reason == reason::BACKEND_NOT_FOUND));
    }
}
