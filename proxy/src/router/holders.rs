//! Which namespace a hostname belongs to. The operator lets only one serve it; a router holds itself to that, so that
//! no request for a hostname of one namespace is ever answered by a rule of another, also not by a less specific
//! hostname's.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;
use snapshot::proto::{Attachment, HeldHostnames};

use super::host::HostMap;

/// Namespaces by hostname, of all listeners. An empty one: nobody's yet, and so not for others.
#[derive(Default, PartialEq)]
pub struct Holders(HostMap<Arc<str>>);

/// A route that claims hostnames.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// Namespace of the route.
    pub(crate) namespace: &'a str,
    /// `namespace/name`.
    pub(crate) route: &'a str,
    /// When it was created, ms.
    pub(crate) created_ms: i64,
    /// Where it is served: many are served in the same places, which are the same allocation.
    pub(crate) attachments: &'a Arc<[Attachment]>,
}

impl Holders {
    /// The holders of the hostnames of routes, and of what is held beside them. Should two claim one hostname, the
    /// older one has it, then the lesser name.
    pub(crate) fn new<'a>(routes: impl IntoIterator<Item = Claim<'a>>, beside: &[HeldHostnames]) -> Self {
        // Of one namespace's routes that are served in the same places the oldest speaks for all.
        let mut groups: HashMap<(*const Attachment, &str), Claim<'a>, RandomState> = HashMap::default();
        let rank = |claim: &Claim<'a>| (claim.created_ms, claim.route);
        for claim in routes {
            let group = groups.entry((claim.attachments.as_ptr(), claim.namespace)).or_insert(claim);
            if rank(&claim) < rank(group) {
                *group = claim;
            }
        }
        let mut oldest: HashMap<&str, Claim<'a>, RandomState> = HashMap::default();
        for claim in groups.into_values() {
            for Attachment { hostnames, .. } in claim.attachments.iter() {
                let any = hostnames.is_empty().then_some("");
                for hostname in hostnames.iter().map(String::as_str).chain(any) {
                    let known = oldest.entry(hostname).or_insert(claim);
                    if rank(&claim) < rank(known) {
                        *known = claim;
                    }
                }
            }
        }
        let mut names = HostMap::default();
        let mut namespaces: HashSet<Arc<str>> = HashSet::new();
        let mut interned = |namespace: &str| {
            if let Some(known) = namespaces.get(namespace) {
                return Arc::clone(known);
            }
            let namespace: Arc<str> = namespace.into();
            namespaces.insert(Arc::clone(&namespace));
            namespace
        };
        for (hostname, claim) in &oldest {
            names.insert(hostname, interned(claim.namespace));
        }
        for HeldHostnames { namespace, hostnames } in beside {
            // What is kept for nobody yet is whoever's claims it.
            for hostname in hostnames.iter().filter(|name| !namespace.is_empty() || !oldest.contains_key(name.as_str()))
            {
                names.insert(hostname, interned(namespace));
            }
        }
        Self(names)
    }

    /// Whether a hostname pattern is this namespace's.
    pub(crate) fn has(&self, namespace: &str, hostname: &str) -> bool {
        self.0.at(hostname).is_some_and(|holder| **holder == *namespace)
    }

    /// The namespace of the most specific hostname that fits a host.
    pub(super) fn of(&self, host: &str) -> Option<&Arc<str>> {
        self.0.get(host)
    }
}
