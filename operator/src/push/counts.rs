//! How many there are of each name, up to a most.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How many there are of each name.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
pub(super) struct Count {
    counts: Counts,
    name: String,
}

impl Counts {
    /// One more, unless there are so many.
    pub(super) fn one_more(&self, name: String, most: usize) -> Option<Count> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.clone()).or_default();
        (*count < most).then(|| {
            *count += 1;
            Count { counts: self.clone(), name }
        })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}
