//! Matches that an older route already has: the younger one's is never reached.

use std::collections::BTreeMap;

use snapshot::{
    Entry, Hash,
    proto::{self, Match, PathKind, Resource, Rule, ValueMatch, resource},
};

use super::attach::Attached;
use crate::{
    model::Route,
    problem::{Problems, reason},
    world::ObjectRef,
};

/// One listener's host of a fleet, and a match on it.
type Claim<'m> = (&'m ObjectRef, String, String, Hash);

/// Who holds which match. Routes claim in the order of their age.
#[derive(Default)]
pub(super) struct Conflicts<'m> {
    holders: BTreeMap<Claim<'m>, (ObjectRef, String)>,
}

impl<'m> Conflicts<'m> {
    /// Claims every match of a route wherever it is attached; says which of them another one holds.
    pub(super) fn claim(
        &mut self,
        object: &ObjectRef,
        route: &Route,
        attached: &BTreeMap<&'m ObjectRef, Attached>,
        problems: &mut Problems<'_>,
    ) {
        for (i, rule) in route.rules.iter().enumerate() {
            for (j, matching) in rule.matches.iter().enumerate() {
                let field = format!("rules[{i}].matches[{j}]");
                if let Some((holder, host)) = self.hold(object, &field, matching, attached) {
                    let host = if host.is_empty() { "any host".to_owned() } else { format!("host {host}") };
                    let message = format!("the same match on {host} stands in {holder}, which comes first");
                    problems.degraded(object, format!("spec.{field}"), reason::CONFLICTED, message);
                }
            }
        }
    }

    /// Claims one match on every host; the first other holder and the host that is contended.
    fn hold(
        &mut self,
        object: &ObjectRef,
        field: &str,
        matching: &Match,
        attached: &BTreeMap<&'m ObjectRef, Attached>,
    ) -> Option<(String, String)> {
        let (canonical, mut lost) = (canonical(matching), None);
        for (fleet, listeners) in attached {
            for (listener, hosts) in listeners {
                let any = hosts.is_empty().then_some("");
                for host in hosts.iter().map(|h| h.as_str()).chain(any) {
                    let claim = (*fleet, listener.clone(), host.to_owned(), canonical);
                    match self.holders.entry(claim) {
                        std::collections::btree_map::Entry::Vacant(free) => {
                            free.insert((object.clone(), field.to_owned()));
                        }
                        std::collections::btree_map::Entry::Occupied(held) => {
                            let (holder, at) = held.get();
                            let holder = if holder == object { format!("spec.{at}") } else { holder.to_string() };
                            lost.get_or_insert((holder, host.to_owned()));
                        }
                    }
                }
            }
        }
        lost
    }
}

/// A hash of a match, such that two that mean the same are equal.
fn canonical(matching: &Match) -> Hash {
    let mut matching = matching.clone();
    let by_name = |a: &ValueMatch, b: &ValueMatch| (&a.name, &a.value).cmp(&(&b.name, &b.value));
    matching.headers.sort_by(by_name);
    matching.query_params.sort_by(by_name);
    if let Some(path) = matching.path.as_mut().filter(|path| path.kind == i32::from(PathKind::Prefix)) {
        // `/a/` and `/a` are one prefix.
        path.value.truncate(path.value.trim_end_matches('/').len());
    }
    let rule = Rule { matches: vec![matching], ..Rule::default() };
    let route = proto::Route { rules: vec![rule], ..proto::Route::default() };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Route(route)) }).hash()
}
