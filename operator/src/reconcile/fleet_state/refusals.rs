//! The refusals of a fleet's proxies: those that count for the fleet, and those of one proxy alone.

use std::collections::{BTreeMap, BTreeSet};

use planner::{
    Millis, ProxyId,
    publish::{self, Peer},
};
use serde::{Deserialize, Serialize};
use snapshot::{Hash, Key, Snapshot, proto::Nack};

use super::{Attached, FleetState};

/// The scope of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The fleet does without the content: what was good before runs instead.
    Fleet,
    /// A refusal of one proxy, which does without the content; the others run it.
    Proxy,
}

/// A refused resource as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalShown {
    /// The resource.
    pub key: String,
    /// The scope of a refusal.
    pub scope: Scope,
    /// The proxies that refuse it.
    pub proxies: Vec<String>,
    /// A fixed word.
    pub reason: String,
    /// Path within the resource.
    pub field: String,
    /// The message of one of them.
    pub message: String,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// When it is tried again, if that is known.
    pub tried_again: Option<u64>,
}

impl FleetState {
    /// A proxy, as long as it lives.
    pub(super) fn id(&self, name: &str) -> ProxyId {
        ProxyId { name: name.to_owned(), pid: self.observation.proxies.get(name).and_then(|proxy| proxy.pid) }
    }

    /// The stream of a living proxy, if it is of that process.
    pub(super) fn stream(&self, name: &str) -> Option<&Attached> {
        let proxy = self.observation.proxies.get(name)?;
        self.attached.get(name).filter(|a| proxy.pid.is_none_or(|pid| pid == a.pid))
    }

    /// Takes up what the fleet refuses by now. True when something else is to be published.
    pub fn settle(&mut self, desired: &Snapshot, now: Millis) -> bool {
        self.hear(desired);
        if self.ledger.refused.is_empty() && self.attached.values().all(|a| a.claims.is_empty()) {
            return false;
        }
        let mut ledger = std::mem::take(&mut self.ledger);
        let nothing = publish::Claims::new();
        let staying = self.observation.proxies.iter().filter(|(_, proxy)| !proxy.draining);
        let peers: BTreeMap<ProxyId, Peer<'_>> = staying
            .filter_map(|(name, _)| {
                let attached = self.stream(name);
                if attached.is_some_and(|a| a.draining) {
                    return None;
                }
                let peer = Peer {
                    ready: attached.is_some_and(|a| a.ready),
                    claims: attached.map_or(&nothing, |a| &a.claims),
                    acknowledged: attached.and_then(|a| a.acknowledged.as_deref()).map(|p| &p.snapshot),
                };
                Some((self.id(name), peer))
            })
            .collect();
        let changed = ledger.settle(desired, &peers, now);
        self.ledger = ledger;
        changed
    }

    /// Takes up refusals of what an operator before pushed, as far as they are of what is to be pushed.
    fn hear(&mut self, desired: &Snapshot) {
        let published = self.published.clone();
        for attached in self.attached.values_mut().filter(|a| !a.said.is_empty()) {
            let contents: Vec<&Snapshot> = published.iter().map(|p| &p.snapshot).chain([desired]).collect();
            attached.claims = publish::claims(std::mem::take(&mut attached.said), &contents);
        }
    }

    /// The refusals of single proxies that the fleet does not share, with the name of each. What they refused of a
    /// content that is published no more says nothing of them.
    fn lone(&self) -> impl Iterator<Item = (&str, &Attached, &(Key, Hash), &Nack)> {
        let staying = self.observation.proxies.iter().filter(|(_, proxy)| !proxy.draining);
        let streams = staying.filter_map(move |(name, _)| Some((name.as_str(), self.stream(name)?)));
        let claims = streams.flat_map(|(name, a)| a.claims.iter().map(move |(what, nack)| (name, a, what, nack)));
        let published = self.published.as_deref();
        let is_published = move |(key, hash): &(Key, Hash)| {
            published.is_some_and(|p| p.snapshot.entry(key).is_some_and(|entry| entry.hash() == *hash))
        };
        claims.filter(move |(_, _, what, _)| !self.ledger.refuses(what) && is_published(what))
    }

    /// The refusals of single proxies, by key.
    pub fn disagreeing(&self) -> BTreeMap<Key, BTreeMap<String, Nack>> {
        let mut by_key: BTreeMap<Key, BTreeMap<String, Nack>> = BTreeMap::new();
        for (name, _, (key, _), nack) in self.lone() {
            by_key.entry(key.clone()).or_default().insert(name.to_owned(), nack.clone());
        }
        by_key
    }

    /// Proxies that refuse what the others run.
    pub fn dissenters(&self) -> BTreeSet<String> {
        self.lone().map(|(name, ..)| name.to_owned()).collect()
    }

    /// Whether a proxy refuses what the fleet does not.
    pub(super) fn disagrees(&self, attached: &Attached) -> bool {
        attached.own_trouble || attached.claims.keys().any(|what| !self.ledger.refuses(what))
    }

    /// All of it, for people.
    pub fn refusals(&self) -> Vec<RefusalShown> {
        let shown = |key: &Key, scope, proxies, nack: &Nack, since: Millis, tried_again| RefusalShown {
            key: key.to_string(),
            scope,
            proxies,
            reason: nack.reason.clone(),
            field: nack.field.clone(),
            message: nack.message.clone(),
            since: since.0,
            tried_again,
        };
        let fleets = self.ledger.refused.iter().map(|((key, _), refusal)| {
            let by = refusal.by.iter().map(ToString::to_string).collect();
            shown(key, Scope::Fleet, by, &refusal.nack, refusal.since, Some(refusal.tried_again().0))
        });
        let lone = self.lone().map(|(name, attached, (key, _), nack)| {
            shown(key, Scope::Proxy, vec![name.to_owned()], nack, attached.claims_since.unwrap_or_default(), None)
        });
        fleets.chain(lone).collect()
    }

    /// Forgets what is refused of a resource, so that it is tried again at once. True when something else is to be
    /// published.
    pub fn forget_refusal(&mut self, key: &Key) -> bool {
        let is_lone = self.lone().any(|(_, _, (refused, _), _)| refused == key);
        self.rolling.again += u64::from(is_lone);
        self.ledger.forget(key)
    }
}
