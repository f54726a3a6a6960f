//! The snapshot that is pushed: the desired one, less what the fleet's proxies refuse.
//!
//! ```text
//!  desired ──publish──► published ──push──► proxies ──ack──► take: last acknowledged content ─┐
//!              ▲                               │                                              │
//!              │                               └──claims of each──► settle: refusals ─────────┤
//!              └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One proxy's word counts for itself: what it alone refuses it does without, and the others run. A refusal becomes the
//! fleet's when a second proxy refuses the same content ([`Ledger::settle`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use snapshot::{
    Entry, Hash, Key, Kind, Snapshot,
    proto::{Nack, Resource, Route, Rule, resource},
    refs,
};

use crate::Millis;

/// A refusal of the fleet is tried again after so long, and after twice as long each further time, up to the longest.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(60);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3600);
/// The number of proxies that have to refuse a content before the fleet does without it, if it has so many.
const ENOUGH_REFUSALS: usize = 2;

/// The identity of a proxy, as long as it lives: another process under the same name is another proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProxyId {
    /// The proxy's name.
    pub name: String,
    /// The proxy's process; `None`: it is not on this machine, where names are used once.
    pub pid: Option<u32>,
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Refusals by proxies, by key and content.
pub type Claims = BTreeMap<(Key, Hash), Nack>;

/// A living proxy of the fleet, which stays: one whose word counts.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Serves, with an open stream.
    pub ready: bool,
    /// The contents that it says that it refuses.
    pub claims: &'a Claims,
    /// The snapshot that it acknowledged last: it runs that, less its claims.
    pub acknowledged: Option<&'a Snapshot>,
}

/// A content that the fleet does without, because proxies refuse it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The refusal of one of them.
    pub nack: Nack,
    /// The proxies that refuse it, and live.
    pub by: BTreeSet<ProxyId>,
    /// The time since which they do.
    pub since: Millis,
    /// The number of times that it was tried again before.
    pub tries: u32,
}

impl Refusal {
    /// The time at which it is tried again: proxies may be newer then, or what ailed them be gone. After 1, 2, 4 minutes,
    /// and so on.
    pub fn tried_again(&self) -> Millis {
        let wait = FIRST_RETRY_DELAY.saturating_mul(1 << self.tries.min(16)).min(MAX_RETRY_DELAY);
        Millis(self.since.0.saturating_add(wait.as_millis() as u64))
    }
}

/// The acknowledgements and refusals of one fleet's proxies. It holds at most two contents of each resource that is published or
/// that such a content refers to, and at most two refusals of each desired resource.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Last content that a proxy acknowledged and the fleet does not refuse, by key.
    pub acked: BTreeMap<Key, Entry>,
    /// The content acknowledged before that: what is left when the fleet refuses `acked` later.
    pub previous: BTreeMap<Key, Entry>,
    /// Content that the fleet refuses.
    pub refused: BTreeMap<(Key, Hash), Refusal>,
    /// The number of times that a content was tried again which is not refused at the moment.
    pub tried: BTreeMap<(Key, Hash), u32>,
    /// Revision that was taken up last from a proxy that refuses none of it: others that acknowledge it say nothing new.
    pub taken: Option<Hash>,
}

impl Ledger {
    /// Takes up an acknowledgement of `published` by a proxy that refuses what `claims` say: the rest is good.
    pub fn acknowledge(&mut self, published: &Snapshot, claims: &Claims) {
        let revision = published.revision();
        if self.taken != Some(revision) {
            self.take(published, claims);
            self.taken = claims.is_empty().then_some(revision);
        }
    }

    /// Derives the fleet's refusals from what its proxies say now. True when [`publish`] gives another result.
    ///
    /// A refusal is the fleet's once two of its Ready proxies refuse the same content, or its only one does. What others run
    /// that routes and policies rest on (listeners, certificates, clusters) is never taken from them: who refuses it does
    /// without. It is the fleet's for as long as so many of them live, until it is tried again.
    pub fn settle(&mut self, desired: &Snapshot, peers: &BTreeMap<ProxyId, Peer<'_>>, now: Millis) -> bool {
        let before = self.refused.len();
        let enough = ENOUGH_REFUSALS.min(peers.len()).max(1);
        let tried = &mut self.tried;
        self.refused.retain(|what, refusal| {
            refusal.by.retain(|id| peers.contains_key(id));
            let stands = refusal.by.len() >= enough && is_desired(desired, what);
            let due = refusal.tried_again() <= now;
            if stands && due {
                tried.insert(what.clone(), refusal.tries + 1);
            }
            stands && !due
        });
        let mut changed = self.refused.len() < before;
        self.tried.retain(|what, _| is_desired(desired, what));
        let mut claimed: BTreeMap<&(Key, Hash), BTreeSet<&ProxyId>> = BTreeMap::new();
        for (id, peer) in peers.iter().filter(|(_, peer)| peer.ready || peers.len() == 1) {
            for what in peer.claims.keys().filter(|what| !self.refused.contains_key(*what)) {
                claimed.entry(what).or_default().insert(id);
            }
        }
        let is_run = |what: &(Key, Hash)| {
            let runs = |peer: &Peer<'_>| {
                let has = |p: &Snapshot| p.entry(&what.0).is_some_and(|entry| entry.hash() == what.1);
                peer.acknowledged.is_some_and(has) && !peer.claims.contains_key(what)
            };
            peers.values().any(runs)
        };
        for (what, by) in claimed {
            if by.len() < enough || !is_desired(desired, what) || (is_base(&what.0) && is_run(what)) {
                continue;
            }
            let Some(nack) = by.iter().find_map(|id| peers.get(*id)?.claims.get(what)) else { continue };
            let by = by.into_iter().cloned().collect();
            let tries = self.tried.get(what).copied().unwrap_or_default();
            self.refused.insert(what.clone(), Refusal { nack: nack.clone(), by, since: now, tries });
            changed = true;
        }
        if changed {
            for what in self.refused.keys().cloned().collect::<Vec<_>>() {
                self.demote(&what);
            }
        }
        changed
    }

    /// Forgets what is refused of a resource, so that it is tried again at once. True when anything was.
    pub fn forget(&mut self, key: &Key) -> bool {
        let before = self.refused.len();
        self.refused.retain(|(refused, _), _| refused != key);
        self.tried.retain(|(tried, _), _| tried != key);
        self.refused.len() < before
    }

    /// Whether a content of what is desired is refused by the fleet.
    pub fn refuses(&self, what: &(Key, Hash)) -> bool {
        self.refused.contains_key(what)
    }

    /// Everything of `published` that neither the fleet nor this proxy refuses is good.
    fn take(&mut self, published: &Snapshot, claims: &Claims) {
        for (key, entry) in published.iter() {
            if self.acked.get(key) == Some(entry) {
                continue;
            }
            let what = (key.clone(), entry.hash());
            if self.refused.contains_key(&what) || claims.contains_key(&what) {
                continue;
            }
            if let Some(before) = self.acked.insert(key.clone(), entry.clone()) {
                self.previous.insert(key.clone(), before);
            }
        }
        // What is gone is forgotten, unless a content that may come back refers to it.
        let gone = |key: &Key| published.entry(key).is_none();
        let alive = self.acked.iter().chain(&self.previous).filter(|(key, _)| !gone(key));
        let needed: BTreeSet<Key> = alive.flat_map(|(_, entry)| references(entry)).filter(gone).collect();
        self.acked.retain(|key, _| !gone(key) || needed.contains(key));
        self.previous.retain(|key, _| !gone(key));
    }

    /// A proxy acknowledged what the fleet refuses: the content before takes its place.
    fn demote(&mut self, (key, hash): &(Key, Hash)) {
        if self.acked.get(key).is_some_and(|entry| entry.hash() == *hash) {
            match self.previous.remove(key) {
                Some(before) => drop(self.acked.insert(key.clone(), before)),
                None => drop(self.acked.remove(key)),
            }
        }
    }

    /// The content that runs in place of a refused resource, if any.
    fn instead(&self, key: &Key, desired: &Entry) -> Option<Entry> {
        let usable = |entry: &Entry| !self.refused.contains_key(&(key.clone(), entry.hash()));
        // A policy of before is none for the routes that it is to guard since.
        let guards = |entry: &Entry| key.kind() != Kind::AccessPolicy || snapshot::guards_as(entry, desired);
        let mut acked = [self.acked.get(key), self.previous.get(key)].into_iter().flatten();
        let acked = acked.find(|entry| usable(entry) && guards(entry)).cloned();
        acked.or_else(|| stand_in(desired).filter(usable))
    }
}

/// Replaces each resource that the fleet refuses by its last acknowledged content, and brings back what that refers to.
/// Without any, a Route, RatePolicy or AccessPolicy becomes one that makes its requests answer 500 (never open), and anything
/// else is left out. The map names what was replaced.
pub fn publish(desired: &Snapshot, ledger: &Ledger) -> (Snapshot, BTreeMap<Key, Nack>) {
    let (mut published, mut rolled_back) = (desired.clone(), BTreeMap::new());
    for ((key, hash), refusal) in &ledger.refused {
        let Some(entry) = desired.entry(key).filter(|entry| entry.hash() == *hash) else { continue };
        rolled_back.insert(key.clone(), refusal.nack.clone());
        match ledger.instead(key, entry) {
            Some(entry) => {
                restore_references(&mut published, &entry, ledger);
                published.insert(key.clone(), entry);
            }
            None => drop(published.remove(key)),
        }
    }
    (published, rolled_back)
}

/// Brings back what a restored content needs and the desired snapshot no longer has.
fn restore_references(published: &mut Snapshot, restored: &Entry, ledger: &Ledger) {
    for key in references(restored) {
        if published.entry(&key).is_none()
            && let Some(entry) = ledger.acked.get(&key)
        {
            published.insert(key, entry.clone());
        }
    }
}

/// The refusals of a proxy, of contents that are or were to be pushed to it.
pub fn claims(nacks: Vec<Nack>, contents: &[&Snapshot]) -> Claims {
    let claim = |nack: Nack| {
        let (key, hash) = (nack.key.parse::<Key>().ok()?, Hash::from_slice(&nack.hash)?);
        let stands = contents.iter().any(|content| content.entry(&key).is_some_and(|entry| entry.hash() == hash));
        stands.then_some(((key, hash), nack))
    };
    nacks.into_iter().filter_map(claim).collect()
}

/// Whether it is what is desired, or what stands in for that: a stand-in that was refused as well is kept in mind, or it
/// would be tried again for ever.
fn is_desired(desired: &Snapshot, (key, hash): &(Key, Hash)) -> bool {
    desired
        .entry(key)
        .is_some_and(|entry| entry.hash() == *hash || stand_in(entry).is_some_and(|stand_in| stand_in.hash() == *hash))
}

/// Whether others rest on a resource: without it they serve nothing, while a route, a policy or a consumer fails alone.
fn is_base(key: &Key) -> bool {
    !matches!(key.kind(), Kind::Route | Kind::RatePolicy | Kind::AccessPolicy | Kind::Consumer)
}

/// Keys that a resource refers to and can't work without.
fn references(entry: &Entry) -> BTreeSet<Key> {
    entry.kind().iter().flat_map(refs::needed).collect()
}

/// The stand-in for a resource that was never good: nothing of its content but what says which requests are meant.
fn stand_in(entry: &Entry) -> Option<Entry> {
    const WHY: &str = "refused by a proxy, and no earlier content to fall back to";
    let kind = match entry.kind() {
        Some(resource::Kind::Route(Route { created_ms, attachments, rules })) => {
            let rules = rules.into_iter().map(|rule| Rule {
                name: rule.name,
                matches: rule.matches,
                unavailable: WHY.into(),
                ..Rule::default()
            });
            resource::Kind::Route(Route { created_ms, attachments, rules: rules.collect() })
        }
        _ => return snapshot::closed(entry, WHY.into()),
    };
    Some(Entry::new(&Resource { requires: vec![], kind: Some(kind) }))
}

#[cfg(test)]
mod tests;
