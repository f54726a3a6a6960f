//! Applies pushes: check and compile off the request path, open ports, swap, serve them, keep the last-good file.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use snapshot::{Hash, Snapshot, wire::Push};
use tokio::{sync::watch, task};

use super::{Refused, SnapshotStore, last_good};
use crate::{Shared, shared::Status};

/// Opens and closes the ports that a configuration serves.
pub trait Ports: Send + Sync + 'static {
    /// Opens what is missing, without accepting yet; what is open stays untouched. Says which ports did not open, and
    /// why.
    fn open(&self, ports: &BTreeSet<u16>) -> impl Future<Output = BTreeMap<u16, io::Error>> + Send;

    /// Accepts from these ports, whose configuration is in place, and closes every other.
    fn serve(&self, ports: &BTreeSet<u16>);
}

/// Applies one push after the other.
pub struct Applier<P> {
    shared: Arc<Shared>,
    ports: Arc<P>,
    store: Arc<Mutex<SnapshotStore>>,
    /// Folder of the last-good file.
    state: Option<PathBuf>,
    /// Content that the last-good file should have; its writer follows.
    last_good: Option<watch::Sender<(u64, Snapshot)>>,
}

/// Why a push did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The push does not fit what is held.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Compiling panicked: a fault of this program. What ran before still runs.
    #[error("compiling the push failed: {0}")]
    Fault(#[from] task::JoinError),
}

impl<P: Ports> Applier<P> {
    /// Keeps the last-good file in `state`. To be called within a runtime.
    pub fn start(shared: Arc<Shared>, ports: Arc<P>, state: Option<PathBuf>) -> Self {
        let store = Arc::new(Mutex::new(SnapshotStore::new(Arc::clone(&shared))));
        let last_good = state.clone().map(keep_last_good);
        Self { shared, ports, store, state, last_good }
    }

    /// Applies a push; afterwards everything of it runs, but for what the status lists as nacked.
    pub async fn apply(&self, push: Push) -> Result<Status, ApplyError> {
        let staged = self.with_store(move |store| store.stage(push)).await??;
        // Who leaves closes its ports in its own order.
        let leaves = self.shared.is_draining();
        let failed = if leaves { BTreeMap::new() } else { self.ports.open(&staged.ports).await };
        let finish = move |store: &mut SnapshotStore| (store.finish(staged, &failed), store.ports());
        let (status, ports) = self.with_store(finish).await?;
        if !leaves {
            self.ports.serve(&ports);
        }
        self.shared.status.send_replace(status.clone());
        if let Some(last_good) = &self.last_good {
            last_good.send_replace(self.held());
        }
        Ok(status)
    }

    /// The highest epoch seen, and the snapshot that runs.
    pub fn held(&self) -> (u64, Snapshot) {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        (store.epoch(), store.held().clone())
    }

    /// Serves what the last-good file holds, if nothing is held yet: for a proxy that restarts while the operator is
    /// away. One that finds its operator takes what is current from it instead.
    pub async fn restore(&self) {
        let Some(folder) = self.state.clone().filter(|_| self.held().1.is_empty()) else { return };
        let loaded = task::spawn_blocking(move || last_good::load(&folder)).await;
        match loaded {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(push))) => {
                let revision: Hash = push.revision;
                match self.apply(push).await {
                    Ok(status) => tracing::info!(?revision, nacks = status.nacks.len(), "serving the last-good file"),
                    Err(e) => tracing::warn!("the last-good file is of no use: {e}"),
                }
            }
            Ok(Err(e)) => tracing::warn!("the last-good file is of no use: {e}"),
            Err(e) => tracing::error!("reading the last-good file failed: {e}"),
        }
    }

    async fn with_store<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SnapshotStore) -> R + Send + 'static,
    ) -> Result<R, task::JoinError> {
        let store = Arc::clone(&self.store);
        task::spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// The file is written for one part in so many of the time at most: it is written as a whole, which may be 64 MiB, and
/// a neighbour's changes may come several times a second.
const ONE_IN: u32 = 10;

/// Writes the file whenever what it should hold changes; of several changes in a row, the last.
fn keep_last_good(folder: PathBuf) -> watch::Sender<(u64, Snapshot)> {
    let (sender, mut receiver) = watch::channel((0, Snapshot::default()));
    tokio::spawn(async move {
        while receiver.changed().await.is_ok() {
            let (epoch, held) = receiver.borrow_and_update().clone();
            let (folder, began) = (folder.clone(), Instant::now());
            let saved = task::spawn_blocking(move || last_good::save(&folder, epoch, &held)).await;
            if let Ok(Err(e)) = saved {
                tracing::warn!("the last-good file can't be written: {e}; a restart without operator would not serve");
            }
            tokio::time::sleep(began.elapsed() * (ONE_IN - 1)).await;
        }
    });
    sender
}
