//! The state that an operator leaves for the one that follows, as values.

use std::{collections::BTreeMap, sync::Arc};

use planner::{FleetRef, Ledger, ObjectRef, holds::Kept};

use super::objects::ObjectRecord;

/// The records of all objects.
pub type ObjectRecords = Arc<BTreeMap<ObjectRef, ObjectRecord>>;

/// The state that an earlier operator left.
#[derive(Clone, Debug, Default)]
pub struct PersistedState {
    /// The records of objects.
    pub objects: BTreeMap<ObjectRef, ObjectRecord>,
    /// The refusals of each fleet's proxies.
    pub ledgers: BTreeMap<FleetRef, Ledger>,
    /// The holders of hostnames.
    pub holds: Vec<Kept>,
}

impl PersistedState {
    /// Adds what is not known yet, or in an older form. True when that changes anything. Generations of an object that was
    /// deleted and made anew begin anew: those of the former are not compared with them.
    pub fn merge_into(self, objects: &mut BTreeMap<ObjectRef, ObjectRecord>) -> bool {
        let mut changed = false;
        for (id, persisted) in self.objects {
            match objects.get_mut(&id) {
                // What is gone from the source meanwhile is no more to be remembered.
                None => {}
                Some(known) if is_another(known, &persisted) => {}
                Some(known) if known.accepted_generation() >= persisted.accepted_generation() => {}
                Some(known) => {
                    (known.accepted, known.accepted_at) = (persisted.accepted, persisted.accepted_at);
                    changed = true;
                }
            }
        }
        changed
    }
}

/// Whether two contents are of two objects of one name, as far as that is known.
fn is_another(known: &ObjectRecord, persisted: &ObjectRecord) -> bool {
    let uid = |record: &ObjectRecord| record.accepted.as_ref()?.metadata().uid.clone();
    uid(known).zip(uid(persisted)).is_some_and(|(known, persisted)| known != persisted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snapshot::Hash;

    use super::*;

    /// The uid and generation of a content that was accepted.
    type Accepted = Option<(&'static str, i64)>;

    fn record(accepted: Accepted) -> (ObjectRef, ObjectRecord) {
        let id = ObjectRef { kind: planner::Kind::Service, namespace: "ns".into(), name: "a".into() };
        let accepted = accepted.map(|(uid, generation)| {
            let metadata = json!({"name": "a", "namespace": "ns", "uid": uid, "generation": generation});
            let value =
                json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}});
            Arc::new(crds::admit(value).unwrap())
        });
        let content = Hash::of(b"x");
        (
            id,
            ObjectRecord {
                generation: 9,
                content,
                created: jiff::Timestamp::UNIX_EPOCH,
                accepted,
                accepted_at: None,
                gone: None,
            },
        )
    }

    #[track_caller]
    fn check(known: Option<Accepted>, persisted: Accepted, expect: Option<Option<i64>>) {
        let mut objects: BTreeMap<_, _> = known.map(record).into_iter().collect();
        let before = objects.clone();
        let persisted = PersistedState { objects: BTreeMap::from([record(persisted)]), ..PersistedState::default() };
        let changed = persisted.merge_into(&mut objects);
        let got = |objects: &BTreeMap<_, _>| objects.values().next().map(ObjectRecord::accepted_generation);
        assert_eq!((got(&objects), changed), (expect, expect != got(&before)));
    }

    #[test]
    fn the_newer_content_counts() {
        check(Some(None), Some(("u", 3)), Some(Some(3)));
        check(Some(Some(("u", 2))), Some(("u", 3)), Some(Some(3)));
        check(Some(Some(("u", 4))), Some(("u", 3)), Some(Some(4)));
        check(Some(Some(("u", 3))), None, Some(Some(3)));
        // Deleted and made anew meanwhile.
        check(Some(Some(("u2", 1))), Some(("u", 5)), Some(Some(1)));
        // Deleted meanwhile.
        check(None, Some(("u", 3)), None);
    }
}
