//! References to Secrets, counted: to which, to which parts of them, and by whom to those of a namespace. Taking up one
//! costs the same however many there are.

use std::collections::{BTreeMap, BTreeSet};

use planner::{
    Kind, ObjectRef,
    references::{SecretPart, SecretRef},
};

/// The references that there are.
#[derive(Debug, Default)]
pub(super) struct Referred {
    /// How often there is each.
    references: BTreeMap<SecretRef, u32>,
    /// How many there are to Secrets of each namespace.
    namespaces: BTreeMap<String, Counts>,
}

/// How many references there are, by who refers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Of fleets.
    pub(super) of_fleets: usize,
    /// Of what tenants write.
    pub(super) of_tenants: usize,
}

impl Referred {
    /// Takes one more up. Returns whether it is the first of its kind in its namespace.
    pub(super) fn add(&mut self, reference: &SecretRef) -> bool {
        *self.references.entry(reference.clone()).or_default() += 1;
        let counts = self.namespaces.entry(reference.secret.namespace.clone()).or_default();
        let count = counts.of(reference.by);
        *count += 1;
        *count == 1
    }

    /// Drops one. Returns whether it was the last of its kind in its namespace.
    pub(super) fn remove(&mut self, reference: &SecretRef) -> bool {
        let Some(count) = self.references.get_mut(reference) else { return false };
        *count -= 1;
        if *count == 0 {
            self.references.remove(reference);
        }
        let Some(counts) = self.namespaces.get_mut(&reference.secret.namespace) else { return false };
        let count = counts.of(reference.by);
        *count -= 1;
        let is_last = *count == 0;
        if *counts == Counts::default() {
            self.namespaces.remove(&reference.secret.namespace);
        }
        is_last
    }

    /// The parts of a Secret that are referred to; none: nothing refers to it.
    pub(super) fn parts(&self, secret: &ObjectRef) -> BTreeSet<SecretPart> {
        self.to(secret).map(|reference| reference.part.clone()).collect()
    }

    /// Whether a fleet refers to it.
    pub(super) fn is_of_fleets(&self, secret: &ObjectRef) -> bool {
        self.to(secret).any(|reference| reference.by == Kind::GatewayFleet)
    }

    /// The namespaces of the Secrets, and how many references there are to those of each.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.namespaces.iter().map(|(namespace, counts)| (namespace.as_str(), *counts))
    }

    /// The Secrets that are referred to.
    #[cfg(test)]
    pub(super) fn secrets(&self) -> BTreeSet<&ObjectRef> {
        self.references.keys().map(|reference| &reference.secret).collect()
    }

    fn to(&self, secret: &ObjectRef) -> impl Iterator<Item = &SecretRef> {
        let first = SecretRef { secret: secret.clone(), by: Kind::ALL[0], part: SecretPart::Certificate };
        self.references.range(first..).map(|(reference, _)| reference).take_while(move |found| found.secret == *secret)
    }
}

impl Counts {
    fn of(&mut self, by: Kind) -> &mut usize {
        if by == Kind::GatewayFleet { &mut self.of_fleets } else { &mut self.of_tenants }
    }
}
