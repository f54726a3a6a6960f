//! The holders of a fleet's hostnames, from world to world. An object's age alone does not say it: an old route can be
//! edited to claim a hostname that a younger one has had for long, and a route that is deleted and made anew is young.
//!
//! So a plan leaves behind since when each namespace claims each hostname, and the next one begins with that. Who comes
//! new stands behind all that is known. A hostname that its namespace claims no more stays with it for [`GRACE`].
//!
//! An operator that begins with nothing takes the age of objects. What would then be wrong is kept across restarts
//! ([`Holds::kept`]): claims that are younger or older than their route, and hostnames in their time of grace.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Millis, object::FleetRef};

/// The time for which a hostname stays with a namespace that claims it no more: for a route that is deleted and made anew.
pub const GRACE: Duration = Duration::from_secs(300);
/// Most hostnames of one namespace and fleet that stay with it so. Whoever has more routes to replace does it in parts.
pub const MAX_LEFT: usize = 256;
/// Most records of one namespace and fleet that outlive operators, and most bytes of all of them: those of the namespace
/// with most go first.
const MAX_KEPT: usize = 512;
const MAX_KEPT_BYTES: usize = 96 << 10;

/// The record of one namespace and one hostname.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The time since which it claims it, in milliseconds since 1970.
    pub(crate) since: i64,
    /// Whether it has it; else another one does.
    pub(crate) held: bool,
    /// The time since which nothing of it claims it any more.
    pub(crate) left: Option<Millis>,
    /// Namespaces that may have it at once when this one lets it go.
    pub(crate) to: BTreeSet<String>,
    /// The age of objects does not say so.
    pub(crate) keep: bool,
}

/// Claims by hostname (empty: any host) and namespace.
pub(crate) type Names = BTreeMap<String, BTreeMap<String, Hold>>;

/// The holders of one fleet's hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetHolds {
    /// Every claim is known, as it was in the last world; else only what was kept.
    pub(crate) whole: bool,
    pub(crate) names: Names,
}

impl FleetHolds {
    /// The record of a world whose every claim is going to be in it.
    pub(crate) fn new() -> Self {
        Self { whole: true, names: Names::new() }
    }
}

/// The holders of all fleets' hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    pub(crate) fleets: BTreeMap<FleetRef, FleetHolds>,
}

/// The records that outlive operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    fleet: FleetRef,
    namespace: String,
    /// Empty: any host.
    hostname: String,
    since: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    to: BTreeSet<String>,
}

impl Holds {
    /// The end of the next time of grace.
    pub fn next_end(&self) -> Option<Millis> {
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        self.all().filter_map(|(_, _, _, hold)| hold.left).min().map(|Millis(left)| Millis(left.saturating_add(grace)))
    }

    /// The records that are to outlive this operator. Too much of one namespace costs that one: what is not kept counts by
    /// the age of its objects once every operator has ended, and of two namespaces the one with fewer records keeps its own.
    pub fn kept(&self) -> Vec<Kept> {
        let mut by_namespace: BTreeMap<(&FleetRef, &str), Vec<Kept>> = BTreeMap::new();
        for (fleet, hostname, namespace, hold) in self.all().filter(|(_, _, _, hold)| hold.keep) {
            let kept = by_namespace.entry((fleet, namespace)).or_default();
            if kept.len() < MAX_KEPT {
                kept.push(Kept {
                    fleet: fleet.clone(),
                    namespace: namespace.to_owned(),
                    hostname: hostname.to_owned(),
                    since: hold.since,
                    held: hold.held,
                    left: hold.left.map(|Millis(at)| at),
                    to: hold.to.clone(),
                });
            }
        }
        let mut lists: Vec<(usize, Vec<Kept>)> =
            by_namespace.into_values().map(|list| (list.iter().map(Kept::size).sum(), list)).collect();
        // The smallest first: each has at most an equal share of what is left.
        lists.sort_by_key(|(size, _)| *size);
        let (mut room, mut waiting, mut all) = (MAX_KEPT_BYTES, lists.len(), vec![]);
        for (_, list) in lists {
            let mut share = room / waiting;
            for kept in list {
                let Some(rest) = share.checked_sub(kept.size()) else { break };
                (share, room) = (rest, room - kept.size());
                all.push(kept);
            }
            waiting -= 1;
        }
        all
    }

    /// The records of an earlier operator: all that is known when this one begins.
    pub fn recalled(kept: impl IntoIterator<Item = Kept>) -> Self {
        let mut holds = Self::default();
        for kept in kept {
            let (fleet, hostname, namespace) = (kept.fleet.clone(), kept.hostname.clone(), kept.namespace.clone());
            let names = &mut holds.fleets.entry(fleet).or_default().names;
            names.entry(hostname).or_default().insert(namespace, kept.hold());
        }
        holds
    }

    /// Joins what the leader before kept with what this operator saw itself while it stood by: of a claim that both know,
    /// the former's time counts.
    pub fn merge(&mut self, kept: impl IntoIterator<Item = Kept>, now: Millis) {
        for kept in kept {
            let fleet = self.fleets.entry(kept.fleet.clone()).or_default();
            let of_name = fleet.names.entry(kept.hostname.clone()).or_default();
            match of_name.get_mut(&kept.namespace) {
                Some(known) => known.since = kept.since,
                // Claimed when it was kept, and no more when this one began to look.
                None if kept.held => {
                    let left = Some(kept.left.map_or(now, Millis));
                    of_name.insert(kept.namespace.clone(), Hold { left, ..kept.hold() });
                }
                None => {}
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (&FleetRef, &str, &str, &Hold)> {
        let of_fleet = |(fleet, holds)| Self::of_fleet(fleet, holds);
        self.fleets.iter().flat_map(of_fleet)
    }

    fn of_fleet<'h>(
        fleet: &'h FleetRef,
        holds: &'h FleetHolds,
    ) -> impl Iterator<Item = (&'h FleetRef, &'h str, &'h str, &'h Hold)> {
        let of_name = move |(name, claims): (&'h String, &'h BTreeMap<String, Hold>)| {
            claims.iter().map(move |(namespace, hold)| (fleet, name.as_str(), namespace.as_str(), hold))
        };
        holds.names.iter().flat_map(of_name)
    }
}

impl Kept {
    fn hold(self) -> Hold {
        Hold { since: self.since, held: self.held, left: self.left.map(Millis), to: self.to, keep: true }
    }

    /// About the bytes that it is written in.
    fn size(&self) -> usize {
        let to: usize = self.to.iter().map(|namespace| namespace.len() + 3).sum();
        self.fleet.namespace.len() + self.fleet.name.len() + self.namespace.len() + self.hostname.len() + to + 160
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetRef {
        FleetRef { namespace: "infra".into(), name: "default".into() }
    }

    fn hold(since: i64, left: Option<u64>) -> Hold {
        Hold { since, held: true, left: left.map(Millis), to: BTreeSet::from(["to".into()]), keep: true }
    }

    fn holds(names: impl IntoIterator<Item = (String, &'static str, Hold)>) -> Holds {
        let mut fleet_holds = FleetHolds { whole: true, ..FleetHolds::default() };
        for (name, namespace, hold) in names {
            fleet_holds.names.entry(name).or_default().insert(namespace.to_owned(), hold);
        }
        Holds { fleets: BTreeMap::from([(fleet(), fleet_holds)]) }
    }

    #[test]
    fn what_is_kept_comes_back() {
        let undoubted = Hold { keep: false, ..hold(1, None) };
        let before = holds([
            ("a.example".into(), "a", hold(5, None)),
            (String::new(), "b", hold(6, Some(7))),
            ("c.example".into(), "c", undoubted),
        ]);
        let text = serde_json::to_string(&before.kept()).unwrap();
        let back = Holds::recalled(serde_json::from_str::<Vec<Kept>>(&text).unwrap());
        let mut names = before.fleets[&fleet()].names.clone();
        names.remove("c.example");
        assert_eq!(back.fleets[&fleet()], FleetHolds { whole: false, names });
        assert_eq!(before.next_end(), Some(Millis(300_007)));
    }

    #[test]
    fn one_namespace_keeps_nothing_at_the_cost_of_another() {
        let many = (0..100_000).map(|n| (format!("h{n}.{}", "x".repeat(200)), "hostile", hold(1, Some(1))));
        let few = (0..100).map(|n| (format!("h{n}.shop.example"), "shop", hold(1, Some(1))));
        let kept = holds(many.chain(few)).kept();
        assert_eq!(kept.iter().filter(|kept| kept.namespace == "shop").count(), 100);
        let text = serde_json::to_string(&kept).unwrap();
        assert!(kept.len() > 300 && text.len() <= MAX_KEPT_BYTES, "{} records, {} bytes", kept.len(), text.len());
    }

    #[test]
    fn of_what_two_operators_saw_the_leaders_time_counts() {
        let mut own = holds([("a.example".into(), "a", hold(7, None))]);
        let leaders = holds([("a.example".into(), "a", hold(5, None)), ("b.example".into(), "b", hold(6, None))]);
        own.merge(leaders.kept(), Millis(9));
        let names = &own.fleets[&fleet()].names;
        assert_eq!(names["a.example"]["a"], hold(5, None));
        assert_eq!(names["b.example"]["b"], hold(6, Some(9)), "gone since: its time of grace begins");
    }
}
