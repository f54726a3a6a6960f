//! References between resources: the one place that knows which keys a resource names. Checks, roll-backs, statuses and
//! proxies all read it, so that a new reference (a filter with a backend, a policy with a credential) is known to each.

use std::{fmt, iter};

use crate::{
    key::{Key, Kind},
    proto::{Filter, PolicyTarget, Rule, filter, resource},
};

/// A reference from a resource to another one of its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The field that names it.
    pub field: Field,
    /// The kind that it must name.
    pub kind: Kind,
    /// The key as it is written; [`Reference::target`] reads it.
    pub key: &'a str,
    /// Whether the resource does not work without what it names.
    pub is_needed: bool,
}

impl Reference<'_> {
    /// The key; `None`: it is none of the kind that it must name.
    pub fn target(&self) -> Option<Key> {
        self.key.parse::<Key>().ok().filter(|key| key.kind() == self.kind)
    }
}

/// The place of a reference, displayed as a path within its resource, such as `rules[0].backendRefs[1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Index of the rule, of a route.
    pub rule: Option<usize>,
    /// The list that it stands in.
    pub list: &'static str,
    /// The index in the list; `None`: what is wrong is said of the list.
    pub index: Option<usize>,
    /// The member of the list's item, unless the item itself is the reference.
    pub member: &'static str,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule {
            write!(f, "rules[{rule}].")?;
        }
        f.write_str(self.list)?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        if !self.member.is_empty() {
            write!(f, ".{}", self.member)?;
        }
        Ok(())
    }
}

/// Everything that a resource refers to, in the order in which it stands there.
pub fn refs(content: &resource::Kind) -> Box<dyn Iterator<Item = Reference<'_>> + '_> {
    match content {
        resource::Kind::Listener(listener) => Box::new(listener.certificates.iter().map(|key| Reference {
            field: Field { list: "tls.certificateRefs", ..Field::default() },
            kind: Kind::Certificate,
            key,
            is_needed: true,
        })),
        resource::Kind::Route(route) => Box::new(route.rules.iter().enumerate().flat_map(|(i, rule)| of_rule(i, rule))),
        resource::Kind::RatePolicy(policy) => Box::new(of_targets(&policy.targets)),
        resource::Kind::AccessPolicy(policy) => Box::new(of_targets(&policy.targets)),
        resource::Kind::Fleet(_)
        | resource::Kind::Certificate(_)
        | resource::Kind::Cluster(_)
        | resource::Kind::Consumer(_) => Box::new(iter::empty()),
    }
}

/// The keys that a resource does not work without.
pub fn needed(content: &resource::Kind) -> impl Iterator<Item = Key> + '_ {
    refs(content).filter(|reference| reference.is_needed).filter_map(|reference| reference.target())
}

/// The routes that a policy guards.
fn of_targets(targets: &[PolicyTarget]) -> impl Iterator<Item = Reference<'_>> {
    let named = targets.iter().enumerate().filter(|(_, target)| !target.route.is_empty());
    named.map(|(i, target)| Reference {
        field: Field { list: "targetRefs", index: Some(i), ..Field::default() },
        kind: Kind::Route,
        key: &target.route,
        // A policy guards what is there.
        is_needed: false,
    })
}

/// The clusters of a rule: those of its filters, then those that it sends requests to.
fn of_rule(rule: usize, content: &Rule) -> impl Iterator<Item = Reference<'_>> {
    let cluster = move |list, index, member, key| {
        let field = Field { rule: Some(rule), list, index: Some(index), member };
        Reference { field, kind: Kind::Cluster, key, is_needed: true }
    };
    let filters = content.filters.iter().enumerate();
    let filters =
        filters.filter_map(move |(i, f)| of_filter(f).map(|(member, key)| cluster("filters", i, member, key)));
    let backends = content.backends.iter().enumerate();
    filters.chain(backends.map(move |(i, backend)| cluster("backendRefs", i, "", &backend.cluster)))
}

/// The cluster that a filter calls by itself, and the member that names it.
fn of_filter(filter: &Filter) -> Option<(&'static str, &str)> {
    match filter.filter.as_ref()? {
        filter::Filter::RequestHeaderModifier(_)
        | filter::Filter::ResponseHeaderModifier(_)
        | filter::Filter::RequestRedirect(_)
        | filter::Filter::UrlRewrite(_)
        | filter::Filter::Compression(_)
        | filter::Filter::Cors(_)
        | filter::Filter::Csrf(_) => None,
        filter::Filter::ExternalAuth(auth) => Some(("externalAuth.backendRef", &auth.cluster)),
    }
}

#[cfg(test)]
mod tests;
