//! What proxies refused, and what runs in its place: a new operator must know it before the first proxy attaches, or it
//! would publish the refused content again and have nothing to fall back on.

use std::{collections::BTreeMap, path::Path};

use planner::{FleetRef, Ledger};
use serde::{Deserialize, Serialize};
use snapshot::{Entry, Key, proto::Nack};

use super::{file, objects::parse_hash};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    fleet: FleetRef,
    key: String,
    /// Hash of the refused content.
    hash: String,
    field: String,
    reason: String,
    message: String,
    /// The content that runs instead, as hex digits; absent: none was ever acknowledged.
    instead: Option<String>,
}

/// Keeps `rollbacks.json` equal to what the ledgers hold.
#[derive(Debug, Default)]
pub struct Rollbacks {
    written: String,
}

impl Rollbacks {
    /// Reads the file into one ledger for each fleet.
    pub fn load(path: &Path) -> (Self, BTreeMap<FleetRef, Ledger>) {
        let written = std::fs::read_to_string(path).unwrap_or_default();
        let mut ledgers: BTreeMap<FleetRef, Ledger> = BTreeMap::new();
        // An unreadable file costs one more round of nacks.
        let records: Vec<Record> = serde_json::from_str(&written).unwrap_or_default();
        for record in records {
            let (Ok(key), Some(hash)) = (record.key.parse::<Key>(), parse_hash(&record.hash)) else { continue };
            let ledger = ledgers.entry(record.fleet).or_default();
            let instead = record.instead.and_then(|hex| Entry::decode(from_hex(&hex)?.into()).ok());
            if let Some(entry) = instead {
                ledger.acked.insert(key.clone(), entry);
            }
            let nack = Nack {
                key: record.key,
                hash: bytes::Bytes::copy_from_slice(hash.as_bytes()),
                field: record.field,
                reason: record.reason,
                message: record.message,
            };
            ledger.nacked.insert((key, hash), nack);
        }
        (Self { written }, ledgers)
    }

    /// Writes the file when it would differ.
    pub fn save<'a>(&mut self, path: &Path, ledgers: impl Iterator<Item = (&'a FleetRef, &'a Ledger)>) {
        let records: Vec<Record> = ledgers.flat_map(|(fleet, ledger)| records(fleet, ledger)).collect();
        let text = serde_json::to_string(&records).unwrap_or_default();
        if text == self.written || (records.is_empty() && self.written.is_empty()) {
            return;
        }
        match file::write(path, text.as_bytes()) {
            Ok(()) => self.written = text,
            Err(error) => tracing::error!(path = %path.display(), %error, "can't write what proxies refused"),
        }
    }
}

fn records<'a>(fleet: &'a FleetRef, ledger: &'a Ledger) -> impl Iterator<Item = Record> + 'a {
    ledger.nacked.iter().map(|((key, hash), nack)| Record {
        fleet: fleet.clone(),
        key: key.to_string(),
        hash: hash.to_string(),
        field: nack.field.clone(),
        reason: nack.reason.clone(),
        message: nack.message.clone(),
        instead: ledger.acked.get(key).map(|entry| entry.bytes().iter().map(|b| format!("{b:02x}")).collect()),
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use snapshot::{
        Hash,
        proto::{Cluster, Resource, resource},
    };

    use super::*;

    #[test]
    fn rollbacks_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollbacks.json");
        let fleet = FleetRef { namespace: "a".into(), name: "b".into() };
        let entry = Entry::new(Resource { requires: vec![], kind: Some(resource::Kind::Cluster(Cluster::default())) });
        let key: Key = "Cluster/a/b/80".parse().unwrap();
        let hash = Hash::of(b"bad");
        let nack = Nack {
            key: key.to_string(),
            hash: bytes::Bytes::copy_from_slice(hash.as_bytes()),
            field: "x".into(),
            reason: "Y".into(),
            message: "z".into(),
        };
        let ledger = Ledger {
            acked: BTreeMap::from([(key.clone(), entry)]),
            nacked: BTreeMap::from([((key, hash), nack)]),
            ..Ledger::default()
        };
        let (mut rollbacks, none) = Rollbacks::load(&path);
        assert!(none.is_empty());
        rollbacks.save(&path, [(&fleet, &ledger)].into_iter());
        let (_, ledgers) = Rollbacks::load(&path);
        assert_eq!(ledgers[&fleet].acked, ledger.acked);
        assert_eq!(ledgers[&fleet].nacked, ledger.nacked);
    }
}
