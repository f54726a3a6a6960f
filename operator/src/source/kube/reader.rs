//! Reads objects one by one: Secrets that are referred to, and what there is room for again.

use std::{sync::Arc, time::Duration};

use kube::{Api, Client};
use planner::ObjectRef;
use tokio::{
    sync::{AcquireError, Semaphore},
    time::sleep,
};

use super::{
    raw::Raw,
    resource,
    watch::{Change, Changes, Content, kept},
    watch_error::{Cause, Failure},
};
use crate::kube::{
    api::{RequestError, request},
    backoff::{Backoff, Bounds},
};

/// The name of reads in messages and metrics, beside the watches.
pub(super) const READS: &str = "reads";
/// Reads at one time.
const MAX_CONCURRENT_READS: usize = 8;
/// The API server answers a read within this time, or it is tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts.
const RETRY_PAUSES: Bounds = Bounds::new(Duration::from_secs(1), Duration::from_secs(30));

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The API server was silent until the deadline.
    #[error("the API server does not answer")]
    NoAnswer,
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// The operator ends.
    #[error(transparent)]
    Ends(#[from] AcquireError),
    /// The kind has no version.
    #[error("no version of it is known")]
    NoVersion,
}

/// Reads objects one by one.
#[derive(Clone)]
pub(super) struct Reader {
    client: Client,
    changes: Changes,
    permits: Arc<Semaphore>,
}

impl Reader {
    pub(super) fn new(client: Client, changes: Changes) -> Self {
        Self { client, changes, permits: Arc::new(Semaphore::new(MAX_CONCURRENT_READS)) }
    }

    /// Begins to read one.
    pub(super) fn read(&self, id: ObjectRef) {
        let reader = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reader.until_read(id) => {}
                () = reader.changes.closed() => {}
            }
        });
    }

    /// Tells what one holds, and until then why it can't be read.
    async fn until_read(&self, id: ObjectRef) {
        let mut pauses = Backoff::new(RETRY_PAUSES);
        let mut failed = false;
        loop {
            let failure = match self.attempt(&id).await {
                Ok(value) => {
                    if failed {
                        self.tell(Change::Well(READS)).await;
                    }
                    return self.tell(Change::Read(id, value)).await;
                }
                Err(why) => format!("{id} can't be read: {why}"),
            };
            failed = true;
            // Not of the watch of its kind, which may well work.
            let of_reads = Failure { cause: Cause::Other, message: failure.clone() };
            self.tell(Change::Failing(READS, of_reads)).await;
            self.tell(Change::Unread(id.clone(), failure)).await;
            sleep(pauses.pause()).await;
        }
    }

    async fn attempt(&self, id: &ObjectRef) -> Result<Option<Content>, ReadError> {
        let _permit = self.permits.acquire().await?;
        let watched = resource::of(id.kind);
        let mut error = ReadError::NoVersion;
        // Of ReferenceGrants it is not known here which version is served.
        for version in &watched.versions {
            let api = match id.kind.is_namespaced() {
                true => Api::<Raw>::namespaced_with(self.client.clone(), &id.namespace, &watched.api(version)),
                false => Api::<Raw>::all_with(self.client.clone(), &watched.api(version)),
            };
            // Not `get`: this is what `list` and `watch` permit.
            match request(READ_TIMEOUT, api.list(&watched.only(&id.name))).await {
                Ok(found) => {
                    let found = found.items.into_iter().next();
                    return Ok(found.and_then(|raw| kept(id.kind, &watched.api_version(version), raw.value())));
                }
                Err(RequestError::NoAnswer(_)) => return Err(ReadError::NoAnswer),
                Err(why) => error = why.into(),
            }
        }
        Err(error)
    }

    /// When nobody listens, there is nobody to tell.
    async fn tell(&self, change: Change) {
        let _ = self.changes.send(change).await;
    }
}

#[cfg(test)]
mod tests {
    use planner::Kind;
    use tokio::sync::{mpsc, watch as channel};

    use super::{super::lists::Lists, *};
    use crate::kube::testing::{Answer, api_server};

    /// Its watch may well work.
    #[tokio::test]
    async fn one_that_cannot_be_read_is_no_watch_that_fails() {
        let (client, _asked) = api_server(|_| Answer::Sent(500, String::new()));
        let (sender, mut told) = mpsc::channel(10);
        let changes = Changes::new(sender, Lists::default(), channel::channel(()).1);
        let reader = Reader::new(client, changes);
        reader.read(ObjectRef { kind: Kind::Service, namespace: "shop".into(), name: "s".into() });
        let change = told.recv().await;
        assert!(matches!(change, Some(Change::Failing(READS, _))), "{change:?}");
    }
}
