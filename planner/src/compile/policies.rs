//! RatePolicies → one resource in each fleet that has a target of them.

use std::collections::BTreeMap;

use snapshot::proto::{self, resource};

use super::{
    Draft,
    bounds::Guard,
    sourced,
    targets::{self, Guarded},
};
use crate::{model::Model, problem::Problems, world::ObjectRef};

/// Adds the policies to the fleets that serve their targets; answers how many targets of each exist.
pub(super) fn add(
    model: &Model,
    drafts: &mut BTreeMap<&ObjectRef, Draft<'_>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<ObjectRef, u32> {
    let mut counts = BTreeMap::new();
    for (object, policy) in &model.policies {
        let found = targets::find(model, object, &policy.targets, policy.content.is_ok(), problems);
        counts.insert(object.clone(), u32::try_from(found.len()).unwrap_or(u32::MAX));
        for (fleet, draft) in drafts.iter_mut() {
            let targets = targets::in_fleet(found.iter().map(|(_, found)| found), fleet, draft);
            if targets.is_empty() {
                continue;
            }
            let Guarded { routes, rules, fleet } = targets::guarded(&targets, draft);
            let (limits, unavailable) = match &policy.content {
                Ok(limits) => (limits.clone(), String::new()),
                Err(why) => (vec![], why.clone()),
            };
            let entries = rules.saturating_mul(limits.len() as u64);
            let content = resource::Kind::RatePolicy(proto::RatePolicy { targets, limits, unavailable });
            let resource = sourced(object.key(snapshot::Kind::RatePolicy), content, object);
            draft.policies.push(Guard { resource, routes, fleet, entries });
        }
    }
    counts
}
