//! What stands in the place of a policy that guards and can't be honoured: what it targets answers 500, and never stands
//! open.

use crate::{
    proto::{AccessPolicy, PolicyTarget, RatePolicy, Resource, resource},
    set::Entry,
};

/// The policy with nothing of its content but its targets, which answer 500 for this reason; `None`: it is of no kind that
/// guards, or can't be decoded.
pub fn closed(policy: &Entry, unavailable: String) -> Option<Entry> {
    let kind = match policy.kind()? {
        resource::Kind::RatePolicy(RatePolicy { targets, .. }) => {
            resource::Kind::RatePolicy(RatePolicy { targets, limits: vec![], unavailable })
        }
        resource::Kind::AccessPolicy(AccessPolicy { targets, overrides, .. }) => {
            resource::Kind::AccessPolicy(AccessPolicy { targets, overrides, unavailable, ..AccessPolicy::default() })
        }
        _ => return None,
    };
    Some(Entry::new(&Resource { requires: vec![], kind: Some(kind) }))
}

/// An access policy that closes every route, for this reason.
pub fn closed_fleet(unavailable: String) -> Entry {
    let targets = vec![PolicyTarget::default()];
    let policy = AccessPolicy { targets, overrides: true, unavailable, ..AccessPolicy::default() };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::AccessPolicy(policy)) })
}
