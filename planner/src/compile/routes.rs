//! Routes → their resources in the snapshot of a fleet. What did not change since the plan before is taken over as it was
//! encoded then: most of a world is as it was, and a large route costs milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use snapshot::{
    Entry, Key,
    proto::{self, Attachment, Resource, WeightedCluster, resource},
    refs,
};

use super::{
    attach::Attached,
    backends::{ResolvedRule, Weighted},
    bounds,
};
use crate::model::Route;

/// The routes of a fleet as they were encoded last, by their keys.
pub(crate) type EncodedRoutes = BTreeMap<Key, Arc<Encoded>>;

/// A route as it stands in a snapshot.
#[derive(Debug)]
pub(crate) struct Encoded {
    of: Parts,
    pub(super) entry: Entry,
    /// The resources that it does not work without, each once.
    pub(crate) needs: BTreeSet<Key>,
    /// The entries in the routing table.
    pub(super) entries: u64,
    pub(super) rules: u64,
    /// The regular expressions, each once, and their weights.
    pub(super) expressions: BTreeMap<String, u64>,
}

/// All that decides on the encoding of a route.
#[derive(Debug)]
struct Parts {
    route: Arc<Route>,
    created_ms: i64,
    attachments: Vec<Attachment>,
    resolved: Vec<ResolvedRule>,
}

impl Encoded {
    /// Encodes a route, unless the former encoding is of the same.
    pub(super) fn new(
        route: &Arc<Route>,
        created_ms: i64,
        attachments: Vec<Attachment>,
        resolved: &[ResolvedRule],
        former: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let is_same = |of: &Parts| {
            Arc::ptr_eq(&of.route, route)
                && (of.created_ms, &of.attachments, of.resolved.as_slice()) == (created_ms, &attachments, resolved)
        };
        if let Some(same) = former.filter(|former| is_same(&former.of)) {
            return Arc::clone(same);
        }
        let of = Parts { route: Arc::clone(route), created_ms, attachments, resolved: resolved.to_vec() };
        let rules = route.rules.iter().zip(&of.resolved).filter(|(rule, _)| !rule.matches.is_empty());
        let weighted = |(key, weight): &Weighted| WeightedCluster { cluster: key.to_string(), weight: *weight };
        let rules = rules.map(|(rule, resolved)| {
            let rule = match &resolved.unavailable {
                Some(why) => proto::Rule { filters: vec![], unavailable: why.clone(), ..rule.clone() },
                None => rule.clone(),
            };
            proto::Rule { backends: resolved.backends.iter().map(weighted).collect(), ..rule }
        });
        let resource = proto::Route { created_ms, attachments: of.attachments.clone(), rules: rules.collect() };
        let (entries, rules) = (bounds::entries(&resource), resource.rules.len() as u64);
        // Their weights are those of the patterns: what compiled to them may be forgotten by now.
        let expressions = match former.filter(|former| Arc::ptr_eq(&former.of.route, route)) {
            Some(former) => former.expressions.clone(),
            None => bounds::expressions(&resource),
        };
        let kind = resource::Kind::Route(resource);
        let needs = refs::needed(&kind).collect();
        let mut entry = Entry::new(&Resource { requires: vec![], kind: Some(kind) });
        // Written otherwise, it may come to the same: then its bytes are held once, whoever has a plan.
        if let Some(same) = former.filter(|former| former.entry == entry) {
            entry = same.entry.clone();
        }
        Arc::new(Self { of, entry, needs, entries, rules, expressions })
    }

    /// Names of the listeners that serve it.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &str> {
        self.of.attachments.iter().map(|attachment| attachment.listener.as_str())
    }

    /// Under which names it is served; empty: any.
    pub(super) fn hostnames(&self) -> impl Iterator<Item = &str> {
        self.of.attachments.iter().flat_map(|attachment| {
            let any = attachment.hostnames.is_empty().then_some("");
            attachment.hostnames.iter().map(String::as_str).chain(any)
        })
    }
}

/// The places of a route in the tables of a fleet's proxies, of the listeners that are programmed.
pub(super) fn attachments(attached: &Attached, programmed: &[String]) -> Vec<Attachment> {
    // A listener that is not programmed serves nothing; the route waits for it with what else it has.
    let attachments = attached.iter().filter(|(name, _)| programmed.contains(name));
    let attachments = attachments.map(|(listener, hosts)| Attachment {
        listener: listener.clone(),
        hostnames: hosts.iter().map(|host| host.as_str().to_owned()).collect(),
    });
    attachments.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route is encoded again when any of what decides on it differs, and only then.
    #[test]
    fn what_is_the_same_is_taken_over() {
        let attachment = |host: &str| Attachment { listener: "http".into(), hostnames: vec![host.into()] };
        let backend = |weight| {
            let backends = vec![(Key::cluster("shop", "cart", "80"), weight)];
            vec![ResolvedRule { backends, unavailable: None }]
        };
        let rule = proto::Rule { matches: vec![proto::Match::default()], ..proto::Rule::default() };
        let route = Arc::new(Route::of(vec![rule]));
        let former = Encoded::new(&route, 1, vec![attachment("a")], &backend(1), None);
        let next = |route, created_ms, host, weight| {
            Encoded::new(route, created_ms, vec![attachment(host)], &backend(weight), Some(&former))
        };
        assert!(Arc::ptr_eq(&former, &next(&route, 1, "a", 1)));
        for other in [next(&route, 2, "a", 1), next(&route, 1, "b", 1), next(&route, 1, "a", 2)] {
            assert_ne!(former.entry, other.entry);
        }
        let again = next(&Arc::new(Route::clone(&route)), 1, "a", 1);
        assert!(!Arc::ptr_eq(&former, &again));
        assert_eq!(former.entry.bytes().as_ptr(), again.entry.bytes().as_ptr());
    }
}
