//! The owners of hostnames: of each hostname of a fleet the namespace whose routes alone are served under it, on every listener.
//!
//! - The namespace that claimed a hostname first has it (`holds.rs`). Within one namespace routes share it freely; which of
//!   them serves a request is decided match by match (conflicts.rs).
//! - What lies below a wildcard that another namespace had before is that namespace's to give (`spec.delegates` of its
//!   route). A wildcard that comes later has what nobody else has. `*.com` and "any host" are nobody's domain: they decide
//!   on nothing.
//! - What the fleet assigns (`allowedRoutes.hostnames`) is for those namespaces alone, whoever came first.

mod claims;
mod patterns;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use self::{
    claims::{Claim, claims},
    patterns::{Patterns, decides},
    told::{tell, withdraw},
};
use super::attach::Attached;
use crate::{
    Millis,
    holds::{FleetHolds, GRACE, Hold, Holds},
    model::{Fleet, Model, Route},
    plan::Parent,
    problem::Problems,
    world::{FleetRef, Kind, ObjectRef},
};

/// A route, and where it attaches.
pub(super) struct Placed<'m> {
    pub(super) object: &'m ObjectRef,
    pub(super) route: &'m Arc<Route>,
    pub(super) attached: BTreeMap<&'m ObjectRef, Attached>,
    pub(super) parents: Vec<Parent>,
}

/// Hostnames by the namespace that has them. Those that are assigned to several, of which none claims them: under no name.
pub(super) type Held = BTreeMap<String, BTreeSet<String>>;

/// The rules and holders by which the claims of one fleet are settled.
struct Settling<'m> {
    assigned: Patterns<BTreeSet<&'m str>>,
    /// The hostnames that each namespace gives to others.
    delegates: HashMap<&'m str, Patterns<BTreeSet<&'m str>>>,
    /// The holders of hostnames, of the claims so far.
    holders: Patterns<Holder<'m>>,
}

#[derive(Clone, Copy)]
struct Holder<'m> {
    namespace: &'m str,
    since: i64,
    by: By<'m>,
}

/// The tie that keeps a hostname with its namespace.
#[derive(Clone, Copy)]
enum By<'m> {
    /// The oldest route that claims it.
    Route(&'m ObjectRef),
    /// Nothing but that it had it, until then.
    Grace(&'m Hold, Millis),
}

/// The way by which a namespace comes to a hostname.
#[derive(Clone, Copy, PartialEq)]
enum Granted<'m> {
    Plainly,
    /// Though a wildcard above it is another's that left: it had it before, which its age does not say.
    AsBefore,
    /// It lies below a wildcard of its own, and so it had it since then.
    Within(i64),
    /// From this namespace, which had it since then and let it go.
    From(&'m str, i64),
}

/// The reason why a namespace does not have a hostname.
enum Denied<'m> {
    /// Another one has that very hostname.
    Held(Holder<'m>),
    /// It lies below this wildcard of another one.
    Below(Holder<'m>, String),
    /// The fleet assigns it to these.
    Assigned(Vec<&'m str>),
}

/// Hostnames that namespaces do not have, and why.
type Lost<'m> = HashMap<(&'m str, String), Denied<'m>>;

/// Takes hostnames out of where they may not be served, with a problem for each, and returns the holders.
pub(super) fn settle<'m>(
    model: &'m Model,
    before: &'m Holds,
    now: Millis,
    placed: &mut [Placed<'m>],
    problems: &mut Problems<'_>,
) -> (Holds, BTreeMap<&'m ObjectRef, Held>) {
    let (mut after, mut held) = (Holds::default(), BTreeMap::new());
    for (fleet, content) in &model.fleets {
        let name = FleetRef::from(fleet);
        let claims = claims(model, fleet, before.fleets.get(&name), now, placed);
        let mut settling = Settling::new(fleet, content, placed);
        let (holds, mut of_fleet, lost) = settling.settle(&claims, now);
        settling.reserve(&mut of_fleet);
        tell(fleet, &claims, &lost, problems);
        withdraw(fleet, &lost, placed, problems);
        after.fleets.insert(name, holds);
        held.insert(fleet, of_fleet);
    }
    // A fleet that can't be read serves on as it is.
    for unread in model.invalid.keys().filter(|object| object.kind == Kind::GatewayFleet).map(FleetRef::from) {
        if let Some(holds) = before.fleets.get(&unread) {
            after.fleets.insert(unread, holds.clone());
        }
    }
    (after, held)
}

impl<'m> Settling<'m> {
    fn new(fleet: &ObjectRef, content: &'m Fleet, placed: &[Placed<'m>]) -> Self {
        let mut assigned: Patterns<BTreeSet<&str>> = Patterns::default();
        for (namespaces, hostnames) in content.listeners.iter().flat_map(|listener| &listener.assigned) {
            for hostname in hostnames {
                assigned.entry(hostname).extend(namespaces.iter().map(String::as_str));
            }
        }
        let mut delegates: HashMap<&str, Patterns<BTreeSet<&str>>> = HashMap::new();
        for placed in placed.iter().filter(|placed| placed.attached.contains_key(fleet)) {
            let route: &'m Route = placed.route;
            for (namespaces, hostnames) in &route.delegates {
                let of_namespace = delegates.entry(&placed.object.namespace).or_default();
                for hostname in hostnames {
                    of_namespace.entry(hostname.as_str()).extend(namespaces.iter().map(String::as_str));
                }
            }
        }
        Self { assigned, delegates, holders: Patterns::default() }
    }

    /// Settles claims in their order.
    fn settle(&mut self, claims: &[Claim<'m>], now: Millis) -> (FleetHolds, Held, Lost<'m>) {
        let (mut after, mut held, mut lost) = (FleetHolds::new(), Held::new(), Lost::new());
        let had = claims.iter().filter(|claim| !claim.fresh);
        let mut newest = had.map(|claim| claim.since).max().unwrap_or(i64::MIN);
        for claim in claims {
            let Claim { namespace, hostname, first, .. } = claim;
            let verdict = self.judge(claim);
            let mut hold = self.hold(claim, now);
            match verdict {
                Ok(granted) => {
                    // Whoever did not have it until now has it from now on: others had theirs before, and of those that
                    // come to something now each stands behind the one before.
                    if claim.fresh {
                        newest = hold.since.max(newest.saturating_add(1));
                        hold.since = newest;
                        hold.keep = differs(newest, claim);
                    }
                    if let Granted::From(former, since) = granted {
                        // It stands where that one stood: before whoever waits.
                        hold.since = since;
                        hold.keep = since != claim.created;
                        after.names.get_mut(hostname).and_then(|claims| claims.remove(former));
                        held.get_mut(former).map(|names| names.remove(hostname));
                    }
                    if let Granted::Within(since) = granted
                        && since < hold.since
                    {
                        hold.since = since;
                        hold.keep = since != claim.created;
                    }
                    hold.keep |= granted == Granted::AsBefore;
                    let by = match first {
                        Some(route) => By::Route(route),
                        None => By::Grace(claim.before, end(hold.left.unwrap_or(now))),
                    };
                    self.holders.set(hostname, Holder { namespace, since: hold.since, by });
                    held.entry((*namespace).to_owned()).or_default().insert(hostname.clone());
                }
                // What was left and is another's meanwhile, or assigned to others, is nobody's wish.
                Err(_) if first.is_none() => continue,
                Err(denied) => {
                    hold.held = false;
                    if let Denied::Held(by) | Denied::Below(by, _) = &denied {
                        // Whoever lost stands behind whoever won, also when both begin anew.
                        hold.since = hold.since.max(by.since.saturating_add(1));
                        hold.keep = hold.since != claim.created;
                    }
                    lost.insert((namespace, hostname.clone()), denied);
                }
            }
            after.names.entry(hostname.clone()).or_default().insert((*namespace).to_owned(), hold);
        }
        // Nor does whoever waits for a hostname stand before whoever has it, however long it waits.
        for of_name in after.names.values_mut().filter(|of_name| of_name.len() > 1) {
            let Some(since) = of_name.values().find(|hold| hold.held).map(|hold| hold.since) else { continue };
            for waits in of_name.values_mut().filter(|hold| !hold.held && hold.since <= since) {
                (waits.since, waits.keep) = (since.saturating_add(1), true);
            }
        }
        (after, held, lost)
    }

    /// Whether a namespace has a hostname, as things stand.
    fn judge(&self, claim: &Claim<'m>) -> Result<Granted<'m>, Denied<'m>> {
        let Claim { namespace, hostname, .. } = claim;
        let assigned = self.assigned.most_specific(hostname);
        if let Some((_, namespaces)) = assigned.filter(|(_, namespaces)| !namespaces.contains(namespace)) {
            return Err(Denied::Assigned(namespaces.iter().copied().collect()));
        }
        match self.holders.get(hostname) {
            None => {}
            Some(Holder { namespace: former, since, by: By::Grace(hold, _) }) if hold.to.contains(*namespace) => {
                return Ok(Granted::From(former, *since));
            }
            Some(holder) => return Err(Denied::Held(*holder)),
        }
        let Some((wildcard, holder)) = self.holders.above(hostname).find(|(wildcard, _)| decides(wildcard)) else {
            return Ok(Granted::Plainly);
        };
        // What is said of every host says nothing of this one.
        let expressly = assigned.is_some_and(|(pattern, _)| !pattern.is_empty());
        if holder.namespace == *namespace {
            return Ok(Granted::Within(holder.since));
        }
        if expressly || self.given(holder.namespace, hostname, namespace) {
            return Ok(Granted::Plainly);
        }
        match holder.by {
            By::Grace(..) if claim.before.held => Ok(Granted::AsBefore),
            _ => Err(Denied::Below(*holder, format!("*{wildcard}"))),
        }
    }

    fn given(&self, from: &str, hostname: &str, to: &str) -> bool {
        self.delegates.get(from).is_some_and(|of| of.covering(hostname).any(|(_, namespaces)| namespaces.contains(to)))
    }

    /// The record of a claim, should it be granted.
    fn hold(&self, claim: &Claim<'m>, now: Millis) -> Hold {
        let Claim { namespace, hostname, since, before, first, .. } = claim;
        let (left, to) = match first {
            None => (Some(before.left.unwrap_or(now)), before.to.clone()),
            Some(_) => {
                let given = self.delegates.get(namespace).into_iter().flat_map(|of| of.covering(hostname));
                (None, given.flat_map(|(_, to)| to).map(|to| (*to).to_owned()).collect())
            }
        };
        Hold { since: *since, held: true, left, to, keep: differs(*since, claim) || left.is_some() }
    }

    /// Adds what is assigned and not claimed: nobody else is to answer for it.
    fn reserve(&self, held: &mut Held) {
        for (pattern, namespaces) in self.assigned.all().filter(|(pattern, _)| self.holders.get(pattern).is_none()) {
            let mut namespaces = namespaces.iter();
            let only = namespaces.next().filter(|_| namespaces.next().is_none());
            held.entry(only.copied().unwrap_or_default().to_owned()).or_default().insert(pattern);
        }
    }
}

/// Whether a claim is later than its route, or earlier than the one that has it now. Creations have whole seconds: of names
/// in the same one, only what decides on others must be told apart for good.
fn differs(since: i64, Claim { created, hostname, .. }: &Claim<'_>) -> bool {
    let is_exact = !hostname.is_empty() && !hostname.starts_with('*');
    since != *created && (since.abs_diff(*created) >= 1000 || !is_exact)
}

/// The end of a time of grace.
fn end(left: Millis) -> Millis {
    Millis(left.0.saturating_add(u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX)))
}
