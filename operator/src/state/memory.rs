//! What outlives an operator process: the content accepted last of objects that are broken now, what proxies refused, and
//! who has a hostname where the age of routes does not say it.
//! On one machine in files of the state folder, in a cluster in a ConfigMap and, of certificates, in a Secret.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use planner::{FleetRef, Holds, Kind, Ledger, ObjectRef, Plan, holds::Kept};

use super::{
    certificates::Certificates,
    configmap, hostnames,
    mirror::Mirror,
    objects::{self, Remembered},
    rollbacks::{Rollback, Rollbacks},
};

/// State files are written at most this often.
const PAUSE: Duration = Duration::from_millis(50);

/// What is remembered of each object.
pub type Objects = Arc<BTreeMap<ObjectRef, Remembered>>;

/// What an earlier operator left.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// Of objects.
    pub objects: BTreeMap<ObjectRef, Remembered>,
    /// Of what proxies refused.
    pub ledgers: BTreeMap<FleetRef, Ledger>,
    /// Of hostnames.
    pub holds: Vec<Kept>,
}

impl Recalled {
    /// Adds what is not known yet, or in an older form. True when that changes anything. Generations of an object that was
    /// deleted and made anew begin anew: those of the former are not compared with them.
    pub fn merge_into(self, objects: &mut BTreeMap<ObjectRef, Remembered>) -> bool {
        let mut changed = false;
        for (id, recalled) in self.objects {
            match objects.get_mut(&id) {
                // What is gone from the source meanwhile is no more to be remembered.
                None => {}
                Some(known) if is_another(known, &recalled) => {}
                Some(known) if known.accepted_generation() >= recalled.accepted_generation() => {}
                Some(known) => {
                    (known.accepted, known.accepted_at) = (recalled.accepted, recalled.accepted_at);
                    changed = true;
                }
            }
        }
        changed
    }
}

/// Whether two contents are of two objects of one name, as far as that is known.
fn is_another(known: &Remembered, recalled: &Remembered) -> bool {
    let uid = |remembered: &Remembered| remembered.accepted.as_ref()?.metadata().uid.clone();
    uid(known).zip(uid(recalled)).is_some_and(|(known, recalled)| known != recalled)
}

/// Keeps it.
#[derive(Debug)]
pub enum Memory {
    /// In files.
    Folder(Folder),
    /// In a cluster, where other operators read it when they take over.
    Cluster(Box<Cluster>),
}

/// A ConfigMap, and a Secret for what a ConfigMap must not hold.
#[derive(Debug)]
pub struct Cluster {
    /// What is no secret.
    pub objects: configmap::Memory,
    /// Certificates.
    pub certificates: Certificates,
}

impl Cluster {
    /// Reads what the leader before left.
    pub fn recall(&self) -> BoxFuture<'static, Recalled> {
        let (objects, certificates) = (self.objects.recall(), self.certificates.recall());
        Box::pin(async {
            let (mut recalled, certificates) = tokio::join!(objects, certificates);
            recalled.objects.extend(certificates);
            recalled
        })
    }
}

/// Files of the state folder.
#[derive(Debug)]
pub struct Folder {
    objects: Mirror<Remembered>,
    rollbacks: Rollbacks,
    path: PathBuf,
    holds: hostnames::File,
}

impl Folder {
    /// Opens the state folder, and says what is in it.
    pub fn open(folder: &Path) -> (Self, Recalled) {
        let objects = objects::load(&folder.join("objects"));
        let path = folder.join("rollbacks.json");
        let (rollbacks, ledgers) = Rollbacks::load(&path);
        let (file, holds) = hostnames::File::load(folder.join("hostnames.json"));
        let mirror = Mirror::start(folder.join("objects"), Arc::new(objects.clone()), PAUSE);
        (Self { objects: mirror, rollbacks, path, holds: file }, Recalled { objects, ledgers, holds })
    }
}

impl Memory {
    /// What the leader before left, if there can have been one since this process began.
    pub fn recall(&self) -> Option<BoxFuture<'static, Recalled>> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(memory) => Some(memory.recall()),
        }
    }

    /// Keeps what is remembered of objects, as a plan has it.
    pub fn keep_objects(&mut self, objects: &Objects, plan: &Arc<Plan>) {
        match self {
            Self::Folder(folder) => folder.objects.set(Arc::clone(objects)),
            Self::Cluster(memory) => {
                memory.objects.keep_objects(objects, plan);
                let in_force = plan.fleets.values().flat_map(|fleet| fleet.sources.values());
                let in_force = in_force.filter(|id| id.kind == Kind::Secret).cloned().collect();
                memory.certificates.keep(objects, &plan.accepted, &in_force);
            }
        }
    }

    /// Keeps what was rolled back.
    pub fn keep_rollbacks(&mut self, rollbacks: &[Rollback]) {
        match self {
            Self::Folder(folder) => folder.rollbacks.save(&folder.path, rollbacks),
            Self::Cluster(memory) => memory.objects.keep_rollbacks(rollbacks),
        }
    }

    /// Keeps who has a hostname where nothing else says it.
    pub fn keep_holds(&mut self, holds: &Holds) {
        match self {
            Self::Folder(folder) => folder.holds.save(holds),
            Self::Cluster(memory) => memory.objects.keep_holds(holds),
        }
    }

    /// Waits until all is written.
    pub async fn finish(self) {
        match self {
            Self::Folder(folder) => folder.objects.finish().await,
            Self::Cluster(memory) => {
                tokio::join!(memory.objects.finish(), memory.certificates.finish());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snapshot::Hash;

    use super::*;

    /// The uid and generation of a content that was accepted.
    type Accepted = Option<(&'static str, i64)>;

    fn remembered(accepted: Accepted) -> (ObjectRef, Remembered) {
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
            Remembered {
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
    fn check(known: Option<Accepted>, recalled: Accepted, expect: Option<Option<i64>>) {
        let mut objects: BTreeMap<_, _> = known.map(remembered).into_iter().collect();
        let before = objects.clone();
        let recalled = Recalled { objects: BTreeMap::from([remembered(recalled)]), ..Recalled::default() };
        let changed = recalled.merge_into(&mut objects);
        let got = |objects: &BTreeMap<_, _>| objects.values().next().map(Remembered::accepted_generation);
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
