//! Hostnames that another namespace holds: a route is not served under them.
//!
//! The first holder on a listener keeps a hostname, so that no team takes over the requests of another. Within one
//! namespace routes share a hostname freely; which of them serves a request is decided match by match (conflicts.rs).
//! A hostname is that very text: `*.a.example` and `b.a.example` are two, and so is no hostname at all.

use std::collections::{BTreeMap, btree_map::Entry};

use super::attach::Attached;
use crate::{
    model::Route,
    problem::{Problems, reason},
    world::ObjectRef,
};

/// A hostname (empty: any) on one listener of a fleet.
type Claim<'m> = (&'m ObjectRef, String, String);

/// Who came first under which hostname. Routes claim in the order of their age.
#[derive(Default)]
pub(super) struct Hosts<'m> {
    holders: BTreeMap<Claim<'m>, ObjectRef>,
}

impl<'m> Hosts<'m> {
    /// Claims every hostname of a route; those that another namespace holds are taken out of `attached`, and said.
    pub(super) fn claim(
        &mut self,
        object: &ObjectRef,
        route: &Route,
        attached: &mut BTreeMap<&'m ObjectRef, Attached>,
        problems: &mut Problems<'_>,
    ) {
        for (fleet, listeners) in attached {
            // Of each hostname: who holds it, and on which listeners.
            let mut lost: BTreeMap<String, (ObjectRef, Vec<String>)> = BTreeMap::new();
            listeners.retain(|listener, hosts| {
                let mut holds = |host: &str| match self.holders.entry((*fleet, listener.clone(), host.to_owned())) {
                    Entry::Vacant(free) => {
                        free.insert(object.clone());
                        true
                    }
                    Entry::Occupied(held) if held.get().namespace == object.namespace => true,
                    Entry::Occupied(held) => {
                        let (_, on) = lost.entry(host.to_owned()).or_insert_with(|| (held.get().clone(), vec![]));
                        on.push(listener.clone());
                        false
                    }
                };
                if hosts.is_empty() {
                    return holds("");
                }
                hosts.retain(|host| holds(host.as_str()));
                !hosts.is_empty()
            });
            for (host, (holder, on)) in lost {
                let at = route.hostnames.iter().position(|name| name.as_str() == host);
                let field = at.map_or_else(|| "spec.hostnames".to_owned(), |i| format!("spec.hostnames[{i}]"));
                let host = if host.is_empty() { "any host".to_owned() } else { format!("host {host}") };
                let message = format!(
                    "namespace {:?} has {host} on listener {} of {fleet} ({holder} came first), so this route is not \
                     served there: use another hostname",
                    holder.namespace,
                    on.join(", "),
                );
                problems.degraded(object, field, reason::CONFLICTED, message);
            }
        }
    }
}
