//! RatePolicies → one resource in each fleet that has a target of them.

use std::collections::{BTreeMap, BTreeSet};

use crds::common::TargetKind;
use snapshot::{
    Key,
    proto::{self, PolicyTarget, resource},
};

use super::{Draft, bounds::Guard, route_key, sourced};
use crate::{
    model::{Model, Policy, Target},
    problem::{Problems, reason},
    world::{Kind, ObjectRef},
};

/// Why a targetRef applies to nothing.
#[derive(Debug, thiserror::Error)]
enum Untargeted {
    #[error("no {kind} {path} exists in this policy's namespace: create it, or correct the name")]
    Missing { kind: &'static str, path: String },
    #[error("{kind} {path} is not valid, and never was")]
    Invalid { kind: &'static str, path: String },
    #[error("ApiRoute {path} has no rule named {rule:?}; its rules are named: {has}")]
    NoRule { path: String, rule: String, has: String },
}

/// Adds the policies to the fleets that serve their targets; answers how many targets of each exist.
pub(super) fn add(
    model: &Model,
    drafts: &mut BTreeMap<&ObjectRef, Draft<'_>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<ObjectRef, u32> {
    let mut found = BTreeMap::new();
    for (object, policy) in &model.policies {
        let mut wanted = vec![];
        for (i, target) in policy.targets.iter().enumerate() {
            match find(model, object, policy, target) {
                Ok(found) => wanted.push(found),
                // Of a policy that is not valid, only that is said.
                Err(_) if policy.content.is_err() => {}
                Err(why) => {
                    let member = if matches!(why, Untargeted::NoRule { .. }) { "sectionName" } else { "name" };
                    let field = format!("spec.targetRefs[{i}].{member}");
                    problems.degraded(object, field, reason::TARGET_NOT_FOUND, why.to_string());
                }
            }
        }
        found.insert(object.clone(), u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        for (fleet, draft) in drafts.iter_mut() {
            let targets: Vec<_> = wanted.iter().filter_map(|found| found.in_fleet(fleet, draft)).collect();
            if !targets.is_empty() {
                let (limits, unavailable) = match &policy.content {
                    Ok(limits) => (limits.clone(), String::new()),
                    Err(why) => (vec![], why.clone()),
                };
                let key = object.key(snapshot::Kind::RatePolicy);
                let resource = proto::RatePolicy { targets, limits, unavailable };
                let guard = guard(draft, key, resource, object);
                draft.policies.push(guard);
            }
        }
    }
    found
}

/// A policy, and what it guards.
fn guard(draft: &Draft<'_>, key: Key, policy: proto::RatePolicy, object: &ObjectRef) -> Guard {
    let (mut routes, mut rules, mut fleet) = (BTreeSet::new(), 0, false);
    for target in &policy.targets {
        let served = target.route.parse().ok().and_then(|key| draft.served.get(&key));
        match served {
            Some(number) => {
                routes.insert(*number);
                rules += if target.rule.is_empty() { draft.routes[*number].encoded.rules } else { 1 };
            }
            None => fleet = true,
        }
    }
    let entries = rules.saturating_mul(policy.limits.len() as u64);
    Guard { resource: sourced(key, resource::Kind::RatePolicy(policy), object), routes, fleet, entries }
}

/// A target that exists.
enum Found {
    Fleet(ObjectRef),
    Route { key: Key, rule: String },
}

impl Found {
    /// As it stands in the snapshot of one fleet, if that fleet has it.
    fn in_fleet(&self, fleet: &ObjectRef, draft: &Draft<'_>) -> Option<PolicyTarget> {
        match self {
            Self::Fleet(target) => (target == fleet).then(PolicyTarget::default),
            Self::Route { key, rule } => {
                draft.served.contains_key(key).then(|| PolicyTarget { route: key.to_string(), rule: rule.clone() })
            }
        }
    }
}

fn find(model: &Model, policy: &ObjectRef, content: &Policy, target: &Target) -> Result<Found, Untargeted> {
    let (kind, word) = match target.kind {
        TargetKind::ApiRoute => (Kind::ApiRoute, "ApiRoute"),
        TargetKind::GatewayFleet => (Kind::GatewayFleet, "GatewayFleet"),
    };
    let object = ObjectRef { kind, namespace: policy.namespace.clone(), name: target.name.clone() };
    let path = object.path();
    let missing = |path| match model.invalid.contains_key(&object) {
        true => Untargeted::Invalid { kind: word, path },
        false => Untargeted::Missing { kind: word, path },
    };
    if kind == Kind::GatewayFleet {
        return if model.fleets.contains_key(&object) { Ok(Found::Fleet(object)) } else { Err(missing(path)) };
    }
    let Some(route) = model.routes.get(&object) else { return Err(missing(path)) };
    let key = route_key(&object);
    match &target.rule {
        None => Ok(Found::Route { key, rule: String::new() }),
        Some(rule) if route.rule_names.contains(rule) => Ok(Found::Route { key, rule: rule.clone() }),
        // Meant to guard a rule that can't be told: the whole route answers 500 rather than that rule standing open.
        Some(_) if content.content.is_err() => Ok(Found::Route { key, rule: String::new() }),
        Some(rule) => Err(Untargeted::NoRule { path, rule: rule.clone(), has: route.rule_names.join(", ") }),
    }
}
