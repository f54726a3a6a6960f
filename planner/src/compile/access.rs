//! AccessPolicies → one resource in each fleet that has a target of them. Each target is one policy's: of two that name it,
//! the older one's, then that of the lesser name. Which of a rule's, its route's and its fleet's policies holds is the
//! proxies' to see.

use std::collections::{BTreeMap, btree_map::Entry};

use snapshot::{
    check, path,
    proto::{self, AccessAction, PolicyTarget, resource},
};

use super::{
    Draft,
    bounds::Guard,
    created_ms, sourced,
    targets::{self, Found, Guarded},
};
use crate::{
    model::{AccessPolicy, Model},
    problem::{Problems, reason},
    world::ObjectRef,
};

/// Adds the policies to the fleets that serve their targets; answers how many targets of each exist.
pub(super) fn add(
    model: &Model,
    drafts: &mut BTreeMap<&ObjectRef, Draft<'_>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<ObjectRef, u32> {
    let mut policies: Vec<_> = model.access.iter().collect();
    policies.sort_by_cached_key(|(object, _)| (created_ms(model, object), object.path()));
    let (mut counts, mut holders) = (BTreeMap::new(), [BTreeMap::new(), BTreeMap::new()]);
    for (object, policy) in policies {
        let found = targets::find(model, object, &policy.targets, policy.content.is_ok(), problems);
        counts.insert(object.clone(), u32::try_from(found.len()).unwrap_or(u32::MAX));
        // One that only counts holds in nobody's place.
        let audit = policy.content.as_ref().is_ok_and(|content| content.audit);
        let own = own(object, found, &mut holders[usize::from(audit)], problems);
        left_out(object, policy, problems);
        for (fleet, draft) in drafts.iter_mut() {
            let targets = targets::in_fleet(own.iter(), fleet, draft);
            if targets.is_empty() {
                continue;
            }
            let open = unreachable(object, policy, (fleet, draft), problems);
            // Each rule has it once, whatever it says.
            let Guarded { routes, rules: entries, fleet } = targets::guarded(&targets, draft);
            let overrides = policy.overrides;
            let content = match (&policy.content, open) {
                (Ok(content), None) => proto::AccessPolicy { targets, overrides, ..content.clone() },
                (Ok(_), Some(unavailable)) => closed(targets, overrides, unavailable),
                (Err(why), _) => closed(targets, overrides, why.clone()),
            };
            let content = resource::Kind::AccessPolicy(content);
            let resource = sourced(object.key(snapshot::Kind::AccessPolicy), content, object);
            draft.policies.push(Guard { resource, routes, fleet, entries });
        }
    }
    counts
}

/// The targets that no policy before has.
fn own<'m>(
    object: &'m ObjectRef,
    found: Vec<(usize, Found)>,
    holders: &mut BTreeMap<Found, &'m ObjectRef>,
    problems: &mut Problems<'_>,
) -> Vec<Found> {
    let mut own = vec![];
    for (i, target) in found {
        match holders.entry(target.clone()) {
            Entry::Vacant(free) => {
                free.insert(object);
                own.push(target);
            }
            // Several targets that can't be told are one route.
            Entry::Occupied(holder) if *holder.get() == object => {}
            Entry::Occupied(holder) => {
                let message = format!(
                    "{} has this target too, and came first: it alone holds there; put both into one policy",
                    holder.get()
                );
                problems.degraded(object, format!("spec.targetRefs[{i}]"), reason::CONFLICTED, message);
            }
        }
    }
    own
}

/// Tells of keys that no token is verified by.
fn left_out(object: &ObjectRef, policy: &AccessPolicy, problems: &mut Problems<'_>) {
    for (provider, key) in &policy.unusable_keys {
        let field = format!("spec.authentication.providers[{provider}].jwt.jwks.inline");
        let message = format!("{key}; it is left out, and all others are in use");
        problems.degraded(object, field, check::reason::INVALID_JWKS, message);
    }
}

/// What answers 500 in its place.
fn closed(targets: Vec<PolicyTarget>, overrides: bool, unavailable: String) -> proto::AccessPolicy {
    proto::AccessPolicy { targets, overrides, unavailable, ..proto::AccessPolicy::default() }
}

/// Tells of paths that no request has as this fleet reads them. `Some`: a rule would deny one of them, and what is meant by
/// it pass under another.
fn unreachable(
    object: &ObjectRef,
    policy: &AccessPolicy,
    (fleet, draft): (&ObjectRef, &Draft<'_>),
    problems: &mut Problems<'_>,
) -> Option<String> {
    let read = path::Rules::from(draft.fleet.resource.paths.unwrap_or_default());
    let mut open = None;
    for (i, rule) in policy.content.iter().flat_map(|content| &content.rules).enumerate() {
        for (j, path) in rule.paths.iter().enumerate() {
            let Some(why) = read.never(&path.value) else { continue };
            let field = format!("spec.authorization.rules[{i}].when.paths[{j}].value");
            let message = format!("no request of {fleet} has this path: {why}");
            if rule.action() == AccessAction::Deny {
                open.get_or_insert_with(|| format!("{object}: {field}: {message}"));
            }
            problems.degraded(object, field, reason::PATH_NOT_REACHABLE, message);
        }
    }
    open
}
