//! Routes that answer 500 because a policy that guards them can't be honoured: the policy's own status says why, and the route's
//! must not say that all is well.

use std::collections::BTreeMap;

use snapshot::{Key, Kind, Snapshot, proto::resource};

use super::conditions::Verdict;
use crate::problem::reason;

/// The routes that the policies of a fleet close, and why.
#[derive(Default)]
pub(super) struct Closed {
    /// Everything.
    fleet: Option<String>,
    /// The routes by their keys.
    routes: BTreeMap<String, String>,
}

impl Closed {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut closed = Self::default();
        for (_, entry) in snapshot.of_kind(Kind::RatePolicy) {
            let Some(resource::Kind::RatePolicy(policy)) = entry.kind() else { continue };
            if policy.unavailable.is_empty() {
                continue;
            }
            for target in policy.targets {
                let part = match (target.route.as_str(), target.rule.as_str()) {
                    ("", _) => "every request to the fleet is".to_owned(),
                    (_, "") => "its requests are".to_owned(),
                    (_, rule) => format!("requests of rule {rule:?} are"),
                };
                let message = format!("{part} answered 500: {}", policy.unavailable);
                match target.route.as_str() {
                    "" => drop(closed.fleet.get_or_insert(message)),
                    _ => drop(closed.routes.entry(target.route).or_insert(message)),
                }
            }
        }
        closed
    }

    /// The verdict on a route that answers 500, or of which a rule does.
    pub(super) fn of(&self, route: &Key) -> Option<Verdict> {
        let message = self.routes.get(route.as_str()).or(self.fleet.as_ref())?;
        Some(Verdict::bad(reason::POLICY_UNAVAILABLE, message.as_str()))
    }
}
