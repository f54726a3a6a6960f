//! The snapshot that this proxy holds. A push is applied resource by resource: one that can't run is nacked and keeps
//! its former version, everything else takes effect.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use snapshot::{
    Delta, Entry, Hash, Key, Kind, Snapshot,
    check::{Unfit, reason},
    proto::{self, Nack, resource},
    set::revision,
    wire::{MAX_SNAPSHOT, Push},
};

use super::{Compiler, fault::Fault, policies::Policies};
use crate::{Shared, shared::Status};

/// Refused resources by key: the hash of the refused content, and why.
type Nacks = BTreeMap<Key, (Hash, Unfit)>;

/// The snapshot that is held, and the nacks of the last push.
pub struct SnapshotStore {
    compiler: Compiler,
    held: Snapshot,
    /// The name of `held`.
    running: Hash,
    /// The revision as the operator knows it: with the refused contents in place of those that run.
    pushed: Hash,
    /// What runs instead, if anything, is in `held`.
    nacks: Nacks,
    /// The highest seen.
    epoch: u64,
    /// Everything that was held had its ports open, at least once.
    ready: bool,
    fault: Fault,
}

/// Why a push is not applied at all; the stream is then dialled anew with a fresh `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// From an operator that has been replaced.
    #[error("the push is of epoch {pushed}, but epoch {seen} was seen already")]
    OldEpoch {
        /// Value in the push.
        pushed: u64,
        /// The highest seen.
        seen: u64,
    },
    /// A delta against something else.
    #[error("the push is against {base:?}, but {held:?} is held")]
    WrongBase {
        /// Value in the push.
        base: Hash,
        /// Revision that is held.
        held: Hash,
    },
    /// The push's delta leads to something else.
    #[error("the push names revision {named:?}, but its content is {found:?}")]
    WrongRevision {
        /// Value in the push.
        named: Hash,
        /// Revision that its delta leads to.
        found: Hash,
    },
    /// Over [`MAX_SNAPSHOT`].
    #[error("the snapshot would grow over {MAX_SNAPSHOT} bytes")]
    TooLarge,
}

/// A push that was checked, before its ports are open.
pub struct Staged {
    epoch: u64,
    pushed: Hash,
    held: Snapshot,
    nacks: Nacks,
    policies: Policies,
    /// The ports that must be open for it.
    pub ports: BTreeSet<u16>,
}

impl SnapshotStore {
    /// Holding nothing.
    pub fn new(shared: Arc<Shared>) -> Self {
        let fault = Fault::from_environment();
        let compiler = Compiler::new(shared);
        let held = Snapshot::default();
        let nothing = held.revision();
        Self {
            compiler,
            held,
            running: nothing,
            pushed: nothing,
            nacks: BTreeMap::new(),
            epoch: 0,
            ready: false,
            fault,
        }
    }

    /// Checks a push and compiles what changed. Nothing of it runs yet.
    pub fn stage(&mut self, push: Push) -> Result<Staged, Refused> {
        if push.epoch < self.epoch {
            return Err(Refused::OldEpoch { pushed: push.epoch, seen: self.epoch });
        }
        let mut nacks = self.standing_nacks(push.base)?;
        let Delta { puts, mut deletes } = push.delta;
        if push.base.is_none() {
            deletes = self.held.iter().map(|(key, _)| key).filter(|key| !puts.contains_key(*key)).cloned().collect();
        }
        let mut held = self.held.clone();
        for key in &deletes {
            held.remove(key);
            nacks.remove(key);
        }
        let policies = self.put(&mut held, &mut nacks, puts);
        let found = pushed(&held, &nacks);
        if found != push.revision {
            return Err(Refused::WrongRevision { named: push.revision, found });
        }
        if held.size() > MAX_SNAPSHOT {
            return Err(Refused::TooLarge);
        }
        let ports = ports(&held);
        Ok(Staged { epoch: push.epoch, pushed: found, held, nacks, policies, ports })
    }

    /// Puts a staged push in place, less the listeners whose ports did not open.
    pub fn finish(&mut self, staged: Staged, failed: &BTreeMap<u16, io::Error>) -> Status {
        let Staged { epoch, pushed, mut held, mut nacks, policies, .. } = staged;
        let unopened: Vec<_> = held
            .of_kind(Kind::Listener)
            .filter_map(|(key, entry)| {
                let port = port(entry)?;
                let message = format!("port {port} does not open: {}", failed.get(&port)?);
                Some((key.clone(), entry.hash(), Unfit::new("port", reason::of_proxies::PORT_UNAVAILABLE, message)))
            })
            .collect();
        for (key, hash, unfit) in unopened {
            let former = self.held.entry(&key).filter(|e| port(e).is_some_and(|p| !failed.contains_key(&p)));
            restore(&mut held, &key, former);
            nacks.insert(key, (hash, unfit));
        }
        let running = if nacks.is_empty() { pushed } else { held.revision() };
        let built = self.compiler.build(&held, running, &policies, epoch);
        self.compiler.swap(built);
        (self.held, self.running, self.pushed, self.nacks, self.epoch) = (held, running, pushed, nacks, epoch);
        let nacks = self.nacks.iter().map(|(key, (hash, unfit))| nack(key, hash, unfit));
        // A new proxy that can't open a port would turn clients away; one that serves goes on with what it has.
        self.ready |= failed.is_empty();
        Status { ready: self.ready, epoch, pushed, running, nacks: nacks.collect() }
    }

    /// The snapshot that is held, for `Hello` and for the last-good file.
    pub fn held(&self) -> &Snapshot {
        &self.held
    }

    /// The highest epoch seen.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The ports of what is held.
    pub fn ports(&self) -> BTreeSet<u16> {
        ports(&self.held)
    }

    /// The nacks that stand before a push's delta: none when it starts from what runs, for then it says what becomes of
    /// every refused resource.
    fn standing_nacks(&self, base: Option<Hash>) -> Result<Nacks, Refused> {
        match base {
            None => Ok(BTreeMap::new()),
            Some(base) if base == self.running => Ok(BTreeMap::new()),
            Some(base) if base == self.pushed => Ok(self.nacks.clone()),
            Some(base) => Err(Refused::WrongBase { base, held: self.running }),
        }
    }

    /// Checks each resource by itself, then listeners against those that share their port.
    fn put(&mut self, held: &mut Snapshot, nacks: &mut Nacks, puts: BTreeMap<Key, Entry>) -> Policies {
        // Policies first: routes are compiled with those that apply to them.
        let is_policy = |key: &Key| matches!(key.kind(), Kind::RatePolicy | Kind::AccessPolicy);
        let (policies, others): (Vec<_>, Vec<_>) = puts.into_iter().partition(|(key, _)| is_policy(key));
        let mut listeners = vec![];
        for (key, entry) in policies {
            let fit = self.check(&key, &entry, &Policies::default());
            // One that says who may do what never leaves open what it guards.
            let is_kept = || held.entry(&key).is_some_and(|former| snapshot::guards_as(former, &entry));
            if fit.is_err() && key.kind() == Kind::AccessPolicy && !is_kept() {
                let why = "refused by this proxy, and no earlier content guards the same";
                let closed = snapshot::closed(&entry, why.into()).unwrap_or_else(|| snapshot::closed_fleet(why.into()));
                held.insert(key.clone(), closed);
            }
            settle(held, nacks, key, entry, fit);
        }
        let policies = Policies::new(held);
        for (key, entry) in others {
            let fit = self.check(&key, &entry, &policies);
            if key.kind() == Kind::Listener && fit.is_ok() {
                listeners.push(key.clone());
            }
            settle(held, nacks, key, entry, fit);
        }
        for key in listeners {
            if let Some((hash, unfit)) = conflict(held, &key) {
                restore(held, &key, self.held.entry(&key));
                nacks.insert(key, (hash, unfit));
            }
        }
        policies
    }

    fn check(&mut self, key: &Key, entry: &Entry, policies: &Policies) -> Result<(), Unfit> {
        self.fault.check(key, entry)?;
        self.compiler.prepare(key, entry, policies)
    }
}

fn settle(held: &mut Snapshot, nacks: &mut Nacks, key: Key, entry: Entry, fit: Result<(), Unfit>) {
    match fit {
        Ok(()) => {
            nacks.remove(&key);
            held.insert(key, entry);
        }
        Err(unfit) => {
            nacks.insert(key, (entry.hash(), unfit));
        }
    }
}

/// Puts a resource's former version back; `None`: there was none that can serve.
fn restore(held: &mut Snapshot, key: &Key, former: Option<&Entry>) {
    match former {
        Some(former) => held.insert(key.clone(), former.clone()),
        None => {
            held.remove(key);
        }
    }
}

/// A port that is opened is served with TLS or without, and is one port to clients.
fn conflict(held: &Snapshot, key: &Key) -> Option<(Hash, Unfit)> {
    let entry = held.entry(key)?;
    let ours = listener(entry)?;
    let theirs = held.of_kind(Kind::Listener).find(|(other, entry)| {
        let differs = |l: &proto::Listener| (l.tls, l.port) != (ours.tls, ours.port);
        *other != key && listener(entry).is_some_and(|l| l.opened_port() == ours.opened_port() && differs(&l))
    });
    let (other, _) = theirs?;
    let message =
        format!("port {} is served with and without TLS, or as two ports; {other} differs", ours.opened_port());
    Some((entry.hash(), Unfit::new("protocol", reason::of_proxies::PROTOCOL_CONFLICT, message)))
}

fn ports(held: &Snapshot) -> BTreeSet<u16> {
    held.of_kind(Kind::Listener).filter_map(|(_, entry)| port(entry)).collect()
}

fn port(entry: &Entry) -> Option<u16> {
    listener(entry).and_then(|l| u16::try_from(l.opened_port()).ok())
}

fn listener(entry: &Entry) -> Option<proto::Listener> {
    match entry.kind() {
        Some(resource::Kind::Listener(listener)) => Some(listener),
        _ => None,
    }
}

/// The revision as the operator knows it.
fn pushed(held: &Snapshot, nacks: &Nacks) -> Hash {
    if nacks.is_empty() {
        return held.revision();
    }
    let mut content = held.held();
    content.extend(nacks.iter().map(|(key, (hash, _))| (key.clone(), *hash)));
    revision(content.iter().map(|(key, hash)| (key, *hash)))
}

fn nack(key: &Key, hash: &Hash, unfit: &Unfit) -> Nack {
    Nack {
        key: key.to_string(),
        hash: Bytes::copy_from_slice(hash.as_bytes()),
        field: unfit.field.clone(),
        reason: unfit.reason.to_owned(),
        message: unfit.message.clone(),
    }
}

#[cfg(test)]
mod tests;
