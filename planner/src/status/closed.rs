//! Routes that answer 500 because a policy that guards them can't be honoured: the policy's own status says why, and the route's
//! must not say that all is well.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{
    Key, Kind, Snapshot,
    proto::{PolicyTarget, resource},
};

use super::conditions::Verdict;
use crate::problem::reason;

/// The routes that the policies of a fleet close, and why.
#[derive(Default)]
pub(super) struct Closed {
    /// Everything.
    fleet: Option<String>,
    /// The routes by their keys.
    routes: BTreeMap<String, String>,
    /// Every route without an access policy of its own, in whose place the fleet's stands.
    others: Option<String>,
    /// Keys of the routes that have one.
    guarded: BTreeSet<String>,
}

impl Closed {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut closed = Self::default();
        for (_, entry) in [Kind::RatePolicy, Kind::AccessPolicy].into_iter().flat_map(|kind| snapshot.of_kind(kind)) {
            match entry.kind() {
                Some(resource::Kind::RatePolicy(policy)) => closed.add(policy.targets, &policy.unavailable),
                Some(resource::Kind::AccessPolicy(policy)) => {
                    let of_routes = policy.targets.iter().filter(|target| target.rule.is_empty());
                    closed.guarded.extend(of_routes.map(|target| target.route.clone()));
                    let (fleet, routes): (Vec<_>, Vec<_>) =
                        policy.targets.into_iter().partition(|target| target.route.is_empty() && !policy.overrides);
                    closed.add(routes, &policy.unavailable);
                    if !fleet.is_empty() && !policy.unavailable.is_empty() {
                        closed.others = Some(format!("its requests are answered 500: {}", policy.unavailable));
                    }
                }
                _ => {}
            }
        }
        closed
    }

    fn add(&mut self, targets: Vec<PolicyTarget>, unavailable: &str) {
        for target in targets.into_iter().filter(|_| !unavailable.is_empty()) {
            let part = match (target.route.as_str(), target.rule.as_str()) {
                ("", _) => "every request to the fleet is".to_owned(),
                (_, "") => "its requests are".to_owned(),
                (_, rule) => format!("requests of rule {rule:?} are"),
            };
            let message = format!("{part} answered 500: {unavailable}");
            match target.route.as_str() {
                "" => drop(self.fleet.get_or_insert(message)),
                _ => drop(self.routes.entry(target.route).or_insert(message)),
            }
        }
    }

    /// The verdict on a route that answers 500, or of which a rule does.
    pub(super) fn of(&self, route: &Key) -> Option<Verdict> {
        let others = self.others.as_ref().filter(|_| !self.guarded.contains(route.as_str()));
        let message = self.routes.get(route.as_str()).or(self.fleet.as_ref()).or(others)?;
        Some(Verdict::bad(reason::POLICY_UNAVAILABLE, message.as_str()))
    }
}
