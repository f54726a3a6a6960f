//! The store of state that outlives an operator process: the content accepted last of objects that are broken now, the
//! refusals of proxies, and the holders of hostnames where the age of routes does not tell them. On one machine in
//! files of the state folder, in a cluster in a ConfigMap and, of certificates and credentials, in a Secret.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use planner::{Holds, Kind, Plan};

use super::{
    certificates::Certificates,
    configmap, hostnames,
    mirror::Mirror,
    objects::{self, ObjectRecord},
    persisted::{ObjectRecords, PersistedState},
    rollbacks::{Rollback, Rollbacks},
};

/// State files are written at most this often.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A store of state: files, or objects of a cluster.
#[derive(Debug)]
pub enum StateStore {
    /// In files.
    Folder(FolderStore),
    /// In a cluster, where other operators read it when they take over.
    Cluster(Box<ClusterStore>),
}

/// A ConfigMap, and a Secret for what a ConfigMap must not hold.
#[derive(Debug)]
pub struct ClusterStore {
    /// The content that is no secret.
    pub objects: configmap::ConfigMapStore,
    /// Certificates, and digests of credentials.
    pub certificates: Certificates,
}

impl ClusterStore {
    /// Reads the state that the leader before left.
    pub fn load(&self) -> BoxFuture<'static, PersistedState> {
        let (objects, certificates) = (self.objects.load(), self.certificates.load());
        Box::pin(async {
            let (mut persisted, certificates) = tokio::join!(objects, certificates);
            persisted.objects.extend(certificates);
            persisted
        })
    }
}

/// Files of the state folder.
#[derive(Debug)]
pub struct FolderStore {
    objects: Mirror<ObjectRecord>,
    rollbacks: Rollbacks,
    path: PathBuf,
    holds: hostnames::File,
}

impl FolderStore {
    /// Opens the state folder, and says what is in it.
    pub fn open(folder: &Path) -> (Self, PersistedState) {
        let objects = objects::load(&folder.join("objects"));
        let path = folder.join("rollbacks.json");
        let (rollbacks, ledgers) = Rollbacks::load(&path);
        let (file, holds) = hostnames::File::load(folder.join("hostnames.json"));
        let mirror = Mirror::start(folder.join("objects"), Arc::new(objects.clone()), DEBOUNCE);
        (Self { objects: mirror, rollbacks, path, holds: file }, PersistedState { objects, ledgers, holds })
    }
}

impl StateStore {
    /// Reads the state that the leader before left; `None`: there can have been none since this process began.
    pub fn load(&self) -> Option<BoxFuture<'static, PersistedState>> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(store) => Some(store.load()),
        }
    }

    /// Keeps what is remembered of objects, as a plan has it.
    pub fn keep_objects(&mut self, objects: &ObjectRecords, plan: &Arc<Plan>) {
        match self {
            Self::Folder(folder) => folder.objects.set(Arc::clone(objects)),
            Self::Cluster(store) => {
                store.objects.keep_objects(objects, plan);
                let in_force = plan.fleets.values().flat_map(|fleet| fleet.sources.values());
                let in_force = in_force.filter(|id| id.kind == Kind::Secret).chain(plan.consumers.values().flatten());
                let in_force = in_force.cloned().collect();
                store.certificates.keep(objects, &plan.accepted, &in_force);
            }
        }
    }

    /// Keeps what was rolled back.
    pub fn keep_rollbacks(&mut self, rollbacks: &[Rollback]) {
        match self {
            Self::Folder(folder) => folder.rollbacks.save(&folder.path, rollbacks),
            Self::Cluster(store) => store.objects.keep_rollbacks(rollbacks),
        }
    }

    /// Keeps who has a hostname where nothing else says it.
    pub fn keep_holds(&mut self, holds: &Holds) {
        match self {
            Self::Folder(folder) => folder.holds.save(holds),
            Self::Cluster(store) => store.objects.keep_holds(holds),
        }
    }

    /// Waits until all is written.
    pub async fn finish(self) {
        match self {
            Self::Folder(folder) => folder.objects.finish().await,
            Self::Cluster(store) => {
                tokio::join!(store.objects.finish(), store.certificates.finish());
            }
        }
    }
}
