//! What is wrong, with the object, the field and the fix named.

pub mod reason;

use std::{collections::BTreeSet, fmt};

use snapshot::check::Unfit;

use crate::world::{ObjectRef, Origin, World};

/// How far a problem reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object's content is not used; what was last accepted stays in force.
    Rejected,
    /// The object is used; a part of it does not work (its rule answers 500).
    Degraded,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object; `None` for a document that names none.
    pub object: Option<ObjectRef>,
    /// Where it stands.
    pub origin: Option<Origin>,
    /// Field path (`spec.rules[0].backendRefs[1].port`); empty: the whole document.
    pub field: String,
    /// A fixed CamelCase word: the condition's reason.
    pub reason: &'static str,
    /// What is wrong, and the fix.
    pub message: String,
    /// How far it reaches.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    /// `shop.yaml:12: ApiRoute shop/orders: spec.rules[0].backendRefs[0]: no Service shop/x [BackendNotFound]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{}:{}: ", origin.file, origin.line_of(&self.field))?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} [{}]", self.message, self.reason)
    }
}

/// Collects problems and notes where each object stands.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    world: &'a World,
    list: Vec<Problem>,
    /// Objects whose last accepted content stands in for the current one.
    fallbacks: BTreeSet<ObjectRef>,
}

impl<'a> Problems<'a> {
    /// Begins with the problems of documents that are no object.
    pub(crate) fn new(world: &'a World) -> Self {
        Self { world, list: world.strays.clone(), fallbacks: BTreeSet::new() }
    }

    /// Adds a finding in an object.
    pub(crate) fn push(&mut self, object: &ObjectRef, severity: Severity, finding: Unfit) {
        let origin = self.world.objects.get(object).and_then(|entry| entry.origin.clone());
        let Unfit { field, reason, mut message } = finding;
        if self.fallbacks.contains(object) {
            message.push_str(" (in the content accepted last, which is in force)");
        }
        self.list.push(Problem { object: Some(object.clone()), origin, field, reason, message, severity });
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

    /// All of them, in the order of objects.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.list.sort_by(|a, b| a.object.cmp(&b.object));
        self.list
    }
}
