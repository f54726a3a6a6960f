//! The claims on hostnames of a fleet, in the order in which they are granted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Placed, end};
use crate::{
    Millis,
    compile::created_ms,
    holds::{FleetHolds, Hold, MAX_LEFT},
    model::Model,
    world::ObjectRef,
};

/// The claim of one namespace on one hostname.
pub(super) struct Claim<'m> {
    pub(super) namespace: &'m str,
    /// Empty: any.
    pub(super) hostname: String,
    /// The time since which it is known or, if granted before, held.
    pub(super) since: i64,
    /// Whether it was not held before, where all is known.
    pub(super) fresh: bool,
    /// The creation of its oldest route.
    pub(super) created: i64,
    /// The record that the last plan left.
    pub(super) before: &'m Hold,
    /// The oldest route that claims it; `None`: nothing does any more.
    pub(super) first: Option<&'m ObjectRef>,
}

/// The record of a claim that was not there before.
static NOTHING: Hold = Hold { since: 0, held: false, left: None, to: BTreeSet::new(), keep: false };

/// All claims on a fleet, those first that come first; `placed` is in the order of age.
pub(super) fn claims<'m>(
    model: &Model,
    fleet: &ObjectRef,
    before: Option<&'m FleetHolds>,
    now: Millis,
    placed: &[Placed<'m>],
) -> Vec<Claim<'m>> {
    let mut wanted: BTreeMap<(String, &'m str), &'m ObjectRef> = BTreeMap::new();
    for placed in placed {
        let object: &'m ObjectRef = placed.object;
        for hosts in placed.attached.get(fleet).into_iter().flat_map(BTreeMap::values) {
            let any = hosts.is_empty().then_some("");
            for host in hosts.iter().map(|host| host.as_str()).chain(any) {
                wanted.entry((host.to_owned(), &object.namespace)).or_insert(object);
            }
        }
    }
    let known = |(hostname, namespace): &(String, &str)| before?.names.get(hostname)?.get(*namespace);
    let whole = before.is_some_and(|before| before.whole);
    let all = || before.into_iter().flat_map(|before| before.names.values().flat_map(BTreeMap::values));
    // Whoever comes new stands behind all that is known, whatever the age of its route.
    let newest = all().map(|hold| hold.since).max().unwrap_or(i64::MIN);
    let claim = |(key, first): (&(String, &'m str), &&'m ObjectRef)| {
        let (created, before) = (created_ms(model, first), known(key));
        let anew = if whole && created <= newest { newest.saturating_add(1) } else { created };
        let since = before.map_or(anew, |hold| hold.since);
        let (hostname, namespace) = key.clone();
        let fresh = whole && before.is_none_or(|before| !before.held);
        let known_before = before.unwrap_or(&NOTHING);
        let claim = Claim { namespace, hostname, since, fresh, created, before: known_before, first: Some(first) };
        ((since, whole && before.is_none()), claim)
    };
    let mut claims: Vec<_> = wanted.iter().map(claim).collect();
    claims.extend(left(model, before, now, |key| wanted.contains_key(key)).map(|claim| ((claim.since, false), claim)));
    // Whoever has something keeps it. Of the same moment, those that have it; then by age and by the name of the oldest
    // route, as text.
    claims.sort_by_cached_key(|(rank, claim)| {
        let name = claim.first.map_or_else(|| format!("{}/", claim.namespace), |first| first.path());
        (whole && !claim.before.held, *rank, !claim.before.held, claim.created, name)
    });
    claims.into_iter().map(|(_, claim)| claim).collect()
}

/// Hostnames that namespaces had and claim no more, while they stay with them: not with one that is gone, and of one not without
/// bound.
fn left<'m>(
    model: &Model,
    before: Option<&'m FleetHolds>,
    now: Millis,
    wanted: impl Fn(&(String, &'m str)) -> bool,
) -> impl Iterator<Item = Claim<'m>> {
    let mut left: BTreeMap<&str, Vec<(&'m str, &'m str, &'m Hold)>> = BTreeMap::new();
    for (hostname, claims) in before.into_iter().flat_map(|before| &before.names) {
        for (namespace, hold) in claims {
            let exists = model.cluster.is_none() || model.namespaces.contains_key(namespace);
            let lasts = hold.left.is_none_or(|left| now < end(left));
            if hold.held && exists && lasts && !wanted(&(hostname.clone(), namespace)) {
                left.entry(namespace).or_default().push((hostname, namespace, hold));
            }
        }
    }
    let of_namespace = |mut left: Vec<(&'m str, &'m str, &'m Hold)>| {
        left.sort_by_key(|(hostname, _, hold)| (hold.since, *hostname));
        left.truncate(MAX_LEFT);
        left
    };
    left.into_values().flat_map(of_namespace).map(|(hostname, namespace, hold)| Claim {
        namespace,
        hostname: hostname.to_owned(),
        since: hold.since,
        fresh: false,
        created: hold.since,
        before: hold,
        first: None,
    })
}
