//! Attachment of policies, of whatever kind: the targets that exist, those that a fleet serves, and what of them a policy
//! guards. A kind of policies brings its content alone (`policies.rs`).

use std::collections::BTreeSet;

use crds::common::TargetKind;
use snapshot::{Key, proto::PolicyTarget};

use super::{Draft, route_key};
use crate::{
    model::{Model, Target},
    problem::{Problems, reason},
    world::{Kind, ObjectRef},
};

/// The reason why a targetRef applies to nothing.
#[derive(Debug, thiserror::Error)]
enum Untargeted {
    #[error("no {kind} {path} exists in this policy's namespace: create it, or correct the name")]
    Missing { kind: &'static str, path: String },
    #[error("{kind} {path} is not valid, and never was")]
    Invalid { kind: &'static str, path: String },
    #[error("ApiRoute {path} has no rule named {rule:?}; its rules are named: {has}")]
    NoRule { key: Key, path: String, rule: String, has: String },
}

/// A target that exists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Found {
    Fleet(ObjectRef),
    Route { key: Key, rule: String },
}

/// The part of a fleet that a policy guards.
pub(super) struct Guarded {
    /// Numbers of routes.
    pub(super) routes: BTreeSet<usize>,
    /// The number of their rules.
    pub(super) rules: u64,
    /// All that the fleet serves.
    pub(super) fleet: bool,
}

/// The targets of a policy that exist, with their places in the list; of the others it is told. `is_valid`: whether its content can be used. One that is
/// not closes what it was meant for, and of it only that is said.
pub(super) fn find(
    model: &Model,
    policy: &ObjectRef,
    targets: &[Target],
    is_valid: bool,
    problems: &mut Problems<'_>,
) -> Vec<(usize, Found)> {
    let mut found = vec![];
    for (i, target) in targets.iter().enumerate() {
        match find_one(model, policy, target, is_valid) {
            Ok(target) => found.push((i, target)),
            Err(_) if !is_valid => {}
            Err(why) => {
                let member = if matches!(why, Untargeted::NoRule { .. }) { "sectionName" } else { "name" };
                let field = format!("spec.targetRefs[{i}].{member}");
                let mut message = why.to_string();
                if let (Kind::AccessPolicy, Untargeted::NoRule { key, .. }) = (policy.kind, why) {
                    // Meant to guard a rule that can't be told.
                    found.push((i, Found::Route { key, rule: String::new() }));
                    message.push_str("; until then the policy holds for the whole route");
                }
                problems.degraded(policy, field, reason::TARGET_NOT_FOUND, message);
            }
        }
    }
    found
}

fn find_one(model: &Model, policy: &ObjectRef, target: &Target, is_valid: bool) -> Result<Found, Untargeted> {
    let kind = match target.kind {
        TargetKind::ApiRoute => Kind::ApiRoute,
        TargetKind::GatewayFleet => Kind::GatewayFleet,
    };
    let object = ObjectRef { kind, namespace: policy.namespace.clone(), name: target.name.clone() };
    let (path, word) = (object.path(), kind.name());
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
        Some(_) if !is_valid => Ok(Found::Route { key, rule: String::new() }),
        Some(rule) => Err(Untargeted::NoRule { key, path, rule: rule.clone(), has: route.rule_names.join(", ") }),
    }
}

/// The targets as they stand in the snapshot of one fleet, as far as that fleet has them.
pub(super) fn in_fleet<'f>(
    found: impl Iterator<Item = &'f Found>,
    fleet: &ObjectRef,
    draft: &Draft<'_>,
) -> Vec<PolicyTarget> {
    let target = |found: &Found| match found {
        Found::Fleet(target) => (target == fleet).then(PolicyTarget::default),
        Found::Route { key, rule } => {
            draft.served.contains_key(key).then(|| PolicyTarget { route: key.to_string(), rule: rule.clone() })
        }
    };
    found.filter_map(target).collect()
}

/// The routes and rules that these targets of a fleet are.
pub(super) fn guarded(targets: &[PolicyTarget], draft: &Draft<'_>) -> Guarded {
    let mut guarded = Guarded { routes: BTreeSet::new(), rules: 0, fleet: false };
    for target in targets {
        let served = target.route.parse().ok().and_then(|key| draft.served.get(&key));
        match served {
            Some(number) => {
                guarded.routes.insert(*number);
                guarded.rules += if target.rule.is_empty() { draft.routes[*number].encoded.rules } else { 1 };
            }
            None => guarded.fleet = true,
        }
    }
    guarded
}
