//! What a source has, until the loop takes it. A later world replaces an earlier one: however long the loop stands, one
//! waits.

use std::sync::{Arc, Mutex, PoisonError};

use super::Observed;

/// The latest world of a source: the source puts it here, and the loop takes it when an event says that there is one.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<Mutex<Option<Arc<Observed>>>>);

impl Latest {
    /// In place of what was not taken yet. Whether everything was taken, so that an event is to say that there is more.
    pub fn put(&self, world: Arc<Observed>) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(world).is_none()
    }

    /// What was put last, unless it was taken already.
    pub fn take(&self) -> Option<Arc<Observed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<Observed> for Latest {
    fn from(world: Observed) -> Self {
        Self(Arc::new(Mutex::new(Some(Arc::new(world)))))
    }
}
