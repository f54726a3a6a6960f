//! What a source has, until the loop takes it. A later world replaces an earlier one: however long the loop stands, one
//! waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Observed;

/// The latest world of a source: the source puts it here, and the loop takes it when an event says that there is one.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    world: Option<Arc<Observed>>,
    is_behind: bool,
}

impl Latest {
    /// In place of what was not taken yet. Whether everything was taken, so that an event is to say that there is more.
    pub fn put(&self, world: Arc<Observed>) -> bool {
        self.slot().world.replace(world).is_none()
    }

    /// What was put last, unless it was taken already.
    pub fn take(&self) -> Option<Arc<Observed>> {
        self.slot().world.take()
    }

    /// Says whether the source holds objects as they were before, until what changed besides is planned: another world
    /// follows then, without which a plan is of the past.
    pub fn set_behind(&self, is_behind: bool) {
        self.slot().is_behind = is_behind;
    }

    /// Whether what was taken last is all that there is.
    pub fn is_complete(&self) -> bool {
        let slot = self.slot();
        slot.world.is_none() && !slot.is_behind
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Observed> for Latest {
    fn from(world: Observed) -> Self {
        Self(Arc::new(Mutex::new(Slot { world: Some(Arc::new(world)), is_behind: false })))
    }
}
