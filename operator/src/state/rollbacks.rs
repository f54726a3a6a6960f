//! The resources that a fleet refuses, and those that run in their place: a new operator must know them before the
//! first proxy attaches, or it would publish the refused content again and have nothing to fall back on. What single
//! proxies refuse is not kept: they say it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use planner::{FleetRef, Ledger, Millis, ProxyId, publish::Refusal};
use serde::{Deserialize, Serialize};
use snapshot::{Entry, Key, Snapshot, proto::Nack};

use super::{file, objects::parse_hash};
use crate::reason::is_own_trouble;

/// The refusals of one fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollback {
    fleet: FleetRef,
    refused: Vec<Refused>,
    /// Content that runs and is not what is desired, as hex digits by key.
    instead: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Refused {
    key: String,
    /// Hash of the refused content.
    hash: String,
    field: String,
    reason: String,
    message: String,
    /// The proxies that refuse it: content that none of the living ones refused is tried again.
    #[serde(default)]
    by: BTreeSet<ProxyId>,
    #[serde(default)]
    since: u64,
    #[serde(default)]
    tries: u32,
}

impl Rollback {
    /// The refusals to be kept of a fleet; `None`: nothing was refused.
    pub fn new(fleet: &FleetRef, ledger: &Ledger, desired: &Snapshot, published: &Snapshot) -> Option<Self> {
        let refused = ledger.refused.iter().map(|((key, hash), Refusal { nack, by, since, tries })| Refused {
            key: key.to_string(),
            hash: hash.to_string(),
            field: nack.field.clone(),
            reason: nack.reason.clone(),
            message: nack.message.clone(),
            by: by.clone(),
            since: since.0,
            tries: *tries,
        });
        let refused: Vec<Refused> = refused.collect();
        let instead = published.iter().filter(|(key, entry)| desired.entry(key) != Some(entry));
        let hex = |entry: &Entry| entry.bytes().iter().map(|b| format!("{b:02x}")).collect();
        let instead = instead.map(|(key, entry)| (key.to_string(), hex(entry))).collect();
        (!refused.is_empty()).then(|| Self { fleet: fleet.clone(), refused, instead })
    }

    /// A copy without the content that runs in place of refused certificates, which holds private keys.
    pub fn without_certificates(&self) -> Self {
        let is_certificate = |key: &str| key.parse::<Key>().is_ok_and(|key| key.kind() == snapshot::Kind::Certificate);
        let instead = self.instead.iter().filter(|(key, _)| !is_certificate(key));
        Self { instead: instead.map(|(key, hex)| (key.clone(), hex.clone())).collect(), ..self.clone() }
    }

    /// Its parts, one for each namespace that its resources are of: `Rollbacks::parse` puts them together again.
    pub(crate) fn by_namespace(&self) -> BTreeMap<String, Self> {
        let mut parts = BTreeMap::new();
        for refused in &self.refused {
            self.part(&mut parts, &refused.key).refused.push(refused.clone());
        }
        for (key, hex) in &self.instead {
            self.part(&mut parts, key).instead.insert(key.clone(), hex.clone());
        }
        parts
    }

    /// The part of a key's namespace.
    fn part<'p>(&self, parts: &'p mut BTreeMap<String, Self>, key: &str) -> &'p mut Self {
        let namespace = key.split('/').nth(1).unwrap_or_default().to_owned();
        let none = || Self { fleet: self.fleet.clone(), refused: vec![], instead: BTreeMap::new() };
        parts.entry(namespace).or_insert_with(none)
    }

    fn add_to(&self, ledger: &mut Ledger) {
        for refused in &self.refused {
            let (Ok(key), Some(hash)) = (refused.key.parse::<Key>(), parse_hash(&refused.hash)) else { continue };
            let nack = Nack {
                key: refused.key.clone(),
                hash: bytes::Bytes::copy_from_slice(hash.as_bytes()),
                field: refused.field.clone(),
                reason: refused.reason.clone(),
                message: refused.message.clone(),
            };
            if !is_own_trouble(&nack) {
                let Refused { by, since, tries, .. } = refused.clone();
                ledger.refused.insert((key, hash), Refusal { nack, by, since: Millis(since), tries });
            }
        }
        for (key, hex) in &self.instead {
            let entry = from_hex(hex).map(|bytes| Entry::encoded(bytes.into())).filter(|entry| entry.decode().is_ok());
            if let (Ok(key), Some(entry)) = (key.parse(), entry) {
                ledger.acked.insert(key, entry);
            }
        }
    }
}

/// Keeps `rollbacks.json` equal to what was rolled back.
#[derive(Debug, Default)]
pub struct Rollbacks {
    written: String,
}

impl Rollbacks {
    /// Reads the file into one ledger for each fleet.
    pub fn load(path: &Path) -> (Self, BTreeMap<FleetRef, Ledger>) {
        let written = std::fs::read_to_string(path).unwrap_or_default();
        let ledgers = Self::parse(&written);
        (Self { written }, ledgers)
    }

    /// Reads one ledger for each fleet out of what was written.
    pub(crate) fn parse(text: &str) -> BTreeMap<FleetRef, Ledger> {
        // What can't be read costs one more round of nacks.
        let rollbacks: Vec<Rollback> = serde_json::from_str(text).unwrap_or_default();
        let mut ledgers: BTreeMap<FleetRef, Ledger> = BTreeMap::new();
        for rollback in &rollbacks {
            rollback.add_to(ledgers.entry(rollback.fleet.clone()).or_default());
        }
        ledgers
    }

    /// Writes the file when it would differ.
    pub fn save(&mut self, path: &Path, rollbacks: &[Rollback]) {
        let text = serde_json::to_string(rollbacks).unwrap_or_default();
        if text == self.written || (rollbacks.is_empty() && self.written.is_empty()) {
            return;
        }
        match file::write(path, text.as_bytes()) {
            Ok(()) => self.written = text,
            Err(error) => tracing::error!(path = %path.display(), %error, "can't write what proxies refused"),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use snapshot::proto::{Cluster, Resource, resource};

    use super::*;

    #[test]
    fn rollbacks_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollbacks.json");
        let fleet = FleetRef { namespace: "a".into(), name: "b".into() };
        let cluster = |protocol| {
            let kind = resource::Kind::Cluster(Cluster { protocol, endpoints: vec![] });
            Entry::new(&Resource { requires: vec![], kind: Some(kind) })
        };
        let key: Key = "Cluster/a/b/80".parse().unwrap();
        let (good, bad) = (cluster(0), cluster(1));
        let nack = Nack {
            key: key.to_string(),
            hash: bytes::Bytes::copy_from_slice(bad.hash().as_bytes()),
            field: "x".into(),
            reason: "Y".into(),
            message: "z".into(),
        };
        let by = [ProxyId { name: "b-0".into(), pid: Some(7) }, ProxyId { name: "b-1".into(), pid: None }].into();
        let refusal = Refusal { nack, by, since: Millis(5), tries: 3 };
        let desired: Snapshot = [(key.clone(), bad.clone())].into_iter().collect();
        let ledger = Ledger {
            acked: BTreeMap::from([(key.clone(), good)]),
            refused: BTreeMap::from([((key, bad.hash()), refusal)]),
            ..Ledger::default()
        };
        let (published, rolled_back) = planner::publish(&desired, &ledger);
        assert_ne!(published, desired);
        let (mut rollbacks, none) = Rollbacks::load(&path);
        assert!(none.is_empty());
        rollbacks.save(&path, &[Rollback::new(&fleet, &ledger, &desired, &published).unwrap()]);
        let ledgers = Rollbacks::load(&path).1;
        assert_eq!(planner::publish(&desired, &ledgers[&fleet]), (published.clone(), rolled_back.clone()));
        // In parts it is the same.
        let whole = Rollback::new(&fleet, &ledger, &desired, &published).unwrap();
        let parts: Vec<_> = whole.by_namespace().into_values().collect();
        let ledgers = Rollbacks::parse(&serde_json::to_string(&parts).unwrap());
        assert_eq!(planner::publish(&desired, &ledgers[&fleet]), (published, rolled_back));
        assert_eq!(ledgers[&fleet].refused, ledger.refused);
        // What is one proxy's own trouble does not stand against the content, whoever wrote it.
        let text = std::fs::read_to_string(&path).unwrap().replace("\"Y\"", "\"PortUnavailable\"");
        std::fs::write(&path, text).unwrap();
        let (mut rollbacks, ledgers) = Rollbacks::load(&path);
        assert_eq!(planner::publish(&desired, &ledgers[&fleet]), (desired, BTreeMap::new()));
        rollbacks.save(&path, &[]);
        assert!(Rollbacks::load(&path).1.is_empty());
    }
}
