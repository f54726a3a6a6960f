//! How many there are of each name, up to a most.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How many there are of each name.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyedLimiter(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
pub(super) struct KeyedPermit {
    limiter: KeyedLimiter,
    name: String,
}

impl KeyedLimiter {
    /// One more, unless there are so many.
    pub(super) fn try_acquire(&self, name: String, most: usize) -> Option<KeyedPermit> {
        let mut limiter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = limiter.entry(name.clone()).or_default();
        (*count < most).then(|| {
            *count += 1;
            KeyedPermit { limiter: self.clone(), name }
        })
    }
}

impl Drop for KeyedPermit {
    fn drop(&mut self) {
        let mut limiter = self.limiter.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = limiter.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                limiter.remove(&self.name);
            }
        }
    }
}
