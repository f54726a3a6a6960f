//! A limit on how many there are of each name, such as connections of one peer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of permits of each name.
#[derive(Clone, Debug, Default)]
pub struct KeyedLimiter(Arc<Mutex<HashMap<String, usize>>>);

/// A permit, which its drop gives back.
#[derive(Debug)]
pub struct KeyedPermit {
    limiter: KeyedLimiter,
    name: String,
}

impl KeyedLimiter {
    /// Takes a permit, unless the name has `most` already.
    pub fn try_acquire(&self, name: String, most: usize) -> Option<KeyedPermit> {
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
