//! Snapshots on their way to proxies: published, and offered to all or to some.

use std::{collections::BTreeSet, sync::Arc};

use snapshot::{Hash, Kind, Snapshot, proto::OperatorMessage};
use tokio::sync::mpsc;

/// The snapshot that the proxies of a fleet are to run.
#[derive(Debug, Default)]
pub struct Published {
    /// Its name: the hash of its content.
    pub revision: Hash,
    /// The content.
    pub snapshot: Snapshot,
}

impl From<Snapshot> for Published {
    fn from(snapshot: Snapshot) -> Self {
        Self { revision: snapshot.revision(), snapshot }
    }
}

impl Published {
    /// The part of it that a proxy can take which does not know these kinds. What a policy among them guards stands closed.
    pub(super) fn known(self: &Arc<Self>, unknown: &[Kind]) -> Arc<Self> {
        let left_out: Vec<_> = unknown.iter().flat_map(|kind| self.snapshot.of_kind(*kind)).collect();
        if left_out.is_empty() {
            return Arc::clone(self);
        }
        let mut snapshot = self.snapshot.clone();
        for (key, entry) in left_out {
            snapshot.remove(key);
            if let Some((key, closed)) = snapshot::stand_in(key, entry) {
                snapshot.insert(key, closed);
            }
        }
        Arc::new(snapshot.into())
    }
}

/// The offer to the proxies of a fleet: most get what was rolled out, some get what is tried.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    /// The snapshot that was rolled out; `None`: proxies keep what they have.
    pub all: Option<Arc<Published>>,
    /// The snapshot that is tried, and the names of the proxies that get it.
    pub canaries: Option<(Arc<Published>, BTreeSet<String>)>,
    /// Counts up when proxies are to be asked again for what they refuse.
    pub again: u64,
}

impl Offered {
    /// An offer of one snapshot to all.
    pub fn to_all(published: Arc<Published>) -> Self {
        Self { all: Some(published), ..Self::default() }
    }

    /// The snapshot that one proxy gets.
    pub(super) fn to(&self, proxy: &str) -> Option<&Arc<Published>> {
        let canary = self.canaries.as_ref().filter(|(_, names)| names.contains(proxy));
        canary.map(|(published, _)| published).or(self.all.as_ref())
    }
}

impl PartialEq for Offered {
    fn eq(&self, other: &Self) -> bool {
        let names = |offered: &Self| {
            let revision = |published: &Arc<Published>| published.revision;
            let canaries = offered.canaries.as_ref().map(|(published, _)| revision(published));
            (offered.all.as_ref().map(revision), canaries, offered.again)
        };
        names(self) == names(other)
            && self.canaries.as_ref().map(|(_, names)| names) == other.canaries.as_ref().map(|(_, names)| names)
    }
}

/// Takes messages to one proxy, besides pushes.
pub type Outbox = mpsc::Sender<OperatorMessage>;
