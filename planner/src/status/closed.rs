//! What answers 500 because a policy that guards it can't be honoured: the policy's own status says why, and the route's
//! must not say that all is well.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{
    Key, Kind, Snapshot,
    proto::{PolicyTarget, resource},
};

use super::conditions::Verdict;
use crate::problem::reason;

/// What the policies of a fleet close, and why.
#[derive(Default)]
pub(super) struct Closed {
    /// Everything.
    fleet: Option<String>,
    /// By a route's key.
    routes: BTreeMap<String, String>,
    /// Every route of which a rule has no access policy of its own, so that the fleet's holds for it.
    others: Option<String>,
    /// Keys of the routes of which each rule has one.
    guarded: BTreeSet<String>,
}

impl Closed {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let (mut closed, mut own) = (Self::default(), BTreeSet::new());
        for (_, entry) in [Kind::RatePolicy, Kind::AccessPolicy].into_iter().flat_map(|kind| snapshot.of_kind(kind)) {
            match entry.kind() {
                Some(resource::Kind::RatePolicy(policy)) => closed.add(policy.targets, &policy.unavailable),
                Some(resource::Kind::AccessPolicy(policy)) => {
                    own.extend(policy.targets.iter().map(|target| (target.route.clone(), target.rule.clone())));
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
        // Routes are decoded for that alone.
        if closed.others.is_some() {
            let routes: BTreeSet<&String> = own.iter().map(|(route, _)| route).collect();
            let guarded = routes.into_iter().filter(|route| is_guarded(snapshot, route, &own));
            closed.guarded = guarded.cloned().collect();
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

    /// Why a route, or a rule of it, answers 500.
    pub(super) fn of(&self, route: &Key) -> Option<Verdict> {
        let others = self.others.as_ref().filter(|_| !self.guarded.contains(route.as_str()));
        let message = self.routes.get(route.as_str()).or(self.fleet.as_ref()).or(others)?;
        Some(Verdict::bad(reason::POLICY_UNAVAILABLE, message.as_str()))
    }
}

/// Whether each rule of a route has an access policy of its own, or the route has; by the routes and rules that have one.
fn is_guarded(snapshot: &Snapshot, route: &str, own: &BTreeSet<(String, String)>) -> bool {
    let has = |rule: &str| own.contains(&(route.to_owned(), rule.to_owned()));
    let entry = route.parse().ok().and_then(|key| snapshot.entry(&key));
    has("")
        || match entry.and_then(|entry| entry.kind()) {
            Some(resource::Kind::Route(route)) => route.rules.iter().all(|rule| has(&rule.name)),
            _ => false,
        }
}
