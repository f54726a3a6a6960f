//! What stands in the place of a policy that guards and can't be honoured: what it targets answers 500, and never stands
//! open.

use crate::{
    key::{Key, Kind},
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

/// Whether a former content of an access policy guards at least what a newer one is to guard; `false`: it leaves some of it
/// open, or stands in itself.
pub fn guards_as(former: &Entry, newer: &Entry) -> bool {
    let (Some(resource::Kind::AccessPolicy(former)), Some(resource::Kind::AccessPolicy(newer))) =
        (former.kind(), newer.kind())
    else {
        return false;
    };
    let is_kept = |target: &PolicyTarget| former.targets.contains(target);
    former.unavailable.is_empty() && (former.overrides || !newer.overrides) && newer.targets.iter().all(is_kept)
}

/// An access policy that closes every route, for this reason.
pub fn closed_fleet(unavailable: String) -> Entry {
    let targets = vec![PolicyTarget::default()];
    let policy = AccessPolicy { targets, overrides: true, unavailable, ..AccessPolicy::default() };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::AccessPolicy(policy)) })
}

/// The resource that a proxy gets in the place of one of a kind that it does not know: a rate policy that closes the
/// targets of an access policy, which every proxy knows. `None`: the resource guards nothing, and is left out.
pub fn stand_in(key: &Key, entry: &Entry) -> Option<(Key, Entry)> {
    let Some(resource::Kind::AccessPolicy(policy)) = entry.kind() else { return None };
    if policy.audit && policy.unavailable.is_empty() {
        return None;
    }
    let unavailable = format!("the proxy is older than {key}");
    let closed = resource::Kind::RatePolicy(RatePolicy { targets: policy.targets, limits: vec![], unavailable });
    let key = Key::of_object(Kind::RatePolicy, key.kind().as_str(), key.namespace(), key.name());
    Some((key, Entry::new(&Resource { requires: vec![], kind: Some(closed) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guards_as_much() {
        let policy = |routes: &[&str], overrides: bool, unavailable: &str| {
            let target = |route: &&str| PolicyTarget { route: (*route).to_owned(), rule: String::new() };
            let targets = routes.iter().map(target).collect();
            let policy =
                AccessPolicy { targets, overrides, unavailable: unavailable.into(), ..AccessPolicy::default() };
            Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::AccessPolicy(policy)) })
        };
        let newer = policy(&["a", "b"], false, "");
        assert!(guards_as(&policy(&["b", "a", "c"], true, ""), &newer));
        for (former, newer) in [
            (policy(&["a"], false, ""), &newer),
            (policy(&["a", "b"], false, "stands in"), &newer),
            (policy(&["a"], false, ""), &policy(&["a"], true, "")),
            (closed_fleet(String::new()), &newer),
        ] {
            assert!(!guards_as(&former, newer), "{former:?}");
        }
    }
}
