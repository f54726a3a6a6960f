//! How many pages of lists are read at one time. Each is in memory about three times meanwhile: as it comes, as text,
//! as objects. Of eight objects of 1.5 MiB that is 36 MiB.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pages that may be read at one time. Two, since one that is optional may be waited for.
const MAX_CONCURRENT_PAGES: usize = 2;

/// Permits to list what tenants write, one page at a time.
#[derive(Clone, Debug)]
pub struct Lists(Arc<Semaphore>);

impl Default for Lists {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONCURRENT_PAGES)))
    }
}

impl Lists {
    /// A permit to read a page, until it is dropped. A holder must not wait for another: there may be none left.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}
