//! Problems of hostnames: of routes that do not get one, and of those that hold it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use jiff::Timestamp;

use super::{By, Claim, Denied, Holder, Lost, Placed};
use crate::{
    Millis,
    problem::{Problems, reason},
    world::ObjectRef,
};

/// Most hostnames of one route that are each spoken of, and most claims that a holder is told by name.
const MAX_HOSTNAMES: usize = 8;
const MAX_CLAIMS: usize = 3;

/// Takes what a route's namespace does not have out of where it is attached, and says why.
pub(super) fn withdraw<'m>(fleet: &ObjectRef, lost: &Lost<'m>, placed: &mut [Placed<'m>], problems: &mut Problems<'_>) {
    if lost.is_empty() {
        return;
    }
    for Placed { object, route, attached, .. } in placed {
        let Some(listeners) = attached.get_mut(fleet) else { continue };
        let (namespace, mut gone) = (object.namespace.as_str(), BTreeSet::new());
        let mut has = |host: &str| {
            let key = (namespace, host.to_owned());
            let has = !lost.contains_key(&key);
            if !has {
                gone.insert(key.1);
            }
            has
        };
        listeners.retain(|_, hosts| {
            if hosts.is_empty() {
                return has("");
            }
            hosts.retain(|host| has(host.as_str()));
            !hosts.is_empty()
        });
        let many = gone.len().saturating_sub(MAX_HOSTNAMES);
        for (i, host) in gone.into_iter().take(MAX_HOSTNAMES).enumerate() {
            let at = route.hostnames.iter().position(|name| name.as_str() == host);
            let field = at.map_or_else(|| "spec.hostnames".to_owned(), |i| format!("spec.hostnames[{i}]"));
            let key = (namespace, host);
            let Some(denied) = lost.get(&key) else { continue };
            let (reason, mut message) = denied.said(fleet, namespace, &key.1);
            if i + 1 == MAX_HOSTNAMES && many > 0 {
                let _ = write!(message, "; and of {many} more hostnames");
            }
            problems.degraded(object, field, reason, message);
        }
    }
}

impl Denied<'_> {
    /// The reason and message for a claim that is denied.
    fn said(&self, fleet: &ObjectRef, namespace: &str, host: &str) -> (&'static str, String) {
        let host = named(host);
        let message = match self {
            Self::Held(Holder { namespace: holder, by: By::Route(route), .. }) => format!(
                "namespace {holder:?} has {host} of {fleet} ({route} came first), so this route is not served under it: \
                 use another hostname"
            ),
            Self::Held(Holder { namespace: holder, by: By::Grace(_, end), .. }) => format!(
                "namespace {holder:?} had {host} of {fleet}, which stays with it until {}, so this route is not served \
                 under it yet: wait, or use another hostname",
                time(*end)
            ),
            Self::Below(Holder { namespace: holder, by, .. }, wildcard) => {
                let whose = match by {
                    By::Route(route) => format!("has ({route} came first)"),
                    By::Grace(_, end) => format!("had, and which stays with it until {}", time(*end)),
                };
                format!(
                    "{host} of {fleet} lies below {wildcard}, which namespace {holder:?} {whose}, so this route is not \
                     served under it: have that route name it and namespace {namespace:?} in its spec.delegates, have the \
                     fleet assign it in allowedRoutes.hostnames, or use another hostname"
                )
            }
            Self::Assigned(namespaces) => {
                let message = format!(
                    "{fleet} assigns {host} to namespace {} in allowedRoutes.hostnames, and this route is in \
                     {namespace:?}: have it assigned, or use another hostname",
                    listed(namespaces.iter().map(|namespace| format!("{namespace:?}"))),
                );
                return (reason::HOSTNAME_NOT_ALLOWED, message);
            }
        };
        (reason::CONFLICTED, message)
    }
}

/// Tells the routes that have what others claim.
pub(super) fn tell<'m>(fleet: &ObjectRef, claims: &[Claim<'m>], lost: &Lost<'m>, problems: &mut Problems<'_>) {
    let mut contested: BTreeMap<(&ObjectRef, String), Vec<&Claim<'_>>> = BTreeMap::new();
    for claim in claims {
        let (holder, name) = match lost.get(&(claim.namespace, claim.hostname.clone())) {
            Some(Denied::Held(holder)) => (holder, claim.hostname.clone()),
            Some(Denied::Below(holder, wildcard)) => (holder, wildcard.clone()),
            Some(Denied::Assigned(_)) | None => continue,
        };
        if let By::Route(route) = holder.by {
            contested.entry((route, name)).or_default().push(claim);
        }
    }
    for ((route, name), claims) in contested {
        let by = |claim: &&Claim<'_>| claim.first.map(|first| format!("{first} claims {}", named(&claim.hostname)));
        let who = listed(claims.iter().filter_map(by));
        let fix = match claims.iter().any(|claim| claim.hostname != name) {
            true => "; name it and the namespace in spec.delegates to let it have it",
            false => "",
        };
        let message = format!("{who} on {fleet}, which is not served: this namespace has {}{fix}", named(&name));
        problems.told(route, "spec.hostnames", reason::HOSTNAMES_CLAIMED, message);
    }
}

/// The first of them, and how many more.
fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let mut text = items.iter().take(MAX_CLAIMS).map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(more) = items.len().checked_sub(MAX_CLAIMS).filter(|more| *more > 0) {
        let _ = write!(text, " and {more} more");
    }
    text
}

fn named(host: &str) -> String {
    if host.is_empty() { "any host".to_owned() } else { format!("host {host}") }
}

/// Whole seconds, as Kubernetes writes times.
fn time(Millis(at): Millis) -> String {
    let seconds = i64::try_from(at / 1000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}
